"""What SECURITY.md promises of files from strangers, through the real command line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def refusal(command: CommandLine, *words: str) -> str:
    done = command.run(command.arguments(*words))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def write_pairs(folder: Path, name: str) -> Path:
    """Pairs of which the first has the image ``name``."""
    Image.effect_noise((64, 64), 80).convert("RGB").save(folder / "well.png")
    rows = [{"caption": f"a bee {row}", "image_0": "well.png", "image_1": "well.png", "label_0": 1} for row in range(4)]
    rows[0]["image_0"] = name
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl"


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ghostscript that leaves a file when it is started."""
    program, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return ran


def test_no_program_is_started_for_an_image_in_data(command: CommandLine, tmp_path: Path, canary: Path) -> None:
    (tmp_path / "eps.png").write_bytes(EPS)
    data = write_pairs(tmp_path, "eps.png")
    done = command.run(command.arguments("data", "check", str(data)))
    assert "1: row 0 jpg_0" in done.stdout
    assert not canary.exists()


def test_no_program_is_started_for_an_image_of_a_report(command: CommandLine, finished: Path, canary: Path) -> None:
    for evaluation in command.folder.glob("runs/tiny/**/images"):
        (evaluation.parent / "DONE").write_text("")  # as older versions left it, without digests
        for image in evaluation.iterdir():
            image.write_bytes(EPS)
    assert "png is damaged (not an image" in refusal(command, "report", "--format", "html", "--output", "page.html")
    assert not canary.exists()


def test_one_limit_of_pixels_for_every_command(command: CommandLine, tmp_path: Path) -> None:
    Image.new("L", (8400, 8400)).save(tmp_path / "large.png")
    data = write_pairs(tmp_path, "large.png")
    checked = command.run(command.arguments("data", "check", str(data)))
    assert "1: row 0 jpg_0" in checked.stdout
    assert "1 of 4 rows have images that cannot be decoded" in refusal(
        command, "run", "--algo", "dpo", "--model", "tiny", "--data", str(data)
    )
    (tmp_path / "images").mkdir()
    shutil.move(tmp_path / "large.png", tmp_path / "images" / "large.png")
    (tmp_path / "images" / "large.txt").write_text("a bee\n")
    scored = command.run(command.arguments("score", str(tmp_path / "images"), "--metrics", "gold", "--model", "tiny"))
    assert scored.returncode == 2
    (said,) = (line for line in scored.stderr.splitlines() if line.startswith("error: "))
    assert "8400 x 8400 pixels, more than the limit of 67108864" in said


@pytest.mark.parametrize("name", ["../../x", "..", "/x", ".hidden", "a\nb", "a\\b", "x" * 201, "\x1b[31mred"])
def test_a_name_does_not_lead_elsewhere(command: CommandLine, tmp_path: Path, name: str) -> None:
    weights = str(ASSETS / "model" / "unet")
    words = ("eval", "--model", "tiny", "--weights", weights, "--limit", "2", "--sampling-steps", "1", "--name", name)
    before = sorted(tmp_path.parent.glob("*"))
    assert "the name" in refusal(command, *words)
    assert sorted(tmp_path.parent.glob("*")) == before
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.parametrize(
    "place",
    [
        ".lock",
        "checkpoints",
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in ("weights", "evaluations", ".train.jsonl.partial", "train.jsonl")
        ),
    ],
)
def test_links_in_a_runs_folder_are_not_followed(command: CommandLine, tmp_path: Path, place: str) -> None:
    victim = tmp_path / "victim"
    if "." in place:
        victim.write_text("precious")
    else:
        victim.mkdir()
        (victim / "precious").write_text("precious")
    run = tmp_path / "runs" / "tiny" / "dpo" / "mine" / "seed-0"
    run.mkdir(parents=True)
    (run / place).symlink_to(victim)
    done = command.run(command.train_words("--name", "mine"))
    assert (done.returncode, "is a symbolic link" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
    kept = victim if victim.is_file() else victim / "precious"
    assert kept.read_text() == "precious"
    assert victim.is_file() or len(list(victim.iterdir())) == 1


@pytest.mark.parametrize("above", ["tiny", "tiny/base", ".cache"])
def test_links_on_the_way_to_a_run_are_not_followed(command: CommandLine, tmp_path: Path, above: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "runs" / above).parent.mkdir(parents=True)
    (tmp_path / "runs" / above).symlink_to(tmp_path / "victim")
    done = command.run(command.train_words())
    assert (done.returncode, "is a symbolic link" in done.stderr) == (2, True)
    assert not list((tmp_path / "victim").iterdir())


def test_a_report_does_not_replace_a_device(command: CommandLine, finished: Path) -> None:
    os.mkfifo(command.folder / "pipe.csv")
    assert "exists and is not a file" in refusal(command, "report", "--output", "pipe.csv")


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.json", "pairs.parquet", "pairs"])
def test_a_named_pipe_as_data(command: CommandLine, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "is a named pipe" in refusal(command, "data", "check", name)


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.json", "p.jsonl", "p.parquet"])
def test_a_named_pipe_as_prompts(command: CommandLine, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "is a named pipe" in refusal(command, "eval", "--model", "tiny", "--prompts", name)


def test_an_image_that_is_a_named_pipe_counts_as_unreadable(command: CommandLine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    done = command.run(command.arguments("data", "check", str(write_pairs(tmp_path, "pipe.png"))))
    assert "1: row 0 jpg_0" in done.stdout


def test_records_that_are_named_pipes(command: CommandLine, finished: Path) -> None:
    (finished / "config.json").unlink()
    os.mkfifo(finished / "config.json")
    done = command.run(command.arguments("report"))
    assert "Traceback" not in done.stderr


def bomb(path: Path, **columns: object) -> None:
    """A column of one megabyte of text, 4,900 times, which takes a few kilobytes."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4900, pa.int32()), pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({**columns, "caption": text}), path, compression="zstd")


def test_data_that_unpack_to_gigabytes(command: CommandLine, tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.parquet", jpg_0=[b""] * 4900, jpg_1=[b""] * 4900, label_0=[1.0] * 4900)
    assert "column caption unpacks to at least" in refusal(command, "data", "check", "bomb.parquet")


def test_prompts_that_unpack_to_gigabytes(command: CommandLine, tmp_path: Path) -> None:
    bomb(tmp_path / "prompts.parquet")
    assert "column caption unpacks" in refusal(command, "eval", "--model", "tiny", "--prompts", "prompts.parquet")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--algo", "dpo", "--set", f"global_batch_size={10**26}"), "global_batch_size"),
        (("run", "--algo", "dpo", "--set", f"micro_batch_size={10**26}"), "micro_batch_size"),
        (("run", "--algo", "dpo", "--guidance-scale", "1e30"), "guidance_scale"),
        (("eval", "--guidance-scale", "1e30"), "numbers from 1 to 1000"),
        (("eval", "--image", f"height={10**26}"), "height"),
        (("eval", "--image", f"images_per_prompt={10**26}"), "images_per_prompt"),
        (("eval", "--sampling-steps", str(10**18)), "steps"),
    ],
)
def test_numbers_that_nothing_can_hold(command: CommandLine, words: tuple[str, ...], said: str) -> None:
    assert said in refusal(command, *words, "--model", "tiny")
