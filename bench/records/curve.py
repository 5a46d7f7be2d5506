"""What a run was worth while it trained: scores of images of a few training prompts, and what they say about over-optimisation.

``curve.json`` says what was measured, ``curve.jsonl`` has a line per measured step.  Of algorithms that sample while they train,
also the images are measured that their own sampler makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

LOOKS = ("diversity", "dark", "saturation", "edges")
"""What is measured of images in addition to the judges' scores; see `bench.scoring.looks`."""
Images = Literal["scores", "training_sampler"]
"""Whether images under the evaluation protocol are meant, or those that the training's own sampler made."""
LEVEL = 0.95
"""Confidence at which a judge counts as down, and diversity as changed."""


Scores = dict[str, list[Annotated[float, Field(allow_inf_nan=False)]]]


@with_config(ConfigDict(strict=True, extra="forbid"))
class CurveLine(TypedDict):
    """A line of ``curve.jsonl``.

    Attributes:
        step: number of optimizer steps taken.
        pairs: number of pairs seen.
        signal: the training objective's own measure of success, larger is better: the mean margin since the last line, or the
            negative loss of algorithms without one; None at step 0.
        scores: raw scores by metric, and looks, one per image, the images of a prompt together.
        training_sampler: likewise, scores of images that the training's own sampler made; only of algorithms that sample.
        cost: what this look cost, none of which is in the run's ledger: ``images``, ``forwards`` of the network, and ``scores``;
            older versions wrote none.
    """

    step: Annotated[int, Field(ge=0)]
    pairs: Annotated[int, Field(ge=0)]
    signal: Annotated[float, Field(allow_inf_nan=False)] | None
    scores: Scores
    training_sampler: NotRequired[Scores]
    cost: NotRequired[dict[str, int]]


@dataclasses.dataclass(frozen=True, slots=True)
class CurveRecord:
    """``curve.json``: what is measured along a run.

    Attributes:
        prompts: the training prompts whose images are made.
        images_per_prompt: images of each.
        generation: how the images are made: the evaluation protocol's settings.
        signatures: of the scorers by metric, and of the looks under ``looks``.
        titles: of the metrics.
        lower_is_better: names of the metrics of which a lower score is better.
        trained_on: names of the metrics that training uses.
        held_out: whether the prompts are captions that are not trained on.
        training_sampler: how the training's own sampler makes images, for algorithms that sample; empty for all others.
    """

    prompts: tuple[str, ...]
    images_per_prompt: int
    generation: Mapping[str, object]
    signatures: Mapping[str, str]
    titles: Mapping[str, str]
    lower_is_better: tuple[str, ...]
    trained_on: tuple[str, ...]
    held_out: bool = False
    training_sampler: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def judges(self) -> tuple[str, ...]:
        """The held-out judges: every metric that training does not use."""
        return tuple(name for name in self.titles if name not in self.trained_on)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What the images along a run say.

    Attributes:
        training_up: whether the training signal is higher than at the step since which judges are down; None if it is not known.
        down: held-out judges whose last score is below their highest, beyond noise.
        judges: number of held-out judges.
        since: the step at which the last of the fallen judges stood highest; None if none has fallen.
        diversity: change of the within-prompt diversity since the first line, as a share; None if it is within noise.
    """

    training_up: bool | None
    down: tuple[str, ...]
    judges: int
    since: int | None
    diversity: float | None

    @property
    def overoptimised(self) -> bool:
        """Whether training goes on succeeding by its own measure while most held-out judges fall."""
        return bool(self.training_up) and 2 * len(self.down) > self.judges

    def sentence(self) -> str:
        """The finding in words."""
        signal = {None: "training reward unknown", True: "training reward up", False: "training reward not up"}
        if self.down:
            many = f"{len(self.down)} of {self.judges} held-out judges down since step {self.since} ({', '.join(self.down)})"
        elif self.judges:
            many = f"none of {self.judges} held-out judges down beyond noise"
        else:
            many = "no held-out judge"
        parts = [signal[self.training_up], many]
        if self.diversity is not None:
            parts.append(f"diversity {'up' if self.diversity > 0 else 'down'} by {abs(self.diversity):.0%}")
        return f"{'Over-optimised: ' if self.overoptimised else ''}{', '.join(parts)}"


def find(record: CurveRecord, lines: Sequence[CurveLine]) -> Finding:
    """What the lines so far say.

    A judge is down if its last score is below its highest one by more than noise allows: a one-sided test of the difference
    paired by prompt, with a level divided by the number of lines, as the highest of several is high by chance too.
    Diversity has changed if it is beyond noise in either direction, each of which has half of the level.
    The training signal is that of the metrics that training uses, where they are measured, and otherwise the objective's own.
    """
    peaks = {}
    for name in record.judges:
        values = series(record, lines, name)
        peak = int(values.mean(axis=1).argmax())
        if _lower(values[peak], values[-1], len(lines)):
            peaks[name] = peak
    first = series(record, lines, "diversity")[0].mean()
    change = series(record, lines, "diversity")[-1] - series(record, lines, "diversity")[0]
    moved = len(lines) > 1 and first > 0 and (_lower(change, 0 * change, 2) or _lower(0 * change, change, 2))
    return Finding(
        training_up=_training_up(record, lines, max(peaks.values(), default=0)),
        down=tuple(record.titles[name] for name in peaks),
        judges=len(record.judges),
        since=max((lines[peak]["step"] for peak in peaks.values()), default=None),
        diversity=float(change.mean() / first) if moved else None,
    )


def series(
    record: CurveRecord,
    lines: Sequence[CurveLine],
    name: str,
    of: Images = "scores",
) -> NDArray[np.float64]:
    """A measurement by line and prompt, means over its images, larger is better; float64, (lines, prompts)."""
    values = np.array([line[of][name] for line in lines], dtype=np.float64)
    sign = -1 if name in record.lower_is_better else 1
    return np.asarray(sign * values.reshape(len(lines), len(record.prompts), -1).mean(axis=2))


def _training_up(record: CurveRecord, lines: Sequence[CurveLine], since: int) -> bool | None:
    rewards = [name for name in record.trained_on if name in record.titles]
    if rewards:
        values = [series(record, lines, name).mean(axis=1) for name in rewards]
        return all(float(each[-1]) > float(each[since]) for each in values)
    known = [line["signal"] for line in lines if line["signal"] is not None]
    before = [line["signal"] for line in lines[: since + 1] if line["signal"] is not None]
    if not known or (not before and len(known) < 2):
        return None
    return known[-1] > (before[-1] if before else known[0])


def _lower(high: NDArray[np.float64], low: NDArray[np.float64], tests: int) -> bool:
    """Whether the second of two paired samples lies below the first beyond noise, by Student's t at `LEVEL` over several tests."""
    from scipy.special import stdtrit  # takes longer to import than all other records, which most commands read

    fall = high - low
    error = float(fall.std(ddof=1)) / len(fall) ** 0.5
    mean = float(fall.mean())
    return bool(mean > 0 and mean > stdtrit(len(fall) - 1, 1 - (1 - LEVEL) / tests) * error)
