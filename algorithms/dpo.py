"""Diffusion-DPO: direct preference optimisation on denoising errors.

Wallace et al. 2023, arXiv 2311.12908, eq. 14; released code SalesforceAIResearch/DiffusionDPO at 5233e759.

This is the file to learn from: an algorithm is one class that states what it is (``info``), the settings under which it was
published or tried (``recipes``), its hyper-parameters (fields), and its loss.  Once it is registered under the entry-point group
``bench.algorithms``, nothing else needs to be written.  The rest of the interface, which DPO does not override:

* ``needs``: what training requires, see `bench.Need`; every pairwise algorithm needs pairs and a reference.
* ``prepare``: change the data before training, for example to soft labels from a metric (`algorithms.smpo`).
* ``noised``: how noise is added to the pair; the default is the forward process (`algorithms.inpo` inverts instead).
* ``prediction_loss``: the loss of raw predictions, if errors are not enough (`algorithms.dspo`).
* ``global_batch_stats``: if one pair's loss depends on the other pairs of the batch (`algorithms.dro`).
* ``begin`` and ``end_step``: for copies of the weights (`algorithms.self_npo`).
* ``step``: the whole step, if the objective is not pairwise (`algorithms.kto`).

The harness handles data, random draws, precision, gradient accumulation, checkpoints, several GPUs and evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench import AlgorithmInfo, BetaScale, PairErrors, PairwiseAlgorithm, Recipe

# A shared type, since most algorithms have this field.  The bound is checked wherever a value comes from: the command line, a
# recipe or a record.
Beta = Annotated[
    float,
    Field(
        gt=0,
        description="KL strength: larger stays closer to the reference; "
        "loss uses beta/2 x mean squared errors (see docs/beta.md)",
    ),
]


# The loss is a function of tensors alone, so a test can check it against numbers computed by hand.
def dpo_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """``-log sigmoid(beta / 2 * margin)``, one loss per pair, (B,).

    The convention is the released code's: errors are means over the latents' elements, the factor is ``beta / 2``, T and the
    SNR weight are absorbed in ``beta``.  With the papers' sums over d elements, ``beta_sum = beta / (2 d)``.

    Args:
        errors: denoising errors, each (B,).
        beta: KL strength; larger stays closer to the reference.
    """
    # logsigmoid, not log(sigmoid): at a margin of -0.1 and a beta of 5000 the latter is log(0).
    return -functional.logsigmoid(0.5 * beta * errors.margin)


class DPO(PairwiseAlgorithm):
    """Diffusion-DPO: forward noise, the same noise and time for both images of a pair (as in the released code).

    `bench.PairwiseAlgorithm` adds noise to the pair, runs policy and reference, and passes their four errors to `loss`.
    """

    # Shown by `bench list algorithms` and in the tables.  ``status`` is the claim a reader relies on: say which code or formula it
    # matches, and where it differs.  Mw is the policy's mean squared error on the winner, Rw the reference's; l is the loser.
    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Diffusion-DPO",
        paper="Wallace et al. 2023, arXiv 2311.12908",
        formula="-log sigmoid(beta/2 * [(Ml - Rl) - (Mw - Rw)])",
        status="matches released code",
        beta=BetaScale(0.5, of="margin"),
    )
    # Settings by model, each with its source, so nobody compares against a competitor at invented settings.  For a model that is not
    # listed, a run trains with the defaults below, and the tables say so.
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "tiny": Recipe(
            source="ours: the best of four trials on tuning prompts of the tiny world (docs/tiny-recipes.md)",
            algorithm={"beta": 200.0},
            training={"steps": 100, "global_batch_size": 32, "learning_rate": 2e-4, "warmup_steps": 10},
        ),
        "sd15": Recipe(
            source="released launcher at 5233e759: 1e-8 x 2048 (scale_lr), warm-up 500; with fp32 here, fp16 there",
            algorithm={"beta": 5000.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 4, "learning_rate": 2.048e-5, "warmup_steps": 500,
                      "caption_dropout": 0.2, "horizontal_flip": "image"},
        ),
        "sdxl": Recipe(
            source="released SDXL launcher at 5233e759: 1e-8 x 2048 (scale_lr), warm-up 200; with bf16 here, fp16 there",
            algorithm={"beta": 5000.0},
            training={"steps": 2000, "global_batch_size": 2048, "micro_batch_size": 1, "learning_rate": 2.048e-5, "warmup_steps": 200,
                      "caption_dropout": 0.2, "precision": "bf16", "gradient_checkpointing": True,
                      "size_conditioning": "nominal", "optimizer": "adafactor", "horizontal_flip": "image"},
        ),
    }  # fmt: skip
    # Before the first update policy and reference are equal, so every margin is 0 and every loss is -log sigmoid(0).  The harness
    # stops a run whose first loss differs, because then policy and reference get different inputs.  Leave it out if unknown.
    initial_loss: ClassVar[float | None] = math.log(2)

    # A field is a hyper-parameter: `--set beta=500` sets it, and it is part of the run's record and name.
    beta: Beta = 2000.0

    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        # One loss per pair, not their mean: the harness divides by the global batch size, however the batch is split.  ``preference`` is
        # P(winner preferred), for methods with soft labels; DPO takes the vote as it is.
        return dpo_loss(errors, beta=self.beta)
