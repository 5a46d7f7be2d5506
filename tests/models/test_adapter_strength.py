"""An adapter acts with alpha / rank, wherever a program has left the alpha."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bench import UserError
from bench.models.checkpoints.compatibility import check_fits
from bench.models.checkpoints.strength import strength
from bench.models.family import ModelFamily
from bench.models.find import find_model

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
RANK = 4


@pytest.mark.parametrize(
    ("stated", "factor"),
    [
        ({}, 1.0),
        ({"lora_alpha": 4}, 1.0),
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),  # 8 / sqrt(4)
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"to_k": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {"attn2.to_q": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {f"unet.{LAYER}": 1}}, 0.25),
        ({"lora_alpha": 8, "alpha_pattern": {r"down_blocks\.[0-1]\.attentions\.\d+\..*(to_q|to_k)": 1}}, 0.25),
    ],
)
def test_strength(stated: Mapping[str, Any], factor: float) -> None:
    assert strength(LAYER, RANK, stated) == factor


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=torch.device("cpu"))


@pytest.fixture
def adapters(pipeline_folder: Callable[..., Path], tmp_path: Path) -> tuple[ModelFamily, str, torch.Tensor, Path]:
    """A model, one of its layers, the product of the two factors of an adapter for it, and the folder of the adapter."""
    model = load(pipeline_folder("sd15"))
    layer = next(name for name, _ in model.network.named_modules() if name.endswith("attn1.to_q"))
    rows, columns = model.network.get_submodule(layer).weight.shape  # type: ignore[union-attr, misc]
    source = torch.Generator().manual_seed(0)
    first, second = torch.randn(RANK, columns, generator=source), torch.randn(rows, RANK, generator=source)
    save_file(
        {f"unet.{layer}.lora_A.weight": first, f"unet.{layer}.lora_B.weight": second},
        tmp_path / "adapter_model.safetensors",
    )
    return model, layer, second @ first, tmp_path


@pytest.mark.parametrize(
    ("stated", "factor"),
    [(None, 1.0), ({"r": RANK, "lora_alpha": 16, "peft_type": "LORA"}, 4.0), ({"lora_alpha": 1}, 0.25)],
)
def test_a_folder_with_a_configuration_is_judged_at_its_strength(
    adapters: tuple[ModelFamily, str, torch.Tensor, Path], stated: dict[str, Any] | None, factor: float
) -> None:
    model, layer, product, folder = adapters
    if stated is not None:
        (folder / "adapter_config.json").write_text(json.dumps(stated))
    base: Any = model.network.get_submodule(layer)
    network = model.load_trained(folder)
    tuned: Any = network.get_submodule(layer)
    inputs = torch.eye(base.weight.shape[1])
    torch.testing.assert_close(tuned(inputs) - base(inputs), factor * product.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("\udcff", "is not valid JSON"),  # a byte that is not UTF-8
        ("[]", "is not a JSON object"),
        ('{"lora_alpha": "16"}', "must be numbers, found '16'"),
        ('{"lora_alpha": null}', "must be numbers, found None"),
        ('{"alpha_pattern": {"to_q": NaN}}', "must be numbers, found nan"),
        (f'{{"lora_alpha": {10**400}}}', "must be numbers, found 1000"),
        ('{"alpha_pattern": ["to_q"]}', "must be numbers, found None"),
        ('{"alpha_pattern": {"(": 1}}', "the key '(' of alpha_pattern is not a pattern for names of layers"),
        ('{"alpha_pattern": {"([a-z]+)+!": 1}}', "the key '([a-z]+)+!' of alpha_pattern is not a pattern"),
        ('{"alpha_pattern": {"%s!": 1}}' % ("(a|a)" * 40), "of alpha_pattern is not a pattern"),
        ('{"alpha_pattern": {"%s!": 1}}' % (".*" * 40), "of alpha_pattern is not a pattern"),
    ],
)
def test_a_damaged_configuration_is_refused(
    adapters: tuple[ModelFamily, str, torch.Tensor, Path], content: str, sentence: str
) -> None:
    model, _, _, folder = adapters
    (folder / "adapter_config.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    for read in (lambda: check_fits(folder, model.network, "sd15"), lambda: model.load_trained(folder)):
        with pytest.raises(UserError, match="adapter_config.json") as refused:
            read()
        assert sentence in str(refused.value)
