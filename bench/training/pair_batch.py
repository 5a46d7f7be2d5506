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
    """Some preference pairs, or lists of more than two images per caption, as latents.

    B is the number of pairs in this micro-batch.  All tensors are on the training device.

    Attributes:
        winner: clean latents of the preferred images, float32, (B, C, H, W); for lists and unlabelled data, the first image.
        loser: clean latents of the others, same shape; for lists, the last image.
        candidates: clean latents of all images of each caption in the order of the data, (B, K, C, H, W); K is 2 for pairs.
        condition: conditioning of the winners by name: embeddings of the captions and, for models that take them, size and crop;
            float32, (B, ...) each.
        loser_condition: the same for the losers; the two differ only in size and crop.
        candidate_condition: the same for all images of each caption, (B, K, ...) each.
        make_unconditional: computes `candidate_unconditional`, which few algorithms need.
        winner_index: index of the winner among the candidates, int64, (B,).
        loser_index: index of the loser among the candidates, int64, (B,).
        preference: P(winner preferred), float32, (B,); 1 for a hard label, NaN for data without labels.
        scores: scores of the candidates by name in the order of the data, float32, (B, K) each.
        columns: per-row values that `Algorithm.prepare` added to the data, by name, float32, (B, ...) each.
        row_ids: row numbers in the data, B of them.
        batch_positions: positions of these rows in the step's global batch, B of them.
        draws: this step's random draws for these rows; the same however the batch is cut.
        global_batch_stats: what `Algorithm.global_batch_stats` returned for every row of the global batch, in its order,
            float32, (N, ...); None where the algorithm does not need it.
    """

    winner: Tensor
    loser: Tensor
    candidates: Tensor
    condition: Condition
    loser_condition: Condition
    candidate_condition: Condition
    make_unconditional: Callable[[], Condition]
    winner_index: Tensor
    loser_index: Tensor
    preference: Tensor
    scores: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]
    row_ids: tuple[int, ...]
    batch_positions: tuple[int, ...]
    draws: Draws
    global_batch_stats: Tensor | None = None

    def stats(self) -> Tensor:
        """``global_batch_stats``, (N, ...), for an algorithm that needs them.

        Raises:
            ValueError: the batch comes without them.
        """
        if self.global_batch_stats is None:
            raise ValueError("the batch has no global_batch_stats; compute them with Algorithm.global_batch_stats")
        return self.global_batch_stats

    def flipped(self) -> PairBatch:
        """The same pairs under the opposite preference; candidates and scores keep the order of the data."""
        return dataclasses.replace(
            self,
            winner=self.loser,
            loser=self.winner,
            condition=self.loser_condition,
            loser_condition=self.condition,
            winner_index=self.loser_index,
            loser_index=self.winner_index,
        )

    @property
    def candidate_unconditional(self) -> Condition:
        """As ``candidate_condition``, but with the empty prompt of classifier-free guidance; (B, K, ...) each.

        Computed at every access: keep the result if you need it twice.
        """
        return self.make_unconditional()

    @property
    def unconditional(self) -> Condition:
        """As ``condition``, but with an empty prompt; (B, ...) each, computed at every access."""
        rows = torch.arange(len(self.row_ids), device=self.winner_index.device)
        return {name: value[rows, self.winner_index] for name, value in self.candidate_unconditional.items()}

    @property
    def both_conditions(self) -> Condition:
        """The conditions of the winners, then of the losers, (2B, ...), for one forward pass of both."""
        return {name: torch.cat([value, self.loser_condition[name]]) for name, value in self.condition.items()}
