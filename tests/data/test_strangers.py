"""Preference data from strangers: one sentence that names file, row, column, what was found and what was expected."""

from __future__ import annotations

import decimal
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.errors import UserError
from bench.core.resources import sentence_about
from bench.data.preferences import PreferenceData
from bench.data.reading import inspect_data, read_preferences
from bench.data.sources import open_source
from bench.data.sources.base import image_bytes
from bench.data.summary import check_lines
from tests.fuzz.place import picture

ROWS = 4
ROW = {"caption": "a bee", "image_0": "0.png", "image_1": "1.png", "label_0": 1}


def lines(folder: Path, *changes: dict[str, Any]) -> Path:
    for number in (0, 1):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "pairs.jsonl").write_text("".join(json.dumps({**ROW, **change}) + "\n" for change in changes))
    return folder / "pairs.jsonl"


def parquet(folder: Path, name: str = "pairs.parquet", **changes: Any) -> Path:
    columns = {"caption": ["a bee"] * ROWS, "jpg_0": [picture(0)] * ROWS, "jpg_1": [picture(1)] * ROWS}
    pq.write_table(pa.table({**columns, "label_0": [1.0, 0.0] * 2, **changes}), folder / name)
    return folder / name


def saved(folder: Path, compression: str | None = None, **changes: Any) -> Path:
    """A folder as ``datasets`` saves it, of two rows."""
    rows = {"caption": ["a bee"] * 2, "jpg_0": [picture(0)] * 2, "jpg_1": [picture(1)] * 2, "label_0": [1.0] * 2}
    table = pa.table({**rows, **changes})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(folder / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    return folder


def damaged_column(kind: pa.DataType, end: int, content: bytes) -> pa.Array:
    """A column of two values that Arrow builds without looking at them."""
    offsets = np.array([0, end, len(content)], dtype=np.int32).tobytes()
    return pa.Array.from_buffers(kind, 2, [None, pa.py_buffer(offsets), pa.py_buffer(content)])


NOT_UTF8 = damaged_column(pa.string(), 3, b"a\xff.")
OUT_OF_RANGE = pa.DictionaryArray.from_arrays(pa.array([0, 9], pa.int32()), pa.array([b"a"]), safe=False)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_preferences(path)
    return str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named_with_its_line(tmp_path: Path, encoding: str) -> None:
    path = lines(tmp_path, {}, {})
    path.write_bytes((path.read_text() + '{"caption": "b\u00e9e"}\n').encode(encoding))
    line, byte = (1, "0xff") if encoding == "utf-16" else (3, "0xe9")
    assert f"pairs.jsonl: line {line} holds the byte {byte}, which is not UTF-8" in refusal(path)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ("[" * 100_000 + "]" * 100_000, "line 2 is nested too deeply"),
        ("9" * 6000, "line 2 holds a number that is too long"),
        ('3, "caption": "a cat"', "line 2 has the field 'caption' twice"),
    ],
)
def test_json_that_python_cannot_hold(tmp_path: Path, more: str, part: str) -> None:
    path = lines(tmp_path, {})
    path.write_text(path.read_text() + json.dumps(ROW)[:-1] + f', "more": {more}}}\n')
    assert f"pairs.jsonl: {part}" in refusal(path)


def test_half_a_character_is_named_with_row_and_field(tmp_path: Path) -> None:
    path = lines(tmp_path, {}, {"caption": "a \ud83d bee"})
    assert (
        "pairs.jsonl: row 1, field 'caption': 'a \\ud83d bee' holds half of a surrogate pair at character 3"
        in refusal(path)
    )


def test_half_a_character_in_the_name_of_a_field(tmp_path: Path) -> None:
    assert "pairs.jsonl: the name of a field: '\\ud83d' holds half of a surrogate pair" in refusal(
        lines(tmp_path, {"\ud83d": 1})
    )


def test_values_of_two_kinds_are_named_with_both_rows(tmp_path: Path) -> None:
    path = lines(tmp_path, {}, {"caption": ["a bee"]})
    assert "field 'caption' holds a list in row 1 (['a bee']), but text in row 0" in refusal(path)


@pytest.mark.parametrize(
    ("column", "values", "part"),
    [
        (
            "jpg_0",
            [decimal.Decimal("1.5")] * ROWS,
            "must hold images: bytes, paths, or structs of both, but holds decimal128(2, 1)",
        ),
        ("jpg_0", [[1, 2]] * ROWS, "but holds list<"),
        ("caption", [{"text": "a bee"}] * ROWS, "must hold text, but holds struct<"),
        ("caption", [b"a bee"] * ROWS, "must hold text, but holds binary"),
        ("label_0", ["1"] * ROWS, "must hold numbers: 0, 0.5 or 1, but holds string"),
        ("score_x_0", ["high"] * ROWS, "must hold numbers, but holds string"),
    ],
)
def test_a_column_of_another_type(tmp_path: Path, column: str, values: Any, part: str) -> None:
    text = refusal(parquet(tmp_path, **{column: values}))
    assert f"pairs.parquet: column '{column}' " in text
    assert part in text


