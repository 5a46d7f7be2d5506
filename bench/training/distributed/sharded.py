"""Weights that are sharded over the processes (FSDP)."""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from bench.core.errors import UserError
from bench.training.distributed.strategy import ParallelStrategy
from bench.training.optimizers import OPTIMIZERS
from bench.training.settings import TrainingSettings


class Sharded(ParallelStrategy):
    """Sharded by torch's ``fully_shard``: every forward and backward gathers each block's weights on all processes.

    All processes must therefore call the networks in the same order.  If they do not, `check_ranks_in_sync` stops all of them;
    otherwise they would deadlock, or compute with the weights of another network.

    Args:
        accelerator: the processes.
        reshard_after_forward: whether a block's weights are released after its forward (ZeRO stage 3).  If not (stage 2), they
            stay gathered until the backward, and frozen networks are not sharded at all: faster, but only gradients and moments
            take less memory.
    """

    def __init__(self, accelerator: Accelerator, *, reshard_after_forward: bool) -> None:
        self._accelerator, self._reshard = accelerator, reshard_after_forward

    @functools.cached_property
    def _mesh(self) -> DeviceMesh:
        return init_device_mesh(self._accelerator.device.type, (self._accelerator.num_processes,))

    def check(self, settings: TrainingSettings, together: int = 1) -> None:
        processes = self._accelerator.num_processes
        if settings.global_batch_size // together % processes:
            raise UserError(
                f"global_batch_size={settings.global_batch_size} cannot be shared evenly by {processes} processes with sharded "
                f"weights (FSDP); choose a multiple of {processes * together}"
            )
        if not OPTIMIZERS[settings.optimizer].elementwise:
            raise UserError(
                f"optimizer={settings.optimizer} does not work with sharded weights (FSDP); use optimizer=adamw"
            )
        if settings.aspect_ratios == "buckets":
            raise UserError(
                "aspect_ratios=buckets does not work with sharded weights (FSDP), since every process must call the network "
                "equally often; use aspect_ratios=square"
            )
        if settings.compile:
            raise UserError("compile=true does not work with sharded weights (FSDP); use compile=false")

    def offload_until_placed(self, network: nn.Module) -> None:
        network.to("cpu")  # two full copies may not fit on the device

    def place(self, network: nn.Module) -> Callable[[], nn.Module]:
        if not self._reshard and not any(parameter.requires_grad for parameter in network.parameters()):
            network.to(self._accelerator.device)
            return lambda: network
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # only contiguous weights can be sharded
        full = _meta_copy(network)
        # One FSDP unit per block that diffusers keeps on one device, so that only one block is gathered at a time.
        units = set(getattr(network, "_no_split_modules", None) or ())
        blocks = [module for module in network.modules() if type(module).__name__ in units]
        # Inner blocks first: fully_shard takes the parameters that no earlier call has taken, so an outer module sharded first
        # would take those of its blocks too.
        for module in [*reversed(blocks), network]:
            # The root is resharded too: a forward on weights that stay gathered would not see those of `replaced`.
            fully_shard(module, mesh=self._mesh, reshard_after_forward=self._reshard)
        for module in network.modules():
            if isinstance(module, FSDPModule):  # sum, not mean: losses are already divided by the global batch size
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        if not self._reshard:
            # Registered after fully_shard, so it runs after FSDP's own hooks, when the forward has finished with the weights.
            network.register_forward_hook(_reshard_without_backward)
        return lambda: self._gather_into(full, network)

    def _gather_into(self, full: nn.Module, network: nn.Module) -> nn.Module:
        for name, parameter in network.named_parameters():
            value = self.gather_full(parameter.detach())
            if self._accelerator.is_main_process:
                owner, _, field = name.rpartition(".")
                setattr(full.get_submodule(owner), field, nn.Parameter(value.cpu(), requires_grad=False))
        return full

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        pass  # FSDP's backward has already summed them

    def gather_full(self, value: Tensor) -> Tensor:
        return value.full_tensor() if isinstance(value, DTensor) else value

    def shard_like(self, value: Tensor, like: Tensor) -> Tensor:
        value = value.to(like.device)
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)

    def replaced(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        return _Swapped(network, weights)

    def any_rank(self, flag: bool) -> bool:
        flags = torch.tensor(float(flag), device=self._accelerator.device)
        return bool(self._accelerator.reduce(flags, reduction="sum").item())

    def check_ranks_in_sync(self, operation: str) -> None:
        codes = torch.tensor([zlib.crc32(operation.encode())], dtype=torch.int64, device=self._accelerator.device)
        if len(set(self._accelerator.gather(codes).tolist())) > 1:
            raise UserError(
                f"ranks called the network in different orders (this rank: {operation}): this algorithm makes a data-dependent "
                "number of network calls, which sharded weights (FSDP) do not support; start it without --use_fsdp or "
                "--use_deepspeed"
            )


def _reshard_without_backward(network: nn.Module, *_: Any) -> None:
    """Release gathered weights after a forward without a backward; they would be stale after the optimizer step."""
    if not torch.is_grad_enabled():
        _reshard(network)


def _reshard(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class _Swapped(nn.Module):
    """A network with other values for some sharded parameters: they are swapped in for the duration of a forward."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._network, self._weights = [network], weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        _reshard(self._network[0])  # weights that are still gathered would hide the swapped-in shards
        self._swap()
        try:
            return self._network[0](*args, **kwargs)
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        parameters = dict(self._network[0].named_parameters())
        for name, value in self._weights.items():
            current = parameters[name].detach().clone()
            parameters[name].copy_(value)
            value.copy_(current)


def _meta_copy(network: nn.Module) -> nn.Module:
    """A copy of ``network`` whose parameters are on the meta device and take no memory."""
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    return copy.deepcopy(network, dict(empty))
