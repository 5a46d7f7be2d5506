from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from bench.tiny import ASSETS
from bench.tiny.building import distortion
from bench.tiny.building.distortion import DistortedScenes, decoded_scenes, distort, random_scenes, rendered


def test_distortion_depends_on_the_step_alone_and_keeps_flat_pictures_flat() -> None:
    pixels = torch.rand(8, 3, 64, 64) * 2 - 1
    assert torch.equal(distort(pixels, 5), distort(pixels, 5))
    assert not torch.equal(distort(pixels, 5), distort(pixels, 6))
    flat = torch.full((16, 3, 64, 64), 0.25)
    assert distort(flat, 0).mean((1, 2, 3)) == pytest.approx(torch.full((16,), 0.25), abs=0.01)


def test_blur_keeps_the_place_and_the_sum_of_a_point() -> None:
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1.0
    blurred = distortion._blurred(point, torch.tensor([1.0]))[0, 0]
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(blurred, blurred.flip(0))
    assert torch.allclose(blurred, blurred.T)
    # A Gaussian of deviation 1, cut off at 3 pixels: 0.39905 in the middle of each direction.
    assert blurred[10, 10].item() == pytest.approx(0.39905**2, abs=1e-4)


def test_every_second_picture_is_decoded() -> None:
    drawn, decoded = torch.zeros(6, 3, 64, 64, dtype=torch.uint8), torch.full((6, 3, 64, 64), 255, dtype=torch.uint8)
    means = DistortedScenes([], drawn, decoded).pixels(torch.tensor([4, 2, 0, 1]), 0).mean((1, 2, 3))
    assert (means > 0).tolist() == [True, False, True, False]


def test_decoded_scenes_are_kept_and_look_like_the_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distortion, "PIECE", 4)
    vae = AutoencoderKL.from_pretrained(ASSETS / "model" / "vae", local_files_only=True)
    scenes = random_scenes(6, 9)
    decoded = decoded_scenes(vae, scenes, tmp_path)
    assert decoded.dtype == torch.uint8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decoded-000000.npy", "decoded-000004.npy"]
    assert torch.equal(decoded_scenes(vae, scenes, tmp_path), decoded)
    error = (decoded.float() - torch.from_numpy(rendered(scenes)).float()).abs().mean() / 127.5
    assert 0.01 < error < 0.2
