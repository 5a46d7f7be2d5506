"""Every command that scores or fits a scorer computes in float32 without TF32, whatever torch and the environment allow."""

from __future__ import annotations

import os
from pathlib import Path

import forked
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine, offline

LAST = """
import multiprocessing.util
import os
from pathlib import Path

import torch

torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "tf32"


def write() -> None:
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    Path(os.environ["PRECISIONS"]).write_text(" ".join(each.fp32_precision for each in settings))


multiprocessing.util.Finalize(None, write, exitpriority=0)
"""
"""A `sitecustomize` that allows TF32 everywhere and writes what of it is left when the command ends."""


def precisions_after(command: CommandLine, *words: str) -> str:
    """How convolutions and matrix products on CUDA are computed when a command has ended."""
    guard = command.folder / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(LAST)
    place = command.folder / "precisions.txt"
    paths = os.pathsep.join(filter(None, [str(guard), os.environ.get("PYTHONPATH")]))
    done = forked.run(words, command.folder, {**offline(), "PYTHONPATH": paths, "PRECISIONS": str(place)})
    assert done.returncode == 0, done.stderr
    return place.read_text()


@pytest.fixture
def pairs(command: CommandLine) -> Path:
    """A few pairs with their labels."""
    path = command.folder / "few.parquet"
    pq.write_table(pq.read_table(command.data).slice(0, 24), path)
    return path


JUDGED = ("--metrics", "aesthetic", "--model", "tiny")


@pytest.mark.parametrize(
    "words",
    [
        ("score", "pictures", *JUDGED),
        ("data", "score", "few.parquet", *JUDGED, "--output", "out.parquet"),
        ("data", "rank", "few.parquet", "--judge", "aesthetic", "--model", "tiny", "--output", "out.parquet"),
        (
            "reward",
            "--scorer",
            "aesthetic",
            "--model",
            "tiny",
            "--data",
            "few.parquet",
            "--steps",
            "1",
            "--output",
            "o",
        ),
    ],
    ids=" ".join,
)
def test_commands_of_files_leave_no_tf32(command: CommandLine, pairs: Path, words: tuple[str, ...]) -> None:
    (command.folder / "pictures").mkdir()
    with Image.open(ASSETS / "samples.png") as sheet:
        for place in range(2):
            sheet.crop((128 * place, 0, 128 * place + 128, 128)).save(command.folder / "pictures" / f"{place}.png")
    assert precisions_after(command, *words) == "ieee ieee"


@pytest.mark.parametrize("words", [("rescore",), ("report", "--judges-on", "few.parquet")], ids=" ".join)
@pytest.mark.usefixtures("finished")
def test_commands_of_runs_leave_no_tf32(command: CommandLine, pairs: Path, words: tuple[str, ...]) -> None:
    assert precisions_after(command, *words) == "ieee ieee"
