"""What a registered model is: where its weights are and what it is judged by."""

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
        generation: how its images are made under the protocol.
        data: default preference data, a folder or file; None when the user must name it.
        prompts: default evaluation prompts, a file or a registered set; None when the user must name it.
        metrics: the metrics it is judged by, each with its checkpoint; None is the published one.
        architecture: a diffusers folder of configurations alone, from which it is planned; None where ``source`` is a folder.
        recipe: the name under which algorithms keep recipes for it; None is the name it is registered by.
        note: licence and origin, in a sentence.
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
