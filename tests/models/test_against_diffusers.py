"""Our sampling loop against the pipelines' own calls: same folder, same prompts, same noise, same scheduler."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from bench.core.randomness import step_generators
from bench.models.families.flux import pack, unpack
from bench.models.find import find_model
from bench.models.guidance import Networks
from bench.models.sampling import sample, uses_classifier_free_guidance

PROMPTS = ["a bee on a red background", "two zebras, somewhere in a very large field"]
STEPS = 4

# diffusers' EulerDiscreteScheduler hands torch tensors to NumPy in a way that NumPy 2 announces to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def ours(folder: Path, noise: Tensor, height: int, width: int, **changes: Any) -> tuple[Tensor, Any]:
    found = find_model(str(folder))
    model = found.card.family.load(str(folder), device=torch.device("cpu"))
    settings = found.card.generation.model_copy(update={"steps": STEPS, "height": height, "width": width, **changes})
    model.check(settings)
    negative = (
        model.encode_negative([settings.negative_prompt] * 2) if uses_classifier_free_guidance(model, settings) else {}
    )
    latents = sample(
        model,
        Networks.single(model.network),
        noise,
        model.encode_text(PROMPTS),
        negative,
        settings,
        step_generators([("test", 0), ("test", 1)]),
    )
    return latents, model.decode(latents)


def theirs(folder: Path, noise: Tensor, height: int, width: int, **call: Any) -> tuple[Tensor, Any]:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **call.pop("parts", {}))
    pipeline.set_progress_bar_config(disable=True)
    scheduler = call.pop("scheduler", None)
    if scheduler is not None:
        # Latents are not clipped: the pipeline's own scheduler, Euler's, has no such setting.
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    arguments = {
        "prompt": PROMPTS, "height": height, "width": width, "num_inference_steps": STEPS, "latents": noise, **call,
    }  # fmt: skip
    latents = pipeline(**arguments, output_type="latent").images
    pictures = pipeline(**arguments, output_type="np").images
    return latents, np.round(pictures * 255).astype(np.uint8)


def assert_same(one: tuple[Tensor, Any], other: tuple[Tensor, Any]) -> None:
    assert one[0].shape == other[0].shape
    assert other[0].abs().max() > 0.5
    torch.testing.assert_close(one[0], other[0], rtol=1e-4, atol=1e-5)
    assert np.abs(one[1].astype(int) - other[1].astype(int)).max() <= 1  # a float's last bit may round to either level


def noise_of(height: int, width: int) -> Tensor:
    return torch.randn(2, 4, height // 2, width // 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", [{}, {"prediction_type": "v_prediction"}], ids=["epsilon", "v"])
@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_sd15(pipeline_folder: Callable[..., Path], changes: dict[str, Any], size: tuple[int, int]) -> None:
    folder, noise = pipeline_folder("sd15", **changes), noise_of(*size)
    assert_same(ours(folder, noise, *size), theirs(folder, noise, *size, guidance_scale=7.5))


def test_v_prediction_with_zero_terminal_snr(pipeline_folder: Callable[..., Path]) -> None:
    folder = pipeline_folder(
        "sd15", prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    noise = noise_of(16, 16)
    assert_same(ours(folder, noise, 16, 16), theirs(folder, noise, 16, 16, guidance_scale=7.5))


def test_a_unet_that_was_trained_as_a_flow(pipeline_folder: Callable[..., Path]) -> None:
    """Diffusers' pipelines for UNets cannot call the flow scheduler, so its steps are written out here."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder, noise = pipeline_folder("sdxl-flow"), noise_of(16, 16)
    latents, _ = ours(folder, noise, 16, 16, guidance_scale=3.0)
    model = find_model(str(folder)).card.family.load(str(folder), device=torch.device("cpu"))
    prompts, nothing = model.encode_text(PROMPTS), model.encode_negative(["", ""])
    condition = {name: torch.cat([nothing[name], prompts[name]]) for name in prompts}
    condition["time_ids"] = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(4, -1)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_timesteps(STEPS)
    expected = noise
    with torch.no_grad():
        for sigma, following in itertools.pairwise(scheduler.sigmas):
            velocity = model.predict(model.network, expected.repeat(2, 1, 1, 1), (1000 * sigma).expand(4), condition)
            without, with_prompt = velocity.chunk(2)
            expected = expected + (following - sigma) * (without + 3.0 * (with_prompt - without))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_sdxl(pipeline_folder: Callable[..., Path], size: tuple[int, int]) -> None:
    folder, noise = pipeline_folder("sdxl"), noise_of(*size)
    assert_same(ours(folder, noise, *size), theirs(folder, noise, *size, guidance_scale=5.0))


def test_sdxl_with_a_negative_prompt_and_another_scheduler(pipeline_folder: Callable[..., Path]) -> None:
    from diffusers import DDIMScheduler

    folder, noise = pipeline_folder("sdxl"), noise_of(16, 16)
    mine = ours(folder, noise, 16, 16, negative_prompt="a dog", scheduler="DDIMScheduler", guidance_scale=3.0)
    call = {"negative_prompt": ["a dog"] * 2, "guidance_scale": 3.0, "scheduler": DDIMScheduler}
    assert_same(mine, theirs(folder, noise, 16, 16, **call))


@pytest.mark.parametrize("changes", [{}, {"use_dynamic_shifting": True}], ids=["fixed shift", "dynamic shift"])
@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_sd3(pipeline_folder: Callable[..., Path], changes: dict[str, Any], size: tuple[int, int]) -> None:
    folder, noise = pipeline_folder("sd3", **changes), noise_of(*size)
    assert_same(ours(folder, noise, *size), theirs(folder, noise, *size, guidance_scale=7.0))


@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"guidance_embeds": False, "use_dynamic_shifting": False, "shift": 1.0}],
    ids=["dev", "schnell"],
)
def test_flux(pipeline_folder: Callable[..., Path], changes: dict[str, Any], size: tuple[int, int]) -> None:
    folder, noise = pipeline_folder("flux", **changes), noise_of(*size)
    latents, pictures = theirs(folder, pack(noise), *size, guidance_scale=3.5)
    assert_same(ours(folder, noise, *size), (unpack(latents, noise.shape[-2:]), pictures))


def test_the_guidance_input_of_flux_matters(pipeline_folder: Callable[..., Path]) -> None:
    folder, noise = pipeline_folder("flux"), noise_of(16, 16)
    one, other = (ours(folder, noise, 16, 16, guidance_scale=scale)[0] for scale in (1.0, 3.5))
    assert (one - other).abs().max() > 1e-3


def test_sd3_without_t5(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder, noise = tmp_path / "no-t5", noise_of(16, 16)
    left_out = {"text_encoder_3": None, "tokenizer_3": None}
    DiffusionPipeline.from_pretrained(pipeline_folder("sd3"), **left_out).save_pretrained(folder)
    assert_same(ours(folder, noise, 16, 16), theirs(folder, noise, 16, 16, guidance_scale=7.0, parts=left_out))
