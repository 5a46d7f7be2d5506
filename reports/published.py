"""Published numbers about a model, with their sources; never rows of the report's own tables.

``published.json`` holds the numbers as printed, with what is known about each table's protocol.  Tables of metrics that this
project does not have, and sources that could not be identified or that contradict the papers, are left out.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.records.scores import MetricRecord


class PublishedColumn(BaseModel):
    """A printed column.

    Attributes:
        metric: registered name of its metric.
        factor: factor from the metric's raw score to the paper's number.
        doubt: why it may be a different metric or version; empty if certain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    factor: float = Field(gt=0)
    doubt: str = ""


class PublishedRow(BaseModel):
    """A printed row: values by column heading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    values: Mapping[str, float]


class PublishedTable(BaseModel):
    """A table of a paper.

    Attributes:
        paper: short name of the paper.
        venue: where it was published.
        link: its arXiv number; empty if it has none.
        place: where in the paper the table is.
        model: a key of `PublishedNumbers.models`.
        prompts: the evaluation prompts.
        kind: ``score``, or ``win rate`` in percent.
        statistic: what the numbers are means or medians of, as far as stated.
        doubt: why the whole table is uncertain; empty if it is not.
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
    """All published numbers of this package.

    Attributes:
        models: names that runs of a published model may have, by the name used in `tables`.
        tables: in the order that reports show them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Mapping[str, Sequence[str]]
    tables: Sequence[PublishedTable]


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedValue:
    """A published number in the scale of the report's tables.

    Attributes:
        value: the number.
        decimals: as many as its column prints, in this scale; a paper's trailing zeros are part of the number.
        doubt: why it is uncertain; empty if it is not.
    """

    value: float
    decimals: int
    doubt: str


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedSource:
    """The part of a published table that a report shows.

    Attributes:
        number: number of its footnote, from 1.
        paper: its short name.
        place: venue, arXiv number and place in the paper.
        prompts: its evaluation prompts.
        kind: ``score`` or ``win rate``.
        statistic: see `PublishedTable`.
        note: see `PublishedTable`.
        rescaled: titles of metrics that the paper prints in a different scale.
        rows: methods with their values by registered name of the metric.
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
        sources: empty if nothing is known.
        models: registered models with published numbers.
    """

    sources: tuple[PublishedSource, ...]
    models: tuple[str, ...]


@functools.cache
def read_published() -> PublishedNumbers:
    """The published numbers of this package."""
    return PublishedNumbers.model_validate_json(files("reports").joinpath("published.json").read_text("utf-8"))


def select(numbers: PublishedNumbers, model: str, metrics: Sequence[MetricRecord]) -> Published:
    """The tables about a model, restricted to some metrics.

    Args:
        numbers: all published numbers.
        model: the model's name in run folders.
        metrics: the metrics of the report.
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
    decimals = {name: _decimals(table, name, scale) for name, scale in scales.items()}
    rows = tuple(
        (
            row.method,
            {
                column.metric: PublishedValue(
                    round(row.values[name] * scales[name], 6), decimals[name], table.doubt or column.doubt
                )
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
    """Factor from the printed scale to the report's; 1 for win rates."""
    return 1.0 if table.kind == "win rate" else metric.info.display_factor / column.factor


def _decimals(table: PublishedTable, column: str, scale: float) -> int:
    """Decimals of a printed column in the report's scale; the longest number has them, as JSON keeps no trailing zeros."""
    values = [row.values[column] for row in table.rows if column in row.values]
    printed = max(0 if value.is_integer() else len(repr(value).partition(".")[2]) for value in values)
    return max(0, printed - round(math.log10(scale)))
