"""Digests of a model's components: what decides training or images changes them, and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import write_sdxl
from workshop import CPU, Workshop

from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.families.stable_diffusion_xl import StableDiffusionXL

Edit = Callable[[dict[str, Any]], Any]


def edited(file: Path, change: Edit) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


@pytest.fixture
def folder(micro_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(micro_model, tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "change", "part"),
    [
        ("scheduler/scheduler_config.json", lambda each: each.update(beta_end=0.013), "scheduler"),
        ("scheduler/scheduler_config.json", lambda each: each.update(clip_sample=True), "scheduler"),
        ("vae/config.json", lambda each: each.update(scaling_factor=0.2), "vae"),
        ("unet/config.json", lambda each: each.update(norm_eps=1e-4), "unet"),
        ("text_encoder/config.json", lambda each: each.update(layer_norm_eps=1e-4), "text_encoder"),
        ("tokenizer/tokenizer_config.json", lambda each: each.update(model_max_length=9), "tokenizer"),
        ("model_index.json", lambda each: each.update(scheduler=["diffusers", "DDPMScheduler"]), "scheduler"),
        ("model_index.json", lambda each: each.update(requires_safety_checker=True), None),
        ("unet/config.json", lambda each: each.update(_name_or_path="elsewhere"), None),
        ("scheduler/scheduler_config.json", lambda each: each.update(_diffusers_version="9"), None),
    ],
)  # fmt: skip
def test_the_component_that_was_edited_has_another_digest(
    folder: Path, file: str, change: Edit, part: str | None
) -> None:
    before = StableDiffusion.load(str(folder), device=CPU)
    first, encoding = dict(before.parts), dict(before.encoding_parts)
    assert {*first} == {"scheduler", "unet", "vae", "text_encoder", "tokenizer"}
    assert {*encoding} == {"vae", "text_encoder", "tokenizer"}
    edited(folder / file, change)
    after = StableDiffusion.load(str(folder), device=CPU)
    assert {name for name in first if after.parts[name] != first[name]} == ({part} if part else set())
    assert (after.encoding_parts != encoding) == (part in encoding)


def test_an_option_of_the_pipeline_decides_the_negative_embeddings_of_sdxl(tmp_path: Path) -> None:
    write_sdxl(tmp_path / "model")
    before = dict(StableDiffusionXL.load(str(tmp_path / "model"), device=CPU).encoding_parts)
    edited(tmp_path / "model" / "model_index.json", lambda each: each.update(force_zeros_for_empty_prompt=False))
    after = StableDiffusionXL.load(str(tmp_path / "model"), device=CPU).encoding_parts
    assert {name for name in before if after[name] != before[name]} == {"model_index.json"}


def test_a_model_that_starts_from_other_weights_has_their_digest(workshop: Workshop, tmp_path: Path) -> None:
    """Candidates of a run with --init were cached as the base model's."""
    model = workshop.model()
    before = (model.digest, dict(model.parts))
    network: Any = workshop.model().network
    with torch.no_grad():
        network.conv_in.bias += 1
    network.save_pretrained(tmp_path / "other", safe_serialization=True)
    model.start_from(tmp_path / "other")
    assert model.digest != before[0]
    assert {name for name in before[1] if model.parts[name] != before[1][name]} == {"unet"}
