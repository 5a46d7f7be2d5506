"""Whether an algorithm can run: each need has a check, and its error says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.core.errors import UserError
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method
from bench.experiments.placebos import refuse_shuffling_nothing
from bench.experiments.rounds import check_rounds
from bench.models.framing import Framing
from bench.records.migrations import current_names
from bench.scoring.fitted import fittable
from bench.scoring.metric import METRICS, DifferentiableMetric, EmbeddingMetric
from bench.training.algorithm import Need
from bench.training.collecting import collection_size, refuse_cut_groups
from bench.training.distributed.launch import check_precision, choose_strategy
from bench.training.online import (
    OnlineAlgorithm,
    SamplingAlgorithm,
    StepwiseAlgorithm,
    check_sampling,
    samples_together,
)
from bench.training.optimizers import OPTIMIZERS
from bench.training.reward_fit import FEWEST_CAPTIONS
from bench.training.settings import ONLINE_UNITS
from bench.training.step_pairs import StepPairAlgorithm


def check_requirements(experiment: Experiment, method: Method) -> None:
    """Raise a `UserError` that says why, if a method cannot run in an experiment."""
    check_settings(method)
    OPTIMIZERS[method.settings.optimizer].refuse(experiment.accelerator.device)
    check_precision(method.settings.precision)
    choose_strategy(experiment.accelerator).check(method.settings, samples_together(method.algorithm))
    if isinstance(method.algorithm, SamplingAlgorithm):
        check_sampling(method.algorithm, experiment.load_model())
    _check_start(experiment, method)
    _check_adapters(experiment, method)
    _check_size_conditioning(experiment, method)
    _check_not_captions_alone(experiment, method)
    _check_read_with_data(experiment, method)
    made = {Need.PAIRS} if method.makes_pairs else set()
    for need in sorted((method.algorithm.needs - made) & CHECKS.keys()):
        CHECKS[need](experiment, method)
    refuse_shuffling_nothing(experiment, method)


def check_settings(method: Method) -> None:
    """Raise a `UserError` that says why, if a method cannot run whatever the model, the data and the machine are."""
    _check_metrics(method)
    _check_budget(method)
    _check_unread(method)
    _check_empty_captions(method)
    _check_adapter_fields(method)
    _check_gradients_by_step(method)
    check_rounds(method)
    if isinstance(method.algorithm, OnlineAlgorithm):
        collection_size(method.algorithm, method.settings)
        refuse_cut_groups(method.algorithm, method.settings)
    for need in sorted(method.algorithm.needs & SETTINGS_CHECKS.keys()):
        SETTINGS_CHECKS[need](method)


def _check_not_captions_alone(experiment: Experiment, method: Method) -> None:
    """Refuse data without images for algorithms that read images."""
    data = experiment.data
    if method.algorithm.reads_pictures and not method.makes_pairs and not data.width:
        raise UserError(
            f"{method.name} reads images, but {data.report.source} has captions alone; give data with images, or take an algorithm "
            "that samples its own, such as ddpo"
        )


def _check_read_with_data(experiment: Experiment, method: Method) -> None:
    """Fields of the algorithm must not be changed where its data leave them without an effect."""
    for field, why in method.algorithm.unread_fields(experiment.data).items():
        if field in method.changed:
            raise UserError(f"{field} has no effect on {method.name}, since {why}; leave it out")


def _check_images(experiment: Experiment, method: Method) -> None:  # noqa: ARG001 (checks share a signature)
    """Any preference data will do for images or prompts, labelled or not; if there is none, reading it raises the error."""
    _ = experiment.data


def _check_pairs(experiment: Experiment, method: Method) -> None:
    """Two images per caption, and a label that says which is preferred."""
    data, needs = experiment.data, f"{method.name} needs {Need.PAIRS}"
    if not data.labelled:
        raise UserError(
            f"{needs}, but {data.report.source} has no column 'label_0'; use labelled pairs, declare that image 0 is always "
            "preferred (--columns label_0=1), or rank the images first: bench data rank"
        )
    if data.width != 2:
        raise UserError(
            f"{needs}, but {data.report.source} has {data.width} images per caption; use pairs, or rank the images first: "
            "bench data rank"
        )


def _check_reward(method: Method) -> None:
    """Its settings must name a metric; `_check_metrics` checks those that are named."""
    if not method.algorithm.trained_on:
        raise UserError(f"{method.name} needs {Need.REWARD}, but its settings do not name a metric; set one")


def _check_reward_gradient(method: Method) -> None:
    """Every metric that is trained on must have a gradient; a decoder without one says so when it is used."""
    for name in method.algorithm.trained_on:
        if not issubclass(METRICS.get(name), DifferentiableMetric):
            raise UserError(
                f"{method.name} needs {Need.REWARD_GRADIENT}, but the metric {name!r} does not have one; choose pickscore, hpsv2, "
                "imagereward, aesthetic, clip or a reward model fitted from one of them, or an algorithm that needs scores alone, such as ddpo"
            )


def _check_fitted_reward(method: Method) -> None:
    """Rounds, and a judge that can be fitted."""
    rounds = method.settings.rounds
    if rounds is None:
        raise UserError(f"{method.name} fits its reward model in rounds; add --rounds, for example --rounds 2")
    fittable(rounds.judge)


def _check_halves(experiment: Experiment, method: Method) -> None:
    """Captions for two halves."""
    if (different := len(set(experiment.data.captions))) < FEWEST_CAPTIONS:
        raise UserError(
            f"{method.name} needs at least {FEWEST_CAPTIONS} different captions, one half for the reward model and one for the policy; "
            f"{experiment.data.report.source} has {different}: give more pairs"
        )


def _check_guidance(experiment: Experiment, method: Method) -> None:
    """Evaluation images must be sampled with an unconditional prediction, which the trained weights make."""
    if not experiment.guided:
        scale = experiment.protocol.generation.guidance_scale
        raise UserError(
            f"{method.name} needs {Need.GUIDANCE}; images of {experiment.name!r} are sampled without it (guidance_scale "
            f"{scale:g}): use --guidance-scale above 1, or a model that is not distilled"
        )


SETTINGS_CHECKS: Mapping[Need, Callable[[Method], None]] = {
    Need.REWARD: _check_reward,
    Need.REWARD_GRADIENT: _check_reward_gradient,
    Need.FITTED_REWARD: _check_fitted_reward,
}
"""What each need says about the settings."""

UNREAD: Mapping[str, Any] = {
    "caption_dropout": 0.0,
    "latents": "sample",
    "horizontal_flip": "none",
    "size_conditioning": "true",
    "aspect_ratios": "square",
}
"""Settings about images and captions of the data, with the values that an algorithm without images may state."""

ADAPTER_FIELDS = ("lora_rank", "lora_init")
"""Settings about adapters."""

CHECKS: Mapping[Need, Callable[[Experiment, Method], None]] = {
    Need.IMAGES: _check_images,
    Need.PROMPTS: _check_images,
    Need.PAIRS: _check_pairs,
    Need.FITTED_REWARD: _check_halves,
    Need.GUIDANCE: _check_guidance,
}
"""What each need says about the model and its data.  A reference is always there: a frozen copy of the network, or the network with its
adapters switched off."""


def _check_budget(method: Method) -> None:
    budget = method.settings.budget
    if budget is not None and budget.unit in ONLINE_UNITS and not isinstance(method.algorithm, SamplingAlgorithm):
        raise UserError(
            f"{method.name} does not sample while it trains, so a budget of {budget.unit} never ends; use --budget with pairs, "
            "forwards or seconds"
        )


def _check_unread(method: Method) -> None:
    """Refuse changed image settings of an algorithm that reads no images."""
    if method.algorithm.reads_pictures:
        return
    for field in current_names(method.changed, own=type(method.algorithm).model_fields):
        if field in UNREAD and getattr(method.settings, field) != UNREAD[field]:
            raise UserError(
                f"{method.name} samples images of its own and reads none of the data's, so {field} has no effect; leave it out"
            )


def _check_empty_captions(method: Method) -> None:
    """Pairs whose captions are dropped must not be trained against those that the algorithm gives an empty caption."""
    if method.algorithm.empties_captions and method.settings.caption_dropout:
        raise UserError(
            f"{method.name} trains pairs with an empty caption in its own way, which those of "
            f"caption_dropout={method.settings.caption_dropout:g} would undo; use caption_dropout=0"
        )


def _check_adapter_fields(method: Method) -> None:
    """Refuse changed adapter settings when all weights are trained; a recipe may state them."""
    if method.settings.trainable == "lora":
        return
    for field in current_names(method.changed, own=type(method.algorithm).model_fields):
        if field in ADAPTER_FIELDS:
            raise UserError(
                f"{method.name} trains all weights (trainable={method.settings.trainable}), so {field} has no effect; add --set "
                "trainable=lora, or leave it out"
            )


def _check_size_conditioning(experiment: Experiment, method: Method) -> None:
    """Refuse a changed size_conditioning for a model that is not conditioned on size."""
    if "size_conditioning" not in current_names(method.changed, own=type(method.algorithm).model_fields):
        return
    model = experiment.load_model()
    if not model.picture_condition(Framing.whole((model.resolution, model.resolution))):
        raise UserError(
            f"{experiment.name!r} is not conditioned on the size of images, so size_conditioning has no effect; leave it out"
        )


def _check_gradients_by_step(method: Method) -> None:
    if method.settings.gradients_by_step and not isinstance(method.algorithm, StepwiseAlgorithm | StepPairAlgorithm):
        raise UserError(
            f"{method.name} does not train single sampling steps, so gradients_by_step has no effect; leave it out"
        )


def _check_adapters(experiment: Experiment, method: Method) -> None:
    if method.settings.trainable == "lora" and experiment.init.folder is not None:
        raise UserError(
            f"{method.name}: LoRA on top of --init {experiment.init.record.title} cannot be saved on its own; leave --init out, "
            "train all weights (--set trainable=full), or give a model folder with the weights to start from as --model"
        )


def _check_start(experiment: Experiment, method: Method) -> None:
    """Refuse --init for algorithms that train one branch of guidance: the other branch would differ at evaluation."""
    algorithm = method.algorithm
    if algorithm.negative and isinstance(algorithm, SamplingAlgorithm) and experiment.init.folder is not None:
        raise UserError(
            f"{method.name} samples with the weights that it starts from in one branch of guidance, but its images are made with the base "
            "model there; leave --init out, or give a model folder with the weights to start from as --model"
        )


def _check_metrics(method: Method) -> None:
    """Every metric that is trained on must be registered (`METRICS.point` suggests similar names), and some need embeddings.

    This is checked whatever the needs are: a wrapper trains on what its objective is trained on.
    """
    for metric in method.algorithm.trained_on:
        METRICS.point(metric)
    for metric in method.algorithm.embedded_by:
        if not issubclass(METRICS.get(metric), EmbeddingMetric):
            raise UserError(
                f"{method.name} needs embeddings, but the metric {metric!r} does not have any; choose a CLIP scorer such as "
                "pickscore or clip"
            )
