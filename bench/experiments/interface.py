"""The entry points for Python and the command line: plan runs, start them, evaluate weights; finished work is skipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from bench.core.errors import UserError
from bench.core.progress import part_of
from bench.core.values import digest
from bench.experiments.experiment import Choices, EvaluationChoices, Experiment
from bench.experiments.judging import Request, judge_request
from bench.experiments.method import Method, check_label
from bench.experiments.notes import notes_on_prompts, notes_on_training
from bench.experiments.placebos import with_placebos
from bench.experiments.recipes import make_method, resolve
from bench.experiments.requirements import check_requirements
from bench.experiments.results import EvaluationResult, EvaluationResults, RunResult, RunResults
from bench.experiments.running import Start, judge_base, refuse_other_runs, run_method
from bench.experiments.watching import refuse_unwatchable
from bench.models.find import find_model
from bench.training.algorithm import ALGORITHMS


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Runs that have been checked and can be started.

    Attributes:
        experiment: the experiment in which the methods are compared.
        methods: what is trained.
        seeds: the training seeds of each method.
        notes: sentences to read before starting the runs.
        same_code: see `plan_runs`.
    """

    experiment: Experiment
    methods: Sequence[Method]
    seeds: Sequence[int]
    notes: Sequence[str]
    same_code: bool = False

    def start(self, typed: Sequence[str] = ()) -> Iterator[RunResult]:
        """Evaluate the base model, then train and evaluate one run after another; finished work is skipped.

        Args:
            typed: the command line, for the record.
        """
        start = Start(tuple(typed), self.same_code)
        refuse_other_runs(self.experiment, self.methods, start)
        base = judge_base(self.experiment)
        runs = [(method, seed) for method in self.methods for seed in self.seeds]
        for number, (method, seed) in enumerate(runs, start=1):
            with part_of(f"run {number} of {len(runs)}{'' if method.placebo_of is None else ', placebo'}"):
                folder = run_method(self.experiment, method, seed, start)
            own = folder.evaluation(self.experiment.protocol.signature)
            yield RunResult(folder.folder, method.name, method.label, seed, EvaluationResult(own, base))


def plan_runs(
    algorithms: Sequence[str],
    model: str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    same_code: bool = False,
    placebo: bool = False,
    **choices: Unpack[Choices],
) -> Plan:
    """Resolve and check everything that can be checked before training.

    Args:
        algorithms: registered names.
        model: a registered model, a diffusers folder or a hub id.
        seeds: training seeds.
        settings: changes to each algorithm's recipe, by field of the algorithm or of `bench.TrainingSettings`.
        name: name of this configuration in tables and paths; None means the recipe's name, or a hash of the changes.
        same_code: declare that code which changed since earlier seeds gives the same results.
        placebo: add to every run its placebo: the same seed and settings on shuffled preferences.
        choices: see `Choices`.

    Raises:
        UserError: something does not exist, is not allowed, or does not fit together.
    """
    if not algorithms or not seeds:
        raise UserError(f"there is nothing to run: name at least one {'seed' if algorithms else 'algorithm'}")
    check_label(name)
    overrides = as_overrides(settings or {})
    found = find_model(model)
    for each in algorithms:  # refuses typing errors before any data is read
        resolve(each, ALGORITHMS.get(each), found.recipe, overrides)
    if not (choices.get("prompts") or choices.get("data") or found.card.prompts or found.card.data):
        raise UserError(
            f"model {model!r} has no default evaluation prompts and no default preference data; use --prompts with a file, or with "
            "a set from: bench list prompts, and --data with a file, a folder or a hub id"
        )
    experiment = Experiment(model, **choices)
    given = {} if choices.get("init") is None else {"init": experiment.init.record.digest}
    given |= (
        {} if choices.get("data") is None else {"data": digest([experiment.data.digest, experiment.data.labels_digest])}
    )
    given |= {} if experiment.limit is None else {"limit": str(experiment.limit)}
    methods = [make_method(each, found, overrides, len(experiment.data), name, **given) for each in algorithms]
    for method in methods:
        check_requirements(experiment, method)
        refuse_unwatchable(experiment, method)
    notes = [*notes_on_prompts(experiment), *notes_on_training(experiment, methods)]
    if placebo:
        methods, about_placebos = with_placebos(experiment, methods)
        notes += about_placebos
    return Plan(experiment, methods, seeds, notes, same_code)