def test_a_score_that_is_not_a_number_is_named_with_its_row(tmp_path: Path) -> None:
    path = parquet(tmp_path, score_x_0=[0.5, 0.5, float("nan"), 0.5], score_x_1=[0.5] * ROWS)
    said = "column 'score_x_0' holds nan in row 2, but scores must be finite numbers"
    assert said in refusal(path)
    with pytest.raises(UserError, match=said):  # what `bench data check` shows is read, too
        list(check_lines(inspect_data(open_source(path), "pairs", None), None, ""))


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pq.read_table(parquet(tmp_path))
    pq.write_table(table.append_column("caption", table["caption"]), tmp_path / "pairs.parquet")
    assert "has 2 columns 'caption'; keep one of them" in refusal(tmp_path / "pairs.parquet")


def test_an_image_between_two_is_missing(tmp_path: Path) -> None:
    assert "has a column 'jpg_3' but none called 'jpg_2'" in refusal(parquet(tmp_path, jpg_3=[picture(3)] * ROWS))


@pytest.mark.parametrize(
    ("column", "part"),
    [
        (damaged_column(pa.binary(), 2**31 - 99, b"abc"), "out of bounds"),
        (OUT_OF_RANGE, "Value at position 1 out of bounds: 9"),
        (NOT_UTF8, "Invalid UTF8"),
    ],
    ids=["offsets", "dictionary", "text"],
)
def test_damaged_images_of_a_saved_folder(tmp_path: Path, column: pa.Array, part: str) -> None:
    text = refusal(saved(tmp_path, jpg_0=column))
    assert "data.arrow cannot be read as Arrow" in text
    assert part in text


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_damaged_bytes_of_a_saved_folder_are_a_sentence(tmp_path: Path, codec: str | None) -> None:
    folder, source = saved(tmp_path, codec), np.random.default_rng(0)
    file = folder / "data.arrow"
    content, refused = file.read_bytes(), 0
    for _ in range(1500):
        damaged = bytearray(content)
        damaged[source.integers(len(content))] = source.integers(256)
        file.write_bytes(damaged)
        try:
            open_source(folder)
        except UserError:
            refused += 1
    assert refused > 200


def with_a_note(folder: Path, version: Any, custom: dict[str, str]) -> Path:
    """A saved folder whose batch has custom metadata."""
    with pa.ipc.open_stream((folder / "data.arrow").read_bytes()) as stream:
        batch = stream.read_next_batch()
    options = pa.ipc.IpcWriteOptions(metadata_version=version)
    with (
        pa.OSFile(str(folder / "data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, batch.schema, options=options) as writer,
    ):
        writer.write_batch(batch, custom_metadata=custom)
    return folder


@pytest.mark.parametrize("version", [pa.ipc.MetadataVersion.V4, pa.ipc.MetadataVersion.V5])
def test_a_codec_that_is_named_as_the_first_writers_did(tmp_path: Path, version: Any) -> None:
    named = {"ARROW:experimental_compression": "zstd"}
    assert "is compressed" in refusal(with_a_note(saved(tmp_path), version, named))


def test_other_notes_are_read_over(tmp_path: Path) -> None:
    assert len(read_preferences(with_a_note(saved(tmp_path), pa.ipc.MetadataVersion.V5, {"note": "mine"}))) == 2


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize(
    "column", [[bytes(1 << 22)] * 2, pa.array([bytes(1 << 22)] * 2).dictionary_encode()], ids=["values", "dictionary"]
)
def test_a_compressed_stream_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, column: Any
) -> None:
    folder = saved(tmp_path, codec, jpg_0=column)
    monkeypatch.delattr(pa.ipc, "open_stream")  # nothing else unpacks
    text = refusal(folder)
    assert "data.arrow is compressed, and may unpack to any size; save the dataset again, uncompressed" in text


@pytest.mark.parametrize("column", ["caption", "jpg_0"])
def test_texts_of_parquet_that_are_not_utf8(tmp_path: Path, column: str) -> None:
    path = tmp_path / "pairs.parquet"
    images = {"jpg_0": [picture(0)] * 2, "jpg_1": [picture(1)] * 2}
    pq.write_table(pa.table({"caption": ["a bee"] * 2, **images, "label_0": [1.0] * 2, column: NOT_UTF8}), path)
    assert "pairs.parquet cannot be read as Parquet (In column 0: Invalid" in refusal(path)


def test_a_name_of_a_column_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"caption": ["a bee"], "more": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"more", b"m\xffre"))
    assert "pairs.parquet cannot be read as Parquet ('utf-8' codec" in refusal(path)


