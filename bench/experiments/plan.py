"""Plans: everything about runs that can be checked before training, checked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol, Unpack

from bench.core.errors import UserError
from bench.core.progress import part_of
from bench.core.validation import build
from bench.core.values import digest
from bench.experiments.configurations import Configuration, select
from bench.experiments.experiment import Choices, Experiment
from bench.experiments.method import Method, check_label
from bench.experiments.notes import notes_on_prompts, notes_on_training
from bench.experiments.placebos import with_placebos
from bench.experiments.recipes import make_method, resolve
from bench.experiments.requirements import check_requirements
from bench.experiments.results import EvaluationResult, RunResult
from bench.experiments.running import Start, judge_base, refuse_other_runs, run_method
from bench.experiments.watching import refuse_unwatchable
from bench.models.find import FoundModel, find_model
from bench.prompts.sets import find_prompts
from bench.records.protocol import GenerationSettings
from bench.scoring.metric import METRICS
from bench.training.algorithm import ALGORITHMS


class At(Protocol):
    """Says of an error which choice it is about, by the keys that lead to it in an experiment file."""

    def __call__(self, *place: str | int) -> contextlib.AbstractContextManager[None]:
        """Errors in the block are about this choice."""
        ...


def nowhere(*place: str | int) -> contextlib.AbstractContextManager[None]:  # noqa: ARG001 (the signature of `At`)
    """Says nothing, for choices that stand in no file."""
    return contextlib.nullcontext()


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Runs that have been checked and can be started.

    Attributes:
        experiment: the experiment in which the methods are compared.
        configurations: what the user wants trained, one for each method that is not the placebo of another.
        methods: what is trained.
        seeds: the training seeds of each method.
        notes: sentences to read before starting the runs.
        same_code: see `plan_runs`.
    """

    experiment: Experiment
    configurations: Sequence[Configuration]
    methods: Sequence[Method]
    seeds: Sequence[int]
    notes: Sequence[str]
    same_code: bool = False

    def start(self, typed: Sequence[str] = (), track: Sequence[str] = (), *, wait: bool = False) -> Iterator[RunResult]:
        """Evaluate the base model, then train and evaluate one run after another; finished work is skipped.

        Args:
            typed: the command line, for the record.
            track: names of trackers that follow the training; see `bench.training.trackers`.
            wait: wait where another process works on a run, instead of refusing.
        """
        start = Start(tuple(typed), self.same_code, tuple(track), wait)
        refuse_other_runs(self.experiment, self.methods, start)
        base = judge_base(self.experiment)
        runs = [(method, seed) for method in self.methods for seed in self.seeds]
        for number, (method, seed) in enumerate(runs, start=1):
            told = [f"run {number} of {len(runs)}", *_told_apart(method, self.methods)]
            with part_of(", ".join(told)):
                folder = run_method(self.experiment, method, seed, start)
            own = folder.evaluation(self.experiment.protocol.signature)
            yield RunResult(folder.folder, method.name, method.label, seed, EvaluationResult(own, base))


def _told_apart(method: Method, methods: Sequence[Method]) -> Iterator[str]:
    """The settings in which a method differs from others of its algorithm, and whether it is a placebo."""
    others = [other.changed for other in methods if other.name == method.name]
    for field, value in method.changed.items():
        if any(other.get(field) != value for other in others):
            yield f"{field}={value}"
    if method.placebo_of is not None:
        yield "placebo"


def plan_configurations(
    wanted: Sequence[Configuration],
    model: str,
    *,
    seeds: Sequence[int] = (0,),
    same_code: bool = False,
    placebo: bool = False,
    at: At = nowhere,
    **choices: Unpack[Choices],
) -> Plan:
    """As `bench.experiments.interface.plan_runs`, for algorithms that each have settings and a name of their own.

    Args:
        wanted: what is trained.
        model: a registered model, a diffusers folder or a hub id.
        seeds: training seeds.
        same_code: declare that code which changed since earlier seeds gives the same results.
        placebo: add to every run its placebo: the same seed and settings on shuffled preferences.
        at: says of an error which choice it is about.
        choices: see `Choices`.

    Raises:
        UserError: something does not exist, is not allowed, or does not fit together.
    """
    if not wanted or not seeds:
        raise UserError(f"there is nothing to run: name at least one {'seed' if wanted else 'algorithm'}")
    for each in wanted:
        with at(*each.place, "label"):
            check_label(each.label)
    with at("model"):
        found = find_model(model)
    select(wanted, lambda each: _check_settings(each, found, at))  # refuses typing errors before any data is read
    _check_evaluation(found, choices, at)
    if not (choices.get("prompts") or choices.get("data") or found.card.prompts or found.card.data):
        raise UserError(
            f"model {model!r} has no default evaluation prompts and no default preference data; use --prompts with a file, or with "
            "a set from: bench list prompts, and --data with a file, a folder or a hub id"
        )
    experiment = Experiment(model, **choices)
    with at("init"):
        given = {} if choices.get("init") is None else {"init": experiment.init.record.digest}
    with at("data"):
        data = experiment.data
        given |= {} if choices.get("data") is None else {"data": digest([data.digest, data.labels_digest])}
    given |= {} if experiment.limit is None else {"limit": str(experiment.limit)}

    def checked(each: Configuration) -> Method:
        with at(*each.place):
            method = make_method(each.algorithm, found, each.overrides, len(data), each.label, **given)
            check_requirements(experiment, method)
            refuse_unwatchable(experiment, method)
        return method

    chosen, left_out = select(wanted, checked)
    methods = [method for _, method in chosen]
    notes = [*left_out, *notes_on_prompts(experiment), *notes_on_training(experiment, methods)]
    if placebo:
        methods, about_placebos = with_placebos(experiment, methods)
        notes += about_placebos
    return Plan(experiment, [each for each, _ in chosen], methods, seeds, notes, same_code)


def _check_settings(wanted: Configuration, found: FoundModel, at: At) -> None:
    """Raise the `UserError` about an algorithm's settings, with the place of the setting that is not allowed even alone."""
    with at(*wanted.place, "name"):
        algorithm = ALGORITHMS.get(wanted.algorithm)
    try:
        resolve(wanted.algorithm, algorithm, found.recipe, wanted.overrides)
    except UserError:
        for field in dict.fromkeys(name.partition(".")[0] for name in wanted.overrides):
            alone = {name: value for name, value in wanted.overrides.items() if name.partition(".")[0] == field}
            with at(*wanted.place, "settings", next(iter(alone))):
                resolve(wanted.algorithm, algorithm, found.recipe, alone)
        with at(*wanted.place):
            raise


def _check_evaluation(found: FoundModel, choices: Choices, at: At) -> None:
    """Raise the `UserError` about metrics, prompts or images, with its place."""
    for metric in choices.get("metrics") or ():
        with at("metrics"):
            METRICS.point(metric)
    if prompts := choices.get("prompts"):
        with at("prompts"):
            find_prompts(prompts)
    default, changes = found.card.generation.model_dump(), choices.get("images") or {}
    try:
        build(GenerationSettings, {**default, **changes}, "images")
    except UserError:
        for field, value in changes.items():
            with at("images", field):
                build(GenerationSettings, {**default, field: value}, "images")
        with at("images"):
            raise
