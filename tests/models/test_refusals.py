"""Model folders that cannot be used: one sentence each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import UserError
from bench.models.checkpoints.released import check_process
from bench.models.families.flux import Flux
from bench.models.families.stable_diffusion_xl import StableDiffusionXL
from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.sampling import build_scheduler
from bench.records.protocol import GenerationSettings

CPU = torch.device("cpu")


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=CPU)


@pytest.fixture
def sdxl(pipeline_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """An SDXL folder of one's own, to be damaged."""
    return shutil.copytree(pipeline_folder("sdxl"), tmp_path / "sdxl")


def test_another_family(pipeline_folder: Callable[..., Path]) -> None:
    with pytest.raises(
        UserError, match="holds a StableDiffusionXLPipeline, but this model family loads a FluxPipeline"
    ):
        Flux.load(str(pipeline_folder("sdxl")), device=CPU)


def test_a_family_that_nobody_registered(sdxl: Path) -> None:
    index = json.loads((sdxl / "model_index.json").read_text())
    (sdxl / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLImg2ImgPipeline"}))
    with pytest.raises(UserError, match=r"unknown pipeline class 'StableDiffusionXLImg2ImgPipeline': did you mean"):
        find_model(str(sdxl))


def test_a_component_that_was_not_downloaded(sdxl: Path) -> None:
    shutil.rmtree(sdxl / "text_encoder_2")
    with pytest.raises(UserError, match="lacks the component 'text_encoder_2'"):
        load(sdxl).encode_text(["a bee"])


def test_a_component_that_the_pipeline_was_saved_without(sdxl: Path) -> None:
    index = json.loads((sdxl / "model_index.json").read_text())
    (sdxl / "model_index.json").write_text(json.dumps({**index, "vae": [None, None]}))
    with pytest.raises(UserError, match="has no component 'vae'"):
        load(sdxl).latent_shape(16, 16)


def test_weights_that_are_cut_short(sdxl: Path) -> None:
    file = sdxl / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(
        UserError, match=r"diffusion_pytorch_model.safetensors is truncated; the download is incomplete"
    ):
        find_model(str(sdxl))


def test_a_missing_shard(pipeline_folder: Callable[..., Path], tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(pipeline_folder("sdxl"))
    pipeline.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    shard = sorted((tmp_path / "sharded" / "unet").glob("*-of-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing; the download is incomplete"):
        find_model(str(tmp_path / "sharded"))


def test_weights_without_some_of_their_tensors(sdxl: Path) -> None:
    file = sdxl / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights, such as conv_in.weight"):
        _ = load(sdxl).network


def test_pickled_weights(sdxl: Path) -> None:
    folder = sdxl / "unet"
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    torch.save(tensors, folder / "diffusion_pytorch_model.bin")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pickled weights \(diffusion_pytorch_model.bin\), which can run code"):
        find_model(str(sdxl))


def test_no_weights_at_all(sdxl: Path) -> None:
    (sdxl / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no safetensors weights; the download is incomplete"):
        find_model(str(sdxl))


def test_several_variants_alone(sdxl: Path) -> None:
    file = sdxl / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(file, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    file.rename(file.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    with pytest.raises(UserError, match="holds weights in the variants fp16 and non_ema, and none without; keep one"):
        find_model(str(sdxl))


def test_weights_of_another_name(sdxl: Path) -> None:
    file = sdxl / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("best.safetensors"))
    with pytest.raises(UserError, match="holds only best.safetensors; save the model as diffusion_pytorch_model.saf"):
        find_model(str(sdxl))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite(sdxl: Path, value: float) -> None:
    file = sdxl / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"][3] = value
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"the weight decoder.conv_in.bias is not finite"):
        load(sdxl).encode_images(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("kind", "size", "unit"),
    [("sd15", (16, 17), 2), ("sdxl", (15, 16), 2), ("sd3", (18, 16), 4), ("flux", (16, 22), 4)],
)
def test_a_size_that_does_not_divide(
    pipeline_folder: Callable[..., Path], kind: str, size: tuple[int, int], unit: int
) -> None:
    settings = GenerationSettings(height=size[0], width=size[1], guidance_scale=1)
    with pytest.raises(UserError, match=f"must be multiples of {unit}"):
        load(pipeline_folder(kind)).check(settings)


def test_a_size_beyond_the_positions_that_sd3_knows(pipeline_folder: Callable[..., Path]) -> None:
    model = load(pipeline_folder("sd3"))  # 24 positions of 2x2 latents of 2x2 pixels
    model.check(GenerationSettings(height=96, width=16))
    with pytest.raises(UserError, match="positions for up to 96 pixels per side"):
        model.check(GenerationSettings(height=16, width=100))


def test_guidance_on_a_model_that_knows_none(pipeline_folder: Callable[..., Path]) -> None:
    schnell = load(pipeline_folder("flux", guidance_embeds=False, use_dynamic_shifting=False, shift=1.0))
    schnell.check(schnell.generation)
    with pytest.raises(UserError, match=r"guidance_scale=3.5 has no effect"):
        schnell.check(schnell.generation.model_copy(update={"guidance_scale": 3.5}))


@pytest.mark.parametrize(
    ("kind", "scheduler", "advice"),
    [
        ("sd3", "DDIMScheduler", "use FlowMatchEulerDiscreteScheduler"),
        ("sdxl", "FlowMatchEulerDiscreteScheduler", "DDIM"),
    ],
)
def test_a_scheduler_of_the_other_kind(
    pipeline_folder: Callable[..., Path], kind: str, scheduler: str, advice: str
) -> None:
    model = load(pipeline_folder(kind))
    with pytest.raises(UserError, match=advice):
        build_scheduler(model.generation.model_copy(update={"scheduler": scheduler}), model)


def test_zero_terminal_snr_with_epsilon(pipeline_folder: Callable[..., Path]) -> None:
    folder = pipeline_folder("sd15", rescale_betas_zero_snr=True)
    with pytest.raises(UserError, match="rescale_betas_zero_snr with prediction_type 'epsilon'"):
        load(folder)


def test_released_weights_of_a_flow_may_have_been_trained_at_another_shift(
    pipeline_folder: Callable[..., Path],
) -> None:
    """The network is told the noise level itself, so a shift only says at which levels it was trained."""
    base = load(pipeline_folder("sd3"))
    check_process(pipeline_folder("sd3", shift=1.0) / "transformer", "theirs", base, "sd3")


def test_an_autoencoder_that_normalises_its_latents(sdxl: Path) -> None:
    config = json.loads((sdxl / "vae" / "config.json").read_text())
    (sdxl / "vae" / "config.json").write_text(
        json.dumps({**config, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4})
    )
    with pytest.raises(UserError, match="latents_mean are not supported"):
        StableDiffusionXL.load(str(sdxl), device=CPU).encode_images(torch.zeros(1, 3, 16, 16))
