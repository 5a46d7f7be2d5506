"""The folder of one case: where its files are built, and what its command may not touch."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PROGRAMS = (
    "gs",
    "gswin32c",
    "gswin64c",
    "ffmpeg",
    "convert",
    "magick",
    "dot",
    "xdg-open",
    "djpeg",
    "netpbm",
    "wl-paste",
)
"""Programs that picture and plot libraries start; each is a canary that leaves a file."""
ROWS = 8


@dataclasses.dataclass(frozen=True)
class Expect:
    """A command and what is right.

    Attributes:
        words: its arguments.
        outcomes: the exit codes that are right.
        says: texts that must occur in what it prints, whatever the exit code.
        never: texts that must not occur.
        refusal_says: texts that must occur if it is refused.
        limits: limits of the process, by name; see `tests.fuzz.worker`.
    """

    words: list[str]
    outcomes: tuple[int, ...] = (2,)
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    refusal_says: tuple[str, ...] = ()
    limits: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Place:
    """A case's folder, four levels down in a folder of its own, so that ``../../x`` still lands in what is compared."""

    def __init__(self, base: Path, rng: random.Random, assets: Path, finished: Path) -> None:
        self.base, self.rng, self.assets, self.finished = base, rng, assets, finished
        self.folder = base / "a" / "b" / "c" / "case"

    def make(self) -> None:
        for folder in (self.folder, self.base / "home", self.base / "bin", self.base / "outside"):
            folder.mkdir(parents=True)
        (self.base / "outside" / "victim").write_text("untouched")
        for name in PROGRAMS:
            program = self.base / "bin" / name
            program.write_text(f"#!/bin/sh\necho {name} >> {self.base}/started\nexit 1\n")
            program.chmod(0o755)

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return name

    def pictures(self, count: int = 2) -> list[str]:
        return [self.write(f"{number}.png", picture(number)) for number in range(count)]

    def records(self, **fields: Any) -> list[dict[str, Any]]:
        self.pictures()
        row = {"caption": "a bee", "image_0": "0.png", "image_1": "1.png"}
        return [{**row, "label_0": number % 2, **fields} for number in range(ROWS)]

    def lines(self, records: list[dict[str, Any]], name: str = "pairs.jsonl") -> str:
        return self.write(name, "".join(json.dumps(record) + "\n" for record in records))

    def columns(self) -> dict[str, Any]:
        return {
            "caption": ["a bee"] * ROWS,
            "jpg_0": [picture(0)] * ROWS,
            "jpg_1": [picture(1)] * ROWS,
            "label_0": [float(number % 2) for number in range(ROWS)],
        }

    def parquet(self, name: str = "pairs.parquet", **changed: Any) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({**self.columns(), **changed}), path)
        return name

    def model(self) -> Path:
        return Path(shutil.copytree(self.assets / "model", self.folder / "model"))

    def runs(self) -> Path:
        """A copy of a finished run of the version under test, with its base model."""
        return Path(shutil.copytree(self.finished, self.folder / "runs"))

    def listing(self) -> dict[str, tuple[int, int]]:
        """Size and time of everything in the base folder that is not the case's own."""
        found = {}
        for place, folders, files in os.walk(self.base):
            inside = Path(place)
            folders[:] = [each for each in folders if inside / each not in (self.folder, self.base / "home")]
            for name in files:
                about = (inside / name).lstat()
                found[str(inside / name)] = (about.st_size, about.st_mtime_ns)
        return found


def picture(number: int = 0, size: tuple[int, int] = (64, 64), kind: str = "png") -> bytes:
    stream = io.BytesIO()
    image = Image.new("RGB", size, (40 * number % 256, 90, 30))
    image.putpixel((number % size[0], 3), (255, 255, 255))
    image.save(stream, format=kind)
    return stream.getvalue()


Kind = Callable[[Place], Expect]


@dataclasses.dataclass(frozen=True)
class Registered:
    name: str
    line: int
    weight: int
    make: Kind


KINDS: list[Registered] = []


def kind(line: int, weight: int = 4) -> Callable[[Kind], Kind]:
    """Register a generator of cases of a numbered line of the issue about hostile files."""

    def add(make: Kind) -> Kind:
        KINDS.append(Registered(make.__name__, line, weight, make))
        return make

    return add
