"""``bench eval``: any weights under the protocol, without training, with any guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.core.errors import UserError
from bench.evaluation.sampling_weights import SamplingWeights
from bench.evaluation.weights import Weights, find_run, is_run, released_weights
from bench.experiments.experiment import Experiment
from bench.experiments.running import held, judge, judge_base
from bench.models.guidance import ALPHA, BETA
from bench.records.runs import Evaluation


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What was asked for.

    Attributes:
        run: a finished run to judge; None without.
        weights: released weights to judge, a file, a folder or a hub id; None without.  Without run and weights, the base model is judged.
        name: what tables call released weights; None is their own name.
        negative: a finished run, the base model's run, or released weights as above, for the negative slot; None without.
        alpha: share of the positive weights' offset in the negative slot; None is all of it.
        beta: share of the negative weights' offset in the negative slot; None is all of it.
        guidance_scales: one evaluation for each; none is the protocol's own.
    """

    run: str | None
    weights: str | None
    name: str | None
    negative: str | None
    alpha: float | None
    beta: float | None
    guidance_scales: Sequence[float]


def judge_request(experiment: Experiment, request: Request) -> Iterator[Evaluation]:
    """Evaluate the base model, then what was asked for; what is already there is not done again.

    Raises:
        UserError: weights that do not exist, are not finished or do not fit, or a negative under guidance 1.
    """
    scales = request.guidance_scales or [experiment.protocol.generation.guidance_scale]
    positive, negative = find_positive(experiment, request), find_negative(experiment, request)
    if negative is None and (request.alpha, request.beta) != (None, None):
        raise UserError("--alpha and --beta weigh the weights in the negative slot; give --negative too")
    if negative is not None and min(scales) <= 1:
        raise UserError(
            f"negative weights act only under guidance above 1, but guidance is {min(scales):g}; "
            "give --guidance-scale above 1, or leave --negative out"
        )
    alpha = ALPHA if request.alpha is None else request.alpha
    beta = BETA if request.beta is None else request.beta
    judge_base(experiment)
    for scale in scales:
        slots = SamplingWeights(positive, scale, negative, alpha, beta)
        with held(experiment, slots.result_owner.run, wait=True):
            yield judge(experiment, slots)


def find_positive(experiment: Experiment, request: Request) -> Weights:
    """The weights to be judged."""
    if request.weights is not None:
        if request.run is not None:
            raise UserError("--run and --weights both name what is judged; give one of them")
        if any(is_run(place) for place in (Path(request.weights), experiment.runs / request.weights)):
            raise UserError(f"--weights {request.weights} is a run; give it as --run")
        return _released(experiment, request.weights, request.name)
    if request.run is None:
        return experiment.base
    weights = find_run(experiment.runs, experiment.name, experiment.base, request.run)
    if weights.negative_scales is not None:
        raise UserError(
            f"{request.run} trained negative weights, which make no images alone; give it as --negative, "
            "with or without another --run"
        )
    return weights


def find_negative(experiment: Experiment, request: Request) -> Weights | None:
    """The weights for the negative slot, if any."""
    if request.negative is None:
        return None
    return experiment.find_weights(request.negative)


def _released(experiment: Experiment, typed: str, name: str | None) -> Weights:
    return released_weights(experiment.runs, experiment.name, typed, name, experiment.load_model())
