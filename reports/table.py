"""The content of a report, from which every format is rendered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bench.core.errors import UserError
from bench.records.protocol import Protocol
from bench.records.scores import MetricRecord
from reports.curves import Curve, training_curves
from reports.panel import Panel, panel_of
from reports.pictures import Comparison, compare
from reports.published import Published, read_published, select
from reports.records import Records, RowRecord, RunRecord
from reports.settings import RowSettings
from reports.statistics import Array, Interval, mean_interval, win_rate

SCHEMA = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """One metric of one row, in displayed units (raw score times the metric's display factor).

    Attributes:
        mean: mean over seeds, prompts and images.
        difference: difference from the base on the same prompts and noise; None for the base itself.
        win_rate: share of images better than the base's, ties counting half; None for the base itself.
        trained_on: whether the row's training used this metric.
    """

    mean: float
    difference: Interval | None
    win_rate: Interval | None
    trained_on: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one training run, mean over its seeds; peak memory is the maximum.

    Attributes:
        seconds_low: of the fastest seed.
        seconds_high: of the slowest seed.
    """

    pairs: float
    policy_forwards: float
    policy_backwards: float
    reference_forwards: float
    seconds: float
    seconds_low: float
    seconds_high: float
    peak_memory_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row(RowRecord):
    """A row, compared with the base.

    Attributes:
        scores: by name of the metric; without metrics that some seed lacks.
        cost: None if not trained here, or if another row of the same runs has it.
        curves: training curves by quantity.
        panel: what images of training prompts say along the training; None if nothing was measured.
    """

    scores: Mapping[str, Score]
    cost: Cost | None
    curves: Mapping[str, Curve]
    panel: Panel | None


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything a table, page or file of a report shows.

    Attributes:
        schema: version of this format.
        model: name of the base model.
        signature: signature of the protocol.
        settings: the protocol in one line.
        protocol: the protocol in full.
        prompts: number of evaluation prompts.
        images_per_prompt: number of images per prompt.
        metrics: in the order of the columns.
        rows: what the others are compared with first, usually the base.
        comparison: images side by side.
        notes: what is missing from the rows, and why.
        source: the records that the report was made from; no format shows it.
        published: published numbers about the model; None if not requested.
    """

    schema: int
    model: str
    signature: str
    settings: str
    protocol: Protocol
    prompts: int
    images_per_prompt: int
    metrics: tuple[MetricRecord, ...]
    rows: tuple[Row, ...]
    comparison: Comparison
    notes: tuple[str, ...]
    source: Records
    published: Published | None = None


def build_report(records: Records) -> Report:
    """Compare every row with the base.

    Raises:
        UserError: the protocol has a single prompt, and an interval needs at least two.
    """
    if len(records.prompts) < 2:
        raise UserError("the protocol has a single prompt; an interval needs at least two: evaluate on more prompts")
    return Report(
        schema=SCHEMA,
        model=records.protocol.model,
        signature=records.signature,
        settings=settings_line(records.protocol),
        protocol=records.protocol,
        prompts=len(records.prompts),
        images_per_prompt=records.protocol.generation.images_per_prompt,
        metrics=records.metrics,
        rows=tuple(_row(row, records) for row in (records.base, *records.rows)),
        comparison=compare(records),
        notes=records.notes,
        source=records,
    )


def against(report: Report, place: int) -> Report:
    """The report with another row in the base's place; training seeds that both rows have are compared with each other.

    Args:
        report: the report against the base.
        place: position of the row among those of the report.
    """
    recorded = (report.source.base, *report.source.rows)
    order = [place, *(other for other in range(len(recorded)) if other != place)]
    rows = [
        dataclasses.replace(report.rows[each], scores=_scores(recorded[each], recorded[place], report.metrics))
        for each in order
    ]
    return dataclasses.replace(report, rows=tuple(rows))


def with_published(report: Report) -> Report:
    """The report with published numbers about its model, for its metrics."""
    return dataclasses.replace(report, published=select(read_published(), report.model, report.metrics))


def trained_rows(report: Report) -> tuple[tuple[Row, RowSettings], ...]:
    """The rows that were trained here, with their settings; rows of the same runs appear once."""
    rows: dict[tuple[str, str], tuple[Row, RowSettings]] = {}
    for row in report.rows:
        if row.settings is not None:
            rows.setdefault((row.algorithm, row.name), (row, row.settings))
    return tuple(rows.values())


def settings_line(protocol: Protocol) -> str:
    """The settings that a reader needs to interpret a score, in one line."""
    made = protocol.generation
    images = made.images_per_prompt
    parts = [
        f"{protocol.model} (weights {protocol.base_weights})",
        f"{protocol.prompt_count} prompts (digest {protocol.prompts}) x {images} image{'s' if images > 1 else ''}",
        f"{made.scheduler}, {made.steps} steps, guidance {made.guidance_scale:g}",
        f"{made.width}x{made.height}",
        f"noise seed {made.seed}",
        made.precision,
    ]
    if made.negative_prompt:
        parts.append(f"negative prompt {made.negative_prompt!r}")
    return ", ".join(parts)


def _row(row: RunRecord, records: Records) -> Row:
    shared = {field.name: getattr(row, field.name) for field in dataclasses.fields(RowRecord)}
    return Row(
        **shared,
        scores=_scores(row, records.base, records.metrics),
        cost=_cost(row.ledgers) if row.ledgers else None,
        curves=training_curves(row.steps),
        panel=panel_of(row.watched),
    )


def _scores(row: RunRecord, reference: RunRecord, metrics: Sequence[MetricRecord]) -> dict[str, Score]:
    return {metric.name: _score(row, reference, metric) for metric in metrics if metric.name in row.scores}


def _score(row: RunRecord, reference: RunRecord, metric: MetricRecord) -> Score:
    factor, comparable = metric.info.display_factor, row is not reference and metric.name in reference.scores
    scores, base = _paired(row, reference, metric.name) if comparable else (row.scores[metric.name],) * 2
    return Score(
        mean=float(row.scores[metric.name].mean()) * factor,
        difference=mean_interval((scores - base) * factor) if comparable else None,
        win_rate=win_rate(scores, base, higher_is_better=metric.info.higher_is_better) if comparable else None,
        trained_on=metric.name in row.trained_on,
    )


def _paired(row: RunRecord, reference: RunRecord, metric: str) -> tuple[Array, Array]:
    """Scores of a row and of its reference that belong together, (seeds, prompts, images) each, or one seed of the reference.

    Training seeds that both have are paired: they saw the same batches and noise.  Otherwise the reference's first is taken.
    """
    mine, other = row.scores[metric], reference.scores[metric]
    common = [seed for seed in row.seeds if seed in reference.seeds]
    if not common:
        return mine, other[:1]
    return mine[[row.seeds.index(seed) for seed in common]], other[[reference.seeds.index(seed) for seed in common]]


def _cost(ledgers: Sequence[Mapping[str, Any]]) -> Cost:
    def mean(field: str) -> float:
        return sum(float(ledger[field]) for ledger in ledgers) / len(ledgers)

    return Cost(
        pairs=mean("pairs"),
        policy_forwards=mean("policy_forwards"),
        policy_backwards=mean("policy_backwards"),
        reference_forwards=mean("reference_forwards"),
        seconds=mean("seconds"),
        seconds_low=min(float(ledger["seconds"]) for ledger in ledgers),
        seconds_high=max(float(ledger["seconds"]) for ledger in ledgers),
        peak_memory_bytes=max(int(ledger["peak_memory_bytes"]) for ledger in ledgers),
    )
