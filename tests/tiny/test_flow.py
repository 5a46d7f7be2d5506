"""The flow model: the pipeline that is saved says what its training computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.find import find_model
from bench.models.forward_process import FLOW_SCHEDULER, build_forward_process
from bench.tiny import TINY
from bench.tiny.building import denoiser


class Recorder(nn.Module):
    """A denoiser that predicts zeros and keeps the times that it is told."""

    def forward(self, latents: Tensor, times: Tensor, states: Tensor) -> SimpleNamespace:
        self.times = times
        return SimpleNamespace(sample=torch.zeros_like(latents))


def test_training_tells_the_denoiser_the_times_of_its_sampler_and_asks_for_the_flow() -> None:
    process, unet, t = build_forward_process(denoiser.FLOW.config), Recorder(), torch.tensor([0, 499, 999])
    latents, noise = torch.full((3, 4, 2, 2), 0.5), torch.full((3, 4, 2, 2), 2.0)
    error = denoiser.prediction_error(unet, process, latents, noise, t, torch.zeros(3, 1, 1))
    torch.testing.assert_close(unet.times, torch.tensor([2000 / 1001, 2000 / 3, 1000]))
    assert error.item() == pytest.approx((2.0 - 0.5) ** 2)


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
