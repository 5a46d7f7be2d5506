from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workshop import png, preference_columns, write_parquet

from bench.core.errors import UserError
from bench.data.reading import inspect_data, read_preferences
from bench.data.sources import open_source

Columns = dict[str, list[Any]]


@pytest.fixture
def columns() -> Columns:
    return preference_columns(6)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pairs.parquet"


def test_pairs_come_back_as_they_were_written(file: Path, columns: Columns) -> None:
    data = read_preferences(write_parquet(file, columns))
    assert len(data) == 6
    assert list(data.captions) == columns["caption"]
    assert data.preference_0.tolist() == [1, 0, 1, 1, 0, 1]
    assert data.encoded[2] == (columns["jpg_0"][2], columns["jpg_1"][2])
    assert data.image(0, 1).size == (8, 8)
    assert data.image(0, 1).mode == "RGB"
    assert (data.report.rows, data.report.pairs, data.report.ties_dropped, data.report.undecodable) == (6, 6, 0, ())


def test_images_in_the_structs_of_datasets_are_read_too(file: Path, columns: Columns, tmp_path: Path) -> None:
    plain = read_preferences(write_parquet(file, columns))
    for side in ("jpg_0", "jpg_1"):
        columns[side] = [{"bytes": image, "path": f"{row}.png"} for row, image in enumerate(columns[side])]
    structs = read_preferences(write_parquet(tmp_path / "structs.parquet", columns))
    assert list(structs.encoded) == list(plain.encoded)
    assert structs.digest == plain.digest


def test_a_folder_of_files_is_read_as_one(tmp_path: Path, columns: Columns) -> None:
    halves = tmp_path / "halves"
    halves.mkdir()
    for number, rows in enumerate((slice(0, 4), slice(4, 6))):
        part = {name: values[rows] for name, values in columns.items()}
        write_parquet(halves / f"part-{number}.parquet", part)
    whole = read_preferences(write_parquet(tmp_path / "whole.parquet", columns))
    assert read_preferences(halves).digest == whole.digest


def test_ties_are_dropped_and_counted(file: Path, columns: Columns) -> None:
    columns["label_0"] = [1.0, 0.5, 0.0, 0.5, 0.5, 1.0]
    data = read_preferences(write_parquet(file, columns))
    assert data.preference_0.tolist() == [1, 0, 1]
    assert (data.report.rows, data.report.pairs, data.report.ties_dropped) == (6, 3, 3)


def test_labels_may_be_whole_numbers(file: Path, columns: Columns) -> None:
    columns["label_0"] = [1, 0, 1, 0, 0, 1]
    assert read_preferences(write_parquet(file, columns)).preference_0.tolist() == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("column", ["caption", "jpg_0", "jpg_1"])
def test_a_missing_column_is_refused_by_name_with_the_columns_there_are(
    file: Path, columns: Columns, column: str
) -> None:
    del columns[column]
    with pytest.raises(UserError, match=f"column '{column}' is missing; .*it has {', '.join(columns)}"):
        read_preferences(write_parquet(file, columns))


def test_data_without_labels_are_unlabelled_and_may_be_lists(file: Path, columns: Columns) -> None:
    del columns["label_0"]
    columns["jpg_2"] = columns["jpg_0"][::-1]
    columns["score_level_0"], columns["score_level_1"], columns["score_level_2"] = [1.0] * 6, [2.0] * 6, [3.0] * 6
    columns["model_0"], columns["model_1"], columns["model_2"] = ["a"] * 6, ["b"] * 6, ["c"] * 6
    data = read_preferences(write_parquet(file, columns))
    assert (data.labelled, data.width, len(data)) == (False, 3, 6)
    assert data.encoded[0][2] == columns["jpg_0"][5]
    assert data.scores["level"].tolist() == [[1, 2, 3]] * 6
    assert data.sources == [("a", "b", "c")] * 6


