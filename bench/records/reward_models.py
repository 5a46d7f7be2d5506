"""``reward.json``: what a reward model that was fitted here is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.records.config import DataIdentity

RECORD, WEIGHTS = "reward.json", "weights.safetensors"
"""The files of a reward model's folder."""
Part = Literal["head", "whole"]
"""What is fitted: the layers that map features to a score, or all weights."""


class FitSchedule(BaseModel):
    """How a reward model is fitted, up to the seed.

    Attributes:
        part: what is fitted.
        steps: optimizer steps of AdamW, without weight decay.
        batch: pairs per step.
        learning_rate: constant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    part: Part = "head"
    steps: int = Field(default=200, ge=1, le=10**9)
    batch: int = Field(default=32, ge=1, le=1 << 20)
    learning_rate: float = Field(default=1e-4, gt=0)


class FitSettings(FitSchedule):
    """How a reward model is fitted.

    Attributes:
        seed: of the order of the pairs.
    """

    seed: int = 0


class Accuracy(BaseModel):
    """How often a reward model agrees with the preferences of pairs that it was not fitted on.

    Attributes:
        pairs: number of pairs; none of their captions is among those of the pairs it was fitted on.
        before: share of agreement before the fit: of the scorer that it was made from, or of the reward model that it continues; equal
            scores count one half.
        after: that of the reward model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    before: Annotated[float, Field(ge=0, le=1)]
    after: Annotated[float, Field(ge=0, le=1)]


class RewardModelRecord(BaseModel):
    """What a reward model is and how it was made.

    Attributes:
        scorer: registered name of the metric that it was made from.
        checkpoint: where that scorer's weights are; None for the published ones.
        base: hash of that scorer's identity.
        settings: how it was fitted.
        data: the pairs.
        source: what the user called them.
        judges: metrics that decided the pairs' labels, as far as the data says.
        code: digests of the code that fitted it.
        scale: factor on the scorer's raw score, fitted too; a difference of two scores is the log odds of a preference.
        held_out: agreement on held-out pairs.
        weights: digest of the fitted weights.
        start: digest of the fitted weights of the reward model that it started from; None if it started from the scorer.
        opponents: the pairs that it was fitted to beside people's, of an image of the data and a sample of a policy; None without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scorer: str
    checkpoint: str | None
    base: str
    settings: FitSettings
    data: DataIdentity
    source: str
    judges: tuple[str, ...]
    code: Mapping[str, str]
    scale: float
    held_out: Accuracy
    weights: str
    start: str | None = None
    opponents: DataIdentity | None = None

    def made_by(self) -> dict[str, Any]:
        """What decides the fitted weights, up to the code."""
        names = ("scorer", "base", "settings", "data", "start", "opponents")
        return {name: getattr(self, name) for name in names}


def read_reward_model(folder: Path) -> RewardModelRecord | None:
    """The record of a folder's reward model; None if there is none, or it is not finished.

    Raises:
        UserError: the record is damaged.
    """
    from bench.records.reading import read_record  # loads NumPy, which a help text that names `Part` must not

    path = folder / RECORD
    return read_record(RewardModelRecord, path) if path.exists() else None
