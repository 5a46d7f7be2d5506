"""JSON lines, JSON and Arrow folders of preference pairs."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pyarrow as pa

from tests.fuzz.place import ROWS, Expect, Place, kind, picture


def refused(place: Place, name: str, *says: str, never: tuple[str, ...] = ()) -> Expect:
    """A command that reads preference pairs and must refuse these with one sentence that names them."""
    words = place.rng.choice([
        ["data", "check", name],
        ["data", "check", name],
        ["data", "check", name, "--model", "tiny"],
        ["data", "score", name, "--metrics", "aesthetic", "--model", "tiny", "--output", "scored.parquet"],
        ["data", "rank", name, "--judge", "aesthetic", "--model", "tiny", "--output", "ranked.parquet"],
        ["run", "--algo", "dpo", "--model", "tiny", "--data", name, "--set", "steps=1", "--sampling-steps", "1"],
        ["report", "--judges-on", name],
    ])  # fmt: skip
    if words[0] == "report":
        place.runs()
    return Expect(words, (2,), refusal_says=says, never=never)


def read(name: str, *says: str, never: tuple[str, ...] = ()) -> Expect:
    return Expect(["data", "check", name], (0,), says=says, never=never)


def either(place: Place, name: str, *says: str) -> Expect:
    """Refused with a sentence that names the file, or read with everything counted."""
    return Expect(["data", "check", name], (0, 2), refusal_says=says)


@kind(8, 6)
def lines_in_another_encoding(place: Place) -> Expect:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in place.records(caption="a b\u00e9e"))
    encoding = place.rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
    return refused(place, place.write("pairs.jsonl", text.encode(encoding)), "pairs.jsonl", "UTF-8")


@kind(8)
def lines_with_damaged_bytes(place: Place) -> Expect:
    content = (place.folder / place.lines(place.records())).read_bytes()
    at = place.rng.randrange(len(content))
    place.write("pairs.jsonl", content[:at] + bytes([place.rng.choice([0x80, 0xFF, 0xC3])]) + content[at:])
    return refused(place, "pairs.jsonl", "pairs.jsonl")


@kind(8, 2)
def lines_with_a_byte_order_mark(place: Place) -> Expect:
    content = (place.folder / place.lines(place.records())).read_bytes()
    return read(place.write("pairs.jsonl", b"\xef\xbb\xbf" + content), f"rows {ROWS}", "kept 8")


@kind(8, 5)
def half_a_character(place: Place) -> Expect:
    half = place.rng.choice(["\\ud83d", "\\udc1d", "\\ud83d \\ude00"])
    records, at = place.records(), place.rng.randrange(ROWS)
    texts = [json.dumps(record) for record in records]
    field = place.rng.choice(["caption", "source_0"])
    old = '"caption": "a bee"'
    new = f'"caption": "a {half}"' if field == "caption" else f'{old}, "source_0": "{half}", "source_1": "x"'
    texts[at] = texts[at].replace(old, new)
    return refused(place, place.write("pairs.jsonl", "\n".join(texts) + "\n"), "pairs.jsonl")


@kind(8, 5)
def nesting_and_huge_numbers(place: Place) -> Expect:
    more = place.rng.choice([
        "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 6000, "-" + "9" * 5000, "1" * 400,
    ])  # fmt: skip
    texts = [json.dumps(record) for record in place.records()]
    at = place.rng.randrange(ROWS)
    texts[at] = texts[at][:-1] + f', "more": {more}}}'
    return refused(place, place.write("pairs.jsonl", "\n".join(texts) + "\n"), "pairs.jsonl")


@kind(8, 8)
def one_odd_value(place: Place) -> Expect:
    field = place.rng.choice(["caption", "image_0", "image_1", "label_0"])
    value: Any = place.rng.choice([[1], {"a": 1}, True, 17, ["a bee"], 1.5, None, 10**30, "", {}])
    allowed = (field, repr(value)) in {("caption", "''"), ("label_0", "True")}
    records = place.records()
    at = place.rng.randrange(ROWS)
    records[at][field] = value
    place.lines(records)
    if allowed:
        return either(place, "pairs.jsonl", "pairs.jsonl")
    return refused(place, "pairs.jsonl", "pairs.jsonl")


@kind(8, 5)
def a_whole_odd_column(place: Place) -> Expect:
    field = place.rng.choice(["caption", "image_0", "label_0", "source_0", "score_x_0"])
    value: Any = place.rng.choice(
        [[1], {"a": 1}, ["a bee"], {"bytes": 3}, {"path": 3}, {"bytes": "x", "path": None}, [[[]]]]
    )
    extra: dict[str, Any] = {field: value}
    if field.endswith("_0") and not field.startswith("label"):
        extra.setdefault(field[:-1] + "1", value if field != "image_0" else "1.png")
    return refused(place, place.lines(place.records(**extra)), "pairs.jsonl")


@kind(8, 3)
def text_in_a_score_column(place: Place) -> Expect:
    value: Any = place.rng.choice(["high", "0,5", "", None, True, "nan"])
    records = place.records(score_x_0=0.5, score_x_1=0.25)
    if value is None or place.rng.random() < 0.5:
        records = place.records(score_x_0=value, score_x_1=0.25)
    else:
        for record in records:
            record["score_x_0"] = "0.5"
    return refused(place, place.lines(records), "pairs.jsonl", "score_x_0")


@kind(8, 3)
def scores_that_are_not_finite(place: Place) -> Expect:
    records = place.records(score_x_0=0.5, score_x_1=0.25)
    text = "".join(json.dumps(record) + "\n" for record in records)
    text = text.replace("0.25", place.rng.choice(["NaN", "Infinity", "-Infinity", "1e999"]), 1)
    return refused(place, place.write("pairs.jsonl", text), "pairs.jsonl", "score_x_1")


@kind(8, 5)
def images_that_are_not_there(place: Place) -> Expect:
    name = place.rng.choice(
        ["not-there/a.png", "/nowhere/a.png", "y" * 300 + ".png", "y/" * 3000 + "a.png", "0.PNG", "a\\0.png"]
    )
    never = ("labels none", "rows of equal images, kept 8")
    return refused(place, place.lines(place.records(image_0=name)), "pairs.jsonl", "case",
                   never=never)  # fmt: skip


@kind(8, 4)
def text_that_is_not_a_path(place: Place) -> Expect:
    text = place.rng.choice(
        [
            "data:image/png;base64,iVBORw0KGgo=",
            "iVBORw0KGgo" * 40,
            "https://example.org/a.png",
            "a\0.png",
            "s3://x/a.png",
        ]
    )
    return refused(place, place.lines(place.records(image_1=text)), "pairs.jsonl", never=("labels none",))


@kind(8, 3)
def labels_that_contradict_each_other(place: Place) -> Expect:
    one = place.rng.choice([0, 1])
    return Expect(["data", "check", place.lines(place.records(label_0=one, label_1=one))], (0, 2), says=("label_1",))


@kind(8, 2)
def ties_alone(place: Place) -> Expect:
    return refused(place, place.lines(place.records(label_0=0.5)), "8 ties", never=("labels none",))


@kind(8, 3)
def not_lines_of_objects(place: Place) -> Expect:
    place.records()
    text = place.rng.choice(
        [
            "",
            "\n\n",
            "[]\n",
            "1\n",
            "null\n",
            '"a"\n',
            "{}\n",
            "{\n",
            '{"caption": "a"',
            "\0\0\0\0",
            "{'a': 1}\n",
            '{"a": 1}{"b": 2}\n',
        ]
    )
    return refused(place, place.write("pairs.jsonl", text), "pairs.jsonl")


@kind(8, 3)
def names_of_images(place: Place) -> Expect:
    odd = place.rng.choice(
        ["caf\u00e9.png", "cafe\u0301.png", "a b[/x].png", "\u202egnp.png", "\u0663.png", "'; rm -rf x.png"]
    )
    place.write(odd, picture())
    return read(place.lines(place.records(image_0=odd)), "rows 8", "kept 8")


@kind(8, 2)
def the_same_field_twice(place: Place) -> Expect:
    texts = [json.dumps(record) for record in place.records()]
    texts[3] = texts[3][:-1] + ', "caption": "a cat"}'
    return refused(place, place.write("pairs.jsonl", "\n".join(texts) + "\n"), "pairs.jsonl", "caption")


@kind(8, 3)
def gaps_in_numbered_columns(place: Place) -> Expect:
    records = place.records()
    for record in records:
        record["image_3"] = record["image_1"]
    return refused(place, place.lines(records), "3")


@kind(8, 6)
def hpd_annotations(place: Place) -> Expect:
    place.pictures()
    entry: dict[str, Any] = {"prompt": "a bee", "image_path": ["0.png", "1.png"], "human_preference": [1, 0]}
    change: dict[str, Any] = place.rng.choice([
        {"human_preference": None}, {"human_preference": [1]}, {"human_preference": "10"}, {"human_preference": [None, 1]},
        {"human_preference": ["1", 0]}, {"human_preference": [[1], [0]]}, {"image_path": [1, 2]}, {"image_path": "0.png"},
        {"image_path": None}, {"image_path": {"a": 1}}, {"prompt": None}, {"prompt": 3}, {"prompt": ["a"]}, {"image_path": []},
        {"prompt": "a \ud83d"}, {"human_preference": 1}, {"human_preference": {}},
    ])  # fmt: skip
    entries = [dict(entry) for _ in range(ROWS)]
    entries[place.rng.randrange(ROWS)].update(change)
    return refused(place, place.write("train.json", json.dumps(entries)), "train.json")


@kind(8, 3)
def hpd_ranks(place: Place) -> Expect:
    place.pictures()
    entry: dict[str, Any] = {"prompt": "a bee", "image_path": ["0.png", "1.png"]}
    entry.update(place.rng.choice([
        {"rank": None}, {"rank": ["a", "b"]}, {"rank": [1]}, {"raw_annotations": None}, {"raw_annotations": [{}]},
        {"raw_annotations": [1]}, {"raw_annotations": [{"rank": [1, 2]}, {"rank": [1]}]}, {"raw_annotations": {"rank": 1}},
    ]))  # fmt: skip
    return refused(place, place.write("test.json", json.dumps([entry])), "test.json")


@kind(8, 3)
def hpd_files(place: Place) -> Expect:
    place.pictures()
    text = place.rng.choice(
        [
            b"",
            b"{}",
            b"[]",
            b"[1]",
            b"null",
            b"[" * 100_000,
            b"\xff\xfe[]",
            b"[{",
            b'[{"prompt": ' + b"9" * 6000 + b"}]",
        ]
    )
    return refused(place, place.write("train.json", text), "train.json")


@kind(8, 2)
def hpd_with_a_byte_order_mark(place: Place) -> Expect:
    place.pictures()
    entry = {"prompt": "a bee", "image_path": ["0.png", "1.png"], "human_preference": [1, 0]}
    return read(place.write("train.json", json.dumps([entry]).encode("utf-8-sig")), "rows 1", "kept 1")


@kind(8, 5)
def arrow_folders(place: Place) -> Expect:
    folder = place.folder / "saved"
    folder.mkdir()
    table = pa.table(place.columns())
    with pa.OSFile(str(folder / "data.arrow"), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    state: Any = {"_data_files": [{"filename": "data.arrow"}]}
    change = place.rng.choice(["cut", "state", "json", "missing", "outside", "dict", "bytes", "null"])
    content = (folder / "data.arrow").read_bytes()
    if change == "cut":
        (folder / "data.arrow").write_bytes(content[: place.rng.randrange(len(content) - 40)])
    if change == "bytes":
        at = place.rng.randrange(8, 400)
        (folder / "data.arrow").write_bytes(content[:at] + b"\xff" * 24 + content[at + 24 :])
    if change == "outside":
        shutil.move(folder / "data.arrow", place.folder / "data.arrow")
        state = {"_data_files": [{"filename": "../data.arrow"}]}
    states = {"state": [1], "null": {"_data_files": None}, "missing": {"_data_files": [{"filename": "none.arrow"}]}}
    text = "{" if change == "json" else json.dumps(states.get(change, state))
    (folder / "state.json").write_text(text)
    if change == "dict":
        (folder / "dataset_dict.json").write_text(place.rng.choice(["[]", "{", '{"splits": 3}', "{}"]))
    if change == "bytes":
        return either(place, "saved", "saved")
    return refused(place, "saved", "saved")
