"""Shared training settings: those of Diffusion-DPO's recipes, which other recipes start from."""

from __future__ import annotations

from typing import Any

from algorithms.dpo import DPO
from bench import Recipe

TINY: dict[str, Any] = {"steps": 100, "global_batch_size": 32, "learning_rate": 1e-5, "warmup_steps": 10}
"""Our setting for the tiny world, with the learning rate that its first version had; the sweep chooses others."""
SWEPT = "ours: the best of four trials on tuning prompts of the tiny world (docs/tiny-recipes.md)"
"""The source of settings that the sweep chose."""
TINY_ONLINE: dict[str, Any] = {
    "trainable": "lora", "lora_rank": 8, "learning_rate": 1e-3, "warmup_steps": 0, "steps": 40, "global_batch_size": 48,
    "micro_batch_size": 48, "caption_dropout": 0.0,
}  # fmt: skip
"""Our setting for online algorithms on the tiny world: one update from each collection of 6 prompts x 8 samples."""
TINY_GRADIENT: dict[str, Any] = {
    "warmup_steps": 0, "steps": 80, "global_batch_size": 12, "micro_batch_size": 12, "caption_dropout": 0.0,
}  # fmt: skip
"""Our setting for algorithms that follow the gradient of the reward on the tiny world."""
SD3_ONLINE: dict[str, Any] = {
    "learning_rate": 3e-4, "warmup_steps": 0, "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 32,
    "lora_init": "gaussian", "gradient_checkpointing": True,
}  # fmt: skip
"""What the released code of Flow-GRPO for SD3.5 Medium has in common with that of DiffusionNFT and AWM, which are forks of it."""
SD15 = DPO.recipes["sd15"].training
"""The released launcher of Diffusion-DPO for SD1.5, of which most later code is a fork."""
SDXL = DPO.recipes["sdxl"].training
"""Its launcher for SDXL."""


def like_dpo(**fields: Any) -> dict[str, Recipe]:
    """Recipes for SD1.5 and SDXL of an objective without published settings: DPO's training settings with these fields."""
    return {
        model: Recipe(
            name="untried",
            source="ours: no setting for this model is published; the training is dpo's, the fields follow our tiny recipe, "
            "with dpo's beta where it is on its scale; not tried",
            algorithm=fields,
            training=training,
        )
        for model, training in (("sd15", SD15), ("sdxl", SDXL))
    }
