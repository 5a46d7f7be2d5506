"""Named sets of evaluation prompts, registered under the entry-point group ``bench.prompts``.

Published prompts are not in this package: they are read from the sets' own datasets on the hub at their first use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from bench.core.errors import UserError, did_you_mean
from bench.core.hub import hub_folder
from bench.core.registry import InstanceOf, Registry
from bench.core.strict import exists
from bench.prompts.reading import other_columns, read_prompts


@dataclasses.dataclass(frozen=True, slots=True)
class PromptSet:
    """A set of prompts in a dataset of the hub, or in a folder.

    Attributes:
        title: the name in listings.
        source: ``owner/name`` of the dataset, or a folder.
        files: patterns of the files, in the order of their prompts; see `bench.prompts.reading.read_prompts` for their layouts.
        count: how many prompts the files hold, repeats included.
        licence: licence of the prompts, if the dataset states one.
        note: what a reader must know.
        vocabulary: for a closed language, all words that occur in its prompts, by kind.
    """

    title: str
    source: str
    files: tuple[str, ...]
    count: int
    licence: str
    note: str = ""
    vocabulary: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def local(self) -> bool:
        """Whether its files are on this machine, in a folder."""
        return Path(self.source).is_dir()

    def read(self) -> list[str]:
        """The prompts in their order, downloaded once.

        Raises:
            UserError: they are neither on the hub nor in its cache, or their number has changed.
        """
        local = "or give a copy of its files as --prompts FILE"
        complaint = f"the prompt set {self.title!r} cannot be downloaded from the hub"
        folder = Path(self.source)
        if not self.local:
            folder = hub_folder(self.source, self.files, kind="dataset", complaint=complaint)
        prompts: list[str] = []
        for pattern in self.files:
            found = sorted(folder.glob(pattern))
            if not found:
                raise UserError(
                    f"{complaint}: the local copy of {self.source} has no {pattern}; connect to complete it, {local}"
                )
            prompts += [prompt for file in found for prompt in read_prompts(file)]
        if len(prompts) != self.count:
            raise UserError(
                f"{self.source} holds {len(prompts)} prompts for the set {self.title!r}, not {self.count}: it has changed, and "
                "scores would not be comparable with published ones; give the original prompts as --prompts FILE"
            )
        return prompts


PROMPT_SETS: Registry[PromptSet] = Registry("bench.prompts", "prompt set", InstanceOf(PromptSet))


def _pick_a_pic(split: str, note: str) -> PromptSet:
    return PromptSet(
        title=f"Pick-a-Pic v2 {split}, unique",
        source="yuvalkirstain/pickapic_v2_no_images",
        files=(f"data/{split}_unique-*.parquet",),
        count=500,
        licence="none stated on the dataset's card",
        note=f"written by users of a web application, some unsafe; {note}",
    )


def _hpdv2(*styles: str) -> PromptSet:
    return PromptSet(
        title=f"HPDv2 {', '.join(styles)}",
        source="zhwang/HPDv2",
        files=tuple(f"benchmark/{style}.json" for style in styles),
        count=800 * len(styles),
        licence="none stated on this dataset's card; its authors' ymhao/HPDv2 states Apache-2.0",
        note="the benchmark of HPS v2; a few prompts repeat",
    )


PICK_A_PIC_VALIDATION = _pick_a_pic("validation", "that of Diffusion-DPO, SPO and LPO")
PICK_A_PIC_TEST = _pick_a_pic("test", "that of Diffusion-KTO and MaPO")
HPDV2 = _hpdv2("anime", "concept-art", "paintings", "photo")
HPDV2_ANIME = _hpdv2("anime")
HPDV2_CONCEPT_ART = _hpdv2("concept-art")
HPDV2_PAINTINGS = _hpdv2("paintings")
HPDV2_PHOTO = _hpdv2("photo")
PARTI_PROMPTS = PromptSet(
    title="PartiPrompts",
    source="nateraw/parti-prompts",
    files=("PartiPrompts.tsv",),
    count=1632,
    licence="Apache-2.0",
    note="of the paper on Parti, arXiv:2206.10789; 1632 prompts in 12 categories",
)


def unused_columns(typed: str) -> list[str]:
    """The columns of a table of prompts, besides the prompts, that no run uses; of a set, and of a Parquet file, nothing is said."""
    return [] if typed in PROMPT_SETS else other_columns(Path(typed))


def find_prompts(typed: str) -> list[str]:
    """The prompts of a registered set or a file; a set takes precedence over a file of the same name.

    Raises:
        UserError: there is neither such a set nor such a file, or it cannot be read.
    """
    if typed in PROMPT_SETS:
        return PROMPT_SETS.get(typed).read()
    path = Path(typed)
    if not exists(path) or not typed:
        if path.suffix or path.name != typed:
            raise UserError(f"the prompts file {typed!r} does not exist; give a text file, one prompt a line")
        known = list(PROMPT_SETS)
        raise UserError(
            f"prompts {typed!r} are neither a file nor a registered set: {did_you_mean(typed, known)}there are {', '.join(known)}; "
            "or give a text file with one prompt per line"
        )
    return read_prompts(path)