def test_a_struct_of_images_with_two_fields_of_one_name(tmp_path: Path) -> None:
    fields = [pa.array(values * ROWS) for values in ([picture(0)], ["a"], ["a"])]
    path = parquet(tmp_path, jpg_0=pa.StructArray.from_arrays(fields, names=["bytes", "path", "path"]))
    assert "must hold images: bytes, paths, or structs of both, but holds struct<" in refusal(path)


@pytest.mark.parametrize("save", [parquet, saved])
@pytest.mark.parametrize(
    "fields",
    [
        {"bytes": pa.binary()},
        {"bytes": pa.large_binary(), "path": pa.large_string()},
        {"bytes": pa.binary(), "path": pa.null()},
        {"bytes": pa.null(), "path": pa.string()},
        {"path": pa.string()},
    ],
    ids=str,
)
def test_structs_of_images_with_one_field_or_both(
    tmp_path: Path, save: Callable[..., Path], fields: dict[str, pa.DataType]
) -> None:
    folder = lines(tmp_path).parent  # with the images
    stored = not pa.types.is_null(fields.get("bytes", pa.null()))
    cell = {"bytes": picture(0) if stored else None, "path": None if stored else "0.png"}
    image = {name: cell[name] for name in fields}
    source = open_source(
        save(folder, jpg_0=pa.array([image] * (ROWS if save is parquet else 2), pa.struct(fields))), {}
    )
    assert source.images(1) == (picture(0), picture(1))
    assert (folder / "0.png" in source.files) == (not stored)


@pytest.mark.parametrize("cell", [{"path": "0.png"}, {"path": "0.png", "bytes": None}])
def test_objects_with_paths_of_images_in_json(tmp_path: Path, cell: dict[str, Any]) -> None:
    assert open_source(lines(tmp_path, {"image_0": cell}), {}).images(0) == (picture(0), picture(1))


def test_a_struct_of_images_of_a_type_that_arrow_cannot_choose_from(tmp_path: Path) -> None:
    image = pa.StructArray.from_arrays(
        [pa.array([picture(0)] * 2, pa.binary_view()), pa.nulls(2)], names=["bytes", "path"]
    )
    assert "must hold images: bytes, paths, or structs of both, but holds struct<" in refusal(
        saved(tmp_path, jpg_0=image)
    )


def test_names_with_dots(tmp_path: Path) -> None:
    image = pa.array([{"bytes": picture(0), "path": None}] * ROWS)
    scores = {f"score_hpsv2.1_{side}": [0.5] * ROWS for side in (0, 1)}
    path = parquet(tmp_path, **{"meta.text": ["a cat"] * ROWS, "image.0": image, **scores})
    data = read_preferences(path, {"caption": "meta.text", "jpg_0": "image.0"})
    assert data.captions[0] == "a cat"
    assert list(data.scores) == ["hpsv2.1"]


def test_shards_with_a_gap_are_refused(tmp_path: Path) -> None:
    for number in (0, 2):
        parquet(tmp_path, f"train-{number:05d}-of-00003.parquet")
    assert "train-*.parquet are 2 of 3 files, number 1 is missing" in refusal(tmp_path)
    parquet(tmp_path, "train-00001-of-00003.parquet")
    assert len(read_preferences(tmp_path)) == 3 * ROWS


def test_a_few_files_of_pick_a_pic_are_enough(tmp_path: Path) -> None:
    """`docs/data.md` downloads four of 645; the hashes in these names are the hub's."""
    for number, digest in enumerate(("b66ac786bf6fb553", "c7b349dd222d6515")):
        parquet(tmp_path, f"train-{number:05d}-of-00645-{digest}.parquet")
    assert len(read_preferences(tmp_path)) == 2 * ROWS


@pytest.mark.parametrize("name", ["nowhere/a.png", "y" * 300 + ".png", "data:image/png;base64,iVBORw0KGgo="])
def test_a_missing_image_is_named_with_the_folder_it_was_looked_for_in(tmp_path: Path, name: str) -> None:
    text = refusal(lines(tmp_path, {}, {"image_1": name}))
    assert "row 1 jpg_1: '" + name[:50] in text
    assert f"is read as a path, and there is no such file in {tmp_path}" in text


