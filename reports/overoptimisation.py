"""What images of training prompts say along a run: training reward against held-out judges, and signs of collapse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bench.records.curve import LOOKS, CurveLine, CurveRecord, Images, find, series
from reports.curves import Curve
from reports.seed_variance import Array
from reports.statistics import Interval, mean_intervals

Watched = tuple[CurveRecord, Sequence[CurveLine]]
"""The measurements along one run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Gain:
    """How much a training reward changed, over seeds and prompts, in units of the metric; larger is better.

    Attributes:
        training_sampler: on images by the training's own sampler.
        protocol: on images under the evaluation protocol.
    """

    training_sampler: Interval
    protocol: Interval


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """What was measured along the runs of a row, whose seeds may have ended at different steps.

    Attributes:
        findings: a sentence by training seed, all about over-optimisation.
        prompts: number of training prompts.
        images_per_prompt: images of each.
        curves: by metric and look, raw, over the steps that all seeds have; empty if these are fewer than two.
        trained_on: names of the metrics that training uses.
        titles: of metrics and looks.
        diversity: change of the within-prompt diversity from each seed's first step to its last, in percent of the first; None if that is 0.
        held_out: whether the prompts are held out from training.
        sampler_curves: likewise by metric, of images by the training's own sampler; empty for algorithms that do not sample.
        gains: by metric that training uses, if it samples: the change from each seed's first step to its last; larger is better.
    """

    findings: tuple[str, ...]
    prompts: int
    images_per_prompt: int
    curves: Mapping[str, Curve]
    trained_on: tuple[str, ...]
    titles: Mapping[str, str]
    diversity: Interval | None
    held_out: bool
    sampler_curves: Mapping[str, Curve]
    gains: Mapping[str, Gain]

    @property
    def prompted(self) -> str:
        """What the prompts are, in words."""
        return f"{self.prompts} {'captions held out from training' if self.held_out else 'training prompts'}"


def panel_of(watched: Sequence[Watched]) -> Panel | None:
    """The panel of a row whose seeds were all measured on the same prompts, two or more, by the same scorers; None for other rows."""
    if not watched or any(len(lines) < 2 for _, lines in watched):
        return None
    first = watched[0][0]
    if len(first.prompts) < 2 or any(_measured_by(record) != _measured_by(first) for record, _ in watched):
        return None
    common = set.intersection(*({line["step"] for line in lines} for _, lines in watched))
    shared = [(record, [line for line in lines if line["step"] in common]) for record, lines in watched]
    drawn = (*first.titles, *LOOKS) if len(common) > 1 else ()
    ends = [(record, [lines[0], lines[-1]]) for record, lines in watched]
    sampled = bool(first.training_sampler)
    return Panel(
        findings=tuple(find(record, lines).sentence() for record, lines in watched),
        prompts=len(first.prompts),
        images_per_prompt=first.images_per_prompt,
        curves={name: _curve(name, shared) for name in drawn},
        trained_on=first.trained_on,
        titles={**first.titles, **{name: name for name in LOOKS}},
        diversity=_change(np.stack([series(record, lines, "diversity") for record, lines in ends])),
        held_out=first.held_out,
        sampler_curves={
            name: _curve(name, shared, "training_sampler") for name in drawn if sampled and name in first.titles
        },
        gains={name: _gain(name, ends) for name in first.trained_on if sampled and name in first.titles},
    )


def _gain(name: str, ends: Sequence[Watched]) -> Gain:
    def change(of: Images) -> Array:
        tables = np.stack([series(record, lines, name, of) for record, lines in ends])
        return np.asarray(tables[:, -1] - tables[:, 0])

    own, protocol = mean_intervals([change("training_sampler"), change("scores")])
    return Gain(own, protocol)


def _measured_by(record: CurveRecord) -> tuple[object, ...]:
    return record.prompts, record.signatures, record.training_sampler


def _curve(name: str, shared: Sequence[Watched], of: Images = "scores") -> Curve:
    means = np.array([[np.mean(line[of][name]) for line in lines] for _, lines in shared])
    return Curve(
        pairs=tuple(float(line["pairs"]) for line in shared[0][1]),
        mean=tuple(means.mean(axis=0).tolist()),
        low=tuple(means.min(axis=0).tolist()),
        high=tuple(means.max(axis=0).tolist()),
    )


def _change(diversity: Array) -> Interval | None:
    """Change of a table (seeds, lines, prompts) from its first to its last line, in percent of the first line's mean."""
    before = diversity[:, 0].mean()
    if before == 0:
        return None
    (change,) = mean_intervals([100 * (diversity[:, -1] - diversity[:, 0]) / before])
    return change


def gains_in_words(panel: Panel) -> list[str]:
    """A sentence for each reward that an algorithm which samples was trained on."""
    return [
        f"{panel.titles[name]} changed by {_in_words(gain.training_sampler)} on images by the training's own sampler and by "
        f"{_in_words(gain.protocol)} under the protocol, from the first measurement to the last, on {panel.prompted}"
        for name, gain in panel.gains.items()
    ]


def _in_words(change: Interval) -> str:
    ends = "" if change.ends is None else f" [{change.ends[0]:+.3g}, {change.ends[1]:+.3g}]"
    return f"{change.mean:+.3g}{ends}"
