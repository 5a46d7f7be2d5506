"""A metric whose scorer runs in its own Python environment."""

from __future__ import annotations

import abc
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from bench.core.chunks import batch_slices
from bench.scoring.isolated.environment import BuiltEnvironment, Environment, built
from bench.scoring.isolated.worker import Worker
from bench.scoring.metric import Metric, checked_scores, weights_digest

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"})


class IsolatedMetric(Metric):
    """Base of scorers that cannot be installed beside this package.

    The scorer is a Python file that does not import this package.  It defines a function ``load(*, device, **files)``, which
    returns a function ``score(images, prompts)``: paths of images and their prompts in, one number per image out, in order.
    It may print anything.

    Args:
        environment: where it runs.
        files: what `files` returned.
        device: where it computes.
    """

    environment: ClassVar[Environment]
    """What the scorer needs installed."""
    scorer: ClassVar[Path]
    """The scorer file."""
    version: ClassVar[str]
    batch: ClassVar[int] = 16
    """Images per request."""

    @classmethod
    @abc.abstractmethod
    def files(cls, checkpoint: str | None) -> Mapping[str, Path]:
        """The files that the scorer's ``load`` gets, by argument name.

        Args:
            checkpoint: see `Metric.load`.

        Raises:
            UserError: one is missing.
        """

    def __init__(self, environment: BuiltEnvironment, files: Mapping[str, Path], device: torch.device) -> None:
        arguments = {name: str(path.absolute()) for name, path in files.items()}
        self.worker = Worker(self.info.title, environment.python, self.scorer, {**arguments, "device": str(device)})
        self._identity = {
            "version": self.version,
            "scorer": weights_digest(self.scorer),
            "files": {name: weights_digest(path) for name, path in files.items()},
            "environment": environment.identity(),
            "device": device.type,
        }

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        """See `Metric.load`; builds the environment if it does not exist yet.

        Raises:
            UserError: a file is missing, or the environment cannot be built.
        """
        files = cls.files(checkpoint)
        return cls(built(cls.info.title, cls.environment), files, device)

    def identity(self) -> dict[str, Any]:
        """See `Metric`; names the versions of all packages and the kind of device, which decides the precision."""
        return dict(self._identity)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        """See `Metric`.

        Raises:
            UserError: see `Worker.score`; or a score is not finite.
            WorkerError: the scorer raised an exception.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        scores = torch.empty(len(images))
        for piece in batch_slices(len(images), self.batch):
            scores[piece] = torch.tensor(self._score(images[piece], prompts[piece]))
        return scores

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            paths = [Path(folder) / f"{place:05d}.png" for place in range(len(images))]
            for image, path in zip(images, paths, strict=True):
                lossless = image if image.mode in PNG_MODES else image.convert("RGB")
                lossless.save(path, compress_level=1)
            scores = torch.tensor(self.worker.score(paths, prompts), dtype=torch.float32)
        return checked_scores(self.info.title, scores, len(images))
