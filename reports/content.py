"""The content of a report, from which every format is rendered."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.core.errors import UserError
from bench.records.config import OLD_RECIPE, RECIPE
from bench.records.protocol import Protocol
from bench.records.scores import MetricRecord
from bench.records.votes import VotesRecord
from reports.agreement import Agreement, agreements
from reports.comparisons import Score
from reports.conclusions import Conclusions, conclude
from reports.curves import Curve, training_curves
from reports.endpoint import Endpoint
from reports.overoptimisation import Panel, panel_of
from reports.published import Published, read_published, select
from reports.ranking import Pair, Standing
from reports.records import UNLISTED, Records, RowRecord, RunRecord
from reports.settings import RowSettings
from reports.statistics import Interval

SCHEMA = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one training run, mean over its seeds; peak memory is the maximum.

    Attributes:
        flops: operations, a backward counted as two forwards; None in older records.
        samples: images that were sampled in training, 0 where there are none.
        reward_calls: scores that training asked for, one per image and metric.
        seconds_low: of the fastest seed.
        seconds_high: of the slowest seed.
    """

    pairs: float
    policy_forwards: float
    policy_backwards: float
    reference_forwards: float
    flops: float | None
    samples: float
    reward_calls: float
    seconds: float
    seconds_low: float
    seconds_high: float
    peak_memory_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row(RowRecord):
    """A row, compared with the reference row.

    Attributes:
        scores: by name of the metric; without metrics that some seed lacks.
        cost: None if not trained here, or if another row of the same runs has it.
        curves: training curves by quantity.
        panel: what images of training prompts say along the training; None if nothing was measured.
        over_reference: win rate over the reference row by the primary endpoint; None for that row, and where a row has none.
        over_placebo: win rate over the same algorithm trained on shuffled labels, by the primary endpoint; None without such runs.
        standing: rank and group; None for the reference and for placebos.
    """

    scores: Mapping[str, Score]
    cost: Cost | None
    curves: Mapping[str, Curve]
    panel: Panel | None
    over_reference: Interval | None
    over_placebo: Interval | None
    standing: Standing | None


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
        primary: the primary endpoint as asked for; None means the default.
        endpoint: the primary endpoint; None where there is none: see `reports.endpoint.choose_endpoint`.
        pairs: all pairs of rows but the reference and placebos that can be compared by the primary endpoint.
        notes: what is missing from the rows, and why.
        source: the records that the report was made from; no format shows it.
        places: of the rows among the records, where the base is 0; no format shows them.
        agreements: how often each metric agrees with people's votes; empty if not requested.
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
    primary: str | None
    endpoint: Endpoint | None
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    source: Records = dataclasses.field(metadata={UNLISTED: True})
    places: tuple[int, ...] = dataclasses.field(metadata={UNLISTED: True})
    agreements: tuple[Agreement, ...] = ()
    published: Published | None = None


def build_report(records: Records, primary: str | None = None) -> Report:
    """Compare every row with the base.

    Args:
        records: what was read.
        primary: the primary endpoint, a metric's name or ``judges``; None means gold where it is there, else the judges.

    Raises:
        UserError: there is no such metric.
    """
    recorded = (records.base, *records.rows)
    found = conclude(recorded, 0, records.metrics, primary)
    return Report(
        schema=SCHEMA,
        model=records.protocol.model,
        signature=records.signature,
        settings=settings_line(records.protocol),
        protocol=records.protocol,
        prompts=len(records.prompts),
        images_per_prompt=records.protocol.generation.images_per_prompt,
        metrics=records.metrics,
        rows=_rows(recorded, found),
        primary=primary,
        endpoint=found.endpoint,
        pairs=found.pairs,
        notes=records.notes,
        source=records,
        places=tuple(range(len(recorded))),
    )


