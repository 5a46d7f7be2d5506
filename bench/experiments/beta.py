"""Converting a published beta to this project's convention: repositories differ by factors that their papers do not mention.

Beta always comes with a factor and multiplies denoising errors: of a pair (their margin), or of one image (its gain).  In this project
the factor is 1/2 and errors are means over the elements of a latent (`bench.sample_errors`); others use other factors, or sums.  What an
algorithm's own beta multiplies is stated by the algorithm, as `bench.AlgorithmInfo.beta`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from bench.core.errors import UserError, did_you_mean
from bench.training.algorithm import ALGORITHMS

FACTOR = 0.5
"""The factor of beta in this project, with mean errors."""


@dataclasses.dataclass(frozen=True, slots=True)
class Convention:
    """How a repository or paper writes what beta multiplies, in most the argument of the sigmoid.

    Attributes:
        source: the repository with its commit, or the equation.
        factor: what beta is multiplied by, all constants of the code together.
        reduction: how the squared error of a latent is reduced to a number.
        typical: published values of beta.
        note: what else to know.
        of: what beta multiplies, as in `bench.BetaScale`.
    """

    source: str
    factor: float
    reduction: Literal["mean", "sum"]
    typical: str
    note: str = ""
    of: str = "margin"

    def converted(self, beta: float, elements: int | None, factor: float = FACTOR) -> float:
        """The beta that, with another factor and mean errors, yields the same product.

        Args:
            beta: a beta in this convention.
            elements: number of elements of a latent, C x H x W; needed only if errors are sums.
            factor: the other factor; this project's by default.

        Raises:
            UserError: ``beta`` or the result is not a finite number above 0, or the convention uses sums and ``elements`` is None.
        """
        made = beta * self.factor / factor * self._elements(elements)
        if not (beta > 0 and 0 < made < math.inf):
            raise UserError(
                f"a beta is a finite number above 0, and {beta:g} cannot be converted to one; give a published beta"
            )
        return made

    def users(self) -> Mapping[str, float]:
        """Registered algorithms whose beta multiplies the same as this convention's, with their factors."""
        usable = [name for name in ALGORITHMS if ALGORITHMS.problem(name) is None]
        scales = {name: ALGORITHMS.get(name).info.beta for name in usable}
        return {name: scale.factor for name, scale in scales.items() if scale is not None and scale.of == self.of}

    def of_algorithms(self, beta: float, elements: int | None) -> dict[float, list[str]]:
        """The algorithms that `users` names, by the value of their beta; those with this project's factor first.

        Args:
            beta: a beta in this convention.
            elements: see `converted`.

        Raises:
            UserError: see `converted`.
        """
        by_value: dict[float, list[str]] = {}
        for name, factor in sorted(self.users().items(), key=lambda user: user[1] != FACTOR):
            by_value.setdefault(self.converted(beta, elements, factor), []).append(name)
        return by_value

    def _elements(self, elements: int | None) -> int:
        if self.reduction == "mean":
            return 1
        if elements is None:
            raise UserError(
                f"{self.source} sums over the elements of a latent: add their number, --elements 16384 for SD 1.5 at "
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
    ),
    "sdpo": Convention("AIDC-AI/Diffusion-SDPO at 84fb241, its DPO", 0.5, "mean", "5000"),
    "sdpo-dmpo": Convention("AIDC-AI/Diffusion-SDPO at 84fb241, its DMPO", 0.5, "mean", "2000, 6000"),
    "dspo-sd15": Convention(
        "huaishengzhu/DSPO at 8b4e09b, without --sdxl",
        0.5,
        "mean",
        "0.001",
        "beta is also the weight of a correction, so it converts to no other algorithm's",
        of="margin and the correction",
    ),
    "dspo-sdxl": Convention(
        "huaishengzhu/DSPO at 8b4e09b, with --sdxl", 0.5, "mean", "5000", "dspo takes it unchanged with variant=sdxl"
    ),
    "kto": Convention(
        "jacklishufan/diffusion-kto at 226bbd02", 1.0, "mean", "1000, 5000", "the gain is of one image against the reference", of="gain"
    ),
    "flow-grpo": Convention(
        "yifan123/flow_grpo at ac4c86e, its flow DPO", 0.5, "mean", "100", "errors of velocities, for flow models"
    ),
}  # fmt: skip


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
    lines = ["| convention | source | beta comes as | errors | published | here |", "| :-- " * 6 + "|"]
    for name, convention in CONVENTIONS.items():
        here = f"{convention.converted(1.0, elements=1):g} beta" + (
            " x elements" if convention.reduction == "sum" else ""
        )
        source = f"{convention.source} ({convention.note})" if convention.note else convention.source
        written = f"{convention.factor:g} beta {convention.of}"
        cells = (f"`{name}`", source, written, convention.reduction, convention.typical, here)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
