from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench.core.errors import UserError
from bench.prompts.reading import read_prompts
from bench.prompts.sets import find_prompts
from bench.prompts.tables import READERS
from bench.tiny import TINY
from metrics.gold import Gold

PROMPTS = ["a bee, red", 'a sign that says "stop"', "élan 猫"]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", 'a bee, red\n\na sign that says "stop"\nélan 猫\n'),
        ("p.json", json.dumps(PROMPTS)),
        ("p.json", json.dumps([{"prompt": prompt, "metadata": {}} for prompt in PROMPTS])),
        ("p.csv", 'id,prompt\n1,"a bee, red"\n2,"a sign that says ""stop"""\n3,élan 猫\n'),
        ("p.csv", '\ufeffcaption\n"a bee, red"\n"a sign that says ""stop"""\nélan 猫\n'),
        ("p.csv", ',prompt\n0,"a bee, red"\n1,"a sign that says ""stop"""\n2,élan 猫\n'),  # as pandas writes an index
        ("P.TSV", 'Prompt\tCategory\tNote\na bee, red\tAnimals\t\na sign that says "stop"\tArts\t\nélan 猫\tWorld\t\n'),
        ("p.jsonl", "\n".join(json.dumps({"text": prompt}) for prompt in PROMPTS) + "\n"),
    ],
)  # fmt: skip
def test_prompts_of_a_file_in_their_order(tmp_path: Path, name: str, text: str) -> None:
    assert read_prompts(write(tmp_path, name, text)) == PROMPTS


def test_captions_of_a_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label_0": [1.0, 0.0, 0.5], "caption": PROMPTS}), tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet") == PROMPTS


def test_of_a_parquet_file_only_texts_are_read(tmp_path: Path) -> None:
    columns = {"jpg_0": [b"png"] * 3, "embedding": [[1.0]] * 3, "caption": PROMPTS}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert list(READERS[".parquet"](tmp_path / "p.parquet")[0]) == ["caption"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
@pytest.mark.parametrize("name", ["p.txt", "p.jsonl"])
def test_a_prompt_may_hold_a_rare_separator_of_lines(tmp_path: Path, name: str, separator: str) -> None:
    prompts = [f"a bee{separator}on red", "a cat"]
    lines = prompts if name == "p.txt" else [json.dumps({"prompt": each}, ensure_ascii=False) for each in prompts]
    assert read_prompts(write(tmp_path, name, "\n".join(lines))) == prompts


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("p.csv", "1,a bee\n2,a cat\n", "has no column 'prompt' .*; it has 1, a bee"),
        ("p.csv", "id,prompt\n1,a bee, red\n", "row 1 has more fields than the header; quote texts"),
        ("p.csv", "id,prompt\n1,a bee\n2,\n", "row 2 has no text in column 'prompt'"),
        ("p.csv", "id,prompt\n1,a bee\n2\n", "row 2 has no text in column 'prompt'"),
        ("p.csv", "", "has no column 'prompt'"),
        ("p.jsonl", '{"prompt": 7}\n', "row 1 has no text in column 'prompt'"),
        ("p.json", '{"a.png": 3}', "row 1 has no text"),
        ("p.json", "[]", "contain no prompt; give a text file"),
        ("p.json", "[1]", "entry 1 is 1, not text"),
        ("p.json", "{", "is not valid JSON"),
        ("p.txt", "\n \n", "contain no prompt; give a text file"),
        ("p.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        read_prompts(write(tmp_path, name, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["p.png", "p.txt", "p.csv", "p.json", "p.jsonl"])
def test_what_is_no_text_and_what_is_a_folder_is_said_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(
        UserError, match=rf"{name}: line 1 holds the byte 0x89, which is not UTF-8; save the file as UTF-8"
    ):
        read_prompts(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"{name} cannot be read \(Is a directory\); give a file"):
        read_prompts(tmp_path / name)


def test_what_is_neither_a_set_nor_a_file() -> None:
    with pytest.raises(UserError, match=r"'parti-prompt' are neither a file nor a registered set: did you mean 'parti"):
        find_prompts("parti-prompt")


@pytest.mark.parametrize("typed", ["../x/prompts.txt", "tinny.txt", "./partiprompt"])
def test_a_file_that_does_not_exist_is_not_taken_for_a_set(typed: str) -> None:
    with pytest.raises(UserError) as caught:
        find_prompts(typed)
    assert str(caught.value).startswith(f"the prompts file {typed!r} does not exist; give a text file")


def test_a_registered_set_comes_before_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "partiprompts").write_text("a bee\n")
    with pytest.raises(
        UserError, match="prompt set 'PartiPrompts' cannot be downloaded from the hub: HF_HUB_OFFLINE is set"
    ):
        find_prompts("partiprompts")
    assert find_prompts("./partiprompts") == ["a bee"]


def test_gold_refuses_foreign_prompts_before_anything_is_made() -> None:
    gold = Gold.load(TINY.metrics["gold"], device=torch.device("cpu"))
    assert gold.for_prompts(["a large bee on a red background"]) is gold
    with pytest.raises(
        UserError, match="'a dog', which has only known words, but not in the form of a caption .* or leave gold out"
    ):
        gold.for_prompts(["a large bee on a red background", "a dog"])


@pytest.mark.parametrize("name", ["p.JSON", "p.Json"])
def test_capitals_of_a_suffix_do_not_matter(tmp_path: Path, name: str) -> None:
    assert read_prompts(write(tmp_path, name, json.dumps(PROMPTS, indent=1))) == PROMPTS


@pytest.mark.parametrize("name", ["p.txt", "p.json", "p.jsonl", "p.csv"])
def test_a_byte_order_mark_is_not_part_of_a_prompt(tmp_path: Path, name: str) -> None:
    texts = {"p.txt": "a bee\n", "p.json": '["a bee"]', "p.jsonl": '{"prompt": "a bee"}\n', "p.csv": "prompt\na bee\n"}
    assert read_prompts(write(tmp_path, name, "\ufeff" + texts[name])) == ["a bee"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("p.csv", "file_name,prompt,prompt\na.png,a bee,a cat\n", "has several columns 'prompt'"),
        ("p.csv", "prompt,caption\na bee,a cat\n", "has columns 'prompt' and 'caption' with different contents"),
        ("p.json", '["a bee", " "]', "entry 2 has an empty prompt"),
        ("p.json", '["a \\ud83d bee"]', r"the prompt: 'a \ud83d bee' holds half of a surrogate pair at character 3"),
        ("p.jsonl", '{"prompt": "a \\ud83d bee"}\n', "entry 1: the prompt"),
        ("p.txt", "a dog\na bee\ra cat\n", r"entry 2 holds a carriage return ('a bee\ra cat'); end lines with"),
    ],
)
def test_prompts_that_would_be_taken_for_something_else_are_refused(
    tmp_path: Path, name: str, text: str, sentence: str
) -> None:
    with pytest.raises(UserError) as refused:
        read_prompts(write(tmp_path, name, text))
    assert sentence in str(refused.value)
    assert name in str(refused.value)


