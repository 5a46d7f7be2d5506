"""Runs folders to report on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The tests beside this file share a helper, which is in no package.
sys.path.insert(0, str(Path(__file__).parent))
from lab import Lab, fill


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty runs folder to write into."""
    return Lab(tmp_path / "runs")


@pytest.fixture
def full_lab(lab: Lab) -> Lab:
    """A runs folder with the base and three algorithms."""
    fill(lab)
    return lab
