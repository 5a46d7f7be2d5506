"""The preference pairs of one micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bench.core.randomness import Draws
from bench.models.family import Condition


@dataclasses.dataclass(frozen=True, slots=True)
class PairBatch:
    """Some preference pairs, or lists of more than two images a caption, as latents.

    Attributes:
        winner: clean latents of the preferred images, float32, (B, C, H, W); of a list or of unlabelled data, the first image.
        loser: clean latents of the others, same shape; of a list, the last image.
        candidates: clean latents of all images of each caption in the order of the data, (B, K, C, H, W); K is 2 for pairs.
        condition: what the network is told of the winners: embeddings of the captions and, for models that ask, size and crop.
        loser_condition: the same of the losers; the two differ in size and crop alone.
        candidate_condition: the same of all images of each caption, (B, K, ...) each.
        tell_unconditional: makes `candidate_unconditional`, which few algorithms ask for.
        winner_place: which candidate the winner is, int64, (B,).
        loser_place: which candidate the loser is, int64, (B,).
        preference: P(winner preferred), float32, (B,); 1 for a hard label, NaN for data without labels.
        scores: scores of the candidates by name in the order of the data, float32, (B, K) each.
        columns: what `Algorithm.prepare` noted about each row, float32, (B, ...) each.
        index: row numbers in the data.
        place: places of these rows in the global batch of the step.
        draws: the random draws of this step for these rows.
        survey: what `Algorithm.survey` found, for every row of the global batch in its order, (N, ...); None without a survey.
    """

    winner: Tensor
    loser: Tensor
    candidates: Tensor
    condition: Condition
    loser_condition: Condition
    candidate_condition: Condition
    tell_unconditional: Callable[[], Condition]
    winner_place: Tensor
    loser_place: Tensor
    preference: Tensor
    scores: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]
    index: tuple[int, ...]
    place: tuple[int, ...]
    draws: Draws
    survey: Tensor | None = None

    def flipped(self) -> PairBatch:
        """The same pairs under the opposite preference; candidates and scores keep the order of the data."""
        return dataclasses.replace(
            self,
            winner=self.loser,
            loser=self.winner,
            condition=self.loser_condition,
            loser_condition=self.condition,
            winner_place=self.loser_place,
            loser_place=self.winner_place,
        )

    @property
    def candidate_unconditional(self) -> Condition:
        """As ``candidate_condition``, with an empty prompt, as guidance at sampling has it; made anew at every call."""
        return self.tell_unconditional()

    @property
    def unconditional(self) -> Condition:
        """As ``condition``, with an empty prompt; made anew at every call."""
        rows = torch.arange(len(self.index), device=self.winner_place.device)
        return {name: value[rows, self.winner_place] for name, value in self.candidate_unconditional.items()}

    @property
    def both_conditions(self) -> Condition:
        """The conditions of the winners, then of the losers, (2B, ...), for one forward pass of both."""
        return {name: torch.cat([value, self.loser_condition[name]]) for name, value in self.condition.items()}
