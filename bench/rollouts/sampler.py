"""Trajectories with log-probabilities, and their replay under other weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.models.family import Condition
from bench.models.forward_process import Transition, expand
from bench.models.guidance import guide
from bench.rollouts.grid import Grid
from bench.rollouts.rules import Rule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``denoise(latents (B, ...), times (B,))``: the raw prediction, guidance included, (B, ...)."""
Predict = Callable[[Tensor, Tensor, Condition], Tensor]
"""``predict(latents (N, ...), times (N,), condition)``: a network's raw prediction, such as `bench.Policy.predict`."""


def guided(predict: Predict, condition: Condition, negative: Condition, scale: float) -> Denoise:
    """A denoiser under classifier-free guidance, as evaluation images are made: one call of the network for both slots.

    Args:
        predict: the network.
        condition: conditioning on the prompts, (B, ...) each.
        negative: conditioning on the negative prompts, (B, ...) each; not used at scale 1, where the network is called without it.
        scale: see `bench.guide`; a prediction in bfloat16 is guided in float32.
    """
    if scale == 1:
        return lambda latents, times: predict(latents, times, condition).float()
    both = {name: torch.cat([negative[name], value]) for name, value in condition.items()}

    def denoise(latents: Tensor, times: Tensor) -> Tensor:
        without, with_prompt = predict(torch.cat([latents] * 2), torch.cat([times] * 2), both).float().chunk(2)
        return guide(without, with_prompt, scale)

    return denoise


