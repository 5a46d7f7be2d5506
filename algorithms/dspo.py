"""DSPO: direct score preference optimisation, in the two forms of its released code.

Zhu et al. 2025 (ICLR, OpenReview xyfb9HHvMe); released code huaishengzhu/DSPO at 8b4e09b.  The two forms are different losses,
which its users asked about without getting an answer: for SD1.5 the winner's residual is corrected element by element; for SDXL there
is no such residual.  The released SDXL form selects its branch by the mean over a micro-batch; this port selects it per pair, which
is the same at a micro-batch of one and does not depend on how a batch is split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from algorithms.recipes import SD15, SDXL, SWEPT, TINY
from bench import AlgorithmInfo, BetaScale, PairPredictions, PairwiseAlgorithm, Recipe

Variant = Literal["sd15", "sdxl"]
FAR = 0.1
"""Mean squared distance from the reference at which the SDXL form switches branches."""


def dspo_sd15_loss(predictions: PairPredictions, *, beta: float) -> Tensor:
    """Mean over elements of ``((f - target) - beta (1 - sigmoid(z)) (f - g))^2`` on the winner, one loss per pair, (B,).

    ``f`` and ``g`` are the policy's and the reference's prediction, ``z = beta / 2 * margin``; the gradient flows through the sigmoid.

    Args:
        predictions: predictions and targets, each (B, ...).
        beta: weight of the correction.  At 0.001, as released, the loss equals SFT's to three digits; at 2 and above, training starts by
            moving away from the winner.
    """
    distance = _winner(predictions.policy_winner, predictions.reference_winner)
    residual = _winner(predictions.policy_winner, predictions.target_winner)
    return (residual - beta * _doubt(predictions, beta)[:, None] * distance).square().mean(1)


def dspo_sdxl_loss(predictions: PairPredictions, *, beta: float) -> Tensor:
    """``(1 - sigmoid(z))^2``, times the mean of ``(f - g)^2`` on the winner if that is at least 0.1; one loss per pair, (B,).

    Args:
        predictions: predictions and targets, each (B, ...).
        beta: KL strength; larger stays closer to the reference, as DPO's.
    """
    distance = _winner(predictions.policy_winner, predictions.reference_winner).square().mean(1)
    return _doubt(predictions, beta).square() * torch.where(distance >= FAR, distance, 1.0)


def _winner(prediction: Tensor, other: Tensor) -> Tensor:
    """The difference of two predictions, float32 or wider, (B, elements)."""
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - other.to(dtype)).flatten(1)


def _doubt(predictions: PairPredictions, beta: float) -> Tensor:
    """``1 - sigmoid(z)``: how little the policy prefers the winner; (B,)."""
    return (-0.5 * beta * predictions.errors().margin).sigmoid()


class Form(NamedTuple):
    """A released form: its loss, and its value when policy and reference are equal, if known."""

    loss: Callable[..., Tensor]
    initial_loss: float | None


FORMS: Mapping[Variant, Form] = {"sd15": Form(dspo_sd15_loss, None), "sdxl": Form(dspo_sdxl_loss, 0.25)}


class DSPO(PairwiseAlgorithm):
    """A score-matching view of preferences."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DSPO",
        paper="Zhu et al. 2025 (ICLR), OpenReview xyfb9HHvMe",
        formula="sd15: mean((f - target - beta d (f - g))^2); sdxl: d^2, times mean((f - g)^2) if >= 0.1; d = sigmoid(beta/2 * [(Mw - Rw) - (Ml - Rl)]), f and g the predictions of policy and reference",
        status="matches released code, except that the sdxl form selects its branch per pair; the paper's derivation is not checked",
        beta=BetaScale(0.5, of="margin and the correction"),  # of the default variant, sd15; of sdxl the margin alone
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"variant": "sd15", "beta": 0.001},
            training={**TINY, "learning_rate": 1e-4},
        ),
        "sd15": Recipe(
            source="released launcher at 8b4e09b: 1e-8 x 2048 (scale_lr), one GPU; best at 500 to 1500 steps, says its README",
            algorithm={"variant": "sd15", "beta": 0.001},
            training={**SD15, "micro_batch_size": 16},
        ),
        "sdxl": Recipe(
            source="released launcher at 8b4e09b: 1e-8 x 2048 (scale_lr), one GPU; best at 600 to 700 steps, says its README; with bf16 here, fp16 there",
            algorithm={"variant": "sdxl", "beta": 5000.0},
            training=SDXL,
        ),
    }  # fmt: skip

    variant: Variant = Field(default="sd15", description="which released form: sd15 or sdxl")
    beta: float = Field(default=0.001, gt=0, description="released values: 0.001 for the sd15 form, 5000 for sdxl")

    @property
    def initial_loss(self) -> float | None:
        """Known only for the sdxl form."""
        return FORMS[self.variant].initial_loss

    def prediction_loss(self, predictions: PairPredictions, preference: Tensor) -> Tensor:
        return FORMS[self.variant].loss(predictions, beta=self.beta)
