"""The entry points for Python and the command line: plan runs, start them, evaluate weights; finished work is skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from bench.core.errors import UserError
from bench.experiments.configurations import Configuration
from bench.experiments.experiment import Choices, EvaluationChoices, Experiment
from bench.experiments.judging import Request, judge_request
from bench.experiments.plan import Plan, plan_configurations
from bench.experiments.results import EvaluationResult, EvaluationResults, RunResults
from bench.training.trackers import check_trackers


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
        algorithms: registered names, or ``all``: each that can run; notes say which cannot, and why.
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
    overrides = as_overrides(settings or {})
    wanted = [Configuration(each, overrides, name) for each in algorithms]
    return plan_configurations(wanted, model, seeds=seeds, same_code=same_code, placebo=placebo, **choices)


def run(
    algo: str | Sequence[str],
    model: str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    same_code: bool = False,
    placebo: bool = False,
    track: Sequence[str] = (),
    **choices: Unpack[Choices],
) -> RunResults:
    """Train algorithms from the same weights on the same pairs and evaluate them under one protocol, as ``bench run`` does.

    Safe to re-run: finished work is skipped, interrupted work resumes.

    Args:
        algo: a registered algorithm, or several, or ``all``: each that can run; notes say which cannot, and why.
        model: a registered model, a diffusers folder or a hub id.
        seeds: training seeds.
        settings: changes to each algorithm's recipe, for example ``{"beta": 500, "steps": 50}``; a budget is
            ``{"budget": {"unit": "forwards", "amount": 20000}}``.
        name: name of this configuration in tables and paths; None means the recipe's name, or a hash of the changes.
        same_code: declare that code which changed since earlier seeds gives the same results; tables say so.
        placebo: add to every run its placebo: the same seed and settings on shuffled preferences, so that a difference between
            the two is what the preferences did.
        track: names of trackers that get what ``train.jsonl`` gets, for example ``["tensorboard"]``; they change no result.
        choices: ``runs``, ``data``, ``columns``, ``prompts``, ``metrics``, ``images``, ``init`` and ``limit``; see
            `bench.Choices`.

    Returns:
        One result per run: all seeds of the first algorithm, then those of its placebo, then those of the next; `notes` says what the command line
        would have printed before the start.

    Raises:
        UserError: something does not exist, is not allowed, or does not fit together.
    """
    check_trackers(track)
    names = [algo] if isinstance(algo, str) else list(algo)
    plan = plan_runs(
        names, model, seeds=seeds, settings=settings, name=name, same_code=same_code, placebo=placebo, **choices
    )
    return RunResults(list(plan.start(track=track)), plan.notes)


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
