from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.core.chunks import CHUNK
from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine, offline

COUNT = 40  # more than one chunk


@pytest.fixture
def command(many_prompts: CommandLine) -> CommandLine:
    return many_prompts


@pytest.fixture
def pictures(command: CommandLine) -> Path:
    """Samples of the tiny model, as another tool would leave them: ``0.png`` to ``39.png``."""
    folder = command.folder / "pictures"
    folder.mkdir()
    with Image.open(ASSETS / "samples.png") as sheet:
        for place in range(COUNT):
            left, top = place % 8 * 128, place // 8 * 128
            sheet.crop((left, top, left + 128, top + 128)).save(folder / f"{place}.png")
    return folder


def words(command: CommandLine, pictures: Path, *more: str) -> list[str]:
    return command.arguments("score", str(pictures), "--prompts", str(command.prompts), "--model", "tiny", *more)


def test_damaged_images_are_named_and_counted_and_the_rest_is_scored(command: CommandLine, pictures: Path) -> None:
    metrics = ("--metrics", "pickscore,gold")
    whole = command.run(words(command, pictures, *metrics, "--output", "whole.parquet"))
    assert whole.returncode == 0, whole.stderr
    (pictures / "1.png").write_bytes((pictures / "1.png").read_bytes()[:3000])
    Image.new("1", (9000, 9000)).save(pictures / "5.png")
    Image.new("1", (10000, 10000)).save(pictures / "9.png")
    (pictures / "17.png").write_text("a text")
    (pictures / "30.png").write_bytes(b"")
    done = command.run(words(command, pictures, *metrics, "--output", "out.csv"))
    assert done.returncode == 0, done.stderr
    assert "5 images could not be read" in done.stdout
    assert "DecompressionBombWarning" not in done.stderr
    for part in (
        "1.png: cannot be decoded",
        "5.png: 9000 x 9000",
        "9.png: more than",
        "17.png: not an image",
        "30.png: an empty file",
    ):
        assert part in done.stdout
    before = pq.read_table(command.folder / "whole.parquet").to_pylist()
    after = pyarrow.csv.read_csv(command.folder / "out.csv").to_pylist()
    assert len(before) == len(after) == 2 * COUNT
    for one, other in zip(before, after, strict=True):
        assert (one["file"], one["metric"], one["prompt"]) == (other["file"], other["metric"], other["prompt"])
        assert one["metric_signature"] == other["metric_signature"]
        if other["file"] in ("1.png", "5.png", "9.png", "17.png", "30.png"):
            assert other["score"] is None
            assert other["problem"]
        else:
            assert other["score"] == pytest.approx(one["score"], abs=1e-4)  # the chunks have moved


def test_the_summary_shows_mean_interval_count_and_signature(command: CommandLine, pictures: Path) -> None:
    done = command.run(words(command, pictures, "--metrics", "hpsv2"))
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(command.folder / "scores.parquet").to_pylist()
    mean = 100 * sum(row["score"] for row in rows) / COUNT
    (line,) = [line for line in done.stdout.splitlines() if "HPSv2.1" in line]
    assert f"{mean:.4g}" in line
    assert line.split()[-2:] == ["40", rows[0]["metric_signature"]]
    low, high = (float(part.strip(" [],")) for part in line[line.index("[") : line.index("]")].split(","))
    assert low < mean < high
    assert "cosine x 100" in line


