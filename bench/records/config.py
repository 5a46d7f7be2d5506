"""``config.json``: what a run is, as typed and as resolved."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from bench.core.errors import UserError
from bench.core.values import differing, digest
from bench.records.migrations import SCHEMA, that_count
from bench.records.training import Labels, TrainingRecord

BASE = "base"
"""What stands in place of an algorithm's name, and of the weights' source, for the base model."""
RELEASED = "weights"
"""What stands in place of an algorithm's name for weights that were not trained here."""


@dataclasses.dataclass(frozen=True, slots=True)
class DataReport:
    """What was found when preference data was read: ``rows`` on disk, ``pairs`` kept, ties dropped, and the rows whose images cannot be decoded.

    ``source`` is what the user called the data.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    source: str
    rows: int
    pairs: int
    ties_dropped: int
    undecodable: tuple[str, ...]


class _Part(BaseModel):
    """A part of the configuration; a field that this version does not know is refused, since every new field raises the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataIdentity(_Part):
    """What decides whether two runs had the same training data.

    Attributes:
        digest: digest of captions and images, 16 hex digits.
        labels: digest of the labels; None in records that are older than it.
        pairs: number of pairs.
    """

    digest: str
    labels: str | None = None
    pairs: int


class NegativeScales(_Part):
    """The weights of negative guidance that a run with negative weights is judged with: see `bench.models.guidance.merge`."""

    alpha: float
    beta: float


class Resolved(_Part):
    """What decides the weights: runs in which it is equal are one run, up to the training seed.

    All is None for the base model; of released weights only ``weights`` is known.

    Attributes:
        algorithm: every hyper-parameter.
        training: every setting of training.
        init: digest of the weights that training started from.
        data: the training data.
        rewards: identities of the metrics whose scores were trained on, by name; None in records that are older than it.
        negative: guidance weights of a run that trained negative weights; None for all others.
        weights: digest of released weights.
        model: digest of each component of the base model on disk; None in records that are older than it.
        code: digests of the code that trained: the ``algorithm``'s own, the ``harness``'s, each metric's own by its name, and what
            ``libraries`` and the model's ``tokenizers`` do; None in records that are older than it.
    """

    algorithm: Mapping[str, Any] | None = None
    training: TrainingRecord | None = None
    init: str | None = None
    data: DataIdentity | None = None
    rewards: Mapping[str, Mapping[str, Any]] | None = None
    negative: NegativeScales | None = None
    weights: str | None = None
    model: Mapping[str, str] | None = None
    code: Mapping[str, str] | None = None

    @property
    def code_id(self) -> str:
        """A hash of ``code``, 12 hex digits, or `UNRECORDED`."""
        return UNRECORDED if self.code is None else digest(dict(self.code))

    @property
    def harness_id(self) -> str:
        """A hash of the part of ``code`` that all algorithms share, 12 hex digits, or `UNRECORDED`."""
        return UNRECORDED if self.code is None else digest({name: self.code.get(name) for name in SHARED_CODE})

    def to_json(self) -> dict[str, Any]:
        """The fields that were set, as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def refuse_other(self, other: Resolved, folder: Path) -> None:
        """Raise a `UserError` where another value is a different run's, up to the code and to what is not recorded here.

        Args:
            folder: of this value, for the message.
        """
        unknown = {"code"} | ({"model"} if self.model is None else set())
        one, two = (
            {name: value for name, value in each.to_json().items() if name not in unknown} for each in (self, other)
        )
        if fields := differing(one, two):
            raise UserError(
                f"{folder} holds a run that differs in {', '.join(fields)}; choose another --name for the new run, or delete the folder to "
                "train it anew"
            )


SHARED_CODE = ("harness", "libraries", "tokenizers")
"""Entries of `Resolved.code` that do not depend on the algorithm."""

UNRECORDED = "unrecorded"
"""What stands in place of the hash of code that was not recorded."""

RECIPE = "recipe"
"""The name of a run with the settings of an algorithm's recipe, unchanged, where the recipe has no other name."""
OLD_RECIPE = "default"
"""What version 0.1 called it."""
CHOICE = "recipe"
"""What is typed to choose among several recipes for a model, ``--set recipe=script``."""
HASHED = re.compile("set-[0-9a-f]{8}(?:-([0-9a-f]{8}))?")
"""A name made by ``bench run``: the hash of changed settings, and of --data and --init."""
MOST_CHANGES = 3
"""Largest number of changes that a label spells out."""

TRAINED = ("name", "seed", "resolved.algorithm", "resolved.training", "resolved.init", "resolved.data", "data")
"""Fields that a training run must have; the base model and released weights have none of them."""


