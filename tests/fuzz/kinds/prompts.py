"""Files of prompts."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.place import Expect, Place, kind


def prompts(place: Place, name: str, *says: str, outcomes: tuple[int, ...] = (2,)) -> Expect:
    """A command that reads a file of prompts."""
    words = place.rng.choice([
        ["data", "check", "pairs.parquet", "--prompts", name],
        ["eval", "--model", "tiny", "--sampling-steps", "1", "--prompts", name],
        ["run", "--algo", "dpo", "--model", "tiny", "--set", "steps=1", "--prompts", name],
        ["data", "generate", "--model", "tiny", "--count", "2", "--sampling-steps", "1", "--output", "o.parquet", "--prompts", name],
    ])  # fmt: skip
    if 0 in outcomes:
        words = ["data", "check", "pairs.parquet", "--prompts", name]
    place.parquet()
    return Expect(words, outcomes, refusal_says=says)


def images(place: Place, name: str, *says: str, outcomes: tuple[int, ...] = (2,)) -> Expect:
    place.write("images/a.png", (place.folder / place.pictures(1)[0]).read_bytes())
    place.write("images/b.png", (place.folder / place.pictures(2)[1]).read_bytes())
    return Expect(
        ["score", "images", "--prompts", name, "--metrics", "pickscore", "--model", "tiny"], outcomes, refusal_says=says
    )


@kind(8, 5)
def prompts_in_another_encoding(place: Place) -> Expect:
    name = place.rng.choice(["p.txt", "p.csv", "p.tsv", "p.json", "p.jsonl"])
    text = {"p.txt": "b\u00e9e\ncat\n", "p.csv": "prompt\nb\u00e9e\n", "p.tsv": "prompt\nb\u00e9e\n", "p.json": '["b\u00e9e"]',
            "p.jsonl": '{"prompt": "b\u00e9e"}\n'}[name]  # fmt: skip
    return prompts(place, place.write(name, text.encode(place.rng.choice(["utf-16", "latin-1", "utf-32"]))), name)


@kind(8, 5)
def prompts_with_half_a_character(place: Place) -> Expect:
    name = place.rng.choice(["p.json", "p.jsonl"])
    text = '["a \\ud83d bee", "cat"]' if name == "p.json" else '{"prompt": "a \\udc1d bee"}\n'
    return prompts(place, place.write(name, text), name)


@kind(8, 6)
def prompts_nested_or_huge(place: Place) -> Expect:
    more = place.rng.choice(["[" * 100_000 + "]" * 100_000, "9" * 6000, '{"a":' * 30_000 + "1" + "}" * 30_000])
    name = place.rng.choice(["p.json", "p.jsonl"])
    text = f'["a bee", {more}]' if name == "p.json" else f'{{"prompt": "a bee", "more": {more}}}\n'
    return prompts(place, place.write(name, text), name)


@kind(8, 6)
def prompts_of_other_types(place: Place) -> Expect:
    value: Any = place.rng.choice([3, None, True, ["a"], {"a": 1}, 1.5])
    name = place.rng.choice(["p.json", "p.jsonl"])
    text = json.dumps(["a bee", value]) if name == "p.json" else json.dumps({"prompt": value}) + '\n{"prompt": "a"}\n'
    return prompts(place, place.write(name, text), name)


@kind(8, 4)
def prompts_in_damaged_tables(place: Place) -> Expect:
    name, text = place.rng.choice([
        ("p.csv", ""), ("p.csv", "prompt\n"), ("p.csv", "prompt,prompt\na,b\n"), ("p.csv", 'prompt\n"a'), ("p.csv", "x\na\n"),
        ("p.csv", "prompt\na,b,c\n"), ("p.csv", "prompt\n" + "x" * 200_000 + "\n"), ("p.tsv", "prompt\tPROMPT\na\tb\n"),
        ("p.csv", "prompt\n\0\n"), ("p.json", ""), ("p.json", "{"), ("p.json", "[]"), ("p.json", "3"), ("p.json", '[["a"]]'),
        ("p.jsonl", "[]\n"), ("p.jsonl", "1\n"), ("p.jsonl", "{}\n"), ("p.parquet", "PAR1"), ("p.parquet", ""), ("p.txt", ""),
        ("p.txt", "\n \n"), ("p.txt", "\0\0"), ("p.csv", 'prompt,file\n"",a\n'), ("p.json", '[{"prompt": "a"}, {"prompt": ""}]'),
        ("p.json", '{"a.png": 3}'),
    ])  # fmt: skip
    return prompts(place, place.write(name, text), name)


@kind(8, 4)
def prompts_in_parquet(place: Place) -> Expect:
    values: Any = place.rng.choice([
        [b"a bee"], [["a"]], [{"a": "b"}], [1], [None], pa.nulls(2), [""], ["a", None], [True], pa.array([1], pa.date32()),
    ])  # fmt: skip
    pq.write_table(pa.table({"prompt": values}), place.folder / "p.parquet")
    return prompts(place, "p.parquet", "p.parquet")


@kind(8, 3)
def prompts_from_nowhere(place: Place) -> Expect:
    typed = place.rng.choice(["nope", "nope.txt", "", ".", "/", "x" * 5000, "/proc/self/mem", "a\u0301", "p.txt/"])
    return prompts(place, typed)


@kind(10, 2)
def a_single_prompt(place: Place) -> Expect:
    place.write("p.txt", place.rng.choice(["a red bee\n", "a red bee\na red bee\n"]))
    words = place.rng.choice([
        ["run", "--algo", "dpo", "--model", "tiny", "--set", "steps=1", "--prompts", "p.txt", "--sampling-steps", "1"],
        ["eval", "--model", "tiny", "--sampling-steps", "1", "--prompts", "p.txt"],
    ])  # fmt: skip
    return Expect(words, (2,), refusal_says=("p.txt",), never=("done:",))


@kind(8, 8)
def prompts_of_images(place: Place) -> Expect:
    name, content = place.rng.choice([
        ("p.csv", 'file_name,prompt\na.png,""\nb.png,b\n'), ("p.csv", "file_name,prompt,prompt\na.png,a,b\nb.png,a,b\n"),
        ("p.csv", "file_name,prompt\na.png,a\n"), ("p.csv", "file_name,prompt\na.png,a\na.png,b\nb.png,c\n"),
        ("p.csv", "file_name,prompt\na.png,a\nb.png,b\nc.png,c\n"), ("p.csv", "file_name,prompt\na.png\nb.png,b\n"),
        ("p.jsonl", '{"file_name": "a.png", "prompt": "a \\ud83d"}\n{"file_name": "b.png", "prompt": "b"}\n'),
        ("p.jsonl", '{"file_name": ["a.png"], "prompt": "a"}\n'), ("p.jsonl", '{"file_name": 3, "prompt": "a"}\n'),
        ("p.json", '{"a.png": "a", "b.png": null}'), ("p.json", '{"a.png": "a", "b.png": ["b"]}'), ("p.json", '{"a.png": "a", "a.png": "b"}'),
        ("p.txt", "a\n"), ("p.txt", "a\nb\nc\n"), ("p.csv", "file_name,prompt\na.png,a\n./a.png,c\nb.png,b\n"),
        ("p.csv", "file_name\na.png\nb.png\n"), ("p.csv", "prompt\na\nb\n"), ("p.json", '{"\\ud83d.png": "a", "b.png": "b"}'),
    ])  # fmt: skip
    return images(place, place.write(name, content), name)


@kind(8, 2)
def prompts_with_other_spellings_of_names(place: Place) -> Expect:
    name = place.rng.choice(["p.csv", "p.txt"])
    text = "file_name,prompt\n.\\a.png,a bee\nb.png,b\n" if name == "p.csv" else "\ufeffa bee\r\na cat\r\n"
    return images(place, place.write(name, text), outcomes=(0,))


@kind(8, 2)
def prompts_in_other_unicode_forms(place: Place) -> Expect:
    place.write("images/caf\u00e9.png", (place.folder / place.pictures(1)[0]).read_bytes())
    place.write("p.csv", "file_name,prompt\ncafe\u0301.png,a\n")
    return Expect(
        ["score", "images", "--prompts", "p.csv", "--metrics", "pickscore", "--model", "tiny"],
        (0, 2),
        refusal_says=("caf",),
    )


@kind(8, 3)
def prompts_beside_images(place: Place) -> Expect:
    place.write("images/a.png", (place.folder / place.pictures(1)[0]).read_bytes())
    text = place.rng.choice([b"", b"\xff\xfe", b"  \n", "b\u00e9e".encode("latin-1"), b"\0"])
    place.write("images/a.txt", text)
    return Expect(["score", "images", "--metrics", "pickscore", "--model", "tiny"], (2,), refusal_says=("a.txt",))
