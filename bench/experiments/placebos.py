"""Placebos: twins of runs that differ in one thing, that their preferences are shuffled."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import UserError
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method


def why_no_placebo(experiment: Experiment, method: Method) -> str | None:
    """Why shuffling changes nothing for a method, in a sentence; None if it has a placebo."""
    data = experiment.data
    if method.algorithm.placebo is None:
        return f"{method.name} has no placebo: {method.algorithm.no_placebo}"
    judged = method.algorithm.trained_on or method.settings.rounds is not None
    if not data.labelled and not data.scores and not judged:
        return (
            f"{method.name} has no placebo on {data.report.source}: the data has neither labels nor scores to shuffle"
        )
    return None


def with_placebos(experiment: Experiment, methods: Sequence[Method]) -> tuple[list[Method], list[str]]:
    """Every method with its placebo behind it, and a sentence about each placebo, or about why there is none.

    Raises:
        UserError: a method trains on shuffled preferences already.
    """
    planned, notes = [], []
    for method in methods:
        if method.settings.labels == "shuffled":
            raise UserError(
                "--placebo adds runs with shuffled preferences to runs with preferences as given; leave --labels shuffled out"
            )
        planned.append(method)
        if why := why_no_placebo(experiment, method):
            notes.append(why)
            continue
        twin = method.as_placebo()
        planned.append(twin)
        notes.append(f"{twin.name}/{twin.label} is the placebo of {method.label}: {method.algorithm.placebo}")
    return planned, notes


def refuse_shuffling_nothing(experiment: Experiment, method: Method) -> None:
    """Raise a `UserError` if a method is to train on shuffled preferences, but has none."""
    if method.settings.labels == "shuffled" and (why := why_no_placebo(experiment, method)):
        raise UserError(f"{why}; leave --labels shuffled out")
