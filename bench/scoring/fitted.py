"""A reward model that was fitted here, as a metric: its name is ``fitted:`` and its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.core.errors import UserError
from bench.core.values import digest
from bench.records.reward_models import WEIGHTS, RewardModelRecord, read_reward_model
from bench.records.scores import MetricInfo
from bench.scoring.metric import METRICS, DifferentiableMetric, FittableMetric, weights_digest


class Fitted(DifferentiableMetric):
    """A registered scorer whose head, or all of whose weights, were fitted to preferences, times a fitted factor.

    Args:
        scorer: the scorer, with the fitted weights.
        base: identity of the scorer before.
    """

    folder: ClassVar[Path]
    record: ClassVar[RewardModelRecord]

    def __init__(self, scorer: FittableMetric, base: dict[str, Any]) -> None:
        self._scorer, self._base = scorer, base

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`; ``checkpoint`` is that of the scorer it was made from, by default where that was then."""
        record, path = cls.record, cls.folder / WEIGHTS
        scorer = fittable(record.scorer).load(checkpoint or record.checkpoint, device=device)
        base = scorer.identity()
        if digest(base) != record.base:
            raise UserError(
                f"the reward model {cls.folder} was made from another checkpoint of {record.scorer} than the one that is there "
                "now; put that back, or fit another: bench reward --output with another folder"
            )
        fill_fitted(scorer, path, record.weights)
        return cls(scorer, base)

    def identity(self) -> dict[str, Any]:
        """See `Metric`."""
        return {
            "version": 1,
            "scorer": self.record.scorer,
            "base": self._base,
            "weights": self.record.weights,
            "scale": self.record.scale,
        }

    @property
    def code(self) -> tuple[type, ...]:
        """See `Metric`."""
        return (type(self), *self._scorer.code)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`."""
        return self.record.scale * self._scorer.score(images, prompts)

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `DifferentiableMetric`."""
        return self.record.scale * self._scorer.score_pixels(pixels, prompts)


def fitted(folder: str) -> type[Fitted]:
    """The metric of a folder that ``bench reward`` wrote.

    Raises:
        UserError: it holds no finished reward model, or a damaged one, or its name can be written in a simpler way: two names of
            one metric would be two columns of a table, of which only one is marked as trained on.
    """
    if folder and folder != (simple := simplest(folder)):
        raise UserError(f"fitted:{folder} is called fitted:{simple}; write it so everywhere")
    path = Path(folder)
    record = read_reward_model(path)
    if record is None:
        raise UserError(
            f"{folder or 'an empty name'} holds no finished reward model; make one with: bench reward --output FOLDER"
        )
    own = METRICS.get(record.scorer).info
    info = MetricInfo(
        title=f"{own.title} fitted ({path.name})",
        raw_range="any",
        unit="log odds of a preference",
        source=f"fitted here, part {record.settings.part}, to {record.data.pairs} pairs",
        ties="threshold",
    )
    made = {
        "__module__": __name__,
        "__doc__": Fitted.__doc__,
        "folder": path,
        "record": record,
        "info": info,
        "reads_prompt": METRICS.get(record.scorer).reads_prompt,
        "made_from": (record.scorer, *record.judges),
    }
    return type("Fitted", (Fitted,), made)


def simplest(folder: str | Path) -> str:
    """A folder as reports name it: relative to the current one if it is in that, else absolute."""
    here = Path.cwd()
    path = Path(os.path.normpath(here / folder))  # without following links, which may be what the user calls it
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def fittable(name: str) -> type[FittableMetric]:
    """A registered metric that can be fitted.

    Raises:
        UserError: there is no such metric, or it cannot be fitted.
    """
    metric = METRICS.get(name)
    if not issubclass(metric, FittableMetric):
        raise UserError(
            f"the metric {name!r} cannot be fitted; choose one whose network is loaded here, such as pickscore or imagereward"
        )
    return metric


def fill_fitted(scorer: FittableMetric, path: Path, expected: str) -> None:
    """Put fitted weights into a scorer.

    Args:
        path: the file.
        expected: its `weights_digest`.

    Raises:
        UserError: the file is not what was written.
    """
    try:
        if weights_digest(path) != expected:
            raise UserError(
                f"{path} was changed since it was written; restore an intact copy, or fit it again: bench reward"
            )
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); restore an intact copy, or fit it again: bench reward"
        ) from error
    parameters = dict(scorer.network.named_parameters())
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)


def describe(record: RewardModelRecord) -> str:
    """The held-out accuracy of a reward model in a sentence."""
    held_out = record.held_out
    earlier = record.scorer if record.start is None else "the reward model that it continues"
    return f"agrees with {held_out.after:.1%} of {held_out.pairs} held-out pairs; {earlier} agreed with {held_out.before:.1%} before the fit"
