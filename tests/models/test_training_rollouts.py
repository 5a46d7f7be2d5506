"""Rollouts of training without noise are the images of each family's own sampler: prompts, sizes and guidance reach the network alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pipelines import WRITERS
from torch import Tensor

from bench import ODE, Condition
from bench.experiments.training_sampler import EncodedNow
from bench.models.find import find_model
from bench.models.guidance import Networks
from bench.models.sampling import sample
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.sampler import roll_out
from bench.training.prompting import Prompting

CPU = torch.device("cpu")
PROMPTS = ["a bee", "two large dogs"]
STEPS = 4


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers, for Euler
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", WRITERS)
@torch.no_grad()
def test_without_noise_they_are_the_images_of_the_evaluation(
    pipeline_folder: Callable[..., Path], kind: str, scale: float
) -> None:
    folder = pipeline_folder(kind)
    model = find_model(str(folder)).card.family.load(str(folder), device=CPU)
    side, count = model.resolution, len(PROMPTS)
    changes = {"steps": STEPS, "guidance_scale": scale, "height": side, "width": side}
    settings = model.generation.model_copy(update=changes)
    start = torch.randn(count, *model.latent_shape(side, side), generator=torch.Generator().manual_seed(3))
    texts, negative = model.encode_text(PROMPTS), model.encode_negative([""] * count)
    expected = sample(model, Networks.single(model.network), start, texts, negative, settings, lambda _: [])

    def predict(latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return model.predict(model.network, latents, model.process.network_times(times), condition)

    denoise = Prompting(model, EncodedNow(model), scale, CPU).guide(PROMPTS)(predict)
    level = torch.full((count,), STEPS)
    found = roll_out(denoise, evaluation_grid(model, STEPS), [ODE] * STEPS, start, level).final
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-2
