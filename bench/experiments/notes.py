"""Notes for whoever starts a run: what is allowed, but worth knowing before it costs hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.experiments.experiment import Experiment
from bench.experiments.method import Method
from bench.experiments.recipes import outdated_names, recipe_key, recipe_of, without_recipe
from bench.training.algorithm import ALGORITHMS, Need
from bench.training.held_out import trained_rows
from bench.training.online import SamplingAlgorithm
from bench.training.settings import TrainingSettings


def expected_steps(settings: TrainingSettings) -> float | None:
    """How many steps training takes; None if a budget leaves that open."""
    if settings.budget is None:
        return settings.steps
    return settings.budget.amount / settings.global_batch_size if settings.budget.unit == "pairs" else None


def notes_on_prompts(experiment: Experiment) -> Iterator[str]:
    """Notes on the evaluation prompts."""
    if experiment.repeated_prompts:
        yield (
            f"{experiment.repeated_prompts} of {experiment.given_prompts} evaluation prompts are repeats and are left out: "
            "their images would be identical and add no evidence"
        )
    if experiment.unused_columns:
        yield f"not used of the prompts' table: {', '.join(experiment.unused_columns)}; results are over all prompts together"


def notes_on_training(experiment: Experiment, methods: Sequence[Method]) -> Iterator[str]:
    """Notes on the methods and their training data."""
    if seen := experiment.prompts_in_training:
        yield f"{seen} of {len(experiment.prompts)} evaluation prompts are also captions in the training data"
    if methods and (renamed := outdated_names(type(methods[0].algorithm), methods[0].changed)):
        yield renamed
    for method in methods:
        algorithm, settings = ALGORITHMS.get(method.name), method.settings
        if method.note is not None:
            yield method.note
        key = recipe_key(method.name, algorithm, experiment.found.recipe, method.changed)
        if without := without_recipe(method.name, algorithm, key, settings):
            yield without
        for_all_weights = recipe_of(algorithm, key).training.get("trainable", "full") == "full"
        if settings.trainable == "lora" and for_all_weights and "learning_rate" not in method.changed:
            yield (
                f"{method.name} trains LoRA adapters at learning rate {settings.learning_rate:g}, which its recipe uses for full "
                "fine-tuning; adapters usually need a higher one: --set learning_rate=..."
            )
        if late := _late_learning_rate(settings):
            yield f"{method.name} {late}: --set warmup_steps=..."
        if repeats := _repeats(experiment, method):
            yield f"{method.name} {repeats}"
        if guided := _other_guidance(experiment, method):
            yield f"{method.name} {guided}"


def _other_guidance(experiment: Experiment, method: Method) -> str | None:
    """That weights which serve a branch of guidance are evaluated at another scale than they are trained at; None if they are not."""
    algorithm, evaluated = method.algorithm, experiment.protocol.generation.guidance_scale
    if not isinstance(algorithm, SamplingAlgorithm) or Need.GUIDANCE not in algorithm.needs:
        return None
    if (trained := algorithm.guidance_scale) == evaluated:
        return None
    return (
        f"trains one branch of guidance at guidance_scale {trained:g}, but its images are made at {evaluated:g}: "
        f"--set guidance_scale={evaluated:g}"
    )


def _repeats(experiment: Experiment, method: Method) -> str | None:
    """What a batch of more pairs or captions than the data has means; None for a smaller one."""
    algorithm, size, data = method.algorithm, method.settings.global_batch_size, experiment.data
    if not isinstance(algorithm, SamplingAlgorithm):
        few = size > len(data)
        return (
            f"has a batch of {size} pairs, but the data has only {len(data)}: one step uses some pairs several times"
            if few
            else None
        )
    captions, trained = algorithm.captions_together(size), len(trained_rows(data.captions, algorithm.held_out))
    if captions <= trained:
        return None
    return (
        f"samples images of {captions} captions at a time, but trains on only {trained} rows of the data: some are sampled "
        "several times, with other noise"
    )


def _late_learning_rate(settings: TrainingSettings) -> str | None:
    """What a warm-up of more than half of the training means; None for a shorter one."""
    warmup, steps = settings.warmup_steps, expected_steps(settings)
    if steps is None or 2 * warmup <= steps:
        return None
    training = "its training" if settings.rounds is None else "a round"
    again = "" if settings.rounds is None else " and restarts in each"
    if warmup > steps:
        return f"never reaches its learning rate: its warm-up ({warmup:,} steps) is longer than {training} ({steps:,.0f} steps){again}"
    return f"reaches its learning rate only at step {warmup:,} of {steps:,.0f}{'' if settings.rounds is None else ' of each round'}"
