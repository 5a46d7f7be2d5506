"""Self-NPO: a negative model from the model's own images, without preferences: it is trained on its own predictions.

Wang et al. 2025 (AAAI 2026), arXiv 2505.11777; released code G-U-N/Diffusion-NPO (folder Self-NPO) at a14f1db, which differs from
the paper: it starts from real images, the EMA of the student generates, and generation is guided with w = -1, which ignores the caption.
That code stops early when every image of a process's batch has reached time 0, and then keeps the prediction of the step before as the
target; an image that arrives while others have not gets the prediction at time 0.  Here every image gets that, whatever its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from algorithms.recipes import SWEPT, TINY
from bench import (
    ODE,
    Algorithm,
    AlgorithmInfo,
    Condition,
    Denoise,
    ForwardProcess,
    Need,
    PairBatch,
    Policy,
    Recipe,
    StepOutput,
    guide,
    roll_out,
    strided_grid,
)

AVERAGE = "average"


def noise_further(process: ForwardProcess, latents: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Latents of time t moved to the noisier time s: ``x_s = (a_s / a_t) x_t + sqrt(sigma_s^2 - sigma_t^2 a_s^2 / a_t^2) noise``."""
    ratio = process.alpha(s, latents) / process.alpha(t, latents)
    spread = (process.sigma(s, latents) ** 2 - (process.sigma(t, latents) * ratio) ** 2).clamp(min=0).sqrt()
    return ratio * latents + spread * noise


def pseudo_huber(difference: Tensor, *, width: float) -> Tensor:
    """Mean over all non-batch elements of ``sqrt(d^2 + c^2) - c``, (B,)."""
    return ((difference.square() + width**2).sqrt() - width).flatten(1).mean(1)


class SelfNPO(Algorithm):
    """The target is a truncated generation by the EMA weights; the student predicts it from a noisier time."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Self-NPO",
        paper="Wang et al. 2025, arXiv 2505.11777",
        formula="|x0_avg(x_t) - x0(x_s)|_Huber, x_t by a few DDIM steps of the average, x_s re-noised from it",
        status="matches released code, with the first image of each pair as the real image, and without its early stop when a whole batch reaches time 0",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGES, Need.GUIDANCE})
    negative: ClassVar[bool] = True
    placebo: ClassVar[str | None] = None
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=f"{SWEPT}; the released steps of SD1.5, a faster average for a shorter training",
            algorithm={"decay": 0.99},
            training={**TINY, "global_batch_size": 16, "learning_rate": 5e-5},
        ),
        "sd15": Recipe(
            source="released code at a14f1db, no caption dropout; with AdamW (see optimizer=adamw-8bit), fp32 and bilinear resizing here, 8-bit AdamW, fp16 and Lanczos there",
            training={"steps": 1000, "global_batch_size": 20, "micro_batch_size": 4, "learning_rate": 1e-6, "warmup_steps": 0, "weight_decay": 1e-3,
                      "caption_dropout": 0.0},
        ),
        "sdxl": Recipe(
            source="released code at a14f1db, no caption dropout; with AdamW (see optimizer=adamw-8bit), bf16, bilinear resizing and the centre here; 8-bit AdamW, fp16, Lanczos and a random crop, whose place is told, there",
            algorithm={"grid": 25, "guidance_scale": -5.0},
            training={"steps": 1000, "global_batch_size": 10, "micro_batch_size": 1, "learning_rate": 1e-7, "warmup_steps": 0, "weight_decay": 0.0,
                      "caption_dropout": 0.0, "precision": "bf16", "gradient_checkpointing": True,
                      "size_conditioning": "nominal"},
        ),
    }  # fmt: skip

    grid: int = Field(default=25, ge=2, le=500, description="number of DDIM steps over all times")
    truncation: int = Field(
        default=5, ge=1, description="maximum number of DDIM steps per generation; the next prediction is the target"
    )
    guidance_scale: float = Field(
        default=-1.0, ge=-20, le=20, description="w of the generation, cond + w (cond - uncond); -1 ignores the caption"
    )
    decay: float = Field(default=0.999, ge=0, lt=1, description="decay of the EMA weights that generate")
    width: float = Field(default=1e-3, gt=0, description="c of the pseudo-Huber loss")

    def begin(self, policy: Policy) -> None:
        policy.snapshot(AVERAGE)

    def end_step(self, step: int, policy: Policy) -> None:
        policy.update_ema(AVERAGE, self.decay)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        process, draws, device = policy.process, batch.draws, batch.candidates.device
        grid = strided_grid(process, self.grid)
        clean = batch.candidates[:, 0]
        condition = {name: value[:, 0] for name, value in batch.candidate_condition.items()}
        unconditional = {name: value[:, 0] for name, value in batch.candidate_unconditional.items()}
        level = (draws.uniform("start") * self.grid).long().to(device) + 1
        latents = process.add_noise(clean, draws.normal_like("noise", clean), grid.at(level))
        with torch.no_grad():
            denoise = self._denoiser(policy, condition, unconditional)
            generated = roll_out(denoise, grid, [ODE] * self.truncation, latents, level)
            latents, t = generated.final, grid.at(generated.level)
            target = process.to_x0(latents, denoise(latents, t), t)
        s = t + 1 + (draws.uniform("further").to(device) * (process.train_timesteps - 1 - t)).long()
        noised = noise_further(process, latents, draws.normal_like("renoise", clean), t, s)
        student = process.to_x0(noised, policy.predict(noised, s, condition), s)
        return StepOutput(pseudo_huber(student - target, width=self.width), s)

    def _denoiser(self, policy: Policy, condition: Condition, unconditional: Condition) -> Denoise:
        """The average's prediction under guidance.

        The released scale w starts at the captioned prediction, ``cond + w (cond - uncond)``, whereas `bench.guide` starts at
        its first argument: so the captioned prediction comes first, and ``-w`` is the scale.
        """

        def denoise(latents: Tensor, t: Tensor) -> Tensor:
            with_caption = policy.predict_with_snapshot(AVERAGE, latents, t, condition)
            without = policy.predict_with_snapshot(AVERAGE, latents, t, unconditional)
            return guide(with_caption, without, -self.guidance_scale)

        return denoise
