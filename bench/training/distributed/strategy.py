"""How weights are laid out over the processes, and the collective operations that this requires."""

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
    """Where a network's weights live, and the collective operations that this requires."""

    @abc.abstractmethod
    def check(self, settings: TrainingSettings, together: int = 1) -> None:
        """Raise a `UserError` if the processes cannot train with these settings.

        Args:
            settings: how the run trains.
            together: how many samples at least share a micro-batch; see `bench.training.online.samples_together`.
        """

    @abc.abstractmethod
    def offload_until_placed(self, network: nn.Module) -> None:
        """Move ``network`` to where several copies of it fit until `place` is called."""

    @abc.abstractmethod
    def place(self, network: nn.Module) -> Callable[[], nn.Module]:
        """Lay out the weights of ``network``, in place.

        Returns:
            A function that returns, on the main process, a network with full weights for saving; every process must call it.
        """

    @abc.abstractmethod
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over the processes; called after a step's last backward, once for each part of the gradient."""

    @abc.abstractmethod
    def gather_full(self, value: Tensor) -> Tensor:
        """The full tensor of a weight, or of its gradient or optimizer state; every process must call it."""

    @abc.abstractmethod
    def shard_like(self, value: Tensor, like: Tensor) -> Tensor:
        """A full tensor that belongs to the weight ``like``, on its device and, if the shapes agree, sharded as it is."""

    @abc.abstractmethod
    def replaced(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        """``network`` with other values for some parameters, for forwards without gradient."""

    @abc.abstractmethod
    def any_rank(self, flag: bool) -> bool:
        """Whether ``flag`` is true on this rank, or on any other that must call the network at the same time."""

    @abc.abstractmethod
    def check_ranks_in_sync(self, operation: str) -> None:
        """Raise a `UserError` in every process unless all of them are about to run the same operation."""


def refuse_small_batch(settings: TrainingSettings, processes: int, together: int) -> None:
    """Raise a `UserError` if a process would get no pairs of a batch, ``together`` of which share a process at least."""
    if settings.global_batch_size // together < processes:
        raise UserError(
            f"global_batch_size={settings.global_batch_size} is too small for {processes} processes; start fewer of them"
        )


class Replicated(ParallelStrategy):
    """Full weights in every process; gradients are summed (DDP).

    Args:
        accelerator: the processes; None for a single one.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator

    def check(self, settings: TrainingSettings, together: int = 1) -> None:
        if self._accelerator is not None:
            refuse_small_batch(settings, self._accelerator.num_processes, together)

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

    def any_rank(self, flag: bool) -> bool:
        return flag

    def check_ranks_in_sync(self, operation: str) -> None:
        pass


class _Called(nn.Module):
    """A network with other values for some parameters, without a second copy of the rest."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._network, self._weights = [network], weights  # in a list, so it is not registered as a submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self._network[0], dict(self._weights), args, kwargs)
