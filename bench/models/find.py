"""Resolving what was typed after ``--model``: a registered name, a diffusers folder, or a hub id."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from bench.core.errors import UserError
from bench.core.hub import HUB_ID
from bench.core.validation import build
from bench.core.values import digest
from bench.models.card import ModelCard
from bench.models.cards import METRICS
from bench.models.checkpoints.pipeline_folder import pipeline_class_of, read_index, refuse_single_file
from bench.models.checkpoints.stated import read_object
from bench.models.family import ModelFamily
from bench.models.registry import FAMILIES, MODELS
from bench.records.protocol import GenerationSettings

OWN_CARD = "bench.json"
HUB = "--"
"""What stands in place of the slash of a hub id in the name of its runs; the name of a folder's does not have it."""


@dataclasses.dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that can be run.

    Attributes:
        name: its name in paths and tables, safe as a folder name.
        card: its registered card, or one built from its folder.
        recipe: the name under which algorithms keep recipes for it.
        borrowed: whether the recipes are another model's: its family's, as for a folder or a hub id, or those that its card names.
    """

    name: str
    card: ModelCard
    recipe: str
    borrowed: bool = False


class OwnCard(BaseModel):
    """``bench.json`` in a model folder: how to evaluate the model, by field of `ModelCard`; the family's defaults otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: dict[str, Any] = {}
    metrics: dict[str, str | None] | None = None


def find_model(typed: str) -> FoundModel:
    """The model of a registered name, a folder or a hub id; a registered name takes precedence.

    Raises:
        UserError: it is not a registered name or a pipeline folder, and cannot be downloaded from the hub.
    """
    if typed in MODELS:
        card = MODELS.get(typed)
        recipe = card.recipe or typed
        return FoundModel(typed, card, recipe, borrowed=recipe != typed)
    source = _source(typed)
    return _of_source(source, _read_own_card(Path(source)))


def find_metrics(typed: str) -> Mapping[str, str | None]:
    """The metrics of a model, named as in `find_model`, each with its checkpoint; no weights are read or downloaded.

    Raises:
        UserError: as `find_model`.
    """
    if typed in MODELS:
        card: ModelCard = MODELS.get(typed)
        return card.metrics
    source = _source(typed)
    read_index(source)  # a folder of something else would have the published checkpoints
    return _own_metrics(_read_own_card(Path(source)))


def metrics_of(name: str) -> Mapping[str, str | None] | None:
    """The metrics of the model that runs call by a name, each with its checkpoint; None for a folder, whose place no run states."""
    if name in MODELS:
        card: ModelCard = MODELS.get(name)
        return card.metrics
    return METRICS if HUB in name else None


def _own_metrics(own: OwnCard) -> Mapping[str, str | None]:
    return METRICS if own.metrics is None else own.metrics


@dataclasses.dataclass(frozen=True, slots=True)
class FoundArchitecture:
    """A model of which only the architecture is needed.

    Attributes:
        family: the class that builds it.
        source: a diffusers folder or hub id; only its configurations are read.
        recipe: the name under which algorithms keep recipes for it.
        generation: how its images are generated, as its registered card or its folder's own one says; None means the family's default.
        card: its registered card; None for a folder or a hub id.
        borrowed: see `FoundModel`.
    """

    family: type[ModelFamily]
    source: str
    recipe: str
    generation: GenerationSettings | None
    card: ModelCard | None = None
    borrowed: bool = False

    def build(self, device: torch.device) -> ModelFamily:
        """The model with random weights."""
        return self.family.unweighted(self.source, device=device)


def find_architecture(typed: str) -> FoundArchitecture:
    """The architecture of a model, named as in `find_model`; no weights are read or downloaded.

    Raises:
        UserError: as `find_model`.
    """
    if typed in MODELS:
        card: ModelCard = MODELS.get(typed)
        recipe = card.recipe or typed
        source = card.architecture or card.source
        return FoundArchitecture(card.family, source, recipe, card.generation, card, borrowed=recipe != typed)
    source = _source(typed)
    family: type[ModelFamily] = FAMILIES.get(pipeline_class_of(source))
    model, own = family.unweighted(source, device=torch.device("cpu")), _read_own_card(Path(source))
    generation = _own_generation(source, model, own) if own.generation else None
    return FoundArchitecture(family, source, model.recipe_key, generation, borrowed=True)


def _source(typed: str) -> str:
    """The absolute path of the folder, or the hub id, that was typed.

    Raises:
        UserError: it is neither.
    """
    folder = Path(typed)
    if folder.is_dir():
        return str(folder.resolve())
    refuse_single_file(typed)
    if HUB_ID.fullmatch(typed):
        return typed
    if "/" in typed:
        raise UserError(
            f"model folder {typed!r} does not exist; give a diffusers folder, a hub id or a registered name"
        )
    MODELS.point(typed)
    raise AssertionError(typed)


def _of_source(source: str, own: OwnCard) -> FoundModel:
    family: type[ModelFamily] = FAMILIES.get(pipeline_class_of(source))
    model = family.load(source, device=torch.device("cpu"))
    card = ModelCard(
        title=Path(source).name,
        family=family,
        source=source,
        generation=_own_generation(source, model, own),
        metrics=_own_metrics(own),
        recipe=model.recipe_key,
    )
    return FoundModel(path_name(source, model), card, model.recipe_key, borrowed=True)


def _own_generation(source: str, model: ModelFamily, own: OwnCard) -> GenerationSettings:
    """The family's default, with what the folder's own card states instead.

    Raises:
        UserError: the card has a field or a value that is not allowed.
    """
    default = model.generation
    return build(type(default), {**default.model_dump(), **own.generation}, f"{source}/{OWN_CARD}")


def path_name(source: str, model: ModelFamily) -> str:
    """A name for runs of an unregistered model.

    A hub id becomes ``owner--name``, which is unique.  A folder becomes its own name and the digest of all its weights:
    it keeps its runs when it is moved, and two folders of the same name are kept apart.
    """
    if not Path(source).is_absolute():
        return source.replace("/", HUB)
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", Path(source).name).strip("-.")
    return f"{plain or 'model'}-{digest([model.digest, model.encoders_digest])[:8]}"


def _read_own_card(folder: Path) -> OwnCard:
    path = folder / OWN_CARD
    if not path.exists():
        return OwnCard()
    return build(OwnCard, read_object(path), str(path))
