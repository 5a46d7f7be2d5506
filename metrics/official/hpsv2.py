"""HPSv2 from the authors' own package, as a reference for the native scorer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from bench import Environment, IsolatedMetric, MetricInfo
from metrics.checkpoints import find_weights
from metrics.hpsv2 import HPSv2, check_version
from metrics.official.legacy import FOLDER, LEGACY


class HPSv2Official(IsolatedMetric):
    """`hpsv2.score` of hpsv2 1.2.0, version 2.1, image by image.

    On a GPU the package computes in half precision, on the CPU in single.  A checkpoint is a weights file, a folder
    that holds one, or a hub id; the architecture is always ViT-H-14.
    """

    info: ClassVar[MetricInfo] = dataclasses.replace(HPSv2.info, title="HPSv2.1 (official)")
    environment: ClassVar[Environment] = LEGACY
    scorer: ClassVar[Path] = FOLDER / "hpsv2_worker.py"
    version: ClassVar[str] = HPSv2.version

    @classmethod
    def files(cls, checkpoint: str | None) -> Mapping[str, Path]:
        """See `IsolatedMetric.files`."""
        weights = find_weights(checkpoint or HPSv2.published, HPSv2.files, ())
        check_version(weights, HPSv2.version)
        return {"weights": weights}
