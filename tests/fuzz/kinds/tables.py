"""Parquet files of preference pairs, and folders of them."""

from __future__ import annotations

import decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.kinds.pairs import either, read, refused
from tests.fuzz.place import ROWS, Expect, Place, kind, picture

ODD: dict[str, Any] = {
    "decimal": [decimal.Decimal("1.5")] * ROWS,
    "struct": [{"text": "a bee"}] * ROWS,
    "list": [[1, 2, 3]] * ROWS,
    "bytes in a list": [[picture()]] * ROWS,
    "texts in a list": [["a bee"]] * ROWS,
    "truth": [True, False] * (ROWS // 2),
    "struct of bytes": [{"bytes": b"train", "path": None}] * ROWS,
    "numbers": [17] * ROWS,
    "floats": [0.25] * ROWS,
    "dates": pa.array([0] * ROWS, pa.timestamp("us")),
    "nothing": pa.nulls(ROWS),
    "bytes": [b"a bee \xff"] * ROWS,
    "map": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
    "struct of odd bytes": [{"bytes": 1, "path": 2}] * ROWS,
}
FITS = {
    ("split", name) for name in ODD
} | {("label_0", "truth"), ("source_0", "nothing"), ("source_0", "struct"), ("jpg_0", "nothing")}  # fmt: skip


@kind(8, 14)
def columns_of_other_types(place: Place) -> Expect:
    column = place.rng.choice(["caption", "jpg_0", "jpg_1", "label_0", "split", "source_0", "score_x_0"])
    odd = place.rng.choice([*ODD])
    changed = {column: ODD[odd]}
    if column == "source_0":
        changed["source_1"] = ["x"] * ROWS
    if column == "score_x_0":
        changed["score_x_1"] = [0.5] * ROWS
        if odd in ("numbers", "floats", "decimal"):
            return either(place, place.parquet(**changed), "pairs.parquet")
    name = place.parquet(**changed)
    if column in ("split", "source_0") or (column, odd) in FITS:
        return either(place, name, "pairs.parquet")
    return refused(place, name, "pairs.parquet", column)


@kind(8, 3)
def dictionary_columns(place: Place) -> Expect:
    column = place.rng.choice(["caption", "label_0", "source_0"])
    values = {"caption": ["a bee"] * ROWS, "label_0": [0.0, 1.0] * (ROWS // 2), "source_0": ["x"] * ROWS}[column]
    changed = {column: pa.array(values).dictionary_encode()}
    if column == "source_0":
        changed["source_1"] = pa.array(["y"] * ROWS)
    return read(place.parquet(**changed), "rows 8", "kept 8")


@kind(8, 3)
def duplicate_columns(place: Place) -> Expect:
    table = pa.table(place.columns())
    column = place.rng.choice(["caption", "jpg_0", "label_0", "source_0"])
    extra = table[column] if column in table.column_names else pa.array(["x"] * ROWS)
    if column == "source_0":
        table = table.append_column(column, extra)
    pq.write_table(table.append_column(column, extra), place.folder / "pairs.parquet")
    return refused(place, "pairs.parquet", "pairs.parquet", column)


@kind(8, 3)
def missing_values(place: Place) -> Expect:
    column = place.rng.choice(["caption", "label_0"])
    values = list(place.columns()[column])
    at = place.rng.randrange(ROWS)
    values[at] = None
    return refused(place, place.parquet(**{column: values}), column, f"row {at}")


@kind(8, 10)
def damaged_parquet(place: Place) -> Expect:
    name = place.parquet()
    content = bytearray((place.folder / name).read_bytes())
    how = place.rng.choice(["cut", "start", "page", "footer", "zeros", "length", "text"])
    if how == "cut":
        content = content[: place.rng.randrange(len(content))]
    elif how == "start":
        content[4:40] = b"\xff" * 36
    elif how == "page":
        at = place.rng.randrange(4, len(content) - 60)
        content[at : at + 16] = b"\xff" * 16
    elif how == "footer":
        at = len(content) - place.rng.randrange(9, 400)
        content[at : at + 8] = place.rng.randbytes(8)
    elif how == "zeros":
        content[: len(content) // 2] = bytes(len(content) // 2)
    elif how == "length":
        content[-8:-4] = place.rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])
    else:
        content = bytearray(b"caption,image_0\n" * 20)
    place.write(name, bytes(content))
    return (
        either(place, name, "pairs.parquet")
        if how in ("page", "footer", "zeros")
        else refused(place, name, "pairs.parquet")
    )


@kind(8, 3)
def other_layouts(place: Place) -> Expect:
    name = place.rng.choice(["pairs.csv", "pairs.tsv", "pairs.txt", "pairs.xlsx", "pairs.arrow", "pairs.zip", "pairs"])
    place.pictures()
    return refused(
        place, place.write(name, "caption,image_0,image_1,label_0\na bee,0.png,1.png,1\n"), name, "Parquet", "json"
    )


@kind(8, 5)
def shards(place: Place) -> Expect:
    how = place.rng.choice(["gap", "types", "columns", "twice", "empty", "damaged"])
    place.parquet("data/train-00000-of-00002.parquet")
    if how == "gap":
        place.parquet("data/train-00002-of-00003.parquet")
        (place.folder / "data/train-00000-of-00002.parquet").rename(place.folder / "data/train-00000-of-00003.parquet")
    elif how == "types":
        column = place.rng.choice(["caption", "label_0", "jpg_0"])
        place.parquet("data/train-00001-of-00002.parquet", **{column: [{"a": 1}] * ROWS})
    elif how == "columns":
        table = pa.table(place.columns()).drop_columns([place.rng.choice(["caption", "label_0", "jpg_1"])])
        pq.write_table(table, place.folder / "data/train-00001-of-00002.parquet")
    elif how == "twice":
        place.parquet("data/train-00000-of-00003.parquet")
    elif how == "empty":
        place.write("data/train-00001-of-00002.parquet", b"")
    else:
        place.write("data/train-00001-of-00002.parquet", b"PAR1" + bytes(100) + b"PAR1")
    return refused(place, "data", "data")


@kind(8, 2)
def files_of_other_systems(place: Place) -> Expect:
    place.parquet("data/a.parquet")
    name = place.rng.choice(["._a.parquet", ".DS_Store", "__MACOSX/._a.parquet"])
    place.write(f"data/{name}", bytes(200))
    return read("data", "rows 8", "kept 8", "1")


@kind(8, 3)
def links_to_parquet(place: Place) -> Expect:
    place.parquet("data/a.parquet")
    place.parquet("elsewhere/b.parquet")
    if place.rng.random() < 0.5:
        (place.folder / "data" / "more").symlink_to(place.folder / "elsewhere")
        return read("data", "rows 8", "more")
    (place.folder / "data" / "b.parquet").symlink_to("nowhere.parquet")
    return Expect(["data", "check", "data"], (0, 2), says=("b.parquet",))


@kind(8, 3)
def named_columns(place: Place) -> Expect:
    place.parquet()
    typed = place.rng.choice([
        "caption=nope", "caption", "=", "caption=", "jpg_0=caption", "label_0=2", "caption=a\ud83d", "label_0=jpg_0", "caption=label_0",
        "jpg_0=jpg_1,jpg_1=jpg_1",
    ])  # fmt: skip
    return Expect(["data", "check", "pairs.parquet", f"--columns={typed.encode('utf-8', 'replace').decode()}"], (2,))


@kind(8, 3)
def strange_sources(place: Place) -> Expect:
    typed = place.rng.choice(["", ".", "nowhere", "nowhere.jsonl", "a/b:c", "x" * 5000, "/proc/self/mem", "/dev/null", "~", "*.parquet", "a\u0301.jsonl",
                              "/" , "pairs.jsonl/", "owner/name:split:more"])  # fmt: skip
    if typed == "/":
        typed = "./"
    return Expect(["data", "check", typed], (2,))


@kind(8, 2)
def provenance_of_strangers(place: Place) -> Expect:
    written = place.rng.choice(
        [b"{", b"[1]", b"{}", b"[null]", b"\xff", b'[{"judges": 3}]', b'[{"command": {"a": 1}}]', b"[" * 50_000]
    )
    table = pa.table(place.columns()).replace_schema_metadata({b"bench.provenance": written})
    pq.write_table(table, place.folder / "pairs.parquet")
    return either(place, "pairs.parquet", "pairs.parquet")


@kind(10, 2)
def one_name_with_brackets(place: Place) -> Expect:
    name = place.rng.choice(["r[/x].parquet", "run [v2].parquet", "[red]x[/red].parquet", "[link=x].parquet"])
    return read(place.parquet(name), name, "kept 8")


@kind(5, 3)
def small_tables_that_unpack_to_gigabytes(place: Place) -> Expect:
    """One value of 1 MiB in 3,000 rows, which Parquet writes once."""
    often = pa.array([0] * 3000, pa.int32())
    if place.rng.random() < 0.5:
        prompts = pa.DictionaryArray.from_arrays(often, pa.array(["x" * (1 << 20)]))
        pq.write_table(
            pa.table({"prompt": prompts}), place.folder / "p.parquet", compression="zstd", store_schema=False
        )
        words = ["eval", "--model", "tiny", "--prompts", "p.parquet", "--sampling-steps", "1"]
        return Expect(words, (2,), refusal_says=("p.parquet",))
    images = pa.DictionaryArray.from_arrays(often, pa.array([bytes(1 << 20)]))
    columns = {"caption": ["a bee"] * 3000, "label_0": [0.0, 1.0] * 1500, "jpg_0": images, "jpg_1": [picture(1)] * 3000}
    pq.write_table(pa.table(columns), place.folder / "pairs.parquet", compression="zstd", store_schema=False)
    return Expect(["data", "check", "pairs.parquet"], (2,), refusal_says=("pairs.parquet",))
