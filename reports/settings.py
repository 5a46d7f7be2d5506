"""Training settings of the runs of a row: as typed, as resolved, and the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from bench.records.runs import RunFolder
from bench.records.training import TrainingRecord


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingData:
    """The preference data of a row.

    Attributes:
        source: its name as typed; for an absolute path only the last part, because a report is read on other machines.
        pairs: number of pairs.
        digest: digest of captions and images.
        labels: digest of the labels; None in records that predate it.
        rounds: in how many rounds it was trained on images of its own for the data's captions; None if not in rounds.
        sampled: whether it sampled images for the data's captions while it trained, or for its rounds.
        fits_judge: whether each round fitted its judge to the data's pairs.
    """

    source: str
    pairs: int
    digest: str
    labels: str | None
    rounds: int | None
    sampled: bool
    fits_judge: bool

    @property
    def own_pictures(self) -> bool:
        """Whether it was trained on images of its own instead of the data's."""
        return self.rounds is not None or self.sampled

    @property
    def labels_count(self) -> bool:
        """Whether the data's pairs and labels were trained on, if only by what chose images."""
        return self.fits_judge or not self.own_pictures


@dataclasses.dataclass(frozen=True, slots=True)
class RowSettings:
    """Settings of training; equal for all seeds of a row.

    Attributes:
        changed: changes to the recipe as typed, by field; empty in records that predate it.
        recipe: source of the recipe; None if there is none, and in records that predate it.
        algorithm: every hyper-parameter.
        training: every training setting that changes the result.
        data: the preference data.
        prompts_in_training: number of evaluation prompts that were captions in training; None if not checked.
        limit: maximum number of evaluation prompts and training pairs in a trial; None for a full run.
        code: hash of the code that trained each seed, in the order of the seeds; ``unrecorded`` where no record says.
        harness: the same for the part of it that all algorithms share.
    """

    changed: Mapping[str, str]
    recipe: str | None
    algorithm: Mapping[str, Any]
    training: TrainingRecord
    data: TrainingData
    prompts_in_training: int | None
    limit: int | None
    code: tuple[str, ...]
    harness: tuple[str, ...]


def row_settings(runs: Sequence[RunFolder], signature: str) -> RowSettings | None:
    """Settings of the seeds of one row; None if not trained here.

    Args:
        runs: the runs, one per seed.
        signature: signature of the protocol.
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
            source=shown_source(config.data.source),
            pairs=data.pairs,
            digest=data.digest,
            labels=data.labels,
            rounds=None if training.rounds is None else training.rounds.number,
            sampled=any(
                ledger is not None and ledger.get("samples", 0) > 0 for ledger in (run.ledger() for run in runs)
            ),
            fits_judge=config.fits_judge,
        ),
        prompts_in_training=max((count for count in seen if count is not None), default=None),
        limit=config.limit,
        code=tuple(run.config().resolved.code_id for run in runs),
        harness=tuple(run.config().resolved.harness_id for run in runs),
    )


def shown_source(source: str) -> str:
    """A path or a name as a report shows it: the last part of an absolute path, anything else as typed."""
    path = PurePath(source)
    return path.name if path.is_absolute() else source