def test_killed_and_continued_equals_uninterrupted(command: CommandLine, pictures: Path) -> None:
    several = ("--metrics", "pickscore,imagereward,hpsv2")
    assert command.run(words(command, pictures, *several, "--output", "whole.csv")).returncode == 0
    records = command.folder / "cut.records.jsonl"
    process = command.start(words(command, pictures, *several, "--output", "cut.csv"))
    try:
        while not (records.exists() and len(records.read_text().splitlines()) > COUNT):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (command.folder / "cut.csv").exists()
    scored_before = records.read_text().splitlines()[:COUNT]
    done = command.run(words(command, pictures, *several, "--output", "cut.csv"))
    assert done.returncode == 0, done.stderr
    assert (command.folder / "cut.csv").read_bytes() == (command.folder / "whole.csv").read_bytes()
    assert set(scored_before) <= set(records.read_text().splitlines())


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_scored_and_says_so(command: CommandLine, pictures: Path) -> None:
    for copy in range(1, 20):  # so many that it is interrupted long before its end
        for place in range(COUNT):
            os.link(pictures / f"{place}.png", pictures / f"{copy * COUNT + place}.png")
    prompts = command.folder / "many.txt"
    prompts.write_text(command.prompts.read_text() * 20)
    records = command.folder / "scores.records.jsonl"
    process = subprocess.Popen(
        command.arguments(
            "score", str(pictures), "--prompts", str(prompts), "--model", "tiny", "--metrics", "pickscore"
        ),
        cwd=command.folder,
        env=offline(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 (no threads here)
    )
    with process:
        while not (records.exists() and records.read_text()):
            assert process.poll() is None, "it ended before it was interrupted"
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopped by Ctrl-C; run the same command to resume" in errors
    assert "Traceback" not in errors
    assert CHUNK <= len(records.read_text().splitlines()) < 20 * COUNT


def test_a_checkpoint_of_ones_own(command: CommandLine, pictures: Path) -> None:
    own = ("--metrics", "clip", "--checkpoint", f"clip={ASSETS / 'scorers' / 'pickscore'}")
    plain = command.arguments("score", str(pictures), "--prompts", str(command.prompts), *own)
    done = command.run(plain)
    assert done.returncode == 0, done.stderr
    assert "CLIPScore" in done.stdout


def test_the_checkpoints_of_a_model_folder(command: CommandLine, pictures: Path) -> None:
    folder = Path(shutil.copytree(ASSETS / "model", command.folder / "mine"))
    (folder / "bench.json").write_text(json.dumps({"metrics": {"pickscore": str(ASSETS / "scorers" / "pickscore")}}))
    plain = ("score", str(pictures), "--prompts", str(command.prompts))
    tables = []
    for model, output in (("mine", "one.csv"), ("tiny", "two.csv")):
        done = command.run(command.arguments(*plain, "--model", model, "--metrics", "pickscore", "--output", output))
        assert done.returncode == 0, done.stderr
        tables.append((command.folder / output).read_text())
    assert tables[0] == tables[1]


def test_the_wrong_number_of_prompts_is_refused(command: CommandLine, pictures: Path) -> None:
    (pictures / "39.png").unlink()
    done = command.run(words(command, pictures))
    assert done.returncode == 2
    assert "holds 40 prompts" in done.stderr
    assert "39 images" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_folder_needs_another_output(command: CommandLine, pictures: Path) -> None:
    few = command.folder / "few"
    few.mkdir()
    for place in range(2):
        (few / f"{place}.png").hardlink_to(pictures / f"{place}.png")
    scorer = ("--metrics", "aesthetic", "--model", "tiny")
    assert command.run(command.arguments("score", "few", *scorer)).returncode == 0
    before = (command.folder / "scores.parquet").read_bytes()
    other = few.with_name("other")
    other.mkdir()
    (other / "0.png").hardlink_to(pictures / "7.png")
    done = command.run(command.arguments("score", "other", *scorer))
    assert done.returncode == 2
    sentence = (
        f"error: scores.parquet and scores.records.jsonl beside it hold the scores of {few}; give another --output"
    )
    assert sentence in done.stderr
    assert (command.folder / "scores.parquet").read_bytes() == before
    assert command.run(command.arguments("score", "other", *scorer, "--output", "other.parquet")).returncode == 0
    assert command.run(command.arguments("score", "few", *scorer)).returncode == 0


def test_records_of_somebody_else_are_refused_before_anything_is_scored(command: CommandLine, pictures: Path) -> None:
    (command.folder / "s.records.jsonl").write_text('{"note": "my own records"}\n')
    done = command.run(words(command, pictures, "--metrics", "aesthetic", "--output", "s.parquet"))
    assert done.returncode == 2
    assert "error: s.records.jsonl: line 1 is not the record of a score (it has no 'file'); delete it if" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_published_checkpoint_without_the_hub_is_one_sentence(command: CommandLine, pictures: Path) -> None:
    done = command.run(
        command.arguments("score", str(pictures), "--prompts", str(command.prompts), "--metrics", "hpsv2.0")
    )
    assert done.returncode == 2
    assert "'xswu/HPSv2' is not a path on this machine" in done.stderr
    assert "Traceback" not in done.stderr
