"""Metrics as rewards: calls are counted, cached and checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.chunks import CHUNK, batch_slices
from bench.core.errors import UserError
from bench.scoring.metric import DifferentiableMetric, Metric, checked_scores


class Rewards:
    """What images are worth to training, by any registered metric, isolated ones included.

    An image that was scored for its prompt before is not scored again, within this process; it counts as a call all the same, so that
    cost depends neither on interruptions nor on how many processes share the images.

    Args:
        load: loads each metric by name; called when the first image is scored.

    Attributes:
        calls: for how many images a score was asked for, once per metric.
    """

    def __init__(self, load: Mapping[str, Callable[[], Metric]]) -> None:
        self._load = load
        self._metrics: dict[str, Metric] = {}
        self._known: dict[tuple[str, str, str], float] = {}
        self._compared, self._derived = False, False
        self.calls = 0

    @property
    def names(self) -> Sequence[str]:
        """Names of the metrics."""
        return list(self._load)

    @property
    def continuous(self) -> bool:
        """Whether equal scores of different images by any of the metrics mean that it cannot tell them apart."""
        return any(self._metric(name).continuous for name in self._load)

    @property
    def signs(self) -> dict[str, int]:
        """By metric: 1, or -1 if lower is better."""
        return {name: 1 if self._metric(name).info.higher_is_better else -1 for name in self._load}

    def weighted(self, scores: Mapping[str, Tensor], weights: Sequence[float]) -> Tensor:
        """The sum of scores by metric, (N,) each, times their weights, where higher is better; in the dtype of the scores, (N,)."""
        signs = self.signs
        pairs = zip(weights, scores.items(), strict=True)
        return torch.stack([weight * signs[name] * score for weight, (name, score) in pairs]).sum(0)

    def score(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> dict[str, Tensor]:
        """Raw scores by metric, float64 on the CPU, (N,).

        Args:
            images: N images, uint8, (N, H, W, 3).
            prompts: N prompts.

        Raises:
            UserError: a score is not finite, or a metric scores the same image differently when it is called again.
        """
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        pictures = [Image.fromarray(image) for image in images]
        self.calls += len(prompts) * len(self._load)
        return {name: self._scores(name, digests, pictures, prompts) for name in self._load}

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Raw scores by metric with gradient to the pixels, float32, (N,); never cached.

        Args:
            pixels: N images in [0, 1], float32, (N, 3, H, W).
            prompts: N prompts.

        Raises:
            UserError: a metric has no gradient, or a score is not finite.
        """
        scores = {}
        for name in self._load:
            self.calls += len(prompts)
            scores[name] = self._differentiable(name).score_pixels(pixels, prompts)
            checked_scores(name, scores[name].detach(), len(prompts))
        return scores

    def check_gradient(self, pixels: Tensor, prompts: Sequence[str]) -> None:
        """Score images twice with gradient, and compare; counted as calls.  Later calls do nothing.

        Raises:
            UserError: a metric scores the same images differently, or its gradient is zero or not finite.
        """
        if self._derived:
            return
        self._derived = True
        values = pixels.detach().clone().requires_grad_(True)
        first, second = (self.score_pixels(values, prompts) for _ in range(2))
        for name, scores in first.items():
            _refuse_difference(name, scores.tolist(), second[name].tolist())
            (gradient,) = torch.autograd.grad(scores.sum(), values)
            size = gradient.norm().item()
            if not 0 < size < math.inf:
                raise UserError(
                    f"the gradient of reward {name!r} has length {size:g}, so there is nothing to learn from it; choose another reward"
                )

    def check_determinism(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> None:
        """Score images twice in the same call shape, uncached, and compare; counted as calls.  Later calls do nothing.

        Raises:
            UserError: a metric scores the same images differently.
        """
        if self._compared:
            return
        self._compared = True
        pictures = [Image.fromarray(image) for image in images]
        for name in self._load:
            self.calls += 2 * len(prompts)
            first, second = (self._call(name, pictures, prompts) for _ in range(2))
            _refuse_difference(name, first, second)

    def check_spread(self, scores: Mapping[str, Tensor], group: int) -> None:
        """Raise a `UserError` if a continuous metric scores all images that are compared alike, which teaches nothing.

        Args:
            scores: of the images of a collection by metric, (N,) each.
            group: how many of them, one after another, are compared with each other.
        """
        for name, values in scores.items():
            groups = values.reshape(-1, group)
            if not self._metric(name).continuous or len(values) == 1 or bool((groups != groups[:, :1]).any()):
                continue
            what = (
                f"{values[0].item():g} for all {len(values)} images of a collection"
                if bool((values == values[0]).all())
                else f"the same for all {group} images of a prompt, for each of {len(groups)} prompts"
            )
            raise UserError(
                f"reward {name!r} is {what}, so there is nothing to learn from it; choose another reward, or start from weights "
                "whose images differ"
            )

    def _scores(
        self, name: str, digests: Sequence[str], pictures: Sequence[Image.Image], prompts: Sequence[str]
    ) -> Tensor:
        keys = [(name, digest, prompt) for digest, prompt in zip(digests, prompts, strict=True)]
        places = {key: place for place, key in enumerate(keys) if key not in self._known}
        new = list(places.values())
        for piece in batch_slices(len(new), CHUNK):
            chunk = new[piece]
            found = self._call(name, [pictures[place] for place in chunk], [prompts[place] for place in chunk])
            self._known |= {keys[place]: value for place, value in zip(chunk, found, strict=True)}
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float64)

    def _call(self, name: str, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return checked_scores(name, self._metric(name).score(pictures, prompts), len(pictures))

    def _metric(self, name: str) -> Metric:
        if name not in self._metrics:
            self._metrics[name] = self._load[name]()
        return self._metrics[name]

    def _differentiable(self, name: str) -> DifferentiableMetric:
        metric = self._metric(name)
        if not isinstance(metric, DifferentiableMetric):
            raise UserError(
                f"the metric {name!r} has no gradient; choose one that has, such as pickscore or imagereward"
            )
        return metric


def _refuse_difference(name: str, first: Sequence[float], second: Sequence[float]) -> None:
    """Raise a `UserError` where the same images got other scores the second time."""
    for one, other in zip(first, second, strict=True):
        if one != other:
            raise UserError(
                f"reward {name!r} is not deterministic: it scored the same image {one:g} and then {other:g}; a resumed run "
                "would differ, so fix the metric or choose another reward"
            )