def test_two_columns_with_the_same_texts_are_one(tmp_path: Path) -> None:
    assert read_prompts(write(tmp_path, "p.csv", "prompt,text\na bee,a bee\n")) == ["a bee"]


def test_bytes_in_place_of_texts_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": [b"a bee"]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="column 'prompt' holds binary; save the prompts as text"):
        read_prompts(tmp_path / "p.parquet")


@pytest.mark.parametrize(
    ("column", "more"),
    [
        ("date", pa.array([2**31 - 1], pa.date32())),
        ("time", pa.array([2**62], pa.timestamp("us"))),
        ("zone", pa.array([1], pa.timestamp("us", tz="Mars/Phobos"))),
        ("meta.source", pa.array(["x"])),
        ("image", pa.array([2**31 - 1], pa.date32())),
    ],
)
def test_columns_that_are_not_read_hold_anything(tmp_path: Path, column: str, more: pa.Array) -> None:
    pq.write_table(pa.table({"prompt": ["a bee"], column: more}), tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet") == ["a bee"]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"prompt": pa.array([2**31 - 1], pa.date32())},
            r"column 'prompt' holds date32\[day\]; save the prompts as text",
        ),
        ({"word": ["a bee"], "n": [1]}, r"has no column 'prompt' \(or caption, text\); it has word, n"),
    ],
)
def test_tables_without_a_column_of_prompts(tmp_path: Path, columns: dict[str, object], sentence: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(UserError, match=sentence):
        read_prompts(tmp_path / "p.parquet")


def test_prompts_of_parquet_that_are_not_utf8(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 2], dtype=np.int32).tobytes())
    prompts = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"a\xff")])
    pq.write_table(pa.table({"prompt": prompts}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet .*UTF8"):
        read_prompts(tmp_path / "p.parquet")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\\udcff.txt' is not a UTF-8 name; rename it"):
        read_prompts(write(tmp_path, "p\udcff.txt", "a bee\n"))
