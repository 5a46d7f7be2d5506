"""What recipes share: the training settings of Diffusion-DPO's, which others start from."""

from __future__ import annotations

from typing import Any

from algorithms.dpo import DPO
from bench import Recipe

TINY = DPO.recipes["tiny"].training
"""Our setting for the tiny world."""
SD15 = DPO.recipes["sd15"].training
"""The released launcher of Diffusion-DPO for SD1.5, which most later codes are forks of."""
SDXL = DPO.recipes["sdxl"].training
"""Its launcher for SDXL."""


def like_dpo(**fields: Any) -> dict[str, Recipe]:
    """Recipes for SD1.5 and SDXL of an objective that nobody published one for: DPO's training, with these fields."""
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
