"""Diffusion-NPO: any preference objective with winner and loser swapped; its weights guide sampling away from what people dislike.

Wang et al. 2025 (ICLR), arXiv 2505.11245; released code G-U-N/Diffusion-NPO at a14f1db.  That code keeps ties and calls one image
of a tie the loser; this project drops them from the data.  Its SDXL variant, which trains the negative inside guidance, is `algorithms.npo_joint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import model_validator
from torch import Tensor

from algorithms.recipes import SWEPT, TINY
from algorithms.wrapping import Wrapper
from bench import AlgorithmInfo, Need, PairBatch, Policy, Recipe, StepOutput


class NPO(Wrapper):
    """Trains on the opposite preference; sampling uses the result in the unconditional branch of classifier-free guidance."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-NPO",
        paper="Wang et al. 2025, arXiv 2505.11245",
        formula="L(winner := loser, loser := winner); sample with eps_neg + w (eps_pos - eps_neg)",
        status="matches released code (the DPO variant), except for ties; samples with the base model as the positive",
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REFERENCE, Need.GUIDANCE})
    negative: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source=SWEPT,
            algorithm={"objective": "dpo", "objective_fields": {"beta": 200.0}},
            training={**TINY, "learning_rate": 2e-4},
        ),
        "sd15": Recipe(
            source="released script at a14f1db: beta 500 with factor 1 is 1000 here, no caption dropout; its 5000 steps end at 2000 here, the step of the weights released for SDXL and named in the README; with AdamW (see optimizer=adamw-8bit) and fp32 here, 8-bit AdamW and fp16 there",
            algorithm={"objective": "dpo", "objective_fields": {"beta": 1000.0}},
            training={"steps": 2000, "global_batch_size": 64, "micro_batch_size": 4, "learning_rate": 5e-6, "warmup_steps": 0,
                      "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 8, "lora_init": "gaussian", "horizontal_flip": "image"},
        ),
        "sdxl": Recipe(
            source="released script at a14f1db: beta 2000, factor 1/2, no caption dropout, true sizes; the released weights are those of step 2000 of 5000; with AdamW (see optimizer=adamw-8bit) and bf16 here, 8-bit AdamW and fp16 there",
            algorithm={"objective": "dpo", "objective_fields": {"beta": 2000.0}},
            training={"steps": 2000, "global_batch_size": 60, "micro_batch_size": 2, "learning_rate": 5e-6, "warmup_steps": 0,
                      "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 8, "lora_init": "gaussian", "horizontal_flip": "pair",
                      "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    @model_validator(mode="after")
    def _objective_needs_pairs(self) -> Self:
        if Need.PAIRS not in self.inner.needs or self.inner.negative:
            raise ValueError(
                f"objective {self.objective!r} has no winner and loser to swap; choose dpo, ipo, hinge, ..."
            )
        if self.inner.empties_captions:
            raise ValueError(
                f"objective {self.objective!r} swaps pairs with an empty caption itself, and swapped twice they train the unconditional branch "
                "towards what people like; choose dpo, ipo, hinge, ..."
            )
        return self

    def global_batch_stats(self, batch: PairBatch, policy: Policy) -> Tensor | None:
        return self.inner.global_batch_stats(batch.flipped(), policy)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        return self.inner.step(batch.flipped(), policy)
