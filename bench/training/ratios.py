"""Importance ratios of sampling steps, the divergence from a reference, and what is logged of both."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.models.forward_process import Transition


def clipped_objective(advantages: Tensor, log_ratio: Tensor, clip: float) -> Tensor:
    """PPO's loss ``max(-A r, -A clip(r, 1 - c, 1 + c))`` (Schulman et al. 2017, arXiv 1707.06347), (B,); r is the exponential of ``log_ratio``."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def outside_clip(log_ratio: Tensor, clip: float) -> Tensor:
    """1 where a ratio differs from 1 by more than ``clip``, else 0; in the shape and dtype of its logarithm, detached."""
    log_ratio = log_ratio.detach()
    return ((log_ratio.exp() - 1).abs() > clip).to(log_ratio)


def ratio_logs(log_ratio: Tensor, clip: float, elements: int) -> dict[str, Tensor]:
    """What is logged about importance ratios, detached, (B,) each.

    ``ratio_error`` is the absolute log ratio, ``clipped`` says whether the ratio is outside the clip range, and
    ``nats_since_rollout`` is an unbiased estimate of the step's divergence from the weights that sampled it.

    Args:
        log_ratio: differences of log-probabilities that are means over elements, (B,).
        clip: half-width of the clip range.
        elements: of one sample's latents.
    """
    log_ratio = log_ratio.detach()
    return {
        "ratio_error": log_ratio.abs(),
        "clipped": outside_clip(log_ratio, clip),
        "nats_since_rollout": -log_ratio * elements,
    }


def squared_mean_shift(shift: Tensor, deviation: Tensor) -> Tensor:
    """``shift^2 / (2 deviation^2)``, mean over all non-batch elements; ``shift`` is (B, ...), ``deviation`` and the result (B,)."""
    return shift.square().flatten(1).mean(1) / (2 * deviation.square())


def kl_nats(step: Transition, reference: Transition) -> Tensor:
    """Divergence of a sampling step from the reference's, in nats, summed over elements; detached, in the dtype of the means, (B,).

    Args:
        step: means (B, ...) and standard deviations (B,), above 0.
        reference: a step with the same standard deviations.
    """
    shift = (step.mean - reference.mean).detach()
    return squared_mean_shift(shift, step.std) * shift[0].numel()
