"""Heads that make a denoiser learn where things belong; they are thrown away after training.

A caption's place moves the object only if a feature that says "left" meets one that says where a cell is.  By the denoising
loss alone neither is worth anything before the other, and after 780 steps of 64 the network still did not use the word.
With these heads it does after 100: every cross-attention must know where each cell is before it, and the scene's layout,
which at high noise only the caption tells, after it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from bench.tiny import world

LAYOUT_VALUES = 3 + len(world.TEXTURES)


def layout(scene: world.Scene) -> list[float]:
    """Where the object is, how large, and the background's texture: numbers of mean about 0 and deviation about 1."""
    place = [(scene.x - 0.5) / 0.13, (scene.y - 0.5) / 0.13, (scene.size - 0.6) / 0.13]
    return place + [(float(scene.texture == name) - 0.25) / 0.43 for name in world.TEXTURES]


class LayoutHeads(nn.Module):
    """Linear heads on the cross-attentions of a `UNet2DConditionModel`; ``loss`` is about the UNet's latest call.

    Args:
        unet: the denoiser; hooks remain on it until `remove`.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        attentions = [module for module in unet.modules() if isinstance(module, Transformer2DModel)]
        self.cells = nn.ModuleList(nn.Conv2d(module.in_channels, 2, 1) for module in attentions)
        self.layouts = nn.ModuleList(nn.Linear(module.in_channels, LAYOUT_VALUES) for module in attentions)
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._hooks = [
            unet.register_forward_pre_hook(lambda *_: self._forget()),
            *(module.register_forward_pre_hook(self._note_input, with_kwargs=True) for module in attentions),
            *(module.register_forward_hook(self._note_output) for module in attentions),
        ]

    def _forget(self) -> None:
        self._before, self._after = [], []

    def _note_input(self, _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._before.append(args[0] if args else kwargs["hidden_states"])

    def _note_output(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._after.append(output[0])

    def loss(self, layouts: Tensor) -> Tensor:
        """Mean squared error of both kinds of heads, whose targets have a variance of about 1.

        Args:
            layouts: of `layout`, float32 (B, LAYOUT_VALUES).
        """
        errors = []
        for head, features in zip(self.cells, self._before, strict=True):
            rows, columns = (torch.linspace(-1, 1, size) for size in features.shape[2:])
            cells = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
            errors.append((head(features) - cells).square().mean())
        for head, features in zip(self.layouts, self._after, strict=True):
            errors.append((head(features.mean(dim=(2, 3))) - layouts).square().mean())
        return 2 * torch.stack(errors).mean()

    def remove(self) -> None:
        """Take the hooks off the denoiser."""
        for hook in self._hooks:
            hook.remove()
