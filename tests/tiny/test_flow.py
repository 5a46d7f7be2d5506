"""The flow model's training: one zero token does what the pipeline's many do."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from bench.models.families.stable_diffusion_3 import T5_TOKENS, StableDiffusion3
from bench.tiny import TINY
from bench.tiny.building import flow
from bench.tiny.building.layout_heads import LAYOUT_VALUES


def pipeline() -> flow.StableDiffusion3Pipeline:
    source = TINY.source
    vae = AutoencoderKL.from_pretrained(source, subfolder="vae", dtype=torch.float32, local_files_only=True)
    base = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", dtype=torch.float32, local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(Path(source) / "tokenizer")
    return flow.assemble(
        vae, flow.build_text_encoders(base), tokenizer, flow.build_transformer(base.config.hidden_size)
    )


@torch.no_grad()
def test_one_zero_token_does_what_many_do(tmp_path: Path) -> None:
    made = pipeline()
    made.save_pretrained(tmp_path / "flow")
    family = StableDiffusion3.load(str(tmp_path / "flow"), device=torch.device("cpu"))
    captions, source = ["a small fox on a red background at the top", ""], torch.Generator().manual_seed(0)
    for parameter in made.transformer.parameters():  # the last layer is zero in a new network
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=source))
    ids = torch.tensor(made.tokenizer(captions, padding="max_length")["input_ids"])
    latents, times = torch.randn(2, 4, 16, 16, generator=source), torch.tensor([10.0, 900.0])
    condition = family.encode_text(captions)
    assert condition["prompt_embeds"].shape[1] == ids.shape[1] + T5_TOKENS
    many = family.predict(made.transformer, latents, times, condition)
    with flow.one_zero_token(made.transformer):
        states, pooled = flow.encode((made.text_encoder, made.text_encoder_2), ids)
        one = made.transformer(latents, timestep=times, encoder_hidden_states=states, pooled_projections=pooled).sample
    assert many.std() > 0.1
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(family.predict(made.transformer, latents, times, condition), many, atol=0, rtol=0)


def test_heads_are_about_the_latest_call_and_leave_no_hooks() -> None:
    transformer = flow.build_transformer(8)
    heads, layouts = flow.BlockHeads(transformer), torch.zeros(2, LAYOUT_VALUES)
    for _ in range(2):
        transformer(torch.zeros(2, 4, 16, 16), encoder_hidden_states=torch.zeros(2, 3, 16),
                    pooled_projections=torch.zeros(2, 16), timestep=torch.zeros(2))  # fmt: skip
        heads.loss(layouts).backward()
    assert all(head.weight.grad is not None for head in heads.layouts)
    heads.remove()
    assert not transformer._forward_pre_hooks
    assert not any(block._forward_hooks for block in transformer.transformer_blocks)
