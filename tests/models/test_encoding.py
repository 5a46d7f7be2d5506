"""What pictures become before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.models.find import find_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["sd15", "sd3"])
def test_a_posterior_is_that_of_the_autoencoder_on_the_scale_of_the_denoiser(
    pipeline_folder: Callable[..., Path], kind: str
) -> None:
    folder = str(pipeline_folder(kind))
    model = find_model(folder).card.family.load(folder, device=CPU)
    vae = model.encoders["vae"]
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(3, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        published = vae.encode(images).latent_dist
        drawn = published.mean + published.std * noise
    scaled = (drawn - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    found = model.encode_images(images)
    assert found.deviation.min() > 0
    torch.testing.assert_close(found.draw(noise), scaled, rtol=1e-5, atol=1e-6)