@pytest.mark.parametrize("layout", ["parquet", "jsonl"])
def test_captions_alone_are_data_without_images(tmp_path: Path, columns: Columns, layout: str) -> None:
    captions, path = columns["caption"], tmp_path / f"captions.{layout}"
    if layout == "parquet":
        write_parquet(path, {"caption": captions})
    else:
        path.write_text("".join(json.dumps({"caption": caption}) + "\n" for caption in captions))
    data = read_preferences(path, cache=tmp_path / "cache")
    again = read_preferences(path, cache=tmp_path / "cache")
    assert list(data.captions) == captions
    assert (data.width, data.labelled, data.report.pairs) == (0, False, len(captions))
    assert (again.digest, again.labels_digest) == (data.digest, data.labels_digest)
    other = read_preferences(write_parquet(tmp_path / "other.parquet", {"caption": captions[1:]}))
    assert other.digest != data.digest


def test_a_misspelt_column_is_pointed_out(file: Path, columns: Columns) -> None:
    columns["captions"] = columns.pop("caption")
    with pytest.raises(UserError, match="column 'caption' is missing; did you mean 'captions'"):
        read_preferences(write_parquet(file, columns))


@pytest.mark.parametrize("label", [2.0, -1.0, 0.7, float("nan"), None])
def test_a_label_out_of_range_is_refused_with_its_row(file: Path, columns: Columns, label: float | None) -> None:
    columns["label_0"][3] = label
    with pytest.raises(UserError, match=r"label_0 is .* in row 3; labels must be 0, 0.5 \(a tie\) or 1"):
        read_preferences(write_parquet(file, columns))


def test_labels_that_are_words_are_refused(file: Path, columns: Columns) -> None:
    columns["label_0"] = ["left", "right", "left", "left", "right", "tie"]
    with pytest.raises(UserError, match="label_0"):
        read_preferences(write_parquet(file, columns))


def test_a_missing_caption_is_refused_with_its_row(file: Path, columns: Columns) -> None:
    columns["caption"][4] = None
    with pytest.raises(UserError, match="caption.*row 4"):
        read_preferences(write_parquet(file, columns))


def test_a_table_without_rows_is_refused(file: Path, columns: Columns) -> None:
    empty = {name: values[:1] for name, values in columns.items()}
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(empty).slice(0, 0), file)
    with pytest.raises(UserError, match="no preference pair is left of 0 rows"):
        read_preferences(file)


def test_a_table_of_ties_alone_is_refused(file: Path, columns: Columns) -> None:
    columns["label_0"] = [0.5] * 6
    with pytest.raises(UserError, match=r"no preference pair is left of 6 rows \(6 ties\)"):
        read_preferences(write_parquet(file, columns))


@pytest.mark.parametrize("broken", [b"", b"no image", None, png(3)[:60]], ids=["empty", "text", "null", "cut short"])
def test_one_undecodable_image_in_200_is_skipped_counted_and_named(file: Path, broken: bytes | None) -> None:
    columns = preference_columns(200)
    columns["jpg_1"][42] = broken
    data = read_preferences(write_parquet(file, columns))
    assert len(data) == 199
    assert data.report.undecodable == ("row 42 jpg_1",)
    assert data.captions[42] == columns["caption"][43]
    assert data.encoded[42] == (columns["jpg_0"][43], columns["jpg_1"][43])
    assert data.preference_0[42] == columns["label_0"][43]


def test_one_percent_undecodable_is_still_accepted_and_more_is_refused(file: Path) -> None:
    columns = preference_columns(200)
    columns["jpg_0"][7] = columns["jpg_0"][9] = b"broken"
    assert len(read_preferences(write_parquet(file, columns))) == 198
    columns["jpg_0"][11] = b"broken"
    with pytest.raises(UserError, match=r"3 of 200 rows .* \(row 7 jpg_0, row 9 jpg_0, row 11 jpg_0"):
        read_preferences(write_parquet(file, columns))


