"""Objectives on pairs of images noised alike: what they are handed, and the two classes that a normal one derives from."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from bench.training.algorithm import Algorithm, Need, StepOutput
from bench.training.batch import PairBatch
from bench.training.noising import Noised, noised_alike
from bench.training.policy import Policy


class PairErrors(NamedTuple):
    """Denoising errors of policy and reference, each (B,), float32.

    An error is the mean over all non-batch elements of (prediction - target)^2.
    """

    policy_winner: Tensor
    policy_loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor

    @property
    def margin(self) -> Tensor:
        """How much more the policy improved on the winner than on the loser, against the reference; (B,).

        Positive is good; minus the Delta of the papers.  Exactly 0 for identical weights.
        """
        return (self.policy_loser - self.reference_loser) - (self.policy_winner - self.reference_winner)


class PairPredictions(NamedTuple):
    """What policy and reference predict for a noised pair, and what they should; each (B, ...)."""

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
    """What objectives on a noised pair share: how it is noised, and what policy and reference predict."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE})

    def noised(self, batch: PairBatch, policy: Policy) -> Noised:
        """Put both images of a pair at the same time with the same noise (the forward process)."""
        return noised_alike(policy.process, batch)

    def predict(self, noised: Noised, batch: PairBatch, policy: Policy) -> PairPredictions:
        """Predictions of policy and reference, winner and loser in one forward pass."""
        latents, _, t = noised.both()
        condition = batch.both_conditions
        policy_winner, policy_loser = policy.predict(latents, t, condition).chunk(2)
        reference_winner, reference_loser = policy.reference(latents, t, condition).chunk(2)
        return PairPredictions(
            policy_winner, policy_loser, reference_winner, reference_loser, noised.target_winner, noised.target_loser
        )


class PairwiseAlgorithm(NoisedPairAlgorithm):
    """An objective on a noised pair, against a reference: a normal one only writes `loss`."""

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        """The objective: errors and P(winner preferred) in, one loss a pair out, (B,)."""
        raise NotImplementedError(f"{type(self).__name__} writes neither loss nor prediction_loss")

    def prediction_loss(self, predictions: PairPredictions, preference: Tensor) -> Tensor:
        """The objective on raw predictions, (B,); only one that needs more than their errors writes this."""
        return self.loss(predictions.errors(), preference)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        noised = self.noised(batch, policy)
        predictions = self.predict(noised, batch, policy)
        losses = self.prediction_loss(predictions, batch.preference)
        return StepOutput(losses, noised.timesteps, pair_logs(predictions.errors()))


class PolicyErrors(NamedTuple):
    """Denoising errors of the policy alone, each (B,), float32."""

    winner: Tensor
    loser: Tensor


class ReferenceFreeAlgorithm(Algorithm):
    """An objective on a noised pair that asks no reference: it only writes `loss`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})

    @abc.abstractmethod
    def loss(self, errors: PolicyErrors, preference: Tensor) -> Tensor:
        """The objective: errors and P(winner preferred) in, one loss a pair out, (B,)."""

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
    """Mean over all non-batch elements of (prediction - target)^2, in at least float32 for policy and reference alike; (B,).

    Casting before the square matters: in half precision, identical networks would not give a margin of 0.
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)


def pair_logs(errors: PairErrors) -> dict[str, Tensor]:
    """The diagnostics that every pairwise objective logs, detached, (B,) each.

    ``accuracy`` counts a margin of exactly 0 as wrong, as the released codes do.
    """
    margin = errors.margin.detach()
    return {
        "margin": margin,
        "accuracy": (margin > 0).float(),
        "winner_gap": (errors.policy_winner - errors.reference_winner).detach(),
        "loser_gap": (errors.policy_loser - errors.reference_loser).detach(),
    }
