"""Objectives on pairs of noised images: their inputs, and the two base classes that most of them derive from."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bench.training.algorithm import Algorithm, Need, StepOutput
from bench.training.noising import Noised, noised_alike
from bench.training.pair_batch import PairBatch
from bench.training.policy import Policy


class PairErrors(NamedTuple):
    """Denoising errors of policy and reference, each (B,), float32; Wallace et al. 2023, arXiv 2311.12908.

    An error is the **mean** over all non-batch elements of (prediction - target)^2, in units of squared latents.  Only the
    policy's errors carry a gradient.
    """

    policy_winner: Tensor
    policy_loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor

    @property
    def margin(self) -> Tensor:
        """How much more the policy improved on the winner than on the loser, against the reference; (B,).

        Positive is good; the papers' Delta with the opposite sign.  Exactly 0 for identical weights.
        """
        return self.loser_gap - self.winner_gap

    @property
    def winner_gap(self) -> Tensor:
        """The policy's error on the winner less the reference's, Mw - Rw, (B,)."""
        return self.policy_winner - self.reference_winner

    @property
    def loser_gap(self) -> Tensor:
        """The policy's error on the loser less the reference's, Ml - Rl, (B,)."""
        return self.policy_loser - self.reference_loser


class PairPredictions(NamedTuple):
    """What policy and reference predict for a noised pair, and the targets; each (B, ...).

    Predictions are float32, or bfloat16 under ``precision=bf16``; targets are float32.  Only the policy's carry a gradient.
    """

    policy_winner: Tensor
    policy_loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor
    target_winner: Tensor
    target_loser: Tensor

    def errors(self) -> PairErrors:
        """The four denoising errors, (B,) each."""
        return PairErrors(
            sample_errors(self.policy_winner, self.target_winner),
            sample_errors(self.policy_loser, self.target_loser),
            sample_errors(self.reference_winner, self.target_winner),
            sample_errors(self.reference_loser, self.target_loser),
        )


class NoisedPairAlgorithm(Algorithm):
    """What objectives on a noised pair share: how it is noised, and what policy and reference predict.

    For an objective on pairs that writes its own `step`; most derive from `PairwiseAlgorithm`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE})

    def noised(self, batch: PairBatch, policy: Policy) -> Noised:
        """The pair's noisy latents and targets, (B, ...); by default the forward process with one time and one noise per pair."""
        return noised_alike(policy.process, batch)

    def predict(self, noised: Noised, batch: PairBatch, policy: Policy) -> PairPredictions:
        """Predictions of policy and reference, (B, ...) each, winners and losers in one forward pass of 2B rows."""
        latents = torch.cat([noised.winner, noised.loser])
        t = torch.cat([noised.timesteps, noised.timesteps])
        condition = batch.both_conditions
        policy_winner, policy_loser = policy.predict(latents, t, condition).chunk(2)
        reference_winner, reference_loser = policy.reference(latents, t, condition).chunk(2)
        return PairPredictions(
            policy_winner, policy_loser, reference_winner, reference_loser, noised.target_winner, noised.target_loser
        )


class PairwiseAlgorithm(NoisedPairAlgorithm):
    """An objective on a noised pair, against a reference: most write only `loss` (see ``algorithms/dpo.py``)."""

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        """The objective: one loss per pair, (B,), float32, with gradient.

        Args:
            errors: denoising errors, (B,) each.
            preference: P(winner preferred), (B,), float32, without gradient: at least 1/2, exactly 1 for a hard label, and NaN
                for unlabelled data, where the first image counts as the winner.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement loss or prediction_loss")

    def prediction_loss(self, predictions: PairPredictions, preference: Tensor) -> Tensor:
        """The objective on raw predictions, one loss per pair, (B,), for losses that need more than the errors.  See `loss`."""
        return self.loss(predictions.errors(), preference)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        noised = self.noised(batch, policy)
        predictions = self.predict(noised, batch, policy)
        losses = self.prediction_loss(predictions, batch.preference)
        return StepOutput(losses, noised.timesteps, pair_logs(predictions.errors()))


class PolicyErrors(NamedTuple):
    """Denoising errors of the policy alone, each (B,), float32, with gradient; see `PairErrors`."""

    winner: Tensor
    loser: Tensor


class ReferenceFreeAlgorithm(Algorithm):
    """An objective on a noised pair without a reference: a subclass writes only `loss`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})

    @abc.abstractmethod
    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        """The objective: one loss per pair, (B,); ``preference`` as in `PairwiseAlgorithm.loss`."""

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        noised = noised_alike(policy.process, batch)
        latents, targets, t = noised.both()
        predicted = policy.predict(latents, t, batch.both_conditions)
        errors = PolicyErrors(*sample_errors(predicted, targets).chunk(2))
        logs = {
            "accuracy": (errors.winner < errors.loser).float(),
            "winner_error": errors.winner.detach(),
            "loser_error": errors.loser.detach(),
        }
        return StepOutput(self.loss(errors, batch.preference), noised.timesteps, logs)


def sample_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of (prediction - target)^2 over all non-batch elements: two (B, ...) of any floating dtype to (B,), at least float32.

    Casting before the square matters: in half precision, equal networks would not have a margin of 0.
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)


def pair_logs(errors: PairErrors) -> dict[str, Tensor]:
    """The diagnostics that every pairwise objective logs, detached, (B,) each, in units of mean squared errors.

    ``accuracy`` counts a margin of exactly 0 as wrong, as released code does.
    """
    margin = errors.margin.detach()
    return {
        "margin": margin,
        "accuracy": (margin > 0).float(),
        "winner_gap": errors.winner_gap.detach(),
        "loser_gap": errors.loser_gap.detach(),
    }
