"""SPO: step-by-step preference optimisation, DPO on candidates for the next step that a preference model tells apart clearly.

Liang et al. 2024, arXiv 2406.04314; released code RockeyCoss/SPO at 27a86428.

The loss is TailorPO's (`algorithms.tailorpo`), which came later: both compare candidates from the same noisy sample.  SPO compares in late
steps only, leaves out pairs that the preference model is not sure of, and goes on with a random candidate.

Three things differ from the release:

* Its step-aware preference model is PickScore with the timestep as a further input, fitted to images that the base model sees in noised ones.
  Metrics here do not get a timestep.  The reward is any metric, applied to the image that the policy sees in the candidate, as there.
* Its code drops pairs below the threshold, shuffles the others of all steps, and takes an update on every 40 of them, up to 16 from one
  batch of prompts.  Here one batch of prompts is one update, on the mean over all pairs, of which those below the threshold have no gradient.
* Its SDXL configuration judges candidates only after three more sampling steps, and trains on all four steps under that one verdict.  That is
  not offered: here every trained step has a verdict of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from algorithms.tailorpo import TINY_LORA, TailorPO
from bench import AlgorithmInfo, Recipe


class SPO(TailorPO):
    """Several candidates, of which the best and the worst are compared if their rewards are far apart."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="SPO",
        paper="Liang et al. 2024, arXiv 2406.04314",
        formula="-log sigmoid(beta s (log r_w - log r_l)), r = clip(p(x_t-1 | x_t) / p_ref(x_t-1 | x_t), 1-c, 1+c), w and l the best and the worst "
        "candidate from one x_t, s = 1 if 2 sigmoid(R_w - R_l) - 1 > threshold, else 0, log p a mean over elements, c = clip",
        status="matches the released code's loss and choice of pairs; the reward does not get the timestep, a batch of prompts is one update, "
        "and SDXL's further steps before judging are not offered",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours, not tuned: LoRA, three of the last eight of ten steps, tailorpo's learning rate; beta, clip, candidates and threshold "
            "as published",
            algorithm={"sampling_steps": 10, "first": 2, "trained": 3},
            training=TINY_LORA,
        ),
        "sd15": Recipe(
            source="released config for SD1.5 at 27a86428: 10 epochs of 4,000 prompts, 4 processes x 10; there up to 16 updates on a batch of "
            "prompts, PickScore fitted to noised images with their timestep, and fp16",
            algorithm={"first": 4, "trained": 16, "rule": "ddim", "noise": 1.0, "guidance_scale": 5.0},
            training={"steps": 1000, "global_batch_size": 40, "micro_batch_size": 10, "learning_rate": 6e-5, "warmup_steps": 0,
                      "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 4, "lora_init": "gaussian"},
        ),
        "sdxl": Recipe(
            source="released config for SDXL at 27a86428: 10 epochs of 4,000 prompts, 4 processes x 2; there up to 8 updates on a batch of prompts, "
            "four verdicts a prompt, each for four steps, PickScore fitted to noised images with their timestep, and fp16",
            algorithm={"first": 4, "trained": 16, "rule": "ddim", "noise": 1.0, "guidance_scale": 5.0, "candidates": 2, "threshold": 0.4},
            training={"steps": 5000, "global_batch_size": 8, "micro_batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0,
                      "weight_decay": 1e-4, "caption_dropout": 0.0, "trainable": "lora", "lora_rank": 64, "lora_init": "gaussian",
                      "precision": "bf16", "gradient_checkpointing": True},
        ),
    }  # fmt: skip

    beta: float = Field(default=10.0, gt=0, description="how sharply the ratios decide")
    candidates: int = Field(
        default=4, ge=2, description="candidates per trained step; the best and the worst are compared"
    )
    next_state: Literal["winner", "random", "loser"] = Field(
        default="random", description="with which candidate sampling goes on"
    )
    first: int = Field(default=4, ge=0, description="number of the first step that may be trained, 0 for the noisiest")
    trained: int = Field(
        default=5, ge=1, description="sampling steps that are trained, evenly spaced over those from `first` on"
    )
    threshold: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="a pair is compared if the probability that its winner is preferred exceeds the loser's by more; rewards are log odds",
    )

    @property
    def eligible(self) -> Sequence[int]:
        return range(self.first, self.sampling_steps)

    def compares(self, gap: Tensor) -> Tensor:
        return 2 * gap.sigmoid() - 1 > self.threshold