def against(report: Report, place: int) -> Report:
    """The report with another row as the reference; training seeds that both rows have are compared with each other.

    The reference is first, and the others follow in the order of the records, whatever the report was made against.

    Args:
        report: the report against any row.
        place: position of the new reference among the rows of this report.
    """
    recorded = (report.source.base, *report.source.rows)
    reference = report.places[place]
    order = (reference, *(other for other in range(len(recorded)) if other != reference))
    found = conclude(recorded, reference, report.metrics, report.primary)
    rows = _rows(recorded, found)
    moved = {old: new for new, old in enumerate(order)}
    pairs = tuple(dataclasses.replace(pair, one=moved[pair.one], other=moved[pair.other]) for pair in found.pairs)
    return dataclasses.replace(
        report, rows=tuple(rows[each] for each in order), endpoint=found.endpoint, pairs=pairs, places=order
    )


def find_row(report: Report, wanted: str) -> int:
    """Position of the row that ``--against`` means: a label, an algorithm, or ``algorithm/name``.

    Of an algorithm's rows, its name means the only one besides placebos, or else the one with the settings of the recipe.
    Of rows that differ in how they are sampled alone, a name means the one that is sampled as the protocol says; the others have
    labels.

    Raises:
        UserError: no row has this name, or several have it.
    """
    rows = list(enumerate(report.rows))
    named = [(place, row) for place, row in rows if wanted in (row.algorithm, _name(row))]
    exact = [(place, row) for place, row in named if wanted == _name(row)]
    recipes = [(place, row) for place, row in named if row.name in ("", RECIPE, OLD_RECIPE)]
    methods = [(place, row) for place, row in named if row.placebo_of is None]
    plain = [[(place, row) for place, row in each if row.own] for each in (exact, named, methods, recipes)]
    for found in ([(place, row) for place, row in rows if row.label == wanted], *plain, exact, named):
        if len(found) == 1:
            return found[0][0]
    names = ", ".join(_name(row) if row.own else repr(row.label) for row in report.rows)
    problem = "means several rows" if named else "is not in this table"
    raise UserError(f"--against {wanted!r} {problem}; choose one of {names}")


def _name(row: Row) -> str:
    """What ``--against`` calls a row."""
    return f"{row.algorithm}/{row.name}" if row.name else row.algorithm


def with_votes(report: Report, votes: Iterable[VotesRecord]) -> Report:
    """The report with how often each metric agrees with people's votes.

    Raises:
        UserError: there is no pair without a tie, or all pairs have one caption.
    """
    return dataclasses.replace(report, agreements=agreements(report.metrics, votes))


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


def _rows(records: Sequence[RunRecord], found: Conclusions) -> tuple[Row, ...]:
    return tuple(
        Row(
            **{field.name: getattr(row, field.name) for field in dataclasses.fields(RowRecord)},
            scores=found.scores[place],
            cost=_cost(row.ledgers) if row.ledgers else None,
            curves=training_curves(row.steps),
            panel=panel_of(row.watched),
            over_reference=found.over_reference.get(place),
            over_placebo=found.over_placebo.get(place),
            standing=found.standings.get(place),
        )
        for place, row in enumerate(records)
    )


def _cost(found: Sequence[Mapping[str, Any]]) -> Cost:
    ledgers = [{"samples": 0, "reward_calls": 0, **ledger} for ledger in found]  # which older versions did not count

    def mean(field: str) -> float:
        return statistics.fmean(float(ledger[field]) for ledger in ledgers)

    return Cost(
        pairs=mean("pairs"),
        policy_forwards=mean("policy_forwards"),
        policy_backwards=mean("policy_backwards"),
        reference_forwards=mean("reference_forwards"),
        flops=mean("flops") if all("flops" in ledger for ledger in ledgers) else None,
        samples=mean("samples"),
        reward_calls=mean("reward_calls"),
        seconds=mean("seconds"),
        seconds_low=min(float(ledger["seconds"]) for ledger in ledgers),
        seconds_high=max(float(ledger["seconds"]) for ledger in ledgers),
        peak_memory_bytes=max(int(ledger["peak_memory_bytes"]) for ledger in ledgers),
    )
