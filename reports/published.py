"""What papers have published about a model, carried with its sources; never a row of our own tables.

``published.json`` holds the numbers as they are printed, with what is known of each table's protocol.  Tables on metrics that
are not ours, and sources that could not be identified or that contradict the papers, are left out of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.records.scores import MetricRecord


class PublishedColumn(BaseModel):
    """A printed column.

    Attributes:
        metric: our registered name of its metric.
        factor: by what the paper multiplies our raw score.
        doubt: why it may be another metric or version; empty without doubt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    factor: float = Field(gt=0)
    doubt: str = ""


class PublishedRow(BaseModel):
    """A printed row: values by the heading of their column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    values: Mapping[str, float]


class PublishedTable(BaseModel):
    """A table of a paper.

    Attributes:
        paper: short name of the paper.
        venue: where it was published.
        link: its number on arXiv; empty where it has none.
        place: where in the paper.
        model: a key of `PublishedNumbers.models`.
        prompts: the evaluation prompts.
        kind: ``score``, or ``win rate`` in percent.
        statistic: of what the numbers are the mean or median, as far as it is stated.
        doubt: why all of it is uncertain; empty without doubt.
        note: what else a reader must know.
        columns: by printed heading.
        rows: in printed order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str
    venue: str
    link: str
    place: str
    model: str
    prompts: str
    kind: Literal["score", "win rate"]
    statistic: str
    doubt: str = ""
    note: str = ""
    columns: Mapping[str, PublishedColumn]
    rows: Sequence[PublishedRow]


class PublishedNumbers(BaseModel):
    """Everything that is carried.

    Attributes:
        models: names under which runs of a published model may be, by the name that tables use.
        tables: in the order in which reports show them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Mapping[str, Sequence[str]]
    tables: Sequence[PublishedTable]


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedValue:
    """A published number in the scale of our tables; ``doubt`` says why it is uncertain, empty where it is not."""

    value: float
    doubt: str


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedSource:
    """The part of a published table that a report shows.

    Attributes:
        number: of its footnote, from 1.
        paper: its short name.
        place: venue, arXiv number and place in the paper.
        prompts: its evaluation prompts.
        kind: ``score`` or ``win rate``.
        statistic: see `PublishedTable`.
        note: see `PublishedTable`.
        rescaled: titles of metrics that the paper prints in another scale than ours.
        rows: methods with their values by our name of the metric.
    """

    number: int
    paper: str
    place: str
    prompts: str
    kind: Literal["score", "win rate"]
    statistic: str
    note: str
    rescaled: tuple[str, ...]
    rows: tuple[tuple[str, Mapping[str, PublishedValue]], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What is published about the model of a report, on the report's metrics.

    Attributes:
        sources: none where nothing is known.
        models: registered models about which something is.
    """

    sources: tuple[PublishedSource, ...]
    models: tuple[str, ...]


@functools.cache
def read_published() -> PublishedNumbers:
    """The numbers that this package carries."""
    return PublishedNumbers.model_validate_json(files("reports").joinpath("published.json").read_text("utf-8"))


def select(numbers: PublishedNumbers, model: str, metrics: Sequence[MetricRecord]) -> Published:
    """The tables about a model, with the columns of some metrics.

    Args:
        numbers: what is known.
        model: the name of the model in run folders.
        metrics: those of the report.
    """
    shown = {metric.name: metric for metric in metrics}
    fitting = [
        table
        for table in numbers.tables
        if model in numbers.models[table.model] and any(column.metric in shown for column in table.columns.values())
    ]
    sources = tuple(_source(number, table, shown) for number, table in enumerate(fitting, start=1))
    return Published(sources, tuple(numbers.models))


def _source(number: int, table: PublishedTable, metrics: Mapping[str, MetricRecord]) -> PublishedSource:
    columns = {name: column for name, column in table.columns.items() if column.metric in metrics}
    scales = {name: _scale(table, column, metrics[column.metric]) for name, column in columns.items()}
    rows = tuple(
        (
            row.method,
            {
                column.metric: PublishedValue(round(row.values[name] * scales[name], 6), table.doubt or column.doubt)
                for name, column in columns.items()
                if name in row.values
            },
        )
        for row in table.rows
    )
    return PublishedSource(
        number=number,
        paper=table.paper,
        place=", ".join(filter(None, (table.venue, table.link, table.place))),
        prompts=table.prompts,
        kind=table.kind,
        statistic=table.statistic,
        note=table.note,
        rescaled=tuple(metrics[columns[name].metric].info.title for name, scale in scales.items() if scale != 1),
        rows=tuple((method, values) for method, values in rows if values),
    )


def _scale(table: PublishedTable, column: PublishedColumn, metric: MetricRecord) -> float:
    """From the printed scale to ours; win rates have none."""
    return 1.0 if table.kind == "win rate" else metric.info.display_factor / column.factor
