"""Weights that are split over the processes (FSDP)."""

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
    """Split over the processes by torch's ``fully_shard``; every forward and backward gathers a block's weights in all of them.

    So all processes must use the networks in the same order.  Where they do not, `check_ranks_in_sync` ends all of them, since otherwise
    they would wait for each other forever, or compute with weights of another network.

    Args:
        accelerator: the processes.
        reshard_after_forward: whether a block's weights are given up again after a forward (ZeRO stage 3), or stay whole until
            the backward, and those of frozen networks always (stage 2): faster, and only gradients and moments take less memory.
    """

    def __init__(self, accelerator: Accelerator, *, reshard_after_forward: bool) -> None:
        self._accelerator, self._reshard = accelerator, reshard_after_forward

    @functools.cached_property
    def _mesh(self) -> DeviceMesh:
        return init_device_mesh(self._accelerator.device.type, (self._accelerator.num_processes,))

    def check(self, settings: TrainingSettings) -> None:
        if settings.global_batch_size % self._accelerator.num_processes:
            raise UserError(
                f"global_batch_size={settings.global_batch_size} cannot be shared evenly by {self._accelerator.num_processes} processes that split the "
                "weights (FSDP); choose a multiple"
            )
        if not OPTIMIZERS[settings.optimizer].elementwise:
            raise UserError(f"optimizer={settings.optimizer} cannot work on split weights (FSDP); use optimizer=adamw")
        if settings.aspect_ratios == "buckets":
            raise UserError(
                "aspect_ratios=buckets does not go with split weights (FSDP), whose processes take equally many steps through "
                "the network; use aspect_ratios=square"
            )
        if settings.compile:
            raise UserError("compile=true does not go with split weights (FSDP); use compile=false")

    def offload_until_placed(self, network: nn.Module) -> None:
        network.to("cpu")  # two whole copies may not fit the device

    def place(self, network: nn.Module) -> Callable[[], nn.Module]:
        if not self._reshard and not any(parameter.requires_grad for parameter in network.parameters()):
            network.to(self._accelerator.device)
            return lambda: network
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # only such weights can be split
        hollow = _meta_copy(network)
        # The blocks that diffusers keeps on one device are gathered one by one.
        units = set(getattr(network, "_no_split_modules", None) or ())
        blocks = [module for module in network.modules() if type(module).__name__ in units]
        for module in [*reversed(blocks), network]:  # inner ones first
            # The root too: weights that stay gathered would not see `replaced`.
            fully_shard(module, mesh=self._mesh, reshard_after_forward=self._reshard)
        for module in network.modules():
            if isinstance(module, FSDPModule):  # losses are divided by the global batch already
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        if not self._reshard:
            network.register_forward_hook(_reshard_without_backward)
        return lambda: self._gather_into(hollow, network)

    def _gather_into(self, hollow: nn.Module, network: nn.Module) -> nn.Module:
        for name, parameter in network.named_parameters():
            value = self.gather_full(parameter.detach())
            if self._accelerator.is_main_process:
                owner, _, field = name.rpartition(".")
                setattr(hollow.get_submodule(owner), field, nn.Parameter(value.cpu(), requires_grad=False))
        return hollow

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        pass  # the backward has done it

    def gather_full(self, value: Tensor) -> Tensor:
        return value.full_tensor() if isinstance(value, DTensor) else value

    def shard_like(self, value: Tensor, like: Tensor) -> Tensor:
        value = value.to(like.device)
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)

    def replaced(self, network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        return _Swapped(network, weights)

    def any_rank(self, wish: bool) -> bool:
        flag = torch.tensor(float(wish), device=self._accelerator.device)
        return bool(self._accelerator.reduce(flag, reduction="sum").item())

    def check_ranks_in_sync(self, doing: str) -> None:
        codes = torch.tensor([zlib.crc32(doing.encode())], dtype=torch.int64, device=self._accelerator.device)
        if len(set(self._accelerator.gather(codes).tolist())) > 1:
            raise UserError(
                f"the processes use the network differently (this one for {doing}): an algorithm that asks it more often for "
                "some pairs than for others cannot run with split weights; start it without --use_fsdp or --use_deepspeed"
            )


def _reshard_without_backward(network: nn.Module, *_: Any) -> None:
    """Give up gathered weights after a forward that no backward follows: they would be stale after the optimizer's step."""
    if not torch.is_grad_enabled():
        _reshard(network)


def _reshard(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class _Swapped(nn.Module):
    """A network that computes with other values of some split parameters: they trade places for the time of a forward."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._network, self._weights = [network], weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        _reshard(self._network[0])
        self._swap()
        try:
            return self._network[0](*args, **kwargs)
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        parameters = dict(self._network[0].named_parameters())
        for name, value in self._weights.items():
            mine = parameters[name].detach().clone()
            parameters[name].copy_(value)
            value.copy_(mine)


def _meta_copy(network: nn.Module) -> nn.Module:
    """A copy of ``network`` whose parameters take no memory."""
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    return copy.deepcopy(network, dict(empty))
