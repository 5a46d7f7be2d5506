"""Supervised fine-tuning on the preferred images: the baseline that every preference objective has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bench import Algorithm, AlgorithmInfo, PairBatch, Policy, Recipe, StepOutput, noised_images, sample_errors


class SFT(Algorithm):
    """The denoising loss on winners; the losers are not looked at."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="SFT",
        paper="Ho et al. 2020, arXiv 2006.11239, eq. 14, on the preferred images",
        formula="Mw",
        status="matches the paper's formula",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: one learning rate tried on training prompts of the tiny world",
            training={"steps": 80, "global_batch_size": 32, "learning_rate": 2e-5, "warmup_steps": 10},
        ),
        "sd15": Recipe(
            source="DiffusionDPO at 5233e759, --train_method sft, with the settings of its DPO launcher",
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 4, "learning_rate": 2.048e-5, "warmup_steps": 500,
                      "caption_dropout": 0.2},
        ),
        "sdxl": Recipe(
            source="DiffusionDPO at 5233e759, --train_method sft, with the settings of its SDXL launcher; with bf16 here, fp16 there",
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 1, "learning_rate": 2.048e-5, "warmup_steps": 200,
                      "caption_dropout": 0.2, "precision": "bf16", "gradient_checkpointing": True,
                      "size_conditioning": "nominal", "optimizer": "adafactor"},
        ),
    }  # fmt: skip

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        latents, targets, t = noised_images(policy.process, batch.draws, batch.winner)
        return StepOutput(sample_errors(policy.predict(latents, t, batch.condition), targets), t)
