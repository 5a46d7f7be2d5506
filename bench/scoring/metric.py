"""The interface of an image scorer."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn

from bench.core.code import code_digests
from bench.core.digests import files_digest
from bench.core.errors import UserError
from bench.core.registry import ClassOf, Registry
from bench.core.strict import quoted
from bench.records.scores import MetricInfo

HARNESS = ("bench.scoring.images", "bench.scoring.loop")
"""What opens images and calls a metric."""
LARGEST = torch.finfo(torch.float32).max
"""The largest score."""
CODE = "code_digests"
"""The name of what is recorded of a metric's code, beside the entries of its identity."""


class Metric(abc.ABC):
    """Scores images against their prompts.

    A subclass is registered under the entry-point group ``bench.metrics``.  The harness calls `load`, then `for_prompts`, then
    `score` in chunks, and keeps every score with a hash of `identity`.  It may load a metric several times in one command, since
    only one metric is in memory at a time.
    """

    info: ClassVar[MetricInfo]
    """What a reader must know to read a score."""
    reads_prompt: ClassVar[bool] = True
    """False when a score depends on the image alone."""
    continuous: ClassVar[bool] = True
    """False when many images may share a score, such as hit or miss; for others, one score for all images is an error."""
    made_from: ClassVar[tuple[str, ...]] = ()
    """Names of other metrics whose weights or scores this one was made from; a run that trains on it trains on those too."""

    @classmethod
    @abc.abstractmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """Load the scorer.

        Args:
            checkpoint: a local path or a hub id; None is the published default.
            device: where it computes; always in float32.  bf16 moves scores as much as methods differ in papers: with random
                weights of full size by up to 0.05 (PickScore), 0.0013 (HPSv2's cosine) and 0.005 (ImageReward).

        Raises:
            UserError: the checkpoint is missing, or has another layout (missing and unexpected keys are listed).
        """

    @abc.abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides a score in addition to image and prompt: version, `bench.weights_digest`, preprocessing; JSON values only.

        Scores with different identities never share a column, so it must contain exactly what affects a score.
        """

    @property
    def code(self) -> tuple[type, ...]:
        """The classes whose code decides a score; of a metric that calls another one, both."""
        return (type(self),)

    def for_prompts(self, prompts: Sequence[str]) -> Metric:
        """The scorer to use when the images to judge have these prompts, repeats included; called before `score`.

        For scorers that compare an image's prompt with the others, which are then part of `identity`; by default, the scorer itself.
        """
        return self

    @abc.abstractmethod
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """Raw scores of images for the prompts of the same position; float32 on the CPU, (N,), in the unit of ``info``.

        A score must not depend on the other images of the call or on their order.

        Args:
            images: N decoded images of any mode and size; N is at least 1.
            prompts: N prompts.

        Raises:
            ValueError: the numbers of images and prompts differ.
        """


class EmbeddingMetric(Metric):
    """A metric that embeds images and prompts in one space, for algorithms that use its features.

    See `bench.PrepareContext.features`.
    """

    @abc.abstractmethod
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Embeddings of N images, of length 1; float32 on the CPU, (N, D)."""

    @abc.abstractmethod
    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of N prompts in the same space, of length 1; float32 on the CPU, (N, D)."""


class DifferentiableMetric(Metric):
    """A metric with a gradient, for algorithms that train on the gradient of their reward."""

    @abc.abstractmethod
    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Raw scores of pictures for the prompts of the same position, (N,), with gradient to ``pixels``.

        They are those of `score`, except that pixels are neither rounded to 256 levels nor, where pictures are resized, rounded after it.
        The weights get no gradient.

        Args:
            pixels: N pictures in [0, 1], (N, 3, H, W), in the floating-point type and on the device of the weights.
            prompts: N prompts.

        Raises:
            ValueError: the numbers of pictures and prompts differ.
        """


class FittableMetric(DifferentiableMetric):
    """A metric whose network can be fitted to preferences; see `bench.training.reward_model`."""

    head_parameters: ClassVar[tuple[str, ...]]
    """What the names of the parameters of `network` begin with that map features to a score."""

    @property
    @abc.abstractmethod
    def network(self) -> nn.Module:
        """All weights that decide a score; frozen until they are fitted."""

    @abc.abstractmethod
    def inputs(self, images: Sequence[Image.Image]) -> Tensor:
        """What the network reads of N images, preprocessed as for `score`; float32 on the network's device, (N, ...)."""

    @abc.abstractmethod
    def rate(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        """Raw scores of what `inputs` returned for N prompts, float32, (N,), with gradient to those weights that need one."""


def with_origins(names: Iterable[str]) -> tuple[str, ...]:
    """Metrics, each followed by those that it was made from, which count as trained on wherever it does."""
    return tuple(dict.fromkeys(each for name in names for each in (name, *METRICS.get(name).made_from)))


def checked_scores(name: str, scores: object, count: int) -> list[float]:
    """The scores of one call as floats.

    Raises:
        UserError: something else than a tensor of floats, too few, too many, or scores that are not finite in float32: such a
            scorer is broken, and nothing is recorded.
    """
    if not isinstance(scores, torch.Tensor):
        raise UserError(
            f"metric {name!r} returned {quoted(scores)} ({type(scores).__name__}) for {count} images, not a tensor of {count} "
            "scores; fix the metric"
        )
    if scores.shape != (count,):
        raise UserError(
            f"metric {name!r} returned scores of shape {tuple(scores.shape)} for {count} images; fix the metric"
        )
    if not scores.is_floating_point() or scores.is_meta or scores.layout != torch.strided:
        kind = f"{scores.dtype}, {scores.layout}, on {scores.device}"
        raise UserError(f"metric {name!r} returned a tensor of {kind}, not dense floats with values; fix the metric")
    values: list[float] = scores.double().tolist()
    bad = [index for index, score in enumerate(values) if not abs(score) <= LARGEST]  # nor is NaN
    if bad:
        raise UserError(
            f"metric {name!r} returned the score {values[bad[0]]}, which is not finite as float32, for image {bad[0]} of {count}; "
            "fix the metric"
        )
    return values


def code_of(metric: Metric) -> dict[str, str]:
    """Digests of the code that scores, 12 hex digits each; see `bench.core.code.code_digests`."""
    return code_digests(metric.code, HARNESS)


def recorded_identity(metric: Metric) -> dict[str, Any]:
    """What records hold of a scorer: its identity, and the digests of its code.

    Raises:
        UserError: the identity holds something else than JSON values.
    """
    what = f"the metric {type(metric).__name__}"
    identity: object = metric.identity()  # of a plug-in, whose types nobody checked
    if not isinstance(identity, dict) or not all(isinstance(key, str) for key in identity):
        raise UserError(f"{what} has the identity {quoted(identity)}, not a dict with names as keys; fix the metric")
    for key, value in identity.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{what} has {key}={quoted(value)} in its identity, which is not a JSON value ({error}); fix the metric"
            ) from error
    return {**identity, CODE: code_of(metric)}


def weights_digest(*files: Path) -> str:
    """``sha256:`` and the first 16 hexadecimal digits of the SHA-256 of the concatenated files.

    This is how `Metric.identity` states files; changing it would change the signature of every metric.
    """
    return f"sha256:{files_digest(files)}"


METRICS: Registry[type[Metric]] = Registry(
    "bench.metrics", "metric", ClassOf(Metric, info=MetricInfo), made={"fitted": "bench.scoring.fitted:fitted"}
)
"""The registered metrics by name: iterate over names, ``get(name)`` imports the class.  ``fitted:FOLDER`` is a reward model of the user's."""