def test_two_percent_undecodable_is_refused(file: Path) -> None:
    columns = preference_columns(100)
    columns["jpg_0"][1] = columns["jpg_1"][2] = b"broken"
    with pytest.raises(UserError, match="2 of 100 rows have images that cannot be decoded .* more than 1 % is refused"):
        read_preferences(write_parquet(file, columns))


def test_the_percent_is_of_the_rows_that_are_looked_at(file: Path) -> None:
    columns = preference_columns(1000)
    columns["jpg_0"][:7] = [b"broken"] * 7
    write_parquet(file, columns)
    assert len(read_preferences(file)) == 993
    with pytest.raises(UserError, match="7 of 8 rows that are looked at have images that cannot be decoded"):
        read_preferences(file, limit=8)
    columns["label_0"][500:] = [0.5] * 500  # images of ties are not looked at either
    with pytest.raises(UserError, match="7 of 500 rows that are looked at have images that cannot be decoded"):
        read_preferences(write_parquet(file, columns))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.parquet' does not exist; give a Parquet file"):
        read_preferences(tmp_path / "nowhere.parquet")


def test_a_file_that_is_not_parquet_is_refused(file: Path) -> None:
    file.write_text("caption,jpg_0\n")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_preferences(file)


def test_the_digest_is_of_captions_and_images_and_not_of_labels(file: Path, columns: Columns) -> None:
    def digest() -> str:
        return read_preferences(write_parquet(file, columns)).digest

    first = digest()
    columns["label_0"] = [1 - label for label in columns["label_0"]]
    assert digest() == first
    columns["caption"][0] += "!"
    second = digest()
    columns["jpg_0"][0], columns["jpg_1"][0] = columns["jpg_1"][0], columns["jpg_0"][0]
    assert len({first, second, digest()}) == 3


def test_the_images_of_a_row_are_read_together(file: Path, columns: Columns) -> None:
    read = []

    class Encoded(list[tuple[bytes, ...]]):
        def __getitem__(self, row: Any) -> Any:
            read.append(row)
            return super().__getitem__(row)

    plain = read_preferences(write_parquet(file, columns))
    images = dataclasses.replace(plain, encoded=Encoded(plain.encoded)).images([3, 1])
    assert read == [3, 1]
    alone = [plain.image(row, side) for row in (3, 1) for side in (0, 1)]
    assert [(image.mode, image.tobytes()) for image in images] == [(image.mode, image.tobytes()) for image in alone]


def test_an_image_that_many_rows_share_is_read_from_each(file: Path, columns: Columns) -> None:
    # Parquet keeps it once, and the cells of such a column are read as numbers of its values.
    columns["jpg_0"] = [png(0), png(1), png(0), png(0), png(1), png(0)]
    data = read_preferences(write_parquet(file, columns))
    assert list(data.encoded) == list(zip(columns["jpg_0"], columns["jpg_1"], strict=True))


def test_rows_are_told_apart_by_a_hash_of_caption_and_images(file: Path, columns: Columns) -> None:
    for column in columns.values():
        column[4] = column[2]
    columns["jpg_0"][5] = columns["jpg_1"][5]
    survey = inspect_data(open_source(write_parquet(file, columns)), "pairs", None).survey
    parts = (columns["caption"][2].encode(), columns["jpg_0"][2], columns["jpg_1"][2])
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    assert survey.rows[2] == survey.rows[4] == int.from_bytes(hashlib.blake2b(framed, digest_size=8).digest(), "little")
    assert len(set(survey.rows.tolist())) == 5
    assert survey.identical_images.tolist() == [False] * 5 + [True]
    assert survey.sizes.tolist() == [[[8, 8], [8, 8]]] * 6


def test_other_labels_leave_the_pairs_alone(file: Path, columns: Columns) -> None:
    data = read_preferences(write_parquet(file, columns))
    soft = data.with_preference(np.linspace(0, 1, 6))
    assert soft.preference_0.tolist() == [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1]
    assert (soft.captions, soft.digest) == (data.captions, data.digest)
    assert data.preference_0.tolist() == [1, 0, 1, 1, 0, 1]
