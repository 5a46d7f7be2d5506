"""What objectives on judged candidates share: lists of images per caption, by the base model where the data has pairs only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench import Algorithm, MetricNames, PreferenceData, PrepareContext


class CandidateAlgorithm(Algorithm):
    """An objective on lists of images that several metrics judge."""

    rewards: MetricNames = Field(
        default=("pickscore", "hpsv2"), min_length=1, description="metrics that judge the candidates, as a,b"
    )
    candidates: int = Field(
        default=4, ge=2, description="images by the base model for each caption, if the data has pairs only"
    )
    captions: int = Field(default=1000, gt=0, description="most captions that candidates are made for")

    @property
    def trained_on(self) -> tuple[str, ...]:
        return self.rewards

    def judged(self, data: PreferenceData, context: PrepareContext) -> tuple[PreferenceData, NDArray[np.float64]]:
        """The lists, and the rewards of their images, (metrics, captions, images)."""
        data = context.lists(data, self.captions, self.candidates)
        return data, np.stack([context.rewards(name, data) for name in self.rewards])
