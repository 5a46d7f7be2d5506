"""Rollouts that draw several candidates for the next latents in some of their steps, of which two are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bench.models.forward_process import Transition
from bench.rollouts.grid import Grid
from bench.rollouts.rules import Rule
from bench.rollouts.sampler import Denoise, refuse_without_noise, take_step


class Choice(NamedTuple):
    """What was chosen among the candidates of one step of B samples.

    Attributes:
        winner: the preferred latents, (B, ...).
        loser: the others, (B, ...).
        following: where sampling goes on, (B, ...).
        logs: what is logged about the choice, by name, (B,) each.
    """

    winner: Tensor
    loser: Tensor
    following: Tensor
    logs: Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """One sampling step of B samples, with two candidates that were compared.

    Attributes:
        latents: where the step starts, (B, ...).
        level: their levels, int64, (B,).
        rule: how the candidates were drawn.
        choice: what was chosen.
    """

    latents: Tensor
    level: Tensor
    rule: Rule
    choice: Choice

    def transition(self, denoise: Denoise, grid: Grid) -> Transition:
        """The distribution of the next latents under a denoiser."""
        return take_step(denoise, grid, self.rule, self.latents, self.level, lambda step: step.mean).transition


def roll_out_candidates(
    denoise: Denoise,
    grid: Grid,
    rules: Sequence[Rule],
    latents: Tensor,
    noise: Callable[[int, int], Tensor],
    kept: Sequence[int],
    candidates: int,
    choose: Callable[[int, Sequence[Tensor], Tensor], Choice],
) -> list[Comparison]:
    """Sample from the noisiest level until the last kept step, and compare candidates in every kept one.

    Args:
        denoise: the denoiser.
        grid: the levels.
        rules: one per step, in the order of sampling.
        latents: noise, (B, ...).
        noise: ``noise(n, i)`` returns standard normal noise for candidate i of step n, shaped like ``latents``; a step that is not
            kept has candidate 0 alone.
        kept: numbers of the steps in which candidates are compared, ascending.
        candidates: how many of them.
        choose: what to do with the candidates of step n at their level (B,): ``choose(n, candidates, level)``.

    Raises:
        UserError: a kept step has no noise, so that its candidates would be the same.
    """
    level = latents.new_full((len(latents),), grid.steps, dtype=torch.int64)
    found = []
    for number, rule in enumerate(rules[: kept[-1] + 1]):
        step = take_step(denoise, grid, rule, latents, level, lambda transition: transition.mean)
        drawn = [step.transition.sample(noise(number, each)) for each in range(candidates if number in kept else 1)]
        following = drawn[0]
        if number in kept:
            refuse_without_noise(step.transition, number, len(rules))
            choice = choose(number, drawn, level - 1)
            found.append(Comparison(latents, level, rule, choice))
            following = choice.following
        latents, level = following, level - 1
    return found
