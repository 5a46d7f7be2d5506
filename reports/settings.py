"""What the runs of a row were trained with: what was typed, what it resolved to, and the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from bench.records.runs import RunFolder


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingData:
    """Preference data.

    Attributes:
        source: what the user called it; of an absolute path its last part, for a report travels and a path does not.
        pairs: number of pairs.
        digest: of captions and images.
        labels: digest of the labels; None in records that are older than it.
    """

    source: str
    pairs: int
    digest: str
    labels: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class RowSettings:
    """What training was given; equal for all seeds of a row.

    Attributes:
        changed: what was typed to change the recipe, by field; empty in records that are older than it.
        recipe: where the recipe is from; None where there is none, and in records that are older than it.
        algorithm: every hyper-parameter.
        training: every setting of training that changes what comes out.
        data: the preference data.
        prompts_in_training: how many evaluation prompts were captions in training; None where nobody has looked.
    """

    changed: Mapping[str, str]
    recipe: str | None
    algorithm: Mapping[str, Any]
    training: Mapping[str, Any]
    data: TrainingData
    prompts_in_training: int | None


def row_settings(runs: Sequence[RunFolder], signature: str) -> RowSettings | None:
    """Settings of the seeds of one row; None for what was not trained here.

    Args:
        runs: the seeds.
        signature: of the protocol.
    """
    config = runs[0].config()
    resolved = config["resolved"]
    if "training" not in resolved:
        return None
    seen = [run.evaluation(signature).prompts_in_training for run in runs]
    return RowSettings(
        changed=_that_count(config.get("changed", {}), resolved),
        recipe=config.get("recipe"),
        algorithm=resolved["algorithm"],
        training=resolved["training"],
        data=TrainingData(
            source=shown_source(config["data"]["source"]),
            pairs=resolved["data"]["pairs"],
            digest=resolved["data"]["digest"],
            labels=resolved["data"].get("labels"),
        ),
        prompts_in_training=max((count for count in seen if count is not None), default=None),
    )


def shown_source(source: str) -> str:
    """A path or a name as a report shows it: an absolute path by its last part, anything else as it was typed."""
    path = PurePath(source)
    return path.name if path.is_absolute() else source


def _that_count(changed: Mapping[str, str], resolved: Mapping[str, Any]) -> dict[str, str]:
    """The changes that change what comes out: the fields of the others are not among those that a run resolves to."""
    fields = {*resolved["algorithm"], *resolved["training"]}
    return {typed: value for typed, value in changed.items() if typed.partition(".")[0] in fields}
