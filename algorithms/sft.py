"""Supervised fine-tuning on the preferred images: the baseline that every preference objective must beat.

The denoising loss of Ho et al. 2020, arXiv 2006.11239, eq. 14; released code for preferred images: SalesforceAIResearch/DiffusionDPO at
5233e759, ``train.py --sft``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from algorithms.recipes import SD15, SDXL, SWEPT, TINY
from bench import Algorithm, AlgorithmInfo, PairBatch, Policy, Recipe, StepOutput, noised_images, sample_errors


class SFT(Algorithm):
    """The denoising loss on winners; losers are ignored."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="SFT",
        paper="Ho et al. 2020, arXiv 2006.11239, eq. 14, on the preferred images",
        formula="Mw",
        status="matches released code (DiffusionDPO's train.py with --sft)",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            training={**TINY, "steps": 80, "learning_rate": 5e-5},
        ),
        "sd15": Recipe(
            source="DiffusionDPO's train.py at 5233e759 with --sft; no launcher uses it, so the settings are those of its DPO launcher",
            training=SD15,
        ),
        "sdxl": Recipe(
            source="DiffusionDPO's train.py at 5233e759 with --sft; no launcher uses it, so the settings are those of its SDXL launcher; with bf16 here, fp16 there",
            training=SDXL,
        ),
    }  # fmt: skip

    placebo: ClassVar[str | None] = "the winner, on which it trains, is chosen at random"

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        latents, targets, t = noised_images(policy.process, batch.draws, batch.winner)
        return StepOutput(sample_errors(policy.predict(latents, t, batch.condition), targets), t)
