"""Every layout of preference data gives the same pairs; wrong layouts are refused in one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import png, preference_columns, write_parquet

from bench import UserError
from bench.cli.options import parse_columns
from bench.core.values import digest
from bench.data.preferences import PreferenceData
from bench.data.reading import read_preferences
from bench.data.sources import open_source
from bench.data.sources.base import file_stamp, images_stamp
from bench.data.sources.hub import fetch_dataset, split_files

Columns = dict[str, list[Any]]


@pytest.fixture
def columns() -> Columns:
    return preference_columns(6)


@pytest.fixture
def parquet(tmp_path: Path, columns: Columns) -> PreferenceData:
    return read_preferences(write_parquet(tmp_path / "pairs.parquet", columns))


def write_images(folder: Path, columns: Columns) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(len(columns["caption"])):
        for side in (0, 1):
            (folder / f"{row}-{side}.png").write_bytes(columns[f"jpg_{side}"][row])


def write_lines(file: Path, records: list[Any]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def jsonl_records(columns: Columns, prefix: str = "") -> list[dict[str, Any]]:
    return [
        {
            "caption": caption,
            "image_0": f"{prefix}{row}-0.png",
            "image_1": f"{prefix}{row}-1.png",
            "label_0": columns["label_0"][row],
        }
        for row, caption in enumerate(columns["caption"])
    ]


class TestParquet:
    def test_rows_in_any_order_and_from_many_row_groups_are_the_right_ones(self, tmp_path: Path) -> None:
        columns = preference_columns(100)
        pq.write_table(pa.table(columns), tmp_path / "pairs.parquet", row_group_size=40)
        data = read_preferences(tmp_path / "pairs.parquet")
        for row in (99, 0, 41, 39, 40, 75, 74, 33, 1):
            assert data.encoded[row] == (columns["jpg_0"][row], columns["jpg_1"][row]), row
        assert data.encoded[38:42] == [(columns["jpg_0"][row], columns["jpg_1"][row]) for row in range(38, 42)]

    def test_ties_and_broken_rows_do_not_shift_the_others(self, tmp_path: Path) -> None:
        columns = preference_columns(200)
        columns["label_0"][3] = 0.5
        columns["jpg_1"][5] = b"broken"
        data = read_preferences(write_parquet(tmp_path / "pairs.parquet", columns))
        assert [data.encoded.index((columns["jpg_0"][row], columns["jpg_1"][row])) for row in (2, 4, 6)] == [2, 3, 4]
        assert [data.captions[row] for row in (2, 3, 4)] == [columns["caption"][row] for row in (2, 4, 6)]
        assert data.size(3, 1) == (8, 8)

    def test_a_column_that_one_file_lacks_is_refused(self, tmp_path: Path, columns: Columns) -> None:
        write_parquet(tmp_path / "a.parquet", columns)
        del columns["label_0"]
        write_parquet(tmp_path / "b.parquet", columns)
        with pytest.raises(UserError, match=r"b.parquet has no column 'label_0', but .*a.parquet has"):
            read_preferences(tmp_path)


class TestColumns:
    def test_other_names_map_in(self, tmp_path: Path, columns: Columns, parquet: PreferenceData) -> None:
        renamed = {"text": columns["caption"], "chosen": columns["jpg_0"], "rejected": columns["jpg_1"]}
        path = write_parquet(tmp_path / "other.parquet", {**renamed, "label_0": columns["label_0"]})
        data = read_preferences(path, parse_columns("caption=text,jpg_0=chosen,jpg_1=rejected"))
        assert (data.digest, data.preference_0.tolist()) == (parquet.digest, parquet.preference_0.tolist())

    def test_a_mapped_column_comes_before_one_that_has_the_name(self, tmp_path: Path, columns: Columns) -> None:
        columns["long"] = [f"{caption}, in detail" for caption in columns["caption"]]
        data = read_preferences(write_parquet(tmp_path / "two.parquet", columns), {"caption": "long"})
        assert data.captions[0].endswith(", in detail")

    def test_two_images_of_one_column_are_refused(self, tmp_path: Path, columns: Columns) -> None:
        path = write_parquet(tmp_path / "pairs.parquet", columns)
        with pytest.raises(UserError, match="gives jpg_0 and jpg_1 the same column 'jpg_1'; each image needs its own"):
            read_preferences(path, {"jpg_0": "jpg_1", "jpg_1": "jpg_1"})

    def test_a_missing_column_is_pointed_out(self, tmp_path: Path, columns: Columns) -> None:
        path = write_parquet(tmp_path / "pairs.parquet", columns)
        with pytest.raises(UserError, match="column 'captoin' of --columns is missing; did you mean 'caption'"):
            open_source(path, {"caption": "captoin"})

    @pytest.mark.parametrize("typed", ["caption", "caption=", "=text", "caption=a,,"])
    def test_what_is_no_mapping_is_refused(self, typed: str) -> None:
        with pytest.raises(
            UserError, match="--columns .* is not of the form field=value, for example --columns caption="
        ):
            parse_columns(typed)


class TestOneLabelForAll:
    def without_labels(self, tmp_path: Path, columns: Columns, **more: list[Any]) -> Path:
        pairs = {name: column for name, column in columns.items() if name != "label_0"}
        return write_parquet(tmp_path / "unlabelled.parquet", {**pairs, **more})

    def test_every_row_has_it(self, tmp_path: Path, columns: Columns) -> None:
        path = self.without_labels(tmp_path, columns)
        assert read_preferences(path, {"label_0": "1"}).preference_0.tolist() == [1.0] * 6
        last = read_preferences(path, {"label_0": "0", "caption": "caption"})
        assert last.preference_0.tolist() == [0.0] * 6
        assert list(last.captions) == columns["caption"]
        assert list(last.encoded) == list(zip(columns["jpg_0"], columns["jpg_1"], strict=True))
        with pytest.raises(UserError, match=r"no preference pair is left of 6 rows \(6 ties\)"):
            read_preferences(path, {"label_0": "0.5"})

    def test_a_column_of_that_name_comes_first(self, tmp_path: Path, columns: Columns) -> None:
        path = self.without_labels(tmp_path, columns, **{"1": [0.0, 1.0] * 3})
        assert read_preferences(path, {"label_0": "1"}).preference_0.tolist() == [0.0, 1.0] * 3

    def test_labels_that_are_there_are_not_replaced(self, tmp_path: Path, columns: Columns) -> None:
        path = write_parquet(tmp_path / "pairs.parquet", columns)
        with pytest.raises(UserError, match="pairs.parquet has a column 'label_0'; leave label_0=1 out of --columns"):
            open_source(path, {"label_0": "1"})

    def test_any_other_value_is_the_name_of_a_column(self, tmp_path: Path, columns: Columns) -> None:
        path = self.without_labels(tmp_path, columns)
        with pytest.raises(UserError, match="column '2' of --columns is missing"):
            open_source(path, {"label_0": "2"})


def test_an_empty_file_says_that_it_is_empty(tmp_path: Path) -> None:
    for name, text in {"pairs.jsonl": "\n", "train.json": "[]"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} is empty; give a file with preference pairs"):
            open_source(tmp_path / name, {})


class TestJsonLines:
    def test_a_file_gives_what_parquet_gives(self, tmp_path: Path, columns: Columns, parquet: PreferenceData) -> None:
        write_images(tmp_path / "images", columns)
        data = read_preferences(write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns, "images/")))
        assert (data.digest, data.preference_0.tolist()) == (parquet.digest, parquet.preference_0.tolist())

    def test_a_folder_with_metadata_gives_the_same(
        self, tmp_path: Path, columns: Columns, parquet: PreferenceData
    ) -> None:
        write_images(tmp_path / "folder", columns)
        write_lines(tmp_path / "folder" / "metadata.jsonl", jsonl_records(columns))
        assert read_preferences(tmp_path / "folder").digest == parquet.digest

    def test_own_field_names_map_in(self, tmp_path: Path, columns: Columns, parquet: PreferenceData) -> None:
        write_images(tmp_path, columns)
        records = [
            {"text": each["caption"], "a": each["image_0"], "b": each["image_1"]} for each in jsonl_records(columns)
        ]
        file = write_lines(tmp_path / "pairs.jsonl", records)
        data = read_preferences(file, {"caption": "text", "jpg_0": "a", "jpg_1": "b"})
        assert (data.digest, data.labelled) == (parquet.digest, False)

    def test_fields_about_images_keep_their_names(self, tmp_path: Path, columns: Columns) -> None:
        write_images(tmp_path, columns)
        about = {"image_width": 64, "image_prompt_id": "a", "image_0_seed": 1, "image_": 2, "my_image_0": 3}
        file = write_lines(tmp_path / "pairs.jsonl", [{**each, **about} for each in jsonl_records(columns)])
        assert set(open_source(file).names) == {"caption", "jpg_0", "jpg_1", "label_0", *about}

    def test_whole_and_broken_labels_may_mix(self, tmp_path: Path, columns: Columns) -> None:
        write_images(tmp_path, columns)
        columns["label_0"] = [1, 0, 0.5, 1, 0, 0]
        data = read_preferences(write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns)))
        assert data.preference_0.tolist() == [1, 0, 1, 0, 0]
        assert data.report.ties_dropped == 1

    def test_a_missing_image_counts_as_undecodable(self, tmp_path: Path) -> None:
        columns = preference_columns(100)
        write_images(tmp_path, columns)
        (tmp_path / "17-1.png").unlink()
        data = read_preferences(write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns)))
        assert data.report.undecodable == ("row 17 jpg_1",)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"caption": "a"}\n{"caption": \n', "line 2 is not valid JSON .*, character 13"),
            ('{"caption": "a"}\n["b"]\n', "line 2 is not a JSON object; write one object per line"),
            (
                '{"caption": "a"}\n{"caption": 3}\n',
                "field 'caption' holds a number in row 1 .3., but text in row 0; use one type",
            ),
            ('{"caption": "a", "image": "a.png"}\n', "column 'jpg_0' is missing"),
        ],
    )
    def test_bad_lines_are_refused(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "pairs.jsonl").write_text(text)
        with pytest.raises(UserError, match=message):
            read_preferences(tmp_path / "pairs.jsonl")


class TestHpd:
    def entry(self, row: int, **judgement: list[Any]) -> dict[str, Any]:
        return {"prompt": f"prompt {row}", "file_path": [f"{row}-0.png", f"{row}-1.png"], **judgement}

    def test_choices_of_two_are_pairs_and_equal_ones_ties(self, tmp_path: Path, columns: Columns) -> None:
        write_images(tmp_path / "train", columns)
        choices = [[1, 0], [0, 1], [1, 1], [0, 1]]
        entries = [self.entry(row, human_preference=choice) for row, choice in enumerate(choices)]
        (tmp_path / "train.json").write_text(json.dumps(entries))
        data = read_preferences(tmp_path)
        assert list(data.captions) == ["prompt 0", "prompt 1", "prompt 3"]
        assert data.preference_0.tolist() == [1, 0, 0]
        assert data.encoded[2] == (columns["jpg_0"][3], columns["jpg_1"][3])

    @pytest.mark.parametrize(
        "judgement",
        [
            {"rank": [2, 1, 2]},
            {"raw_annotations": [{"rank": [3, 1, 2], "user_hash": "a"}, {"rank": [2, 1, 3], "user_hash": "b"}]},
        ],
        ids=["mean rank", "annotators"],
    )
    def test_a_ranked_list_gives_every_pair(self, tmp_path: Path, judgement: dict[str, Any]) -> None:
        for side in range(3):
            (tmp_path / f"{side}.png").write_bytes(png(side))
        entry = {"prompt": "a cat", "image_path": ["0.png", "1.png", "2.png"], **judgement}
        (tmp_path / "test.json").write_text(json.dumps([entry]))
        data = read_preferences(tmp_path / "test.json")
        # image 1 is best; images 0 and 2 tie, as 2 + 3 = 3 + 2
        assert data.preference_0.tolist() == [0, 1]
        assert list(data.encoded) == [(png(0), png(1)), (png(1), png(2))]
        assert data.report.ties_dropped == 1

    def test_another_layout_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "train.json").write_text('[{"prompt": "a", "images": []}]')
        with pytest.raises(UserError, match="entry 0"):
            read_preferences(tmp_path)

    def test_other_column_names_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "train.json").write_text("[]")
        with pytest.raises(UserError, match="whose names are fixed; leave --columns out"):
            read_preferences(tmp_path, {"caption": "text"})


class TestArrow:
    def save_to_disk(self, folder: Path, columns: Columns) -> Path:
        """What `datasets` 5.2 writes for columns of images and text, in two files."""
        folder.mkdir()
        table = pa.table(
            {
                **columns,
                **{side: [{"bytes": image, "path": None} for image in columns[side]] for side in ("jpg_0", "jpg_1")},
            }
        )
        names = [f"data-0000{part}-of-00002.arrow" for part in (0, 1)]
        for name, part in zip(names, (table.slice(0, 4), table.slice(4)), strict=True):
            with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(part, max_chunksize=3)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        (folder / "dataset_info.json").write_text("{}")
        return folder

    def test_a_saved_dataset_gives_what_parquet_gives(
        self, tmp_path: Path, columns: Columns, parquet: PreferenceData
    ) -> None:
        data = read_preferences(self.save_to_disk(tmp_path / "saved", columns))
        assert (data.digest, data.preference_0.tolist()) == (parquet.digest, parquet.preference_0.tolist())

    def test_several_splits_ask_for_one(self, tmp_path: Path, columns: Columns) -> None:
        self.save_to_disk(tmp_path / "train", columns)
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        with pytest.raises(UserError, match="holds several splits; give one of them: .*/train, .*/test"):
            read_preferences(tmp_path)

    def test_a_missing_file_is_refused(self, tmp_path: Path, columns: Columns) -> None:
        folder = self.save_to_disk(tmp_path / "saved", columns)
        (folder / "data-00001-of-00002.arrow").unlink()
        with pytest.raises(UserError, match="data-00001-of-00002.arrow cannot be read as Arrow"):
            read_preferences(folder)


class TestHub:
    def files(self, folder: Path, *names: str) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        return folder

    def test_the_files_of_one_split_are_chosen(self, tmp_path: Path) -> None:
        self.files(
            tmp_path, "data/test-00000-of-00001-ab12.parquet", "data/test_unique-00000-of-00001-cd.parquet",
            "data/train-00001-of-00002-0a.parquet", "data/train-00000-of-00002-ff.parquet", "default/dev/0000.parquet",
        )  # fmt: skip
        chosen = {split: split_files(tmp_path, split, "a/b") for split in ("train", "test", "dev")}
        assert [file.name for file in chosen["train"]] == [
            "train-00000-of-00002-ff.parquet",
            "train-00001-of-00002-0a.parquet",
        ]
        assert [file.name for file in chosen["test"]] == ["test-00000-of-00001-ab12.parquet"]
        assert [file.name for file in chosen["dev"]] == ["0000.parquet"]

    def test_an_unknown_split_is_refused_with_those_there_are(self, tmp_path: Path) -> None:
        self.files(tmp_path, "train.parquet")
        with pytest.raises(UserError, match=r"split 'test' has no Parquet files \(splits: train\)"):
            split_files(tmp_path, "test", "a/b:test")

    def test_half_a_download_is_refused(self, tmp_path: Path) -> None:
        self.files(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
        with pytest.raises(UserError, match="only 2 of 3 files of split 'train' are on this machine"):
            split_files(tmp_path, "train", "a/b")

    @pytest.mark.parametrize("source", ["nowhere.parquet", "no/where.parquet", "some where/there", "a/b/c"])
    def test_what_is_no_hub_id_does_not_exist(self, source: str) -> None:
        with pytest.raises(UserError, match="does not exist; give a Parquet file or a folder of them"):
            fetch_dataset(source)


def as_kind(kind: str, paths: list[str]) -> pa.Array:
    """Paths as a column of images may hold them."""
    if kind == "structs":
        rows = [{"bytes": None, "path": path} for path in paths]
        return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    if kind == "dictionary":
        return pa.array(paths).dictionary_encode()
    return pa.array(paths, pa.large_string() if kind == "large strings" else pa.string())


class TestSurvey:
    def test_a_second_reading_looks_at_no_image(
        self, tmp_path: Path, columns: Columns, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_images(tmp_path, columns)
        file = write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns))
        first = read_preferences(file, cache=tmp_path / "cache")
        assert "reading 6 rows" in capsys.readouterr().err
        second = read_preferences(file, cache=tmp_path / "cache")
        assert "reading" not in capsys.readouterr().err
        assert (second.digest, second.report) == (first.digest, first.report)
        assert np.array_equal(second.sizes, first.sizes)  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", ["lines", "strings", "large strings", "dictionary", "structs"])
    def test_a_picture_behind_a_path_that_is_replaced_is_seen_whatever_its_time_says(
        self, tmp_path: Path, columns: Columns, kind: str
    ) -> None:
        write_images(tmp_path, columns)
        records = jsonl_records(columns)
        file = tmp_path / "pairs.parquet"
        if kind == "lines":
            file = write_lines(tmp_path / "pairs.jsonl", records)
        else:
            paths = {f"jpg_{side}": [record[f"image_{side}"] for record in records] for side in (0, 1)}
            pq.write_table(pa.table({**columns, **{name: as_kind(kind, named) for name, named in paths.items()}}), file)
        first = read_preferences(file, cache=tmp_path / "cache")
        image, stamp = tmp_path / "3-0.png", (tmp_path / "3-0.png").stat()
        size = stamp.st_size
        other = next(picture for picture in map(png, range(77, 200)) if len(picture) <= size)
        image.write_bytes(other + b"\0" * (size - len(other)))  # decoders stop at the end of the picture
        os.utime(image, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert read_preferences(file, cache=tmp_path / "cache").digest != first.digest

    def test_a_changed_image_is_seen(self, tmp_path: Path, columns: Columns) -> None:
        write_images(tmp_path, columns)
        file = write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns))
        first = read_preferences(file, cache=tmp_path / "cache")
        (tmp_path / "3-0.png").write_bytes(png(77))
        assert read_preferences(file, cache=tmp_path / "cache").digest != first.digest

    def test_other_labels_with_other_ties_are_seen(self, tmp_path: Path, columns: Columns) -> None:
        file = tmp_path / "pairs.parquet"
        first = read_preferences(write_parquet(file, columns), cache=tmp_path / "cache")
        columns["label_0"][0] = 0.5
        second = read_preferences(write_parquet(file, columns), cache=tmp_path / "cache")
        assert (len(first), len(second)) == (6, 5)
        assert first.digest != second.digest


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(UserError, match="holds no preference data; give Parquet files, a metadata.jsonl"):
        open_source(tmp_path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    columns = preference_columns(2)
    write_images(tmp_path, columns)
    lines = [json.dumps({"caption": "a bee", "jpg_0": "0-0.png", "jpg_1": "0-1.png", "label_0": 1.0})]
    (tmp_path / "pairs.JSONL").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    assert open_source(tmp_path / "pairs.JSONL").names[0] == "caption"
    entry = {"prompt": "a bee", "image_path": ["0-0.png", "0-1.png"], "human_preference": [1, 0]}
    (tmp_path / "train.json").write_text("\ufeff" + json.dumps([entry]), encoding="utf-8")
    assert len(open_source(tmp_path / "train.json")) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("train/0.parquet", "validation/0.parquet"),
        ("data/train.parquet", "data/val.parquet"),
    ],
)
def test_a_training_and_a_held_out_split_are_not_mixed(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_parquet(tmp_path / name, preference_columns(2))
    with pytest.raises(UserError, match="holds several splits, (test|val|validation|train) and"):
        open_source(tmp_path)


@pytest.mark.parametrize("names", [("train-00000.parquet", "train-00001.parquet"), ("a.parquet", "trained.parquet")])
def test_shards_of_one_split_are_read(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_parquet(tmp_path / name, preference_columns(2))
    assert len(open_source(tmp_path)) == 4


def test_a_limit_reads_no_image_beyond_it(tmp_path: Path) -> None:
    columns = preference_columns(6)
    for column in ("jpg_0", "jpg_1"):
        columns[column][3:] = [b"not an image"] * 3
    path = write_parquet(tmp_path / "pairs.parquet", columns)
    data = read_preferences(path, limit=3)
    assert len(data) == 3
    assert (data.report.rows, data.report.pairs, data.report.undecodable) == (6, 3, ())
    whole = write_parquet(tmp_path / "three.parquet", {name: values[:3] for name, values in columns.items()})
    assert data.digest == read_preferences(whole).digest


def test_the_stamp_of_many_images_is_that_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The digest is in the names of cached surveys, which take hours: another one for the same files would repeat them.
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    (tmp_path / "images" / "link.png").symlink_to("a.png")
    (tmp_path / "folder").symlink_to("images")
    names = ["images/a.png", "images/a.png", "images/link.png", "folder/a.png", "folder/../images/a.png", ".//images/a.png",
             "images", "gone.png", "a" * 300, "é/ü.png", "null\0", ""]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path()):
        images = [folder / name for name in names]
        assert images_stamp(iter(images)) == digest([file_stamp(image) for image in images])
    assert images_stamp([]) == digest([])
    before = images_stamp([Path("folder/link.png")])
    (tmp_path / "images" / "a.png").write_bytes(png(2))
    assert images_stamp([Path("folder/link.png")]) != before


def test_the_files_of_data_are_those_of_its_rows_and_the_images_that_they_name(
    tmp_path: Path, columns: Columns
) -> None:
    write_images(tmp_path, columns)
    (tmp_path / "5-1.png").unlink()
    named = [tmp_path / f"{row}-{side}.png" for side in (0, 1) for row in range(6)]
    lines = write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns))
    assert open_source(lines).files == [lines, *named]
    paths = {f"jpg_{side}": [f"{row}-{side}.png" for row in range(6)] for side in (0, 1)}
    texts = write_parquet(tmp_path / "texts.parquet", {**columns, **paths})
    assert open_source(texts).files == [texts, *named[:-1]]
    structs = {name: [{"bytes": None, "path": path} for path in values] for name, values in paths.items()}
    structs["jpg_0"][0] = {"bytes": png(0), "path": "0-0.png"}
    table = write_parquet(tmp_path / "structs.parquet", {**columns, **structs})
    assert open_source(table).files[0] == table
    assert set(open_source(table).files[1:]) == set(named[:-1])


def test_images_that_are_in_the_file_are_not_looked_for_by_their_paths(tmp_path: Path, columns: Columns) -> None:
    write_images(tmp_path, columns)
    structs = {
        f"jpg_{side}": [{"bytes": columns[f"jpg_{side}"][row], "path": f"{row}-{side}.png"} for row in range(6)]
        for side in (0, 1)
    }
    table = write_parquet(tmp_path / "structs.parquet", {**columns, **structs})
    before = open_source(table)
    assert before.files == [table]
    (tmp_path / "0-0.png").unlink()
    assert open_source(table).stamp == before.stamp
    structs["jpg_1"][2]["bytes"] = None
    assert tmp_path / "2-1.png" in open_source(write_parquet(table, {**columns, **structs})).files


def test_data_that_is_mounted_elsewhere_too_is_not_read_again(
    tmp_path: Path, columns: Columns, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, columns)
    lines, cache, stat = write_lines(tmp_path / "pairs.jsonl", jsonl_records(columns)), tmp_path / "cache", Path.stat
    first = read_preferences(lines, cache=cache)

    def elsewhere(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        kind, (fields, more) = stat(path, follow_symlinks=follow_symlinks).__reduce__()  # type: ignore[misc]
        return kind((*fields[:2], fields[2] + 1, *fields[3:]), more)  # another number of the device

    monkeypatch.setattr(Path, "stat", elsewhere)
    assert read_preferences(lines, cache=cache).digest == first.digest
    assert len(list(cache.glob("*.npz"))) == 1