def test_labels_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    text = refusal(lines(tmp_path, {"label_1": 0}, {"label_1": 1}, {"label_1": 1}))
    assert "label_1 contradicts label_0 in 2 of 3 rows, first in row 1 (1 and 1, which must add up to 1)" in text


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            {"human_preference": None},
            "entry 1: human_preference must hold a list of numbers, one for each image, but holds None",
        ),
        ({"human_preference": [1]}, "entry 1 has 2 images, but preferences or ranks for 1"),
        ({"image_path": [1, 2]}, "entry 1: image_path (or file_path) must be a list of paths, but is [1, 2]"),
        ({"prompt": 3}, "entry 1: prompt must be text, but is 3"),
        ({"human_preference": [10**400, 0]}, "entry 1: human_preference holds 10000"),
        ({"human_preference": [float("nan"), 0]}, "entry 1: human_preference holds nan; write numbers of at most"),
        ({"image_path": ["0.png"] * 101}, "entry 1 has 101 images, and at most 100 are read; split the list"),
    ],
)
def test_hpd_entries_are_checked(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    entry = {"prompt": "a bee", "image_path": ["0.png", "1.png"], "human_preference": [1, 0]}
    (tmp_path / "train.json").write_text(json.dumps([entry, {**entry, **change}]))
    assert f"train.json: {part}" in refusal(tmp_path)


def test_more_pairs_than_are_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.data.sources.hpd.MOST_ROWS", 3)
    entry = {"prompt": "a bee", "image_path": ["x" * 300, "y", "z"], "rank": [1, 2, 3]}
    (tmp_path / "train.json").write_text(json.dumps([entry]))
    assert "is read as a path, and there is no such file" in refusal(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps([entry] * 2))
    assert "train.json: up to entry 1 there are 6 pairs, and at most 3 are read" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["/proc/kmsg", "/proc/self/mem", "/proc/self/maps"])
def test_what_a_kernel_makes_up_is_no_image(tmp_path: Path, name: str) -> None:
    assert "row 1 jpg_1: it is empty" in refusal(lines(tmp_path, {}, {"image_1": name}))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    lines(tmp_path)
    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(UserError, match=r"0.png cannot be read \(Input/output error\); give the data's images"):
        image_bytes("0.png", tmp_path)


def test_of_many_names_the_first_are_listed(tmp_path: Path) -> None:
    names = {f"field_{number}": 1 for number in range(1000)}
    path = tmp_path / "wide.jsonl"
    path.write_text(json.dumps(names) + "\n")
    assert "it has field_0, field_1, " in refusal(path)
    assert "field_19 and 980 more; rename columns" in refusal(path)
    path.write_text(json.dumps({**names, "more": 1}) + "\n")
    assert "wide.jsonl has 1,001 names of fields, and at most 1,000 are read" in refusal(path)


def test_names_of_files_that_are_not_utf8(tmp_path: Path) -> None:
    path = parquet(tmp_path).rename(tmp_path / "pairs\udcff.parquet")
    assert "pairs\\udcff.parquet' is not a UTF-8 name; rename it" in refusal(path)
    assert "is not a UTF-8 name; rename it" in refusal(tmp_path)


def test_another_layout_is_told_from_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("caption,image_0\na bee,a.png\n")
    assert "pairs.csv is not preference data in a layout that is read; give Parquet files" in refusal(
        tmp_path / "pairs.csv"
    )


def test_a_file_that_cannot_be_read_is_named() -> None:
    assert "/proc/self/mem cannot be read (Input/output error)" in refusal(Path("/proc/self/mem"))


def test_two_labellings_of_the_same_images_differ(tmp_path: Path) -> None:
    read: list[PreferenceData] = [read_preferences(lines(tmp_path, {"label_0": label})) for label in (0, 1)]
    assert read[0].digest == read[1].digest
    assert read[0].labels_digest != read[1].labels_digest


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (PermissionError(errno.EACCES, "x", "a/b.json"), "a/b.json cannot be used (Permission denied); allow it"),
        (OSError(errno.ENOSPC, "x", "c.npy"), "c.npy cannot be used (No space left on device); free some space"),
        (
            OSError(errno.EFBIG, "x"),
            "what is printed, or another open file, cannot be written (File too large); raise the limit",
        ),
        (MemoryError(), "the memory of this machine, or the limit of this process, is used up; end other programs"),
        (ImportError("x.so: failed to map segment from shared object"), "is used up (x.so: failed to map segment"),
    ],
)
def test_what_the_machine_refuses_is_a_sentence(error: BaseException, part: str) -> None:
    assert part in str(sentence_about(error))


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    assert sentence_about(RuntimeError("shapes do not match")) is None
    assert sentence_about(OSError("no number")) is None
