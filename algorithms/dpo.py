"""Diffusion-DPO: direct preference optimisation on denoising errors.

Wallace et al. 2023, arXiv 2311.12908, eq. 14; released code SalesforceAIResearch/DiffusionDPO at 5233e759.

This is the file to learn from: an algorithm is one class that states what it is (``info``), the settings under which it was
published or tried (``recipes``), its hyper-parameters (fields), and its loss.  Registered under the entry-point group
``bench.algorithms``, it is all there is to write.  The rest of the interface, which DPO leaves as it is:

* ``needs``: what it cannot train without, see `bench.Need`; every pairwise algorithm needs pairs and a reference.
* ``prepare``: change the data before training, for example into soft labels by a metric (`algorithms.smpo`).
* ``noised``: how the pair gets its noise; by default by the forward process (`algorithms.inpo` inverts instead).
* ``prediction_loss``: the loss of raw predictions, where errors are not enough (`algorithms.dspo`).
* ``global_batch_stats``: where one pair's loss depends on the other pairs of the batch (`algorithms.dro`).
* ``begin`` and ``end_step``: for copies of the weights (`algorithms.self_npo`).
* ``step``: everything at once, where the objective is not one on pairs (`algorithms.kto`).

Data, draws, precision, gradient accumulation, checkpoints, many GPUs and evaluation are the harness's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench import AlgorithmInfo, PairErrors, PairwiseAlgorithm, Recipe

# A type of its own, since most algorithms here have this field.  The bound is checked wherever a value comes from: the command
# line, a recipe or a record.
Beta = Annotated[
    float,
    Field(
        gt=0,
        description="KL strength: larger stays closer to the reference; "
        "loss uses beta/2 x mean squared errors (see docs/beta.md)",
    ),
]


# The loss is a function of tensors alone, so a test can check it with numbers worked by hand.
def dpo_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """``-log sigmoid(beta / 2 * margin)``, one loss per pair, (B,).

    The convention is the released code's: errors are means over the latents' elements, the factor is ``beta / 2``, T and the
    SNR weight are absorbed in ``beta``.  With the papers' sums over d elements, ``beta_sum = beta / (2 d)``.

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
    """
    # logsigmoid, not log(sigmoid): at a margin of -0.1 and beta 5000 the latter is log(0).
    return -functional.logsigmoid(0.5 * beta * errors.margin)


class DPO(PairwiseAlgorithm):
    """Diffusion-DPO: forward noise, one noise and one time for both images of a pair (as the released code does).

    `bench.PairwiseAlgorithm` noises the pair, runs policy and reference, and hands `loss` their four errors.
    """

    # What `bench list algorithms` and the tables say.  ``status`` is the claim a reader relies on: say which code or formula it
    # matches, and where it departs.  Mw is the policy's mean squared error on the winner, Rw the reference's; l is the loser.
    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-DPO",
        paper="Wallace et al. 2023, arXiv 2311.12908",
        formula="-log sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)])",
        status="matches released code",
    )
    # By model: settings with their source, so that nobody compares with a competitor at invented ones.  For a model that is not
    # here a run trains at the defaults below, and the tables say so.
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: beta as published, learning rate lowered until the margin grew on training prompts of the tiny world",
            algorithm={"beta": 2000.0},
            training={"steps": 100, "global_batch_size": 32, "learning_rate": 1e-5, "warmup_steps": 10},
        ),
        "sd15": Recipe(
            source="released launcher at 5233e759: 1e-8 x 2048 (scale_lr), warm-up 500",
            algorithm={"beta": 5000.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 4, "learning_rate": 2.048e-5, "warmup_steps": 500,
                      "caption_dropout": 0.2},
        ),
        "sdxl": Recipe(
            source="released SDXL launcher at 5233e759: 1e-8 x 2048 (scale_lr), warm-up 200; with bf16 here, fp16 there",
            algorithm={"beta": 5000.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 1, "learning_rate": 2.048e-5, "warmup_steps": 200,
                      "caption_dropout": 0.2, "precision": "bf16", "gradient_checkpointing": True,
                      "size_conditioning": "nominal", "optimizer": "adafactor"},
        ),
    }  # fmt: skip
    # Before the first update policy and reference are the same, so every margin is 0 and every loss -log sigmoid(0).  The harness
    # stops a run whose first loss is another: then the reference sees other inputs than the policy.  Leave it out where unknown.
    initial_loss: ClassVar[float | None] = math.log(2)

    # A field is a hyper-parameter: `--set beta=500` sets it, and it is part of the run's record and name.
    beta: Beta = 2000.0

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        # One loss per pair and not their mean: the harness divides by the global batch, however it is cut.  ``preference`` is
        # P(winner preferred), for methods with soft labels; DPO takes the vote as it is.
        return dpo_loss(errors, beta=self.beta)
