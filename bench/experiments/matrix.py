"""The matrix of a study: every combination of model, configuration and seed, planned, and one command for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.core.commas import join_commas
from bench.core.errors import UserError
from bench.experiments.configurations import Configuration
from bench.experiments.plan import At, Plan, nowhere, plan_configurations
from bench.experiments.study import Study
from bench.records.studies import Cell


def plan_study(study: Study, at: At = nowhere) -> list[Plan]:
    """Check everything about a study that can be checked before training: one plan per model.

    Args:
        study: the study.
        at: says of an error where in the experiment file its cause is.

    Raises:
        UserError: something does not exist, is not allowed, or does not fit together; or two configurations have one name.
    """
    with at():
        wanted = list(study.configurations())
    for number, entry in enumerate(study.algorithms):
        count = sum(each.place == ("algorithms", number) for each in wanted)
        if entry.label is not None and count > 1:
            with at("algorithms", number, "label"):
                raise UserError(
                    f"label {entry.label!r} names one configuration, but the settings are a grid of {count}; leave label out"
                )
    plans = []
    for model in study.model:
        with at():
            plan = plan_configurations(
                wanted,
                model,
                seeds=study.seeds,
                same_code=study.same_code,
                placebo=study.placebo,
                at=at,
                **study.choices(),
            )
            _refuse_same_names(plan)
        plans.append(plan)
    return plans


def cells_of(study: Study, plans: Sequence[Plan], processes: int = 1) -> list[Cell]:
    """The commands of a study in their order: first each base model's evaluation, then the runs.

    Args:
        study: the study.
        plans: what `plan_study` returns for it.
        processes: processes that share each of them.
    """
    pairs = list(zip(study.model, plans, strict=True))
    cells = [_base_cell(study, model, plan) for model, plan in pairs]
    cells += [cell for model, plan in pairs for cell in _run_cells(study, model, plan)]
    return [dataclasses.replace(cell, processes=processes) for cell in cells]


def _base_cell(study: Study, model: str, plan: Plan) -> Cell:
    experiment = plan.experiment
    return Cell(
        f"{experiment.name}/base",
        ("eval", "--model", model, *_evaluation_words(study)),
        experiment.protocol.signature,
        experiment.metric_names,
    )


def _run_cells(study: Study, model: str, plan: Plan) -> Iterator[Cell]:
    experiment = plan.experiment
    wanted, configuration = iter(plan.configurations), None
    for method in plan.methods:
        twin = study.placebo and method.placebo_of is not None
        configuration = configuration if twin else next(wanted)
        if configuration is None:
            raise AssertionError("a placebo follows the method whose twin it is")
        for seed in plan.seeds:
            yield Cell(
                f"{experiment.name}/{method.name}/{method.label}/seed-{seed}",
                (
                    *("run", "--algo", method.name, "--model", model, "--seeds", str(seed)),
                    *_training_words(study, configuration, twin=twin),
                    *_evaluation_words(study),
                ),
                experiment.protocol.signature,
                experiment.metric_names,
                after=f"{experiment.name}/base",
            )


def _training_words(study: Study, configuration: Configuration, *, twin: bool) -> Iterator[str]:
    """The options that only ``bench run`` has; of a configuration, or of its placebo, whose labels are shuffled."""
    for field, value in configuration.overrides.items():
        if not (twin and field == "labels"):
            yield from ("--set", f"{field}={value}")
    if twin:
        yield from ("--labels", "shuffled")
    yield from _options({"data": study.data, "init": study.init, "name": configuration.label})
    if study.columns:
        yield from ("--columns", join_commas(f"{name}={column}" for name, column in study.columns.items()))
    if study.track:
        yield from ("--track", join_commas(study.track))
    if study.same_code:
        yield "--same-code"
    if study.wait:
        yield "--wait"


def _evaluation_words(study: Study) -> Iterator[str]:
    """The options that ``bench run`` and ``bench eval`` have in common."""
    metrics = None if study.metrics is None else join_commas(study.metrics)
    yield from _options({"prompts": study.prompts, "metrics": metrics, "limit": study.limit})
    for field, value in (study.images or {}).items():
        yield from ("--image", f"{field}={str(value).lower() if isinstance(value, bool) else value}")
    yield from ("--runs", study.runs)


def _options(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:
            yield from (f"--{name}", str(value))


def _refuse_same_names(plan: Plan) -> None:
    """Two configurations that share a folder would be one run, or two that refuse each other after hours."""
    names = [f"{method.name}/{method.label}" for method in plan.methods]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two configurations are called {name}; give each its own label, or remove one")
