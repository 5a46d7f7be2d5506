"""DoRA: distributionally robust optimisation of any pairwise objective, calibrated by a density ratio.

Zhu et al. 2025 (NeurIPS), arXiv 2504.05831, a method for language models; no code was found.  For images the sources are the
models that generated them, and the density ratio is fitted on frozen CLIP features.  Not related to weight-decomposed LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from algorithms.density import density_ratios, source_names
from algorithms.recipes import SWEPT, TINY, like_dpo
from algorithms.wrapping import PairwiseWrapper
from bench import (
    AlgorithmInfo,
    PairBatch,
    PairPredictions,
    Policy,
    PreferenceData,
    PrepareContext,
    Recipe,
    StepOutput,
    pair_logs,
)

COLUMN = "density_ratio"


def dro_objective(losses: Tensor, ratios: Tensor, *, temperature: float) -> Tensor:
    """``temperature * log mean exp(h * l / temperature)`` over a whole batch; (N,) and (N,) to a scalar.

    Args:
        losses: l, the objective's losses.
        ratios: h, the calibrated density ratios, mean 1.
        temperature: the paper's lambda; large values approach the mean, small ones the worst case.
    """
    tilted = ratios * losses / temperature
    return temperature * (torch.logsumexp(tilted, 0) - math.log(len(losses)))


def dro_weights(losses: Tensor, ratios: Tensor, *, temperature: float) -> Tensor:
    """Derivatives of `dro_objective` with respect to the losses, (N,)."""
    return ratios * torch.softmax(ratios * losses / temperature, 0)


class DRO(PairwiseWrapper):
    """Any pairwise objective, with the pairs of a global batch weighted towards the largest losses and towards the golden source."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="DoRA (DRO)",
        paper="Zhu et al. 2025, arXiv 2504.05831",
        formula="lambda * log E exp(h * L / lambda), h a density ratio, E over the global batch",
        status="reconstructed from the paper's formula, for images; h of a pair is our choice (the mean over its two images)",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; lambda as published; the data has one source, so h is 1",
            algorithm={"objective": "dpo", "objective_fields": {"beta": 50.0}, "temperature": 1.0},
            training={**TINY, "learning_rate": 1e-4},
        ),
        **like_dpo(objective="dpo", objective_fields={"beta": 5000.0}, temperature=1.0),
    }

    temperature: float = Field(
        default=1.0, gt=0, description="lambda: large values approach the mean, small ones the worst case"
    )
    golden: str | None = Field(default=None, description="the source to resemble; required if the data names several")
    features: str = Field(default="pickscore", description="CLIP scorer whose frozen features the ratio is fitted on")

    @property
    def initial_loss(self) -> float | None:
        """None: it depends on the density ratios."""
        return None

    @property
    def embedded_by(self) -> tuple[str, ...]:
        return (self.features,)

    def unread_fields(self, data: PreferenceData) -> Mapping[str, str]:
        names = source_names(data)
        alike = self.golden is None and len(names) < 2
        return {"features": f"the data names {len(names)} sources and every ratio is 1"} if alike else {}

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Fit the density ratio of the golden source and add it to every pair; 1 if the data has only one source."""
        prepared = self.inner.prepare(data, context)
        ratios, note = density_ratios(data, self.golden, lambda: context.features(self.features, data))
        context.notes[COLUMN] = note
        return prepared.with_columns(**{COLUMN: ratios})

    @property
    def needs_batch_stats(self) -> bool:
        return True

    def global_batch_stats(self, batch: PairBatch, policy: Policy) -> Tensor:
        """Loss and density ratio per pair, (B, 2)."""
        predictions = self.predict(self.noised(batch, policy), batch, policy)
        losses = self.pairwise.prediction_loss(predictions, batch.preference)
        return torch.stack([losses, batch.columns[COLUMN]], dim=1)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        """Every loss equals the batch objective, and together their gradient is the objective's gradient."""
        all_losses, ratios = batch.stats().unbind(1)
        noised = self.noised(batch, policy)
        predictions: PairPredictions = self.predict(noised, batch, policy)
        losses = self.pairwise.prediction_loss(predictions, batch.preference)
        weights = (
            len(all_losses) * dro_weights(all_losses, ratios, temperature=self.temperature)[list(batch.batch_positions)]
        )
        value = dro_objective(all_losses, ratios, temperature=self.temperature)
        return StepOutput(
            value + weights * (losses - losses.detach()),
            noised.timesteps,
            {**pair_logs(predictions.errors()), "pair_weight": weights},
        )
