"""What a whole study will cost: all runs of all configurations, and the evaluations of the base models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from bench.planning.gpus import GpuSpec
from bench.planning.plan import Plan
from bench.planning.show import Row, assumptions, duration, figures_table, rounds_bytes, size_on_disk, titled_table
from bench.planning.sizes import Sizes


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedRuns:
    """All runs of one configuration.

    Attributes:
        plan: what each of them costs.
        seeds: the number of training seeds.
        placebos: how many placebos there are besides, one per seed or none; each costs as much as a run.
    """

    plan: Plan
    seeds: int
    placebos: int = 0

    @property
    def runs(self) -> int:
        """How many runs there are, placebos included."""
        return self.seeds + self.placebos


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedModel:
    """All runs on one model, which share its caches and the evaluation of the base model.

    Attributes:
        sizes: how much data and how many images per evaluation there are.
        configurations: the runs, by configuration; at least one.
    """

    sizes: Sizes
    configurations: Sequence[PlannedRuns]

    @property
    def evaluations(self) -> int:
        """One of every run, and one of the base model."""
        return 1 + sum(each.runs for each in self.configurations)

    @property
    def disk(self) -> int:
        """Bytes of caches, weights, checkpoints and images."""
        plans = [each.plan for each in self.configurations]
        caches = self.sizes.rows * max(plan.latent_bytes for plan in plans) + self.sizes.captions * plans[0].text_bytes
        kept = (
            each.plan.checkpoint_bytes + each.plan.weights_bytes + rounds_bytes(each.plan)
            for each in self.configurations
        )
        runs = sum(each.runs * size for each, size in zip(self.configurations, kept, strict=True))
        return caches + runs + self.evaluations * self.sizes.images * plans[0].image_bytes

    def seconds(self, gpu: GpuSpec, utilisation: float) -> Mapping[str, float]:
        """How long each part takes on one GPU per process: encoding, which is done once, training and evaluating."""
        plans = [each.plan for each in self.configurations]
        first, flops = plans[0], max(plan.encoding_flops for plan in plans)
        encoded = gpu.peak("fp32") * utilisation * first.processes
        evaluated = gpu.peak(first.image_precision) * utilisation * first.processes
        return {
            "encoding": self.sizes.rows * flops / encoded,
            "training": sum(
                each.runs * each.plan.seconds(gpu.peak(each.plan.settings.precision), utilisation)
                for each in self.configurations
            ),
            "evaluating": self.evaluations * self.sizes.images * first.flops_per_image / evaluated,
        }


def total_table(models: Sequence[PlannedModel]) -> Table:
    """Runs, evaluations, pairs, images and disk of a study."""
    return figures_table("all runs together", total_rows(models))


def total_rows(models: Sequence[PlannedModel]) -> Iterable[Row]:
    """Labels, figures and remarks; see `bench.planning.show.plan_rows`."""
    every = [each for model in models for each in model.configurations]
    runs, placebos = sum(each.runs for each in every), sum(each.placebos for each in every)
    besides = f", and {_number(placebos, 'placebo')}" if placebos else ""
    yield ("runs", f"{runs:,}", f"{_number(len(every), 'configuration')} x {_number(every[0].seeds, 'seed')}{besides}")
    evaluations = sum(model.evaluations for model in models)
    yield ("evaluations", f"{evaluations:,}", f"{runs:,} of runs, {len(models):,} of base models")
    images = sum(model.evaluations * model.sizes.images for model in models)
    yield ("evaluation images", f"{images:,}", "of all evaluations")
    for unit, sampled in (("pairs", False), ("samples", True)):
        alike = [each for each in every if bool(each.plan.reward_calls) == sampled]
        counted = [each.runs * each.plan.pairs for each in alike if each.plan.pairs is not None]
        without = "of all runs" if len(counted) == len(alike) else "of runs without a budget in seconds"
        if counted:
            yield (unit, f"{sum(counted):,.0f}", without)
    disk = size_on_disk(sum(model.disk for model in models))
    yield (
        "disk",
        disk,
        "at most: encoded data; weights, checkpoint and images of every run; without what methods compute of the data",
    )


def total_gpus_table(models: Sequence[PlannedModel], gpus: Mapping[str, GpuSpec], utilisation: float) -> Table:
    """How long all runs take on each GPU, one after another, and whether all of them fit."""
    every = [each.plan for model in models for each in model.configurations]
    precisions = dict.fromkeys(plan.settings.precision for plan in every)
    title = f"all runs, one after another, {assumptions(every[0].processes, precisions, utilisation)}"
    table = titled_table(title, ("GPU", "fits", "encoding", "training", "evaluating", "in all"))
    for name, gpu in gpus.items():
        parts = [model.seconds(gpu, utilisation) for model in models]
        seconds = [sum(part[what] for part in parts) for what in ("encoding", "training", "evaluating")]
        fitting = sum(not plan.lacking(gpu) for plan in every)
        fits = "yes" if fitting == len(every) else f"{fitting} of {len(every)}" if fitting else "no"
        table.add_row(name, fits, *map(duration, seconds), duration(sum(seconds)))
    return table


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
