"""What a registered model is: where its weights are and how it is evaluated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from bench.models.family import ModelFamily
from bench.records.protocol import GenerationSettings


@dataclasses.dataclass(frozen=True, slots=True)
class ModelCard:
    """A registered model; registered under the entry-point group ``bench.models``.

    Attributes:
        title: the name in tables.
        family: the class that loads it.
        source: a diffusers folder or hub id, ``owner/name``.
        generation: how its images are generated under the protocol.
        data: default preference data, a folder or file; None when the user must name it.
        prompts: default evaluation prompts, a file or a registered set; None when the user must name them.
        metrics: the metrics it is evaluated with, each with its checkpoint; None means the published one.
        architecture: a diffusers folder with configurations only, used by `bench plan`; None if ``source`` is a folder.
        recipe: the name under which algorithms keep recipes for it; None means the name it is registered by.
        note: licence and origin, in a sentence.
        on_cpus: of a model whose recipes are made for CPUs, where to read how long runs take there, as the second half of a sentence.
    """

    title: str
    family: type[ModelFamily]
    source: str
    generation: GenerationSettings
    metrics: Mapping[str, str | None]
    data: str | None = None
    prompts: str | None = None
    architecture: str | None = None
    recipe: str | None = None
    note: str = ""
    on_cpus: str = ""
