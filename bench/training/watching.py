"""Looking at a model while it trains."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class Watcher(Protocol):
    """Called before the first step and after every one; must leave weights and random numbers as they are."""

    def __call__(self, step: int, pairs: int, network: nn.Module, *, last: bool) -> bool:
        """Look at the network.

        Args:
            step: number of steps taken.
            pairs: number of pairs seen.
            network: the denoiser with the weights that would be saved, for forwards without gradient.
            last: whether training has reached its end.

        Returns:
            Whether training is to stop here.
        """
        ...


def unwatched(step: int, pairs: int, network: nn.Module, *, last: bool) -> bool:  # noqa: ARG001  the signature of a Watcher
    """Never looks, never stops."""
    return False
