"""A report as terminal tables, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.core import escaping
from bench.core.errors import UserError
from bench.records.scores import MetricRecord
from reports.citation import citation
from reports.content import Report
from reports.flat import flat_rows
from reports.footnotes import footnotes
from reports.published_tables import HEADING, published_notes, published_tables
from reports.records import UNLISTED
from reports.result_tables import report_tables, settings_lines
from reports.splitting import split_columns
from reports.text_table import Cell, TextTable, Verdict

STAR = "* is bold or italic in a terminal and in other formats: better or worse, as explained below."
_TERMINAL = {Verdict.BETTER: "bold green", Verdict.WORSE: "italic red", Verdict.OPEN: ""}
_MARKDOWN = {Verdict.BETTER: "**{}**", Verdict.WORSE: "*{}*", Verdict.OPEN: "{}"}


def print_report(report: Report, console: Console) -> None:
    """Print the tables to a terminal, or to a file, where a star stands for what is bold or italic."""
    shown, notes = report_tables(report), notes_of(report)
    marked = any(cell.verdict is not Verdict.OPEN for grid in shown for _, cells in grid.rows for cell in cells)
    if marked and not console.is_terminal:
        shown, notes = tuple(map(_starred, shown)), (STAR, *notes)
    _print_section(shown, notes, console)
    if report.published is not None:
        console.rule(HEADING, style="dim")
        notes = published_notes(report, report.published)
        _print_section(published_tables(report, report.published), notes, console)


def _starred(grid: TextTable) -> TextTable:
    """A table whose marks are stars behind the values."""
    rows = [
        (label, tuple(cell if cell.verdict is Verdict.OPEN else Cell(f"{cell.value}*", cell.detail) for cell in cells))
        for label, cells in grid.rows
    ]
    return dataclasses.replace(grid, rows=tuple(rows))


def notes_of(report: Report) -> tuple[str, ...]:
    """The lines below the tables of every text format; the citation line is last."""
    return (*settings_lines(report), *footnotes(report), citation(report))


def _print_section(section: Sequence[TextTable], notes: Sequence[str], console: Console) -> None:
    parts = [part for grid in section for part in split_columns(grid, console.width, _printed_width)]
    for grid in parts:
        table = Table(
            title=escape(escaping.line(grid.title)),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        table.add_column("", overflow="fold")
        for column in grid.columns:
            table.add_column(escape(column), justify="right")
        for label, cells in grid.rows:
            table.add_row(escape(label), *map(_terminal_cell, cells))
        console.print(table)
        for line in grid.notes:
            console.print(escaping.line(line), style="dim", markup=False, highlight=False)
        if grid.notes:
            console.print()
    for line in notes:
        console.print(escaping.line(line), style="dim", markup=False, highlight=False)


def _printed_width(cell: Cell) -> int:
    return max(len(cell.value), len(cell.detail))


def markdown(report: Report) -> str:
    """The tables in GitHub-flavoured Markdown."""
    parts = _markdown_section(report_tables(report), notes_of(report))
    if report.published is not None:
        notes = published_notes(report, report.published)
        parts += [f"## {HEADING}", *_markdown_section(published_tables(report, report.published), notes)]
    return "\n\n".join(parts) + "\n"


def _markdown_section(section: Sequence[TextTable], notes: Sequence[str]) -> list[str]:
    parts = []
    for grid in section:
        lines = [[""] + [escaping.markdown(column) for column in grid.columns], [":--"] + ["--:"] * len(grid.columns)]
        lines += [[escaping.markdown(label), *map(_markdown_cell, cells)] for label, cells in grid.rows]
        parts.append(
            f"**{escaping.markdown(grid.title)}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        )
        parts += ["\n".join(f"- {escaping.markdown(line)}" for line in grid.notes)] if grid.notes else []
    return [*parts, "\n".join(f"- {escaping.markdown(line)}" for line in notes)]


def as_json(report: Report) -> str:
    """The whole report, including curves and the citation line; images are on the page alone."""
    value = _fields(report)
    value["metrics"] = [_metric_as_json(metric) for metric in report.metrics]
    value["citation"] = citation(report)
    return escaping.json_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_fields)) + "\n"


def _metric_as_json(metric: MetricRecord) -> dict[str, Any]:
    """A metric's record with the fields of its ``info`` beside the others."""
    value: dict[str, Any] = dataclasses.asdict(metric)
    info: dict[str, Any] = value.pop("info")
    return {**value, **info}


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    shown = (field for field in dataclasses.fields(value) if not field.metadata.get(UNLISTED))
    return {field.name: getattr(value, field.name) for field in shown}


def as_csv(report: Report) -> str:
    """One line per row and metric, in displayed units; every line carries its signatures.

    Raises:
        UserError: the report includes published numbers, which need a separate table, or it has no metric.
    """
    if report.published is not None:
        raise UserError(
            "csv has a single table, without room for published numbers; drop --published, or choose a different --format"
        )
    if not report.metrics:
        raise UserError(
            "csv has a line per row and metric, and these images have no score; choose a different --format"
        )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    lines = flat_rows(report)
    writer.writerow(lines[0])
    writer.writerows(
        [escaping.cell(value) if isinstance(value, str) else value for value in line.values()] for line in lines
    )
    return stream.getvalue()


def _terminal_cell(cell: Cell) -> str:
    style = _TERMINAL[cell.verdict]
    text = escape(f"{cell.value}\n{cell.detail}" if cell.detail else cell.value)
    return f"[{style}]{text}[/]" if style else text


def _markdown_cell(cell: Cell) -> str:
    value = _MARKDOWN[cell.verdict].format(escaping.markdown(cell.value))
    detail = escaping.markdown(cell.detail)
    if cell.detail.startswith(("+", "-")):  # a difference behind its score would read as a sum
        detail = f"({detail})"
    return f"{value} {detail}" if detail else value
