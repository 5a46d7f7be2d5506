"""What the runs of a row were trained with: what was typed, what it resolved to, and the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from bench.records.config import TrainingRecord
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
        limit: how many evaluation prompts and training pairs a trial used at most; None for a run on all.
    """

    changed: Mapping[str, str]
    recipe: str | None
    algorithm: Mapping[str, Any]
    training: TrainingRecord
    data: TrainingData
    prompts_in_training: int | None
    limit: int | None


def row_settings(runs: Sequence[RunFolder], signature: str) -> RowSettings | None:
    """Settings of the seeds of one row; None for what was not trained here.

    Args:
        runs: the seeds.
        signature: of the protocol.
    """
    config = runs[0].config()
    algorithm, training, data = config.resolved.algorithm, config.resolved.training, config.resolved.data
    if algorithm is None or training is None or data is None or config.data is None:
        return None
    seen = [run.evaluation(signature).prompts_in_training for run in runs]
    return RowSettings(
        changed=config.effective_changes,
        recipe=config.recipe,
        algorithm=algorithm,
        training=training,
        data=TrainingData(
            source=shown_source(config.data.source), pairs=data.pairs, digest=data.digest, labels=data.labels
        ),
        prompts_in_training=max((count for count in seen if count is not None), default=None),
        limit=config.limit,
    )


def shown_source(source: str) -> str:
    """A path or a name as a report shows it: an absolute path by its last part, anything else as it was typed."""
    path = PurePath(source)
    return path.name if path.is_absolute() else source
