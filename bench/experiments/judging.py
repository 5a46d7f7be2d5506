"""``bench eval``: evaluate any weights under the protocol, without training, with any guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.core.errors import UserError
from bench.evaluation.sampling_weights import SamplingWeights
from bench.evaluation.weights import Weights, find_run, is_run, released_weights
from bench.experiments.experiment import Experiment
from bench.experiments.method import check_label
from bench.experiments.running import held, judge, judge_base
from bench.models.guidance import ALPHA, BETA
from bench.records.evaluations import Evaluation


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What the user wants evaluated.

    Attributes:
        run: a finished run to evaluate, or None.
        weights: released weights to evaluate: a file, a folder or a hub id, or None.  With neither run nor weights, the base
            model is evaluated.
        name: what tables call released weights; None means their own name.
        negative: a finished run, the base model's run, or released weights, for the unconditional branch of guidance, or None.
        alpha: in ``base + alpha (positive - base) + beta (negative - base)``, the weights of that branch; None means 1.
        beta: likewise; None means 1.
        guidance_scales: one evaluation per scale; empty means the protocol's own.
    """

    run: str | None
    weights: str | None
    name: str | None
    negative: str | None
    alpha: float | None
    beta: float | None
    guidance_scales: Sequence[float]


def judge_request(experiment: Experiment, request: Request) -> Iterator[Evaluation]:
    """Evaluate the base model, then the request; finished work is skipped.

    Raises:
        UserError: the name cannot be used or names no weights, a number is out of range, weights do not exist, are not finished or do not fit, or a negative or a negative prompt is combined with guidance 1.
    """
    check_label(request.name)
    if request.name is not None and request.weights is None:
        raise UserError(f"--name {request.name} is what tables call --weights; add --weights, or leave --name out")
    for option, value in {"alpha": request.alpha, "beta": request.beta}.items():
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{option}={value:g} is not allowed; use a number from 0 to 1")
    scales = request.guidance_scales or [experiment.protocol.generation.guidance_scale]
    positive, negative = find_positive(experiment, request), find_negative(experiment, request)
    if negative is None and (request.alpha, request.beta) != (None, None):
        raise UserError("--alpha and --beta set how --negative is merged; add --negative")
    if negative is not None and min(scales) <= 1:
        raise UserError(
            f"--negative has an effect only with guidance above 1, but the guidance scale is {min(scales):g}; "
            "use --guidance-scale above 1, or leave --negative out"
        )
    if (prompt := experiment.protocol.generation.negative_prompt) and min(scales) <= 1:
        raise UserError(
            f"negative_prompt {prompt!r} has an effect only with guidance above 1, but the guidance scale is {min(scales):g}; "
            "use --guidance-scale above 1, or leave negative_prompt empty"
        )
    alpha = ALPHA if request.alpha is None else request.alpha
    beta = BETA if request.beta is None else request.beta
    judge_base(experiment)
    for scale in scales:
        slots = SamplingWeights(positive, scale, negative, alpha, beta)
        with held(experiment, slots.result_owner.run, wait=True):
            yield judge(experiment, slots)


def find_positive(experiment: Experiment, request: Request) -> Weights:
    """The weights to be evaluated."""
    if request.weights is not None:
        if request.run is not None:
            raise UserError("--run and --weights both name what is evaluated; use one of them")
        if any(is_run(place) for place in (Path(request.weights), experiment.runs / request.weights)):
            raise UserError(f"--weights {request.weights} is a run; use --run {request.weights}")
        return _released(experiment, request.weights, request.name)
    if request.run is None:
        return experiment.base
    weights = find_run(experiment.runs, experiment.name, experiment.base, request.run)
    if weights.negative_scales is not None:
        raise UserError(
            f"{request.run} trained weights for the unconditional branch of guidance, which cannot make images on their own; "
            f"use --negative {request.run}, with or without another --run"
        )
    return weights


def find_negative(experiment: Experiment, request: Request) -> Weights | None:
    """The weights for the unconditional branch of guidance, if any."""
    if request.negative is None:
        return None
    return experiment.find_weights(request.negative)


def _released(experiment: Experiment, typed: str, name: str | None) -> Weights:
    return released_weights(experiment.runs, experiment.name, typed, name, experiment.load_model())
