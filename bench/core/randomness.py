"""Randomness is addressed, not streamed: every draw is a function of what it is for.

A draw keyed by (seed, purpose, step, pair) does not depend on batch size, number of processes or interruptions, so a
resumed run equals an uninterrupted one and two algorithms see the same noise.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Key = int | str


def generator(*key: Key) -> torch.Generator:
    """A CPU generator whose stream depends only on ``key`` (SHA-256 of its parts and their types)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
    return torch.Generator().manual_seed(seed)


def step_generators(addresses: Sequence[tuple[Key, ...]]) -> Callable[[int], list[torch.Generator]]:
    """Generators for samplers that draw noise: of step n, one for each address, at (*address, "step", n)."""
    return lambda step: [generator(*address, "step", step) for address in addresses]


def normal(shape: Sequence[int], *key: Key) -> Tensor:
    """Standard normal noise at an address; float32 on the CPU, of the given shape."""
    return torch.randn(tuple(shape), generator=generator(*key))


def uniform(*key: Key) -> float:
    """A number in [0, 1) at an address."""
    return torch.rand((), generator=generator(*key), dtype=torch.float64).item()


def permutation(count: int, *key: Key) -> Tensor:
    """A permutation of ``range(count)`` at an address; int64, shape (count,)."""
    return torch.randperm(count, generator=generator(*key))


class Draws:
    """The draws of one training step for some pairs.

    Args:
        seed: the run's seed.
        step: the optimizer step, 0-based.
        index: the pairs' row numbers, in batch order.
        repeats: how often each row occurred earlier in the global batch, which may span two epochs: a repeat has its own draws.
    """

    def __init__(self, seed: int, step: int, index: Sequence[int], repeats: Sequence[int] | None = None) -> None:
        self.seed, self.step, self.index = seed, step, tuple(index)
        counts = repeats or [0] * len(index)
        self._addresses: list[tuple[Key, ...]] = [
            (row, repeat) if repeat else (row,) for row, repeat in zip(index, counts, strict=True)
        ]

    def normal(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Noise of ``shape`` for every pair; float32 on the CPU, shape (B, *shape)."""
        return torch.stack([normal(shape, self.seed, purpose, self.step, *each) for each in self._addresses])

    def normal_like(self, purpose: str, latents: Tensor) -> Tensor:
        """Noise of the shape, dtype and device of ``latents`` (B, ...), one row for each pair."""
        return self.normal(purpose, latents.shape[1:]).to(latents)

    def uniform(self, purpose: str) -> Tensor:
        """A number in [0, 1) for every pair; float64 on the CPU, shape (B,)."""
        values = [uniform(self.seed, purpose, self.step, *each) for each in self._addresses]
        return torch.tensor(values, dtype=torch.float64)


def batch_rows(count: int, batch: int, seed: int, step: int) -> list[int]:
    """Row numbers of the global batch of one step.

    Epochs are permutations keyed by (seed, epoch); a batch may span two of them, so that no pair is skipped or repeated
    within an epoch.
    """
    rows: list[int] = []
    position = step * batch
    while len(rows) < batch:
        epoch, offset = divmod(position + len(rows), count)
        order = _epoch_order(count, seed, epoch)
        rows.extend(order[offset : offset + batch - len(rows)].tolist())
    return rows


@functools.lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch; cached for the two epochs that a batch may span, since computing one takes time linear in the rows."""
    return permutation(count, seed, "order", epoch)
