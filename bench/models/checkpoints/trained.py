"""Trained weights of a denoiser, read in any of the layouts in which they are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.models.checkpoints.adapters import read_tensors, with_adapters
from bench.models.checkpoints.compatibility import headers, holds_adapters, loaded_files
from bench.models.checkpoints.component import CONFIG
from bench.models.checkpoints.pipeline_folder import check_finite, explained, load_weights


def read_trained(place: Path, kind: type, name: str, base: Callable[[], nn.Module]) -> nn.Module:
    """A denoiser with trained weights, frozen: in main memory, or where ``base`` returns its network.

    Args:
        place: adapters, the folder of a diffusers network, or a file of all weights.
        kind: the denoiser's class.
        name: the denoiser's name in a pipeline.
        base: returns a network with the base model's weights, which is changed; not called for the folder of a network.

    Raises:
        UserError: the weights are missing, truncated, not finite, or of another architecture.
    """
    if holds_adapters(headers(place)):
        network = base()
        with explained(place):
            return with_adapters(network, place, name)
    if (place / CONFIG).exists():
        whole: nn.Module = load_weights(kind, place, torch.device("cpu"))
        return whole
    [file] = loaded_files(place)
    network = base()
    with explained(place):
        return with_weights(network, file)


def with_weights(network: nn.Module, file: Path) -> nn.Module:
    """The network with all its weights replaced by those in one file, in place.

    Raises:
        UserError: a weight is not finite.
    """
    network.load_state_dict({name: value.float() for name, value in read_tensors(file).items()})
    check_finite(network, file)
    return network.eval().requires_grad_(False)
