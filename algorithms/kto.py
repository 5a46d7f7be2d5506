"""Diffusion-KTO: a utility of single images, each desirable or not, relative to a reference point of the whole batch.

Li et al. 2024, arXiv 2404.04465; released code jacklishufan/diffusion-kto at 226bbd02.  That code estimates the reference point
from the few samples of a step and multiplies by beta without the factor 1/2: its b is ``beta = 2 b`` in this project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from algorithms.dpo import Beta
from algorithms.recipes import SWEPT, TINY
from bench import (
    Algorithm,
    AlgorithmInfo,
    BetaScale,
    Need,
    PairBatch,
    PairErrors,
    Policy,
    Recipe,
    StepOutput,
    noised_images,
    pair_logs,
    sample_errors,
)

Utility = Literal["sigmoid", "loss_averse", "risk_seeking_1", "risk_seeking_2", "risk_seeking_3"]

UTILITIES: Mapping[Utility, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda value, sign: torch.sigmoid(sign * value),
    "loss_averse": lambda value, sign: logsigmoid(sign * value),
    "risk_seeking_1": lambda value, sign: -sign * logsigmoid(-value),
    "risk_seeking_2": lambda value, sign: sign * torch.exp(value / 100) - 1,
    "risk_seeking_3": lambda value, sign: -logsigmoid(-sign * value),
}
"""The five values of the released ``--halo``, by its names: of beta's multiple of a gain and the sign of its image."""


def kto_losses(gains: Tensor, signs: Tensor, reference_point: Tensor, *, beta: float, utility: Utility) -> Tensor:
    """``1 - U(w * v)`` with ``v = beta / 2 * (g - z0)``, one loss per image, same shape as ``gains``.

    ``U`` is the sigmoid, log sigmoid (loss averse) or ``-log sigmoid(-x)`` (``risk_seeking_3``, the paper's risk seeking).  Two of the
    released utilities are not functions of ``w * v`` alone: ``risk_seeking_1`` is ``-w log sigmoid(-v)``, ``risk_seeking_2`` is
    ``w exp(v / 100) - 1``.

    Args:
        gains: g, the reference's error minus the policy's.
        signs: w, 1 for a desirable image, -1 for an undesirable one.
        reference_point: z0, the mean gain of the global batch, at least 0; no gradient flows into it.
        beta: KL strength; larger stays closer to the reference.
        utility: a name of `UTILITIES`.
    """
    return 1 - UTILITIES[utility](0.5 * beta * (gains - reference_point), signs)


class KTO(Algorithm):
    """The winner counts as a desirable image, the loser as an undesirable one; each has its own time and noise."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-KTO",
        paper="Li et al. 2024, arXiv 2404.04465",
        formula="1 - U(+-beta/2 * [(R - M) - z0]), z0 = max(0, mean of R - M over the global batch), U the utility, + for a desirable image and - for an undesirable one",
        status="matches released code, except for the data: labels are per pair (the released code calls an image desirable if it ever won), both images of a pair are in the same batch, shares are weights instead of sampling rates, and z0 is over the global batch",
        beta=BetaScale(0.5, of="gain"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE})
    placebo: ClassVar[str | None] = (
        "the desirable and the undesirable image of each pair are swapped with probability 1/2"
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"beta": 200.0},
            training={**TINY, "learning_rate": 1e-4},
        ),
        "sd15": Recipe(
            name="paper",
            source="paper: beta 5000 without factor 1/2 is 10000 here, 4 GPUs x 2 images are 4 pairs here, 10,000 iterations, warm-up 1,000; with AdamW (see optimizer=adamw-8bit) and fp32 here, 8-bit AdamW and fp16 in its code; --set recipe=script for the released script's settings",
            algorithm={"beta": 10000.0, "desirable_share": 0.8},
            training={"steps": 10000, "global_batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-7, "warmup_steps": 1000,
                      "caption_dropout": 0.2, "horizontal_flip": "image"},
        ),
        "sd15/script": Recipe(
            name="script",
            source="released script at 226bbd02: its default beta of 1000 without factor 1/2 is 2000 here, 4 GPUs x 2 images are 4 pairs here, 20,000 iterations, warm-up 200; with AdamW (see optimizer=adamw-8bit) and fp32 here, 8-bit AdamW and fp16 there",
            algorithm={"beta": 2000.0, "desirable_share": 0.8},
            training={"steps": 20000, "global_batch_size": 4, "micro_batch_size": 4, "learning_rate": 1e-7, "warmup_steps": 200,
                      "caption_dropout": 0.2, "horizontal_flip": "image"},
        ),
    }  # fmt: skip

    beta: Beta = 2000.0
    utility: Utility = Field(
        default="sigmoid",
        description="utility of an image's gain, by the released --halo: sigmoid, loss_averse, risk_seeking_1, _2 or _3 "
        "(the paper's risk seeking)",
    )
    desirable_share: float = Field(
        default=0.5, gt=0, lt=1, description="weight of the desirable images; the undesirable ones have the rest"
    )

    def global_batch_stats(self, batch: PairBatch, policy: Policy) -> Tensor:
        """Gains of winner and loser, (B, 2)."""
        _, errors = self._errors(batch, policy)
        return _gains(errors)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        shares = torch.tensor([self.desirable_share, 1 - self.desirable_share], device=batch.winner.device)
        timesteps, errors = self._errors(batch, policy)
        reference_point = (batch.stats().mean(0) * shares).sum().clamp(min=0)
        signs = torch.tensor([1.0, -1.0], device=shares.device)
        losses = kto_losses(_gains(errors), signs, reference_point, beta=self.beta, utility=self.utility)
        logs = {**pair_logs(errors), "reference_point": reference_point.expand(len(losses))}
        return StepOutput((losses * shares).sum(1), timesteps, logs)

    def _errors(self, batch: PairBatch, policy: Policy) -> tuple[Tensor, PairErrors]:
        """Times of the desirable images, and the four errors; each image has its own time and noise."""
        winners = noised_images(policy.process, batch.draws, batch.winner, "winner")
        losers = noised_images(policy.process, batch.draws, batch.loser, "loser")
        latents, targets, t = map(torch.cat, zip(winners, losers, strict=True))
        condition = batch.both_conditions
        policy_errors = sample_errors(policy.predict(latents, t, condition), targets).chunk(2)
        reference_errors = sample_errors(policy.reference(latents, t, condition), targets).chunk(2)
        return winners.timesteps, PairErrors(*policy_errors, *reference_errors)


def _gains(errors: PairErrors) -> Tensor:
    winner = errors.reference_winner - errors.policy_winner
    loser = errors.reference_loser - errors.policy_loser
    return torch.stack([winner, loser], dim=1)
