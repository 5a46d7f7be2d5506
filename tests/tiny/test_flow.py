"""The flow model: the pipeline that is saved says what its training computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.find import find_model
from bench.models.forward_process import FLOW_SCHEDULER, build_forward_process
from bench.tiny import TINY
from bench.tiny.building import denoiser


def test_the_saved_pipeline_is_a_flow_with_the_schedule_of_its_training(tmp_path: Path) -> None:
    source = TINY.source
    vae = AutoencoderKL.from_pretrained(source, subfolder="vae", local_files_only=True)
    text_encoder = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(Path(source) / "tokenizer")
    made = denoiser.assemble(vae, text_encoder, tokenizer, denoiser.build_unet(), denoiser.FLOW)
    made.save_pretrained(tmp_path)
    model = StableDiffusion.load(str(tmp_path), device=torch.device("cpu"))
    trained, times = build_forward_process(denoiser.FLOW.config), torch.arange(1000)
    assert find_model(str(tmp_path)).card.generation.scheduler == FLOW_SCHEDULER
    torch.testing.assert_close(model.process.network_times(times), trained.network_times(times), rtol=0, atol=0)
    assert trained.network_times(times[499:500]).item() == pytest.approx(1000 * 2 / 3, rel=1e-6)
