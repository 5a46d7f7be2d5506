"""How frozen weights are stored where the network runs under autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def stored_for(precision: str) -> Callable[[nn.Module], None]:
    """What stores a network's frozen weights, in place, as small as arithmetic in ``fp32`` or ``bf16`` needs them."""
    return {"fp32": unchanged, "bf16": cast_frozen_to_bf16}[precision]


def unchanged(_: nn.Module) -> None:
    """Leave a network as it is."""


def cast_frozen_to_bf16(network: nn.Module) -> None:
    """Store in bfloat16, in place, the frozen weights that autocast would cast anyway: those of linear layers and convolutions.

    Predictions under autocast stay the same to the last bit, in about half the memory.
    """
    for module in network.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if frozen and isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            module.to(torch.bfloat16)
