"""UNets that were trained as flows: which folders are, how they are sampled, and what does not fit them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from pipelines import write_sd15

from bench import ALGORITHMS
from bench.core.errors import UserError
from bench.experiments.recipes import make_method
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.find import find_architecture, find_model
from bench.models.forward_process import FLOW_SCHEDULER, FlowProcess
from bench.models.sampling import build_scheduler
from bench.rollouts.rules import find_rule

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 2.0}
DYNAMIC = {"use_dynamic_shifting": True, "base_image_seq_len": 16, "max_image_seq_len": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("unet") / "model"
    write_sd15(made)
    return made


def with_scheduler(folder: Path, scheduler: Any) -> Path:
    """The folder with another scheduler."""
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps({**index, "scheduler": ["diffusers", type(scheduler).__name__]})
    )
    return folder


@pytest.mark.parametrize(
    ("scheduler", "shift"),
    [
        (UniPCMultistepScheduler(**FLOW), 2.0),
        (UniPCMultistepScheduler(**{**FLOW, "use_karras_sigmas": True}), 2.0),
        (FlowMatchEulerDiscreteScheduler(shift=3.0), 3.0),
    ],
    ids=["UniPC", "UniPC with sigmas of its own", "the flow scheduler"],
)
def test_it_is_sampled_by_the_flow_scheduler_with_its_shift(folder: Path, scheduler: Any, shift: float) -> None:
    found = find_model(str(with_scheduler(folder, scheduler)))
    assert found.card.generation.scheduler == FLOW_SCHEDULER
    assert (found.card.generation.guidance_scale, found.card.generation.height) == (7.5, 16)
    model = found.card.family.load(str(folder), device=torch.device("cpu"))
    made = build_scheduler(found.card.generation.model_copy(update={"steps": 3}), model)
    expected = FlowMatchEulerDiscreteScheduler(shift=shift)
    expected.set_timesteps(3)
    torch.testing.assert_close(made.sigmas, expected.sigmas, rtol=0, atol=0)


def test_a_shift_may_depend_on_the_resolution(folder: Path) -> None:
    with_scheduler(folder, FlowMatchEulerDiscreteScheduler(**DYNAMIC))
    model = StableDiffusion.load(str(folder), device=torch.device("cpu"))
    made = build_scheduler(model.generation.model_copy(update={"steps": 3}), model)
    # Latents of 8x8 are 64 tokens, at which mu is the largest, 1.15.
    assert made.sigmas[0].item() == pytest.approx(1.0)
    assert made.sigmas[1].item() == pytest.approx(
        model.process.sigma(torch.tensor([500]), torch.zeros(1)).item(), abs=2e-3
    )


@pytest.mark.parametrize("name", ["DDIMScheduler", "UniPCMultistepScheduler"])
def test_other_schedulers_are_refused(folder: Path, name: str) -> None:
    with_scheduler(folder, UniPCMultistepScheduler(**FLOW))
    model = StableDiffusion.load(str(folder), device=torch.device("cpu"))
    with pytest.raises(UserError, match=f"{name} cannot sample a model that predicts flow; use {FLOW_SCHEDULER}"):
        build_scheduler(model.generation.model_copy(update={"scheduler": name}), model)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({**FLOW, "use_dynamic_shifting": True}, "use_dynamic_shifting is not supported for UniPCMultistepScheduler"),
        ({**FLOW, "use_flow_sigmas": False}, "prediction_type 'flow_prediction' with use_flow_sigmas=false"),
        ({**FLOW, "prediction_type": "epsilon"}, "prediction_type 'epsilon' with use_flow_sigmas=true"),
    ],
)
def test_a_schedule_that_is_not_clear_is_refused(folder: Path, config: dict[str, Any], sentence: str) -> None:
    with_scheduler(folder, UniPCMultistepScheduler(**config))
    with pytest.raises(UserError, match=sentence):
        find_model(str(folder))


def test_recipes_for_noise_are_not_borrowed(folder: Path) -> None:
    find: tuple[Callable[[str], Any], ...] = (find_model, find_architecture)
    with_scheduler(folder, UniPCMultistepScheduler(**FLOW))
    assert [each(str(folder)).recipe for each in find] == ["sd15-flow", "sd15-flow"]
    found = find_model(str(folder))
    process = found.card.family.load(str(folder), device=torch.device("cpu")).process
    assert isinstance(process, FlowProcess)
    for name in ALGORITHMS:
        algorithm = ALGORITHMS.get(name)
        method = make_method(name, found, {}, pairs=10_000)
        assert method.label == "defaults", name
        if "rule" in algorithm.model_fields:
            find_rule(method.algorithm.rule, method.algorithm.noise, process)  # raises if it is for other models
