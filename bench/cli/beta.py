"""Converting a published beta to this project's convention: repositories differ by factors that their papers do not mention.

The argument of the sigmoid is always ``factor * beta * margin``, with a margin of denoising errors.  In this project the factor
is 1/2 and errors are means over the elements of a latent (`bench.sample_errors`); others use other factors, or sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from bench.core.errors import UserError, did_you_mean
from bench.training.algorithm import ALGORITHMS

FACTOR = 0.5
"""The factor of beta in this project, with mean errors."""


@dataclasses.dataclass(frozen=True, slots=True)
class Convention:
    """How a repository or paper writes the argument of the sigmoid.

    Attributes:
        source: the repository with its commit, or the equation.
        factor: what beta is multiplied by, all constants of the code together.
        reduction: how the squared error of a latent is reduced to a number.
        typical: published values of beta.
        note: what else to know.
        own: the algorithm of this project that uses this convention unchanged; None for those that use this project's.
    """

    source: str
    factor: float
    reduction: Literal["mean", "sum"]
    typical: str
    note: str = ""
    own: str | None = None

    def to_ours(self, beta: float, elements: int | None) -> float:
        """The beta in this project's convention that yields the same argument of the sigmoid.

        Args:
            beta: a beta in this convention.
            elements: number of elements of a latent, C x H x W; needed only if errors are sums.

        Raises:
            UserError: the convention uses sums, and ``elements`` is None.
        """
        return beta * self.factor / FACTOR * self._elements(elements)

    def _elements(self, elements: int | None) -> int:
        if self.reduction == "mean":
            return 1
        if elements is None:
            raise UserError(
                f"{self.source} sums over the elements of a latent: give their number, --elements 16384 for SD 1.5 at "
                "512x512 (4x64x64) or --elements 65536 for SDXL at 1024x1024 (4x128x128)"
            )
        return elements


CONVENTIONS: Mapping[str, Convention] = {
    "bench": Convention("this project", 0.5, "mean", "2000, 5000"),
    "diffusion-dpo": Convention("SalesforceAIResearch/DiffusionDPO at 5233e759", 0.5, "mean", "2000, 5000"),
    "dpo-paper": Convention(
        "Wallace et al. 2023, pseudo-code S9", 1.0, "sum", "-", "written with T folded into beta; the code uses means"
    ),
    "dpo-paper-eq46": Convention("Wallace et al. 2023, eq. 46", 0.5, "sum", "-", "the noise-aware derivation"),
    "diffusers-sd15": Convention(
        "huggingface/diffusers, train_diffusion_dpo.py at 58eb52c",
        1.0,
        "mean",
        "2500",
        "the same factor for its hinge; its ipo branch cannot run",
    ),
    "diffusers-sdxl": Convention(
        "huggingface/diffusers, train_diffusion_dpo_sdxl.py at 58eb52c", 0.5, "mean", "5000"
    ),
    "npo-sd15": Convention("G-U-N/Diffusion-NPO, DPO-DPO-NPO/train_sd15.py at a14f1db", 1.0, "mean", "500"),
    "npo-sdxl": Convention("G-U-N/Diffusion-NPO, DPO-DPO-NPO/train_sdxl.py at a14f1db", 0.5, "mean", "2000"),
    "inpo": Convention("JaydenLyh/InPO at a9cfc4de", 0.5, "mean", "2000, 5000"),
    "smpo": Convention(
        "JaydenLyh/SmPO at 8922d54f",
        5.0,
        "mean",
        "2000, 5000",
        "times 2p - 1 per pair, which is at most 0.46; gamma = 10 is part of the factor: smpo here has it as a field, and takes SmPO's beta",
        own="smpo",
    ),
    "sdpo": Convention("AIDC-AI/Diffusion-SDPO at 84fb241, its DPO and DMPO", 0.5, "mean", "2000, 6000"),
    "dspo": Convention(
        "huaishengzhu/DSPO at 8b4e09b", 0.5, "mean", "0.001, 5000", "the SD1.5 version also weights a correction with beta"
    ),
    "kto": Convention(
        "jacklishufan/diffusion-kto at 226bbd02", 1.0, "mean", "1000, 5000", "of one image against the reference, not of a pair"
    ),
    "flow-grpo": Convention(
        "yifan123/flow_grpo at ac4c86e, its flow DPO", 0.5, "mean", "100", "errors of velocities, for flow models"
    ),
}  # fmt: skip


def sharing_ours() -> list[str]:
    """Names of the registered algorithms that use this project's convention: those whose formula contains beta/2."""
    apart = {convention.own for convention in CONVENTIONS.values()}
    usable = [name for name in ALGORITHMS if name not in apart and ALGORITHMS.problem(name) is None]
    return [name for name in usable if "beta/2" in ALGORITHMS.get(name).info.formula]


def find(name: str) -> Convention:
    """The convention called ``name``.

    Raises:
        UserError: there is none; the message suggests similar names and lists all.
    """
    if name not in CONVENTIONS:
        raise UserError(
            f"unknown convention {name!r}: {did_you_mean(name, CONVENTIONS)}there are {', '.join(CONVENTIONS)}"
        )
    return CONVENTIONS[name]


def markdown() -> str:
    """The table of all conventions, as in `docs/beta.md`."""
    lines = ["| convention | source | argument of the sigmoid | errors | published | ours is |", "| :-- " * 6 + "|"]
    for name, convention in CONVENTIONS.items():
        times = convention.to_ours(1.0, elements=1)
        ours = f"{times:g} beta" + (" x elements" if convention.reduction == "sum" else "")
        source = f"{convention.source} ({convention.note})" if convention.note else convention.source
        cells = (
            f"`{name}`",
            source,
            f"{convention.factor:g} beta margin",
            convention.reduction,
            convention.typical,
            ours,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
