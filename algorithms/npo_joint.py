"""NPO trained jointly: SPO on guided samples of which only the unconditional branch is trained.

Wang et al. 2025 (ICLR), arXiv 2505.11245; released code G-U-N/Diffusion-NPO at a14f1db (folder RL-SPO-NPO, the script for SDXL).

Preferences are not swapped, unlike in `algorithms.npo`: the guided prediction ``w cond + (1 - w) uncond`` is made more probable where the reward
is higher, and since its derivative by the unconditional prediction is ``1 - w < 0``, that prediction moves the opposite way.

What differs from the release, besides what differs in SPO (`algorithms.spo`):

* Its positive and reference weights are SDXL with SPO's adapters merged in.  Here they are the weights that training starts from: ``--init`` names others
  than the base model's.
* Its adapters are on self-attention only; here they are where all algorithms have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from algorithms.spo import SPO
from algorithms.tailorpo import TINY_LORA
from bench import AlgorithmInfo, Need, Policy, Predict, Recipe, one_per_slot


class NPOJoint(SPO):
    """Trains the unconditional branch of guidance within it; the prompts' branch has the weights that training starts from."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="NPO-Joint",
        paper="Wang et al. 2025, arXiv 2505.11245",
        formula="SPO's, where p has the prediction eps + w (eps_ref(prompt) - eps), w > 1, of which eps alone, without a prompt, is trained",
        status="matches the released code's loss and guidance for SDXL; positive weights are those that training starts from, adapters are on all "
        "attention layers, and what SPO does not offer is not offered here",
    )
    needs: ClassVar[frozenset[Need]] = SPO.needs | {Need.GUIDANCE}
    negative: ClassVar[bool] = True
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            name="untried",
            source="ours: spo's, with two candidates as published and the guidance of the model's evaluation; no whole run has been looked at",
            algorithm={"sampling_steps": 10, "first": 2, "trained": 3, "guidance_scale": 3.0},
            training=TINY_LORA,
        ),
        "sdxl": Recipe(
            source="released config for SDXL at a14f1db: 10 epochs of 4,000 prompts, 4 processes x 2; there up to 8 updates on a batch of prompts, "
            "three more sampling steps before a candidate is judged, PickScore fitted to noised pictures with their timestep, adapters on self-attention, and fp16",
            algorithm={"first": 4, "trained": 16, "rule": "ddim", "noise": 1.0},
            training={"steps": 5000, "global_batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0,
                      "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 64, "lora_init": "gaussian",
                      "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    guidance_scale: float = Field(
        default=5.0, gt=1, description="classifier-free guidance, in sampling and training alike"
    )
    candidates: int = Field(
        default=2, ge=2, description="candidates per trained step; the best and the worst are compared"
    )
    threshold: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description="a pair is compared if the probability that its winner is preferred exceeds the loser's by more; rewards are log odds",
    )

    def networks(self, policy: Policy) -> tuple[Predict, Predict]:
        """Without a prompt the policy or the reference, with a prompt the reference for both."""
        return one_per_slot(policy.predict, policy.reference), one_per_slot(policy.reference, policy.reference)
