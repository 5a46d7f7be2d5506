"""What the metrics of a report say of pairs on which people voted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.core.errors import UserError
from bench.core.manifest import is_sealed
from bench.core.paths import unlinked
from bench.core.precision import this_device
from bench.core.values import differing
from bench.data.preferences import PreferenceData
from bench.data.reading import inspect_votes, kept_data
from bench.data.scores import score_data
from bench.data.sources import open_source
from bench.models.registry import MODELS
from bench.records.protocol import scorer_signature
from bench.records.runs import CACHE, surveys_folder
from bench.records.scores import MetricRecord
from bench.records.votes import VotesRecord, read_votes, votes_path, write_votes
from bench.scoring.loop import Judge
from bench.scoring.metric import METRICS, Metric, recorded_identity


@dataclasses.dataclass(frozen=True, slots=True)
class Votes:
    """Pairs on which people voted, held out from training, ties included: ``bench report --judges-on``.

    Attributes:
        data: a file, a folder or a dataset on the hub, as ``data`` of `bench.run`, with ``label_0``.
        columns: names of the columns in the data by their names here, for example ``{"label_0": "vote"}``.
        checkpoints: other checkpoints than the model's by metric.
    """

    data: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    checkpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def judged(
        self, runs: Path, model: str, prompts: Sequence[str], metrics: Sequence[MetricRecord]
    ) -> Iterator[VotesRecord]:
        """The scores of each pair's images, by the same version of each metric as in a report, and the votes.

        They are kept in the cache of the runs folder under the metrics' signatures; an interrupted call goes on where it stopped.

        Args:
            runs: the folder of all runs.
            model: the model of the report, whose metric checkpoints are used.
            prompts: the evaluation prompts of the report, on which the identity of some metrics depends.
            metrics: the metrics of the report.

        Raises:
            UserError: the data are not pairs with people's votes, or a metric is not the version that the report's scores are by.
        """
        if unknown := sorted(self.checkpoints.keys() - {metric.name for metric in metrics}):
            raise UserError(f"--checkpoint {unknown[0]}=... is for a metric that is not in this table")
        pairs = _voted_pairs(self, runs)
        folder = unlinked(runs, runs / CACHE / "votes")
        card = MODELS.get(model).metrics if model in MODELS else {}
        for metric in metrics:
            path = votes_path(folder, pairs.digest, pairs.labels_digest, metric.name, metric.scorer)
            if not is_sealed(path):
                judge = Judge(METRICS.get(metric.name), self.checkpoints.get(metric.name, card.get(metric.name)))
                scorer = judge.load(this_device())
                _refuse_other_version(metric, scorer, prompts)
                write_votes(path, _record(metric, scorer, pairs, folder))
            yield read_votes(path)


def _voted_pairs(votes: Votes, runs: Path) -> PreferenceData:
    name = votes.data
    inspected = inspect_votes(open_source(name, votes.columns), name, surveys_folder(runs))
    inspected.refuse_unusable()
    pairs = kept_data(inspected)
    if pairs.width != 2 or not pairs.labelled:
        raise UserError(f"{name} has no votes: --judges-on needs pairs with label_0; rename columns with --columns")
    if pairs.judges:
        raise UserError(
            f"the labels of {name} were set by {', '.join(pairs.judges)}, not by people; give --judges-on data that people voted on"
        )
    return pairs


def _refuse_other_version(metric: MetricRecord, scorer: Metric, prompts: Sequence[str]) -> None:
    identity = recorded_identity(scorer.for_prompts(prompts))
    if scorer_signature(metric.name, identity) != metric.scorer:
        fields = ", ".join(differing(dict(metric.identity), identity))
        raise UserError(
            f"the scores of {metric.name} in this table are by another version of it, which differs in {fields}; score the stored "
            f"images again with today's: bench rescore --metrics {metric.name}; or, if the bench.json of the model names a checkpoint, "
            f"name it here: --checkpoint {metric.name}=..."
        )


def _record(metric: MetricRecord, scorer: Metric, pairs: PreferenceData, folder: Path) -> VotesRecord:
    scores = score_data(metric.name, scorer, pairs, folder)
    numbers = {caption: place for place, caption in enumerate(dict.fromkeys(pairs.captions))}
    return VotesRecord(
        source=pairs.report.source,
        data=pairs.digest,
        labels=pairs.labels_digest,
        metric=metric.name,
        scorer=metric.scorer,
        prompts=[numbers[caption] for caption in pairs.captions],
        label_0=pairs.preference_0.tolist(),
        scores=[(first, second) for first, second in scores.tolist()],
    )