class RunConfig(_Part):
    """What a folder with ``config.json`` holds: a training run, the base model, or released weights.

    In memory it always has today's schema (`bench.records.migrations`).

    Attributes:
        model: name of the base model.
        algorithm: registered name, ``base``, or ``weights`` for weights that were not trained here.
        title: what tables call the algorithm, the base model or the released weights.
        name: name of this configuration, part of the path; empty for the base model.
        source: where released weights were, as it was typed.
        changed: settings that were typed to change the recipe, by field; empty in records that are older than it.
        seed: the training seed; None for what was not trained here.
        typed: the command line.
        base_weights: digest of the base model's denoiser; None in older records, whose runs started from it.
        init: the weights that training started from: a run (relative to the folder of all runs), a place as it was typed, or ``base``.
        limit: how many evaluation prompts and training pairs were used at most, for a trial; None means all.
        recipe: where the recipe is from; None if there is none, and in older records.
        resolved: what decides the weights.
        data: what was found when the training data was read.
        trained_on: names of the metrics that training used, as far as we know.
        same_code: hashes (`Resolved.code_id`) of other code that gives the same results, as the user declared.
        placebo: what a placebo of the algorithm is, in words; empty if it has none, None in records that are older than it.
        placebo_of: of a placebo, the ``name`` of the runs whose twin it is: those of the same model, algorithm and seed that
            differ in `labels` alone; None for all others.
        fits_judge: whether each of its rounds fitted the judge of its images to the data's pairs; False in older records.
    """

    model: str
    algorithm: str
    title: str
    name: str = ""
    source: str | None = None
    changed: Mapping[str, str] = Field(default_factory=dict)
    seed: int | None = None
    typed: tuple[str, ...] = ()
    base_weights: str | None = None
    init: str = BASE
    limit: int | None = None
    recipe: str | None = None
    resolved: Resolved
    data: DataReport | None = None
    trained_on: tuple[str, ...] = ()
    same_code: tuple[str, ...] = ()
    placebo: str | None = None
    placebo_of: str | None = None
    fits_judge: bool = False

    @property
    def labels(self) -> Labels:
        """Whether it trained on the preferences as given; what was not trained here counts as such."""
        return "as given" if self.resolved.training is None else self.resolved.training.labels

    @property
    def is_base(self) -> bool:
        """Whether this is the base model."""
        return self.algorithm == BASE

    @property
    def is_trained(self) -> bool:
        """Whether this is a training run."""
        return self.algorithm not in (BASE, RELEASED)

    @property
    def label(self) -> str:
        """What tables call it, whatever its training seed: ``Diffusion-DPO (recipe)``, or ``Diffusion-DPO (beta=500)``.

        A name that the user gave is shown unchanged; a hash of changed settings is replaced by those settings.  A placebo has
        the words of the runs whose twin it is, and says so: ``Diffusion-DPO (beta=500, placebo)``.
        """
        words = [*self._words(self.own_name), *([] if self.placebo_of is None else ["placebo"])]
        return f"{self.title} ({', '.join(words)})" if words else self.title

    @property
    def own_name(self) -> str:
        """The name, of a placebo that of its twin, without the hash that `bench run` adds for --data, --init and --limit.

        Tables say these of all rows together; where rows differ in nothing else, `reports.evaluations.distinct` has the whole name.
        """
        name = self.placebo_of or self.name
        own, _, last = name.rpartition("-")
        return own if own and last in self._hashes_of_given() else name

    def _hashes_of_given(self) -> set[str]:
        """What `bench run` may have added to the name; the record does not say whether the data are the model's own."""
        resolved = self.resolved
        if resolved.data is None:
            return set()
        always = {} if self.limit is None else {"limit": str(self.limit)}
        data = {"data": digest([resolved.data.digest, resolved.data.labels])}
        return {
            hash_of_given({**always, **init, **other})
            for init in ({}, {"init": resolved.init})
            for other in ({}, data)
            if always or init or other
        }

    def _words(self, name: str) -> list[str]:
        """What the label says of a configuration with these settings and a name; nothing if the title says all."""
        if name in ("", OLD_RECIPE, self.title):
            return []
        hashed = HASHED.fullmatch(name)
        changes = [f"{field}={value}" for field, value in self.effective_changes.items()] if hashed else []
        if not changes:
            return [name]
        if len(changes) > MOST_CHANGES:  # the hash tells such rows apart
            return [*changes[:MOST_CHANGES], f"{len(changes) - MOST_CHANGES} more", name]
        return [*changes, hashed[1]] if hashed and hashed[1] else changes

    @property
    def effective_changes(self) -> dict[str, str]:
        """The fields of ``changed`` that affect the result: those among the resolved ones, not how the run was executed."""
        training = {} if self.resolved.training is None else self.resolved.training.to_json()
        fields = {CHOICE, *(self.resolved.algorithm or ()), *training}
        return {typed: value for typed, value in self.changed.items() if typed.partition(".")[0] in fields}

    @property
    def run_id(self) -> str:
        """A hash of what decides the trained weights and of the training seed, but not of the code, 12 hex digits."""
        resolved = {name: value for name, value in self.resolved.to_json().items() if name != "code"}
        if self.resolved.training is not None:
            resolved["training"] = that_count(resolved["training"])
        return digest({"algorithm": self.algorithm, "seed": self.seed, "resolved": resolved})

    def to_json(self) -> dict[str, Any]:
        """What ``config.json`` holds: the schema, and the fields that were set."""
        return {"schema": SCHEMA, **self.model_dump(mode="json", exclude_unset=True)}

    @model_validator(mode="after")
    def _whole_training_run(self) -> Self:
        for place in TRAINED if self.is_trained else ():
            value: Any = self
            for field in place.split("."):
                value = getattr(value, field)
            if value in (None, ""):
                raise PydanticCustomError("missing_of_trained", "{place}: field required", {"place": place})
        return self


def hash_of_given(given: Mapping[str, Any]) -> str:
    """What is added to the name of runs for what was given instead of the model's own: digests by ``data`` and ``init``, and ``limit``."""
    return digest(dict(given))[:8]


def declared_same(configs: Iterable[RunConfig], one: str, other: str) -> bool:
    """Whether two hashes of code are equal, or runs declare, one by way of another, that they give the same results."""
    same = {one}
    declared = [{config.resolved.code_id, *config.same_code} for config in configs]
    for _ in declared:
        same |= {code for codes in declared if codes & same for code in codes}
    return other in same