def one_per_slot(without_prompt: Predict, with_prompt: Predict) -> Predict:
    """One network for each slot of classifier-free guidance, instead of one for both; for `guided` at a scale above 1 only.

    Args:
        without_prompt: gets the first half of each batch, the samples with the negative prompts.
        with_prompt: gets the second half, the same samples with their prompts.
    """

    def predict(latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        half = len(latents) // 2
        slots = ((without_prompt, slice(None, half)), (with_prompt, slice(half, None)))
        return torch.cat(
            [
                network(latents[rows], times[rows], {name: value[rows] for name, value in condition.items()})
                for network, rows in slots
            ]
        )

    return predict


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One sampling step of some samples.

    Attributes:
        prediction: the network's raw prediction, guidance included, (B, ...).
        transition: the distribution of the next latents.
        following: the next latents, (B, ...); those of samples at level 0 stay as they are.
    """

    prediction: Tensor
    transition: Transition
    following: Tensor

    @property
    def log_prob(self) -> Tensor:
        """Log density of the next latents, **mean** over elements, (B,); not finite for a step without noise."""
        return self.transition.log_prob(self.following)


def take_step(
    denoise: Denoise, grid: Grid, rule: Rule, latents: Tensor, level: Tensor, choose: Callable[[Transition], Tensor]
) -> Step:
    """One step, of sampling and of replay alike: they differ only in how the next latents are chosen.

    Args:
        denoise: the denoiser.
        grid: the levels.
        rule: the kind of step.
        latents: where the step starts, (B, ...).
        level: levels of ``latents``, int64, (B,).
        choose: the next latents, given their distribution: drawn from it, or those of a trajectory.
    """
    prediction = denoise(latents, grid.at(level))
    transition = rule.transition(latents, prediction, grid.process, level, (level - 1).clamp(min=0))
    return Step(prediction, transition, torch.where(expand(level > 0, latents), choose(transition), latents))


@dataclasses.dataclass(frozen=True, slots=True)
class Trajectories:
    """What a rollout returns: where it ended, and the W steps of it that were kept.

    Attributes:
        final: latents at the end, (B, ...).
        level: their levels, int64, (B,).
        kept: numbers of the kept steps, W of them, 0 for the first.
        latents: where the kept steps started, (B, W, ...).
        following: where they led, (B, W, ...).
        means: the means of where they led, (B, W, ...); None unless they were asked for.
        levels: levels where they started, int64, (B, W).
        log_probs: their log-probabilities, see `Step.log_prob`, (B, W).
    """

    final: Tensor
    level: Tensor
    kept: tuple[int, ...]
    latents: Tensor
    following: Tensor
    means: Tensor | None
    levels: Tensor
    log_probs: Tensor

    def rows(self, places: Sequence[int]) -> Trajectories:
        """The trajectories of some samples."""
        names = (field.name for field in dataclasses.fields(self))
        tensors = ((name, value) for name in names if isinstance(value := getattr(self, name), Tensor))
        picked: dict[str, Any] = {name: value[list(places)] for name, value in tensors}
        return dataclasses.replace(self, **picked)


def roll_out(
    denoise: Denoise,
    grid: Grid,
    rules: Sequence[Rule],
    latents: Tensor,
    level: Tensor,
    noise: Callable[[int], Tensor] | None = None,
    keep: Collection[int] = (),
    means: Collection[int] = (),
) -> Trajectories:
    """Sample one step per rule, from given latents; with gradient where gradients are enabled.

    Args:
        denoise: the denoiser.
        grid: the levels.
        rules: one per step, in the order of sampling.
        latents: where to start, (B, ...).
        level: levels of ``latents``, int64, (B,); a sample that arrives at level 0 stays there.
        noise: ``noise(n)`` returns the standard normal noise of step n, shaped like ``latents``; called for rules with noise only,
            and None if there are none.
        keep: numbers of the steps to keep for replay.
        means: numbers of the steps whose means are kept as well: the same ones, or none.

    Raises:
        UserError: a step to keep has no noise, hence no density.
    """
    kept: list[tuple[Tensor, Tensor, Step]] = []
    for number, rule in enumerate(rules):
        step = take_step(denoise, grid, rule, latents, level, _chooser(rule, noise, number))
        if number in keep:
            refuse_without_noise(step.transition, number, len(rules))
            kept.append((latents, level, step))
        latents, level = step.following, (level - 1).clamp(min=0)
    return _trajectories(latents, level, sorted(keep), kept, with_means=bool(means))


def replay(denoise: Denoise, grid: Grid, rule: Rule, trajectories: Trajectories, which: int) -> Step:
    """One kept step again, under another denoiser; `Step.log_prob` is that of the step the trajectories took.

    Args:
        which: the step's place among the kept ones; ``rule`` is the rule it was sampled by.
    """
    latents, following = trajectories.latents[:, which], trajectories.following[:, which]
    return take_step(denoise, grid, rule, latents, trajectories.levels[:, which], lambda _: following)


def refuse_without_noise(transition: Transition, number: int, count: int) -> None:
    """Raise a `UserError` if one of ``count`` sampling steps cannot be trained, since its next latents are certain or undefined."""
    if not bool(torch.isfinite(transition.std).all()):
        raise UserError(
            f"the noise of sampling step {number} (0 to {count - 1}) is not finite at the noise levels of this model; use another rule"
        )
    if not bool((transition.std > 0).all()):
        raise UserError(
            f"sampling step {number} (0 to {count - 1}) has no noise, so that nothing can be learnt from it; train other steps"
        )


def check_noise(rules: Mapping[int, Rule], grid: Grid) -> None:
    """Raise a `UserError` if one of some sampling steps has no noise, before anything is sampled.

    Args:
        rules: by number of the step, 0 for the first.
        grid: the levels.
    """
    for number, rule in rules.items():
        refuse_without_noise(_blank(rule, number, grid), number, grid.steps)


def deviation(rule: Rule, number: int, grid: Grid) -> float:
    """The standard deviation of a sampling step, of which 0 is the first."""
    return _blank(rule, number, grid).std.max().item()


def _blank(rule: Rule, number: int, grid: Grid) -> Transition:
    """The transition of a sampling step, whose deviation does not depend on what is sampled."""
    blank, level = torch.zeros(1, 1, 1, 1), torch.tensor([grid.steps - number])
    return rule.transition(blank, blank, grid.process, level, level - 1)


def _chooser(rule: Rule, noise: Callable[[int], Tensor] | None, number: int) -> Callable[[Transition], Tensor]:
    if not rule.noise:
        return lambda transition: transition.mean
    if noise is None:
        raise ValueError("a rule with noise needs noise to be drawn")
    return functools.partial(Transition.sample, noise=noise(number))


def _trajectories(
    final: Tensor,
    level: Tensor,
    numbers: Sequence[int],
    kept: Sequence[tuple[Tensor, Tensor, Step]],
    *,
    with_means: bool,
) -> Trajectories:
    count, shape = len(final), final.shape[1:]
    if not kept:
        nothing = final.new_empty(count, 0, *shape)
        levels, log_probs = level.new_empty(count, 0), final.new_empty(count, 0)
        return Trajectories(final, level, (), nothing, nothing, None, levels, log_probs)
    return Trajectories(
        final=final,
        level=level,
        kept=tuple(numbers),
        latents=torch.stack([latents for latents, _, _ in kept], dim=1),
        following=torch.stack([step.following for _, _, step in kept], dim=1),
        means=torch.stack([step.transition.mean for _, _, step in kept], dim=1) if with_means else None,
        levels=torch.stack([at for _, at, _ in kept], dim=1),
        log_probs=torch.stack([step.log_prob for _, _, step in kept], dim=1),
    )
