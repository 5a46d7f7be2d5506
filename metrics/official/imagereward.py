"""ImageReward from the authors' own package, as a reference for the native scorer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from bench import Environment, IsolatedMetric, MetricInfo, UserError
from metrics.checkpoints import download, find_weights
from metrics.imagereward import ImageReward
from metrics.official.legacy import FOLDER, LEGACY


class ImageRewardOfficial(IsolatedMetric):
    """`ImageReward.load` and ``score`` of image-reward 1.5, image by image.

    A checkpoint is a weights file, a folder that holds ``ImageReward.pt``, or a hub id; ``med_config.json``
    must be beside the file, ``vocab.txt`` may be (the default is bert-base-uncased's).  The image tower is always ViT-L/16.
    """

    info: ClassVar[MetricInfo] = dataclasses.replace(ImageReward.info, title="ImageReward (official)")
    environment: ClassVar[Environment] = LEGACY
    scorer: ClassVar[Path] = FOLDER / "imagereward_worker.py"
    version: ClassVar[str] = ImageReward.version

    @classmethod
    def files(cls, checkpoint: str | None) -> Mapping[str, Path]:
        """See `IsolatedMetric.files`."""
        weights = find_weights(
            checkpoint or ImageReward.published, ("ImageReward.pt",), ("med_config.json", "vocab.txt")
        )
        med_config, vocabulary = weights.with_name("med_config.json"), weights.with_name("vocab.txt")
        if not med_config.exists():
            raise UserError(f"configuration {med_config} does not exist; put the published one beside {weights.name}")
        if not vocabulary.exists():
            vocabulary = download(ImageReward.published_tokenizer, ["vocab.txt"]) / "vocab.txt"
        return {"weights": weights, "med_config": med_config, "vocabulary": vocabulary}
