"""Texts that act where they are shown: on a terminal, in a table, on a page, in a spreadsheet."""

from __future__ import annotations

import json

from tests.fuzz.kinds.pictures import EPS
from tests.fuzz.place import Expect, Place, kind, picture

EVIL = (
    "\x1b]0;owned\x07", "\x1b[2J", "<script>alert(1)</script>", "=cmd|' /C calc'!A0", "\\input{/etc/passwd}", "[red]x[/y]", "| a | b |", "\u202ex", "a\rb",
    "\x9b31m", "](javascript:x)", "$(touch x)", "\u2066x", "\0", "`x`",
)  # fmt: skip


@kind(6, 4)
def captions_that_speak(place: Place) -> Expect:
    evil = place.rng.choice(EVIL)
    fields = place.rng.choice(
        [
            {"caption": evil},
            {"caption": evil, "split": evil},
            {"source_0": evil, "source_1": "x"},
            {evil: 1},
            {f"score_{evil}_0": 0.5, f"score_{evil}_1": 0.25},
        ]
    )
    name = place.lines(place.records(**fields))
    words = place.rng.choice(
        [
            ["data", "check", name],
            ["data", "score", name, "--metrics", "aesthetic", "--model", "tiny", "--output", "o.parquet"],
        ]
    )
    return Expect(words, (0, 2))


@kind(6, 4)
def names_of_files_that_speak(place: Place) -> Expect:
    evil = place.rng.choice([each for each in EVIL if "\0" not in each]).replace("/", "_")
    place.write(f"images/{evil}.png", picture(1))
    place.write(f"images/{evil}2.png", place.rng.choice([b"", picture(2)]))
    place.write(f"images/{evil}.txt", f"{evil} a bee")
    place.write(f"images/{evil}2.txt", "a cat")
    metric = place.rng.choice(["aesthetic", "pickscore"])
    return Expect(
        [
            "score",
            "images",
            "--metrics",
            metric,
            "--model",
            "tiny",
            *place.rng.choice([[], ["--output", f"{evil}.parquet"]]),
        ],
        (0, 2),
    )


@kind(6, 3)
def arguments_that_speak(place: Place) -> Expect:
    evil = place.rng.choice([each for each in EVIL if "\0" not in each])
    place.parquet()
    words = place.rng.choice([
        ["data", "check", evil], ["eval", "--model", evil], ["run", "--algo", evil, "--model", "tiny"], ["report", "--runs", evil], ["list", "models", evil],
        ["run", evil], ["run", "--algo", "dpo", "--model", "tiny", "--set", f"{evil}=3"], ["data", "check", "pairs.parquet", f"--columns=caption={evil}"],
        ["status", evil], ["verify", evil], ["export", evil, "o.safetensors"], ["score", evil, "--metrics", "aesthetic"], [evil], ["report", f"--{evil}"],
        ["power", "--effect", evil], ["beta", evil, "--from", evil], ["report", "--format", evil],
    ])  # fmt: skip
    return Expect(words, (2,))


@kind(3, 3)
def programs_in_images_of_runs(place: Place) -> Expect:
    runs = place.runs()
    for path in runs.rglob("*.png"):
        path.write_bytes(EPS)
    for path in runs.rglob("DONE"):
        path.write_text("")
    return Expect(
        place.rng.choice([["report", "--format", "html", "--output", "r.html"], ["rescore"], ["bundle", "b.tar"]]),
        (0, 2),
    )


@kind(6, 2)
def names_in_records_that_speak(place: Place) -> Expect:
    runs = place.runs()
    evil = place.rng.choice([*EVIL, "../../x", "/tmp/fuzz-x"])
    for path in runs.rglob("config.json"):
        stated = json.loads(path.read_text())
        fields = [key for key, value in stated.items() if isinstance(value, str)] or ["name"]
        stated[place.rng.choice(fields)] = evil
        path.write_text(json.dumps(stated))
    for path in runs.rglob("DONE"):
        path.write_text("")
    words = place.rng.choice([["report"], ["report", "--format", "html"], ["status"], ["report", "--format", "markdown"], ["report", "--format", "csv"],
                          ["report", "--format", "latex"], ["rescore"], ["bundle", "b.tar"], ["export", "tiny/dpo/one/seed-0", "o.safetensors"]])  # fmt: skip
    # Only a page and Markdown are shown by a browser; in the other formats a tag is a text.
    return Expect(words, (0, 2), never=("<script>alert(1)",) if words[-1] in ("html", "markdown") else ())