def run(
    algo: str | Sequence[str],
    model: str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    same_code: bool = False,
    placebo: bool = False,
    **choices: Unpack[Choices],
) -> RunResults:
    """Train algorithms from the same weights on the same pairs and evaluate them under one protocol, as ``bench run`` does.

    Safe to re-run: finished work is skipped, interrupted work resumes.

    Args:
        algo: a registered algorithm, or several.
        model: a registered model, a diffusers folder or a hub id.
        seeds: training seeds.
        settings: changes to each algorithm's recipe, for example ``{"beta": 500, "steps": 50}``; a budget is
            ``{"budget": {"unit": "forwards", "amount": 20000}}``.
        name: name of this configuration in tables and paths; None means the recipe's name, or a hash of the changes.
        same_code: declare that code which changed since earlier seeds gives the same results; tables say so.
        placebo: add to every run its placebo: the same seed and settings on shuffled preferences, so that a difference between
            the two is what the preferences did.
        choices: ``runs``, ``data``, ``columns``, ``prompts``, ``metrics``, ``images``, ``init`` and ``limit``; see
            `bench.Choices`.

    Returns:
        One result per run: all seeds of the first algorithm, then those of its placebo, then those of the next; `notes` says what the command line
        would have printed before the start.

    Raises:
        UserError: something does not exist, is not allowed, or does not fit together.
    """
    names = [algo] if isinstance(algo, str) else list(algo)
    plan = plan_runs(
        names, model, seeds=seeds, settings=settings, name=name, same_code=same_code, placebo=placebo, **choices
    )
    return RunResults(list(plan.start()), plan.notes)


def evaluate(
    model: str,
    *,
    run: str | Path | None = None,
    weights: str | None = None,
    name: str | None = None,
    negative: str | None = None,
    negative_scales: tuple[float, float] | None = None,
    guidance_scales: Sequence[float] = (),
    **choices: Unpack[EvaluationChoices],
) -> EvaluationResults:
    """Evaluate the base model, a finished run or released weights under the protocol, as ``bench eval`` does.

    Args:
        model: a registered model, a diffusers folder or a hub id.
        run: a finished run, for example ``tiny/dpo/recipe/seed-0``; if ``weights`` is None too, the base model is evaluated.
        weights: released weights: a hub id, a folder or a .safetensors file.
        name: what tables call released weights; None means their own name.
        negative: weights for the unconditional branch of guidance: a run, or released weights.
        negative_scales: alpha and beta of ``base + alpha (positive - base) + beta (negative - base)``; None means (1, 1).
        guidance_scales: one evaluation per scale; empty means the protocol's own.
        choices: ``runs``, ``prompts``, ``metrics``, ``images`` and ``limit``; see `bench.Choices`.

    Raises:
        UserError: something does not exist, is not finished, or does not fit together.
    """
    experiment = Experiment(model, **choices)
    alpha, beta = negative_scales or (None, None)
    request = Request(None if run is None else str(run), weights, name, negative, alpha, beta, guidance_scales)
    # The request evaluates the base model first, so its records are there once the first result is.
    base = experiment.base.run.evaluation(experiment.protocol.signature)
    return EvaluationResults([EvaluationResult(each, base) for each in judge_request(experiment, request)])


def as_overrides(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as the command line has them: ``{"budget.unit": "pairs", "beta": "500"}``.

    Raises:
        UserError: a value is None.
    """
    overrides: dict[str, str] = {}
    for field, value in settings.items():
        if value is None:
            raise UserError(f"settings: {field}=None is not a value; leave {field} out to keep the recipe's")
        if isinstance(value, Mapping):
            overrides |= as_overrides({f"{field}.{part}": inner for part, inner in value.items()})
        elif isinstance(value, bool):
            overrides[field] = str(value).lower()
        elif isinstance(value, list | tuple):
            overrides[field] = ",".join(map(str, value))
        else:
            overrides[field] = str(value)
    return overrides
