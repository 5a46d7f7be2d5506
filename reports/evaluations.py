"""Finished evaluations: weights together with how their images were sampled; one or more make a row of a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from bench.records.config import RunConfig
from bench.records.evaluations import Evaluation
from bench.records.protocol import Variant
from bench.records.runs import RunFolder


@dataclasses.dataclass(frozen=True, slots=True)
class RunEvaluation:
    """A finished evaluation with the run it belongs to.

    Attributes:
        run: the run, or the base model.
        evaluation: the evaluation.
        variant: how its sampling differs from the protocol's; None if it does not.
        guidance_scale: the protocol's guidance scale.
    """

    run: RunFolder
    evaluation: Evaluation
    variant: Variant | None
    guidance_scale: float

    @property
    def own(self) -> bool:
        """Whether it is the run's own result, the row that shows the training cost."""
        return self.evaluation.own

    def label(self) -> str:
        """Its label in tables, the same for all training seeds."""
        if self.own or self.variant is None:
            return self.run.title
        return self._label(self.variant, "" if self.variant.negative is None else self.variant.negative.title)

    def seeded_label(self) -> str:
        """The label with the negative's training seed, for a run that is evaluated with several."""
        negative = None if self.variant is None else self.variant.negative
        if self.variant is None or negative is None or negative.seed is None:
            return self.label()
        return self._label(self.variant, f"{negative.title} seed {negative.seed}")

    def _label(self, variant: Variant, negative: str) -> str:
        parts = [variant.positive.title]
        if negative:
            parts.append(f" + {negative} ({variant.alpha:g}, {variant.beta:g})")
        if variant.guidance_scale != self.guidance_scale:
            parts.append(f", guidance {variant.guidance_scale:g}")
        return "".join(parts)

    @property
    def order(self) -> tuple[bool, str, int, float, float, float]:
        """Sort key among the evaluations of one run: the run's own result, then by negative, then by guidance."""
        if self.own or self.variant is None:
            return False, "", 0, 0, 0, 0
        variant, negative = self.variant, self.variant.negative
        title, seed = (negative.title, negative.seed or 0) if negative else ("", 0)
        return True, title, seed, variant.alpha, variant.beta, variant.guidance_scale


def read_judged(runs: Iterable[RunFolder], signature: str) -> list[RunEvaluation]:
    """The finished evaluations of runs under one protocol, in the order of the runs."""
    found = []
    for run in runs:
        done = [each for each in run.evaluations() if each.protocol_signature == signature and each.done]
        mine = [RunEvaluation(run, each, each.variant(), each.protocol().generation.guidance_scale) for each in done]
        found += sorted(mine, key=lambda judged: judged.order)
    return found


def grouped(judged: Iterable[RunEvaluation]) -> list[tuple[str, list[RunEvaluation]]]:
    """Rows with their labels: one evaluation per training seed.

    A run that was evaluated with several training seeds of one negative has a row for each of them: such evaluations share
    the run, so they are not independent seeds of a row.
    """
    rows: dict[tuple[str, str, str], list[RunEvaluation]] = {}
    for each in judged:
        config = each.run.config()
        rows.setdefault((config.algorithm, config.name, each.label()), []).append(each)
    labelled = []
    for (_, _, label), members in rows.items():
        if len({member.run.folder for member in members}) == len(members):
            labelled.append((label, members))
        else:
            seeded: dict[str, list[RunEvaluation]] = {}
            for member in members:
                seeded.setdefault(member.seeded_label(), []).append(member)
            labelled += seeded.items()
    return labelled


def by_settings(rows: Sequence[tuple[str, list[RunEvaluation]]]) -> list[tuple[str, list[RunEvaluation]]]:
    """Rows by algorithm, and those of an algorithm by what was changed of its recipe, field by field.

    Numbers are ordered by size, after rows without the field.  Everything else keeps the order of the rows: the names of the
    folders of a sweep are hashes, but texts have no other order.
    """
    configs = [members[0].run.config() for _, members in rows]
    algorithms = list(dict.fromkeys(config.algorithm for config in configs))
    keys: list[tuple[float, ...]] = [()] * len(rows)
    for number, algorithm in enumerate(algorithms):
        places = [place for place, config in enumerate(configs) if config.algorithm == algorithm]
        changes = [configs[place].effective_changes for place in places]
        fields = dict.fromkeys(field for each in changes for field in each)
        columns = [_ranks([each.get(field) for each in changes]) for field in fields]
        for place, *ranks in zip(places, *columns, strict=True):
            keys[place] = (number, *ranks)
    return [rows[place] for place in sorted(range(len(rows)), key=keys.__getitem__)]


def _ranks(values: Sequence[str | None]) -> list[float]:
    """Sort keys of a setting's values: numbers as they are, texts by where they are first."""
    try:
        numbers = [-math.inf if value is None else float(value) for value in values]
    except ValueError:
        return [values.index(value) for value in values]
    return numbers if not any(map(math.isnan, numbers)) else [values.index(value) for value in values]


def distinct(rows: Sequence[tuple[str, list[RunEvaluation]]]) -> list[tuple[str, list[RunEvaluation]]]:
    """Rows with labels of which no two are the same: where several rows have one, each adds its algorithm, or the name of its runs too."""
    sharing: dict[str, list[str]] = {}
    for label, members in rows:
        sharing.setdefault(label, []).append(members[0].run.config().algorithm)
    return [(_distinct(label, members[0].run.config(), sharing[label]), members) for label, members in rows]


def _distinct(label: str, config: RunConfig, algorithms: Sequence[str]) -> str:
    if len(algorithms) == 1:
        return label
    named = algorithms.count(config.algorithm) > 1
    return f"{label} [{config.algorithm}/{config.name}]" if named else f"{label} [{config.algorithm}]"
