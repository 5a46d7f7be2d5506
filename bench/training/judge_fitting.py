"""The interface of algorithms that are trained in rounds, each of which fits the judge that chooses its pairs."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from bench.records.reward_models import FitSchedule
from bench.training.algorithm import Algorithm, Need


class JudgeFittingAlgorithm(Algorithm):
    """An algorithm on the pairs of a round, whose judge is a reward model that every round fits against the policy.

    The data's captions fall into two disjoint halves, the judge's and the policy's.  A round samples the judge's captions and fits
    the reward model of the round before, first one that was fitted to people's pairs alone, to the pairs of the judge's captions and to as many
    opponents: the image that people prefer in the data against a sample of the same caption.  The reward model then chooses the best and
    the worst sample of each of the policy's captions, and `step` trains on these pairs.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.FITTED_REWARD})
    training_defaults: ClassVar[Mapping[str, Any]] = {"rounds": {"number": 2}}
    placebo: ClassVar[str | None] = "labels of the data's pairs and scores of a caption's samples are permuted"

    fit: FitSchedule = Field(
        default=FitSchedule(), description="how the judge is fitted: part, steps, batch and learning_rate, of every fit"
    )
    judge_captions: int = Field(
        default=256,
        ge=1,
        description="captions per round whose samples the judge is fitted against; drawn anew each round",
    )
    judge_samples: int = Field(default=4, ge=1, description="samples per such caption")

    @abc.abstractmethod
    def opponent_losses(self, difference: Tensor) -> Tensor:
        """Losses of the reward model on opponents, unreduced, (N,).

        Args:
            difference: score of the data's image minus that of the sample, in log odds, (N,), with gradient.

        Returns:
            Losses in the unit of a pair of people's, which is minus the log of the logistic function of the difference of its scores.
        """
