"""What images of training prompts say along a run: training reward against held-out judges, and signs of collapse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bench.records.curve import LOOKS, CurveLine, CurveRecord, find, series
from reports.curves import Curve
from reports.seed_variance import Array
from reports.statistics import Interval, mean_intervals

Watched = tuple[CurveRecord, Sequence[CurveLine]]
"""The measurements along one run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """What was measured along the runs of a row, over the steps that all its seeds have.

    Attributes:
        findings: a sentence by training seed, all about over-optimisation.
        prompts: number of training prompts.
        images_per_prompt: images of each.
        curves: by metric and look, raw.
        trained_on: names of the metrics that training uses.
        titles: of metrics and looks.
        diversity: change of the within-prompt diversity from the first to the last step, in percent of the first.
    """

    findings: tuple[str, ...]
    prompts: int
    images_per_prompt: int
    curves: Mapping[str, Curve]
    trained_on: tuple[str, ...]
    titles: Mapping[str, str]
    diversity: Interval


def panel_of(watched: Sequence[Watched]) -> Panel | None:
    """The panel of a row whose seeds were all measured on the same prompts by the same scorers; None for other rows."""
    if not watched or any(len(lines) < 2 for _, lines in watched):
        return None
    first = watched[0][0]
    if any((record.prompts, record.signatures) != (first.prompts, first.signatures) for record, _ in watched):
        return None
    common = set.intersection(*({line["step"] for line in lines} for _, lines in watched))
    shared = [(record, [line for line in lines if line["step"] in common]) for record, lines in watched]
    names = (*first.titles, *LOOKS)
    return Panel(
        findings=tuple(find(record, lines).sentence() for record, lines in watched),
        prompts=len(first.prompts),
        images_per_prompt=first.images_per_prompt,
        curves={name: _curve(name, shared) for name in names},
        trained_on=first.trained_on,
        titles={**first.titles, **{name: name for name in LOOKS}},
        diversity=_change(np.stack([series(record, lines, "diversity") for record, lines in shared])),
    )


def _curve(name: str, shared: Sequence[Watched]) -> Curve:
    means = np.array([[np.mean(line["scores"][name]) for line in lines] for _, lines in shared])
    return Curve(
        pairs=tuple(float(line["pairs"]) for line in shared[0][1]),
        mean=tuple(means.mean(axis=0).tolist()),
        low=tuple(means.min(axis=0).tolist()),
        high=tuple(means.max(axis=0).tolist()),
    )


def _change(diversity: Array) -> Interval:
    """Change of a table (seeds, lines, prompts) from its first to its last line, in percent of the first line's mean."""
    before = diversity[:, 0].mean()
    (change,) = mean_intervals([100 * (diversity[:, -1] - diversity[:, 0]) / before])
    return change
