"""How weights lie over the processes, and what the processes must do together because of it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.training.settings import TrainingSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


class ParallelStrategy(abc.ABC):
    """Where the weights of a network are, and what processes must do together because of it."""

    @abc.abstractmethod
    def check(self, settings: TrainingSettings) -> None:
        """Raise a `UserError` when the processes cannot train with these settings."""

    @abc.abstractmethod
    def offload_until_placed(self, network: nn.Module) -> None:
        """Move ``network`` to where it may wait, in copies, until it is placed."""

    @abc.abstractmethod
    def place(self, network: nn.Module) -> Callable[[], nn.Module]:
        """Lay out the weights of ``network``, in place.

        Returns:
            What gives a network with whole weights, for saving, on the main process; every process must call it.
        """

    @abc.abstractmethod
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make every gradient that of the global batch, after the last backward of a step."""

    @abc.abstractmethod
    def gather_full(self, value: Tensor) -> Tensor:
        """A weight, or what belongs to one, in whole; every process must call it."""

    @abc.abstractmethod
    def shard_like(self, value: Tensor, like: Tensor) -> Tensor:
        """What belongs to the weight ``like``, whole or of another shape, laid out as the weight is and on its device."""

    @abc.abstractmethod
    def replaced(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        """A network that computes, without gradient, with other values of some parameters."""

    @abc.abstractmethod
    def any_rank(self, wish: bool) -> bool:
        """Whether this process, or another that must ask the network at the same time, still has something to ask."""

    @abc.abstractmethod
    def check_ranks_in_sync(self, doing: str) -> None:
        """Raise a `UserError` in every process when the others are not about to do the same."""


def refuse_small_batch(settings: TrainingSettings, processes: int) -> None:
    """Raise a `UserError` when a process would have no pair of a batch."""
    if settings.global_batch_size < processes:
        raise UserError(
            f"global_batch_size={settings.global_batch_size} is too small for {processes} processes; start fewer"
        )


class Replicated(ParallelStrategy):
    """Whole in every process; gradients are summed.

    Args:
        accelerator: the processes; None for one alone.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator

    def check(self, settings: TrainingSettings) -> None:
        if self._accelerator is not None:
            refuse_small_batch(settings, self._accelerator.num_processes)

    def offload_until_placed(self, network: nn.Module) -> None:
        pass

    def place(self, network: nn.Module) -> Callable[[], nn.Module]:
        return lambda: network

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        if self._accelerator is None or self._accelerator.num_processes == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self._accelerator.reduce(parameter.grad, reduction="sum")

    def gather_full(self, value: Tensor) -> Tensor:
        return value

    def shard_like(self, value: Tensor, like: Tensor) -> Tensor:
        return value.to(like.device)

    def replaced(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        return _Called(network, weights)

    def any_rank(self, wish: bool) -> bool:
        return wish

    def check_ranks_in_sync(self, doing: str) -> None:
        pass


class _Called(nn.Module):
    """A network that computes with other values of some parameters, without a second copy of the rest."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._network, self._weights = [network], weights  # in a list, lest it be registered as a part

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self._network[0], dict(self._weights), args, kwargs)
