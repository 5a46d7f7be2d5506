"""Generating images from noise under the protocol."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.models.family import ModelFamily
from bench.models.forward_process import FLOW_SCHEDULER, FlowProcess, flow_scheduler_config
from bench.models.framing import Framing
from bench.models.guidance import Networks, guide
from bench.records.protocol import GenerationSettings

StepGenerators = Callable[[int], list[torch.Generator]]
"""The number of a sampling step -> a generator on the CPU for each image, from which the step draws its noise."""

WHOLE_BATCH = ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler")
"""Schedulers that draw noise for a whole batch from one Brownian motion, so that an image depends on its neighbours."""

CLIPPING = "clip_sample"
"""The setting of diffusers' schedulers by which they clip predicted images."""
NOISE_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
"""The settings that say what a model was trained on."""
DEFAULTS = "_use_default_values"
"""Where a configuration of diffusers names the settings that its file does not state."""

COUSIN = "DDIMScheduler"
"""The diffusers schedulers that are built from its configuration are those for UNets, here used for models that predict epsilon or v."""


def build_scheduler(settings: GenerationSettings, model: ModelFamily) -> Any:
    """The diffusers scheduler of the protocol, with the model's own noise schedule, set for the protocol's size and steps.

    Raises:
        UserError: diffusers has no scheduler of that name, or it is not one for this kind of model, or draws noise that
            cannot be addressed, or cannot take so many steps.
    """
    kind, flow = _scheduler_class(settings.scheduler, model), isinstance(model.process, FlowProcess)
    trained, config = model.process.train_timesteps, model.scheduler_config
    if not flow and settings.steps >= trained:
        raise UserError(
            f"steps={settings.steps} is not possible for a model that was trained with {trained} timesteps; use fewer steps"
        )
    try:
        scheduler = kind.from_config(flow_scheduler_config(config) if flow else own_settings(config))
        model.set_timesteps(scheduler, settings.steps, model.latent_shape(settings.height, settings.width))
    except (ValueError, NotImplementedError, ImportError, ZeroDivisionError, IndexError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{settings.scheduler} cannot take {settings.steps} steps with the noise schedule of this model ({why}); choose "
            "another scheduler or number of steps"
        ) from error
    return scheduler


