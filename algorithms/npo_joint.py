"""NPO trained jointly: SPO's objective under classifier-free guidance, of which only the unconditional prediction is trained.

Wang et al. 2025 (ICLR), arXiv 2505.11245; released code G-U-N/Diffusion-NPO at a14f1db (folder RL-SPO-NPO, the script for SDXL).

Unlike in `algorithms.npo`, winner and loser are not swapped: the winning candidate is made more probable under the guided prediction
``eps(empty) + w (eps_ref(prompt) - eps(empty))``.  Its derivative with respect to ``eps(empty)`` is ``1 - w < 0``, so that the unconditional
prediction moves the opposite way.

What differs from the release, besides what differs in SPO (`algorithms.spo`):

* The release judges candidates at steps 8, 12, 16 and 19, three sampling steps after they were drawn, and trains on all four steps in between under
  that one verdict, three of which start from different latents for winner and loser.  Here every trained step has two candidates from the same latents.
* The release's conditional branch and reference are SDXL with SPO's adapters merged in.  Here they are the model's own weights: for the same, give a
  model folder with the merged weights as ``--model``.
* The release's adapters are on self-attention only; here they are on all attention layers, as for every algorithm.

As in the release, the prediction for the prompt is computed twice in training, for the policy and for its reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from algorithms.spo import SPO
from algorithms.tailorpo import TINY_LORA
from bench import AlgorithmInfo, Need, Policy, Predict, Recipe, one_per_slot


class NPOJoint(SPO):
    """Samples and compares as SPO does, and trains the unconditional branch of guidance; the conditional branch stays as it was."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="NPO-Joint",
        paper="Wang et al. 2025, arXiv 2505.11245",
        formula="SPO's, with p from eps(empty) + w (eps_ref(prompt) - eps(empty)), w > 1 the guidance scale; only eps(empty) is trained",
        status="follows the released code's guidance and loss for SDXL; there one verdict, after three more sampling steps, labels four steps, and "
        "adapters are on self-attention only",
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
            "four verdicts a prompt, each for four steps, PickScore fitted to noised images with their timestep, adapters on self-attention, and fp16",
            algorithm={"first": 4, "trained": 16, "rule": "ddim", "noise": 1.0},
            training={"steps": 5000, "global_batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0,
                      "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 64, "lora_init": "gaussian",
                      "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    guidance_scale: float = Field(
        default=5.0, gt=1, description="classifier-free guidance, in sampling and training alike"
    )
    held_out: int = Field(
        default=0, ge=0, description="captions that are not trained on, a quarter of the data's at most"
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
