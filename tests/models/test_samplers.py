"""Every sampler that is let in: the same images by the same command, whatever is beside them; the others are refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers.utils import dummy_torch_and_scipy_objects
from pages import DOCS
from pipelines import SD_SCHEDULER
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.models.families.flux import Flux
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.families.stable_diffusion_3 import StableDiffusion3
from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.models.sampling import (
    build_scheduler,
    forwards_per_image,
    generate_images,
    refuse_unused_negative_prompt,
    sample,
)
from bench.records.protocol import GenerationSettings

ADMITTED = [
    tuple(re.findall(r"`(\w+Scheduler)`", line))
    for line in (DOCS / "evaluate.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "Scheduler`" in line
]
"""The schedulers that the page about evaluation says are admitted: with noise at every step, without, and for flow."""
DRAWING, SILENT, (FLOW,) = ADMITTED
PLACES = [("a bee", 0), ("a cat on red", 1)]

# diffusers' own use of NumPy, which NumPy 2 announces to change
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


@pytest.fixture(scope="module")
def models(pipeline_folder: Callable[..., Path]) -> dict[str, ModelFamily]:
    cpu = torch.device("cpu")
    return {
        "epsilon": StableDiffusion.load(str(pipeline_folder("sd15")), device=cpu),
        "v": StableDiffusion.load(str(pipeline_folder("sd15", prediction_type="v_prediction")), device=cpu),
        "flow": StableDiffusion3.load(str(pipeline_folder("sd3")), device=cpu),
    }


def settings_of(scheduler: str, **changes: int) -> GenerationSettings:
    return GenerationSettings(
        **{"scheduler": scheduler, "steps": 4, "guidance_scale": 2, "height": 16, "width": 16, **changes}
    )


def latents(model: ModelFamily, scheduler: str, places: Sequence[tuple[str, int]], seed: int = 0) -> Tensor:
    settings, prompts = settings_of(scheduler, seed=seed), [prompt for prompt, _ in places]
    # The same initial noise for every seed: what differs is drawn on the way.
    noise = torch.stack([evaluation_noise(settings_of(scheduler), *place, (4, 8, 8)) for place in places])
    text, negative = model.encode_text(prompts), model.encode_negative([""] * len(prompts))
    draws = evaluation_generators(settings, places)
    return sample(model, Networks.single(model.network), noise, text, negative, settings, draws)


CASES = [
    *(("epsilon", name) for name in (*DRAWING, *SILENT)),
    # v repeats epsilon in what the network's answer is taken for
    *(
        pytest.param("v", name, marks=() if name == "DDIMScheduler" else pytest.mark.slow)
        for name in (*DRAWING, *SILENT)
    ),
    ("flow", FLOW),
]


@pytest.mark.parametrize(("kind", "scheduler"), CASES)
def test_an_image_depends_on_its_address_alone(models: dict[str, ModelFamily], kind: str, scheduler: str) -> None:
    model, state = models[kind], torch.get_rng_state()
    together = latents(model, scheduler, PLACES)
    torch.manual_seed(1)
    assert torch.equal(latents(model, scheduler, PLACES), together)
    reverse = latents(model, scheduler, PLACES[::-1]).flip(0)
    alone = torch.cat([latents(model, scheduler, [place]) for place in PLACES])
    for other in (reverse, alone):  # kernels may sum in another order, which a few steps amplify
        torch.testing.assert_close(other, together, rtol=1e-3, atol=1e-3)
    changed = latents(model, scheduler, PLACES, seed=1)
    assert torch.equal(changed, together) == (scheduler not in DRAWING)
    torch.set_rng_state(state)


@pytest.mark.parametrize(("kind", "scheduler"), CASES)
def test_the_base_models_own_weights_as_released_ones_make_its_images(
    models: dict[str, ModelFamily], pipeline_folder: Callable[..., Path], kind: str, scheduler: str
) -> None:
    model = models[kind]
    changes = {"prediction_type": "v_prediction"} if kind == "v" else {}
    folder = pipeline_folder("sd3") / "transformer" if kind == "flow" else pipeline_folder("sd15", **changes) / "unet"
    settings, prompts = settings_of(scheduler), [prompt for prompt, _ in PLACES]
    noise = torch.stack([evaluation_noise(settings, *place, (4, 8, 8)) for place in PLACES])
    base, released = (
        generate_images(
            model, Networks.single(network), prompts, noise, settings, evaluation_generators(settings, PLACES)
        )
        for network in (model.network, model.load_trained(folder))
    )
    assert np.array_equal(base, released)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize(
    ("own", "stated", "clips"),
    [
        ("PNDMScheduler", {}, False),  # it has no such setting
        ("EulerDiscreteScheduler", {}, False),
        ("LCMScheduler", {}, False),  # its default is another than DDIM's
        ("DDIMScheduler", {}, True),  # diffusers' own pipeline clips
        ("DDIMScheduler", {"clip_sample": False}, False),
        ("PNDMScheduler", {"clip_sample": True}, True),
    ],
)
def test_predicted_images_are_clipped_where_the_models_own_scheduler_does(
    models: dict[str, ModelFamily],
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    own: str,
    stated: dict[str, bool],
    clips: bool,
) -> None:
    model = models["epsilon"]
    config = getattr(diffusers, own).from_config({**SD_SCHEDULER, **stated}).config
    monkeypatch.setattr(model, "scheduler_config", dict(config))
    assert build_scheduler(settings_of(scheduler), model).config.clip_sample == clips


def test_a_schedule_that_is_not_stated_is_that_of_the_models_own_scheduler(
    models: dict[str, ModelFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models["epsilon"], "scheduler_config", dict(diffusers.LCMScheduler().config))
    made = build_scheduler(settings_of("DDIMScheduler"), models["epsilon"]).config
    assert (made.beta_start, made.beta_end, made.beta_schedule) == (0.00085, 0.012, "scaled_linear")


@pytest.mark.parametrize(("scale", "text", "refused"), [(1, "a dog", True), (1, "", False), (2, "a dog", False)])
def test_a_negative_prompt_without_guidance(
    models: dict[str, ModelFamily], scale: int, text: str, refused: bool
) -> None:
    settings = settings_of("DDIMScheduler", guidance_scale=scale).model_copy(update={"negative_prompt": text})
    with (
        pytest.raises(UserError, match="negative_prompt 'a dog' has no effect: images with guidance_scale 1")
        if refused
        else nullcontext()
    ):
        refuse_unused_negative_prompt(models["epsilon"], settings)


def test_a_negative_prompt_of_a_model_without_a_second_prediction(pipeline_folder: Callable[..., Path]) -> None:
    flux = Flux.load(str(pipeline_folder("flux")), device=torch.device("cpu"))
    settings = settings_of(FLOW, guidance_scale=4).model_copy(update={"negative_prompt": "a dog"})
    with pytest.raises(
        UserError, match="has no effect: images by this model, whose guidance is an input of the network, are made"
    ):
        refuse_unused_negative_prompt(flux, settings)


@pytest.mark.parametrize(
    ("kind", "scheduler", "forwards"),
    [
        ("epsilon", "DDIMScheduler", 2 * 6),
        ("epsilon", "HeunDiscreteScheduler", 2 * 11),  # twice in every step but the last
        ("epsilon", "PNDMScheduler", 2 * 15),  # four times in each of the first three
        ("flow", FLOW, 2 * 6),
    ],
)
def test_the_forwards_of_an_image_are_those_that_are_run(
    models: dict[str, ModelFamily], kind: str, scheduler: str, forwards: int
) -> None:
    model, settings, rows = models[kind], settings_of(scheduler, steps=6), 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        nonlocal rows
        rows += len((inputs or tuple(named.values()))[0])

    text, negative = model.encode_text(["a bee"] * 3), model.encode_negative([""] * 3)
    noise = torch.zeros(3, 4, 8, 8)
    with model.network.register_forward_pre_hook(count, with_kwargs=True):
        draws = evaluation_generators(settings, [("a bee", each) for each in range(3)])
        sample(model, Networks.single(model.network), noise, text, negative, settings, draws)
    assert rows == 3 * forwards_per_image(model, settings) == 3 * forwards


def refusal_of(scheduler: str, model: ModelFamily) -> str | None:
    try:
        build_scheduler(settings_of(scheduler), model)
    except UserError as error:
        return str(error)
    return None


def test_every_other_scheduler_of_diffusers_is_refused_in_one_sentence(models: dict[str, ModelFamily]) -> None:
    names = {name for name in dir(diffusers) if "Scheduler" in name and not name.startswith("Flax")}
    allowed: dict[str, set[str]] = {kind: set() for kind in models}
    for kind, model in models.items():
        for name in names:
            complaint = refusal_of(name, model)
            if complaint is None:
                allowed[kind].add(name)
            else:
                assert name in complaint
                assert "\n" not in complaint
    assert allowed == {"epsilon": {*DRAWING, *SILENT}, "v": {*DRAWING, *SILENT}, "flow": {FLOW}}


@pytest.mark.parametrize(
    ("scheduler", "steps", "sentence"),
    [
        ("DPMSolverSDEScheduler", 4, "draws its noise for a whole batch, so that an image would depend on the images beside it"),
        ("AutoencoderKL", 4, "AutoencoderKL is not a scheduler of diffusers"),
        ("logging", 4, "logging is not a scheduler of diffusers"),
        ("DDIM", 4, "diffusers has no scheduler 'DDIM'"),
        ("EDMEulerScheduler", 4, "cannot sample a model that predicts epsilon"),
        ("DDIMScheduler", 1000, "steps=1000 is not possible for a model that was trained with 1000 timesteps"),
        ("LCMScheduler", 51, "LCMScheduler cannot take 51 steps with the noise schedule of this model"),
    ],
)  # fmt: skip
def test_what_cannot_sample(models: dict[str, ModelFamily], scheduler: str, steps: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_scheduler(settings_of(scheduler, steps=steps), models["epsilon"])


def test_a_scheduler_whose_package_is_missing(models: dict[str, ModelFamily], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", dummy_torch_and_scipy_objects.LMSDiscreteScheduler)
    with pytest.raises(
        UserError, match="LMSDiscreteScheduler needs the package scipy, which is not installed; install it"
    ):
        build_scheduler(settings_of("LMSDiscreteScheduler"), models["epsilon"])
