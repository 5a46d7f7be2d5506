from __future__ import annotations

import torch
from torch import Tensor

from bench.tiny.building.denoiser import build_unet
from bench.tiny.building.layout_heads import LAYOUT_VALUES, LayoutHeads


def called(unet: torch.nn.Module) -> Tensor:
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=source)
    states = torch.randn(2, 5, 128, generator=source)
    output: Tensor = unet(latents, torch.tensor([900, 100]), states).sample
    return output


def test_heads_that_know_everything_have_no_loss_and_the_denoiser_is_as_before_without_them() -> None:
    unet = build_unet()
    with torch.no_grad():
        before = called(unet)
    heads = LayoutHeads(unet)
    assert len(heads.cells) == len(heads.layouts) == 4  # down, middle and two of the upward block
    assert torch.equal(called(unet), before)

    # A head without weights answers with its bias: for a layout that can be right, for an 8x8 grid of cells it is the mean.
    for head in [*heads.cells, *heads.layouts]:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    of_cells = torch.linspace(-1, 1, 8).square().mean()
    torch.testing.assert_close(heads.loss(torch.zeros(2, LAYOUT_VALUES)), of_cells)
    torch.testing.assert_close(heads.loss(torch.eye(2, LAYOUT_VALUES)), of_cells + 1 / LAYOUT_VALUES)

    heads.remove()
    heads_of = [module for module in unet.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert heads_of == []


def test_the_loss_reaches_the_denoiser_and_belongs_to_its_latest_call() -> None:
    unet = build_unet()
    heads = LayoutHeads(unet)
    called(unet)
    called(unet)
    heads.loss(torch.zeros(2, LAYOUT_VALUES)).backward()
    assert unet.conv_in.weight.grad is not None
    assert unet.conv_in.weight.grad.abs().sum() > 0
