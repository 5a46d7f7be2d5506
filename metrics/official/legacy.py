"""The environment in which the authors' packages still run."""

from __future__ import annotations

from pathlib import Path

from bench import Environment

FOLDER = Path(__file__).parent


def pins(name: str) -> tuple[str, ...]:
    """The requirements in a file of this folder."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


LEGACY = Environment(python="3.11", requirements=pins("requirements.txt"), unresolved=pins("unresolved.txt"))
"""Versions of 2023: torch 2.0.1 (CUDA 11.7, without support for newer GPUs), torchvision 0.15.2, transformers 4.30.2."""
