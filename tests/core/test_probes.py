"""The digest of what libraries do: the same in every process, another when a library does something else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ftfy
import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin

from bench.core import probes


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    probes.libraries_digest.cache_clear()
    yield
    probes.libraries_digest.cache_clear()


def test_every_process_finds_the_same() -> None:
    program = "from bench.core.probes import libraries_digest; print(libraries_digest())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == probes.libraries_digest()


def test_no_float_is_so_near_to_a_rounding_that_processors_could_disagree() -> None:
    digits = probes.DECIMALS
    coarse = np.concatenate(probes.rounded_tensors())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "DECIMALS", 9)
        fine = np.concatenate(probes.rounded_tensors())
    distance = 0.5 - np.abs(fine - coarse) * 10**digits
    assert distance.min() > 1e-3


@pytest.mark.parametrize("library", ["decoder", "filter", "resizing", "random numbers", "cleaning"])
def test_a_library_that_does_something_else_is_noticed(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = probes.libraries_digest()
    probes.libraries_digest.cache_clear()
    resize, interpolate, load = Image.Image.resize, torch.nn.functional.interpolate, JpegImagePlugin.JpegImageFile.load
    randn, fix = torch.randn, ftfy.fix_text

    def other_load(self: Any) -> Any:
        self.draft("RGB", (self.width // 2, self.height // 2))
        return load(self)

    change = {
        "decoder": lambda: monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", other_load),
        "filter": lambda: monkeypatch.setattr(
            Image.Image, "resize", lambda self, size, resample: resize(self, size, Image.Resampling.LANCZOS)
        ),
        "resizing": lambda: monkeypatch.setattr(
            torch.nn.functional, "interpolate", lambda image, **how: interpolate(image, **{**how, "antialias": True})
        ),
        "random numbers": lambda: monkeypatch.setattr(torch, "randn", lambda *size, **how: -randn(*size, **how)),
        "cleaning": lambda: monkeypatch.setattr(ftfy, "fix_text", lambda text: fix(text, uncurl_quotes=False)),
    }
    change[library]()
    assert probes.libraries_digest() != before
