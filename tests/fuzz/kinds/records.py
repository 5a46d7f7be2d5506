"""Run folders that were changed by hand, by a crash or by a stranger."""

from __future__ import annotations

import json

from tests.fuzz.place import Expect, Place, kind
from tests.fuzz.versions import one_step


def reader(place: Place) -> list[str]:
    return place.rng.choice([
        ["report"], ["report", "--format", "json"], ["report", "--format", "html", "--output", "r.html"], ["rescore"],
        ["report", "--format", "latex"], ["report", "--format", "csv"], ["report", "--format", "markdown"], ["status"], ["power", "--effect", "5"],
        ["bundle", "b.tar"], ["export", "tiny/dpo/one/seed-0", "o.safetensors"], ["doctor"],
    ])  # fmt: skip


@kind(8, 8)
def damaged_records(place: Place) -> Expect:
    runs = place.runs()
    files = [
        path for path in sorted(runs.rglob("*.json*")) if ".cache" not in path.parts and "weights" not in path.parts
    ]
    files += sorted(runs.rglob("DONE"))
    path = place.rng.choice(files)
    content = path.read_bytes()
    at = place.rng.randrange(len(content))
    path.write_bytes(place.rng.choice([
        b"", content[:at], b"\xff\xfe" + content, b"[" * 100_000, b"null", b"[]", b"3", b'"x"', content.replace(b"0", b"9" * 5000, 1),
        content.replace(b"{", b"{{", 1), content.replace(b'"', b"", 1), b"\0" * 50, content.replace(b"true", b"3").replace(b"0.", b"7.", 1),
    ]))  # fmt: skip
    return Expect(reader(place), (0, 2))


@kind(8, 4)
def lost_records(place: Place) -> Expect:
    runs = place.runs()
    files = [path for path in sorted(runs.rglob("*")) if path.is_file() and ".cache" not in path.parts]
    place.rng.choice(files).unlink()
    return Expect(reader(place), (0, 2))


@kind(6, 4)
def records_that_speak(place: Place) -> Expect:
    runs = place.runs()
    evil = place.rng.choice(
        [
            "\x1b]0;owned\x07",
            "<script>alert(1)</script>",
            "=cmd|' /C calc'!A0",
            "\\input{/etc/passwd}",
            "[red]x[/y]",
            "| a | b |",
            "\u202ex",
        ]
    )
    for path in runs.rglob("prompts.json"):
        path.write_text(json.dumps([evil, "a cat"]))
        (path.parent / "DONE").write_text("")
    for path in runs.rglob("DONE"):
        path.write_text("")
    return Expect(reader(place), (0, 2), never=("<script>alert(1)",))


@kind(10, 4)
def folders_with_brackets(place: Place) -> Expect:
    name = place.rng.choice(["run [v2]", "r[/x]", "[bold]", "[link=x]"])
    (place.folder / name).parent.mkdir(exist_ok=True)
    place.runs().rename(place.folder / name)
    words = place.rng.choice(
        [
            ["report"],
            ["rescore"],
            ["export", "tiny/dpo/one/seed-0", "o.safetensors"],
            ["eval", "--model", "tiny", "--run", "tiny/dpo/two/seed-0"],
        ]
    )
    return Expect([*words, "--runs", name], (0, 2), refusal_says=() if words[0] == "eval" else (name,))


@kind(8, 2)
def not_a_runs_folder(place: Place) -> Expect:
    name = place.rng.choice(["nowhere", "file", ".", "", "x" * 300, "x" * 5000, "/proc/self", "/dev/null"])
    place.write("file", "x")
    words = place.rng.choice(
        [
            ["report"],
            ["rescore"],
            ["export", "tiny/x", "o.safetensors"],
            ["power", "--effect", "5"],
            ["bundle", "b.tar"],
        ]
    )
    return Expect([*words, "--runs", name], (2,))


@kind(4, 3)
def links_in_run_folders(place: Place) -> Expect:
    victim = place.base / "outside" / "victim"
    run = place.folder / "runs" / "tiny" / "base"
    if place.rng.random() < 0.3:
        folder = place.base / "outside"
        name = place.rng.choice(
            [
                "seed-0/checkpoints",
                "seed-0/weights",
                "seed-0",
                "seed-0/evaluations",
                "seed-0/evaluations/x/images",
                "seed-0/train.jsonl",
            ]
        )
        link = place.folder / "runs" / "tiny" / "dpo" / "one" / name
        link.parent.mkdir(parents=True)
        link.symlink_to(victim if name.endswith("jsonl") else folder)
        place.write("p.txt", "a red bee\na cat\n")
        place.parquet()
        return Expect(["run", "--algo", "dpo", "--model", "tiny", "--name", "one", "--data", "pairs.parquet", "--prompts", "p.txt", "--metrics", "aesthetic",
                       "--sampling-steps", "1", *one_step()], (2,))  # fmt: skip
    if place.rng.random() < 0.5:
        run.mkdir(parents=True)
        name = place.rng.choice([".lock", ".config.json.partial"])
        (run / name).symlink_to(victim)
        place.write("p.txt", "a red bee\na cat\n")
        return Expect(
            ["eval", "--model", "tiny", "--prompts", "p.txt", "--metrics", "aesthetic", "--sampling-steps", "1"], (0, 2)
        )
    place.write("images/a.png", (place.folder / place.pictures(1)[0]).read_bytes())
    name = place.rng.choice(
        [
            ".scores.records.jsonl.lock",
            ".scores.parquet.partial",
            "scores.records.jsonl",
            ".scores.records.jsonl.partial",
        ]
    )
    (place.folder / name).symlink_to(victim)
    return Expect(["score", "images", "--metrics", "aesthetic", "--model", "tiny"], (0, 2))


@kind(8, 2)
def beta_values(place: Place) -> Expect:
    typed = place.rng.choice(["inf", "nan", "1e400", "-1", "x", "", "0"])
    return Expect(["beta", typed, "--from", "diffusion-dpo"], (2,))


@kind(8, 2)
def listings(place: Place) -> Expect:
    typed = place.rng.choice(
        [
            ["prompts", "nope"],
            ["models", "[/x]"],
            ["metrics", ""],
            ["algorithms", "\u202e"],
            ["[/x]"],
            ["models", "x" * 5000],
            ["prompts", "../x"],
        ]
    )
    return Expect(["list", *typed], (2,))


@kind(8, 2)
def outputs_that_are_not_files(place: Place) -> Expect:
    place.parquet()
    place.write("images/a.png", (place.folder / place.pictures(1)[0]).read_bytes())
    (place.folder / "folder.parquet").mkdir()
    name = place.rng.choice(
        ["folder.parquet", "x.txt", "x" * 260 + ".parquet", "pairs.parquet/x.parquet", "", "x" * 5000 + ".parquet"]
    )
    words = place.rng.choice([
        ["score", "images", "--metrics", "aesthetic", "--model", "tiny"], ["data", "score", "pairs.parquet", "--metrics", "aesthetic", "--model", "tiny"],
    ])  # fmt: skip
    return Expect([*words, "--output", name], (2,))
