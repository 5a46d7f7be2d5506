"""The model being trained and its frozen reference, with their calls counted."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.core.errors import UserError
from bench.core.flops import FlopCounter
from bench.models.family import ModelFamily
from bench.models.forward_process import ForwardProcess
from bench.models.framing import Framing
from bench.models.frozen import cast_frozen_to_bf16
from bench.training.distributed.strategy import ParallelStrategy, Replicated
from bench.training.ledger import Ledger
from bench.training.settings import AdapterInit, Precision, TrainingSettings


class Policy:
    """A trainable denoiser with its reference.

    With full fine-tuning the reference is a frozen copy; with adapters it is the same network with the adapters switched off,
    which takes no second copy.  An algorithm cannot tell the difference.  Without a reference, the model itself is trained.

    `predict`, `reference`, `predict_with_snapshot` and `dummy_forward` share their arguments: noisy latents, (N, C, H, W), float32;
    training timesteps, int64, (N,), or times between them, floating point, see `bench.ForwardProcess.network_times`; and the conditioning, (N, ...) each, as `bench.PairBatch` holds it.  N need not be the number
    of pairs.  They return the network's raw prediction (noise, v or flow, see `bench.ForwardProcess`) in the shape of the
    latents: float32, or bfloat16 under ``precision=bf16``, where the forward pass runs under autocast.  Cast before squaring, as
    `bench.sample_errors` does: in half precision, equal networks would not have a margin of 0.

    Args:
        with_reference: whether the algorithm needs a reference.
        image_precision: arithmetic of images that are made along the training, of settings that ask for them.
        strategy: how the weights are laid out over the processes; None for a single process.

    Attributes:
        network: the trainable network.
        ledger: counts every forward and backward.
        snapshots: copies of the trainable weights that the algorithm keeps, by name and parameter; part of every checkpoint.
        average: the moving average of the trainable weights that is saved and evaluated, by parameter; empty if the settings ask for none.
            Part of every checkpoint.
        measured: what is measured once in a run, by name; part of every checkpoint, too.
        whole_network: returns the network with full weights on the main process, for saving; every process must call it.
    """

    def __init__(
        self,
        model: ModelFamily,
        settings: TrainingSettings,
        ledger: Ledger,
        *,
        with_reference: bool = True,
        image_precision: Precision = "fp32",
        strategy: ParallelStrategy | None = None,
    ) -> None:
        self.model, self.ledger = model, ledger
        self.strategy = strategy or Replicated()
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        self.average: dict[str, Tensor] = {}
        self.measured: dict[str, float] = {}
        self._autocast = settings.precision == "bf16"
        self._ema_decay, self._ema_every = settings.ema_decay, settings.ema_every
        self._with_reference = with_reference
        self._reference: nn.Module | None = None
        if settings.trainable == "lora":
            # Images in fp32 along the training are made with the frozen weights as they are.
            fp32 = not self._autocast or (settings.watched and image_precision == "fp32")
            adapted = functools.partial(add_adapters, targets=model.lora_targets, settings=settings)
            self.network = model.change_network(
                adapted if fp32 else lambda network: cast_frozen_to_bf16(adapted(network))
            )
            self.strategy.offload_until_placed(self.network)
        else:
            self.strategy.offload_until_placed(model.network)
            self.network = model.network
            if with_reference:
                self._reference = model.network
                self.network = copy.deepcopy(model.network)
                if self._autocast:
                    cast_frozen_to_bf16(self._reference)
            self.network.requires_grad_(True)
        if settings.gradient_checkpointing:
            self.network.train()  # diffusers recomputes only in training mode; none of these networks has dropout
            self.network.enable_gradient_checkpointing()  # type: ignore[operator]
        if settings.compile:
            self.network.compile()
            if self._reference is not None:
                self._reference.compile()
        self.whole_network = self.strategy.place(self.network)
        if self._reference is not None:
            self.strategy.place(self._reference)
        if self._ema_decay:
            self.average = self._copied()

    @property
    def process(self) -> ForwardProcess:
        """The forward process."""
        return self.model.process

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The trainable parameters with their names, in a fixed order."""
        return [(name, parameter) for name, parameter in self.network.named_parameters() if parameter.requires_grad]

    def predict(self, latents: Tensor, timesteps: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The policy's raw prediction, in the shape of ``latents``; with gradient if gradients are enabled.

        Counted as N forwards, plus N backwards if gradients are enabled.  The backwards count even if they are never run, so
        wrap calls that do not need a gradient in `torch.no_grad`.
        """
        self.ledger.policy_forwards += len(latents)
        if torch.is_grad_enabled():
            self.ledger.policy_backwards += len(latents)
        self.strategy.check_ranks_in_sync("the policy with gradient" if torch.is_grad_enabled() else "the policy")
        return self.run_network(self.network, latents, timesteps, condition)

    @torch.no_grad()
    def reference(self, latents: Tensor, timesteps: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The reference's raw prediction, in the shape of ``latents``, without gradient; counted as N reference forwards.

        Raises:
            ValueError: the algorithm does not state `bench.Need.REFERENCE`.
        """
        if not self._with_reference:
            raise ValueError("an algorithm that calls the reference must state Need.REFERENCE in its needs")
        self.ledger.reference_forwards += len(latents)
        self.strategy.check_ranks_in_sync("the reference")
        if self._reference is not None:
            return self.run_network(self._reference, latents, timesteps, condition)
        with adapters_off(self.network):
            return self.run_network(self.network, latents, timesteps, condition)

    def snapshot(self, name: str) -> None:
        """Keep a copy of the current trainable weights under a name; it becomes part of every checkpoint."""
        self.snapshots[name] = self._copied()

    @torch.no_grad()
    def update_ema(self, name: str, decay: float) -> None:
        """Move a snapshot towards the current weights, in place: ``decay * snapshot + (1 - decay) * current``.

        Raises:
            KeyError: there is no snapshot of that name.
        """
        self._move(self.snapshots[name], decay)

    def _copied(self) -> dict[str, Tensor]:
        return {key: parameter.detach().clone() for key, parameter in self.parameters()}

    def _move(self, weights: Mapping[str, Tensor], decay: float) -> None:
        for key, parameter in self.parameters():
            weights[key].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def update_average(self, steps: int) -> None:
        """Move the average that is evaluated towards the current weights, once in ``ema_every`` steps, of which ``steps`` have been taken.

        Called by the harness.  The decay is at most (1 + steps) / (10 + steps), so that the first weights are soon forgotten, as in the
        released code of Flow-GRPO (yifan123/flow_grpo, flow_grpo/ema.py).
        """
        if self.average and steps % self._ema_every == 0:
            self._move(self.average, min(self._ema_decay, (1 + steps) / (10 + steps)))

    def evaluated(self) -> nn.Module:
        """The network with the weights that are saved and evaluated, for forwards without gradient; called by the harness."""
        return self.strategy.replaced(self.network, self.average) if self.average else self.network

    @torch.no_grad()
    def end(self, steps: int) -> None:
        """Give the network the weights that are saved after so many steps; called by the harness, and nothing is trained afterwards.

        Raises:
            UserError: the average has never moved, so that it is the weights before training.
        """
        if not self.average:
            return
        if steps < self._ema_every:
            raise UserError(
                f"training ended after {steps} steps, before the moving average of the weights, which is what gets saved, was updated once: "
                f"set ema_every to at most {steps}, or train longer"
            )
        for key, parameter in self.parameters():
            parameter.copy_(self.average[key])

    @torch.no_grad()
    def predict_with_snapshot(
        self, name: str, latents: Tensor, timesteps: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """The raw prediction with a snapshot's weights, in the shape of ``latents``, without gradient.

        Counted as N reference forwards.

        Raises:
            KeyError: there is no snapshot of that name.
        """
        self.ledger.reference_forwards += len(latents)
        self.strategy.check_ranks_in_sync(f"snapshot {name}")
        replaced = self.strategy.replaced(self.network, self.snapshots[name])
        return self.run_network(replaced, latents, timesteps, condition)

    def any_rank(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank that shares its weights with this one.

        Ranks with sharded weights must call the network together, or they deadlock: a loop whose length depends on the pairs
        must run while any rank needs another iteration, with `dummy_forward` on the ranks that are done.
        """
        return self.strategy.any_rank(flag)

    @torch.no_grad()
    def dummy_forward(self, latents: Tensor, timesteps: Tensor, condition: Mapping[str, Tensor]) -> None:
        """Call the policy and discard the result, because another rank needs the call; not counted as a cost of the run."""
        self.strategy.check_ranks_in_sync("the policy")
        self.run_network(self.network, latents, timesteps, condition)

    def forward_flops(self, condition: Mapping[str, Tensor]) -> int:
        """Floating-point operations of one forward of one image at the model's resolution; ``condition`` has one row."""
        side = self.model.resolution
        device = next(self.network.parameters()).device
        sizes = self.model.picture_condition(Framing.whole((side, side)))
        conditioning = {name: value.to(device) for name, value in condition.items()}
        conditioning |= {name: value[None].to(device) for name, value in sizes.items()}
        latents = torch.zeros(1, *self.model.latent_shape(side, side), device=device)
        first = torch.zeros(1, dtype=torch.int64, device=device)
        with torch.no_grad(), FlopCounter() as counter:
            self.run_network(self.network, latents, first, conditioning)
        flops: int = counter.total
        return flops

    def run_network(
        self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Mapping[str, Tensor]
    ) -> Tensor:
        """The raw prediction of any of this policy's networks, in the run's precision; not counted."""
        with torch.autocast(latents.device.type, dtype=torch.bfloat16, enabled=self._autocast):
            return self.model.predict(network, latents, self.process.network_times(timesteps), condition)


ADAPTER_INITS: Mapping[AdapterInit, bool | Literal["gaussian"]] = {"uniform": True, "gaussian": "gaussian"}
"""PEFT's names for how the first factor starts; the second is 0 in both."""


def add_adapters(network: Any, targets: Sequence[str], settings: TrainingSettings) -> nn.Module:
    """Add trainable low-rank adapters to layers of a network, in place; initially their effect is exactly 0.

    Args:
        targets: names of the layers, see `ModelFamily.lora_targets`.
        settings: rank and initial values.
    """
    from peft import LoraConfig

    torch.manual_seed(0)  # the adapters' first factor is random; the second is 0
    rank, init = settings.lora_rank, ADAPTER_INITS[settings.lora_init]
    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights=init))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return network  # type: ignore[no-any-return]


@contextlib.contextmanager
def adapters_off(network: Any) -> Iterator[None]:
    """Switch the adapters of ``network`` off for the duration of the block."""
    network.disable_adapters()
    try:
        yield
    finally:
        network.enable_adapters()