def own_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model's scheduler for another class of diffusers, whose defaults are not the model's.

    Diffusers would take the other class's default for what the file does not state.  DDIM's default is to clip predicted images to
    [-1, 1], which latents exceed; a model whose own scheduler has no such setting, as PNDM's and Euler's, is sampled without.
    """
    kept = {CLIPPING: False, **config}
    return {**kept, DEFAULTS: [name for name in config.get(DEFAULTS, ()) if name not in (CLIPPING, *NOISE_SCHEDULE)]}


def _scheduler_class(name: str, model: ModelFamily) -> Any:
    import diffusers

    kind = getattr(diffusers, name, None)
    if kind is None:
        raise UserError(f"diffusers has no scheduler {name!r}; give a class name such as DDIMScheduler")
    if name in WHOLE_BATCH:
        raise UserError(
            f"{name} draws its noise for a whole batch, so that an image would depend on the images beside it; use another "
            "sampler with noise, such as DDPMScheduler"
        )
    # Where a package is missing, diffusers has a class of the same name that only says so.
    if absent := [each for each in getattr(kind, "_backends", ()) if each != "torch"]:
        raise UserError(
            f"{name} needs the package {' and '.join(absent)}, which is not installed; install it, or use another scheduler such "
            "as DDIMScheduler"
        )
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise UserError(f"{name} is not a scheduler of diffusers; give a class name such as DDIMScheduler")
    flow = isinstance(model.process, FlowProcess)
    fits = name == FLOW_SCHEDULER if flow else _samples_diffusion(kind)
    if not fits:
        better = FLOW_SCHEDULER if flow else "one for diffusion models such as DDIMScheduler"
        raise UserError(f"{name} cannot sample a model that predicts {model.process.prediction_type}; use {better}")
    return kind


def _samples_diffusion(kind: Any) -> bool:
    """Whether a scheduler class goes from noise to an image, for a network that predicts epsilon or v."""
    # LCM and TCD state no relatives, but have DDIM's parameters.
    related = COUSIN in kind._compatibles or kind.__name__ in {"LCMScheduler", "TCDScheduler"}  # noqa: SLF001
    return (
        related
        and hasattr(kind, "step")
        and not kind.__name__.startswith("CogVideoX")
        and "Inverse" not in kind.__name__
    )


def uses_classifier_free_guidance(model: ModelFamily, settings: GenerationSettings) -> bool:
    """Whether guidance needs a second prediction, with the negative prompt."""
    return model.classifier_free and settings.guidance_scale > 1


def refuse_unused_negative_prompt(model: ModelFamily, settings: GenerationSettings) -> None:
    """Raise a `UserError` if images are made without the negative prompt that was set."""
    if not settings.negative_prompt or uses_classifier_free_guidance(model, settings):
        return
    if model.classifier_free:
        why, advice = f"with guidance_scale {settings.guidance_scale:g}", "set a guidance_scale above 1, or "
    else:
        why, advice = "by this model, whose guidance is an input of the network,", ""
    raise UserError(
        f"negative_prompt {settings.negative_prompt!r} has no effect: images {why} are made without one; {advice}leave negative_prompt empty"
    )


def forwards_per_image(model: ModelFamily, settings: GenerationSettings) -> int:
    """How often the network is called for an image, once per branch of guidance; a scheduler may call it more than once per step."""
    branches = 2 if uses_classifier_free_guidance(model, settings) else 1
    return branches * len(build_scheduler(settings, model).timesteps)


@torch.no_grad()
def sample(
    model: ModelFamily,
    networks: Networks,
    noise: Tensor,
    condition: Mapping[str, Tensor],
    negative: Mapping[str, Tensor],
    settings: GenerationSettings,
    generators: StepGenerators,
) -> Tensor:
    """Denoise ``noise`` (B, ...) under guidance; clean latents of the same shape, float32.

    Args:
        networks: the networks in the two slots of guidance; with guidance 1 only the positive one is called.
        condition: embeddings of the prompts, leading axis B.
        negative: embeddings of the negative prompt, leading axis B; used only under classifier-free guidance.
        generators: for samplers that draw noise at every step; others leave them alone.
    """
    scheduler = build_scheduler(settings, model)
    guided = uses_classifier_free_guidance(model, settings)
    branches = networks.branches(condition, negative) if guided else [(networks.positive, condition)]
    branches = [
        (network, {**conditioning, **size_and_guidance(model, settings, conditioning)})
        for network, conditioning in branches
    ]
    # The flow scheduler has no init_noise_sigma: the network takes its latents unscaled.
    latents: Tensor = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scales = hasattr(scheduler, "scale_model_input")
    draws = "generator" in inspect.signature(scheduler.step).parameters
    for number, t in enumerate(scheduler.timesteps):
        inputs = scheduler.scale_model_input(latents, t) if scales else latents
        with torch.autocast(latents.device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
            prediction = torch.cat(
                [_predict(model, network, inputs, t, conditioning) for network, conditioning in branches]
            ).float()
        if guided:
            without, with_prompt = prediction.chunk(2)
            prediction = guide(without, with_prompt, settings.guidance_scale)
        latents = scheduler.step(
            prediction, t, latents, **({"generator": generators(number)} if draws else {})
        ).prev_sample
    return latents


def _predict(
    model: ModelFamily, network: nn.Module, inputs: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]
) -> Tensor:
    """Predictions for ``inputs`` (B, ...), repeated for each of the n conditions in ``conditioning`` (n B, ...); (n B, ...)."""
    repeats = len(next(iter(conditioning.values()))) // len(inputs)
    inputs = torch.cat([inputs] * repeats)
    return model.predict(network, inputs, t.expand(len(inputs)).to(inputs.device), conditioning)


def generate_images(
    model: ModelFamily,
    networks: Networks,
    prompts: Sequence[str],
    noise: Tensor,
    settings: GenerationSettings,
    generators: StepGenerators,
) -> NDArray[np.uint8]:
    """Generate images of prompts from given noise (B, ...); uint8, (B, H, W, 3); see `sample` for ``generators``."""
    condition, negative = encode_prompts(model, prompts, settings)
    return model.decode(sample(model, networks, noise, condition, negative, settings, generators))


def encode_prompts(
    model: ModelFamily, prompts: Sequence[str], settings: GenerationSettings
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embeddings of B prompts, and of the negative prompt as often, as `sample` takes them; none of the latter without classifier-free guidance."""
    condition = model.encode_text(prompts)
    if not uses_classifier_free_guidance(model, settings):
        return condition, {}
    return condition, model.encode_negative([settings.negative_prompt] * len(prompts))


def size_and_guidance(
    model: ModelFamily, settings: GenerationSettings, prompts: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Conditioning other than the prompts: size and crop of the images, and guidance if it is an input."""
    embeddings = next(iter(prompts.values()))
    count, device = len(embeddings), embeddings.device
    whole = model.picture_condition(Framing.whole((settings.height, settings.width)))
    conditioning = {name: value.to(device).expand(count, *value.shape) for name, value in whole.items()}
    if not model.classifier_free:
        conditioning["guidance"] = torch.full((count,), settings.guidance_scale, device=device)
    return conditioning
