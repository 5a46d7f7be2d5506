"""A report as one self-contained HTML page."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.core.escaping import visible
from reports.citation import citation
from reports.conclusion_tables import reference_name
from reports.content import Report, against
from reports.footnotes import footnotes
from reports.overoptimisation import gains_in_words
from reports.pictures import compare
from reports.plots import panel_plot, training_plot, win_rate_plot
from reports.published_tables import HEADING, published_notes, published_tables
from reports.result_tables import (
    HYPHEN_AS_MINUS,
    comparison_tables,
    conclusion_tables,
    result_tables,
    settings_lines,
    settings_table,
)
from reports.text_table import TextTable

EN_DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def _shown(value: Any) -> Any:
    """What the template puts into the page: texts without control characters; Jinja escapes them after that."""
    return visible(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def page(report: Report) -> str:
    """The page: tables, plots and images, in one file that loads nothing from elsewhere.

    Without scripts it shows everything against the report's reference; with them tables can be sorted and filtered, the row that
    the others are compared with can be chosen, and images open larger.
    """
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    references = [_reference(report, place) for place in range(len(report.rows))] if len(report.rows) > 2 else []
    published = report.published
    return environment.get_template("page.html").render(
        report=report,
        reference=reference_name(report),
        comparison=compare(report.source, report.places),
        conclusions=conclusion_tables(report),
        grids=result_tables(report),
        references=_escaped(references),
        settings=settings_lines(report),
        notes=_notes(report),
        row_settings=settings_table(report),
        published_heading=HEADING,
        published_tables=() if published is None else published_tables(report, published),
        published_notes=() if published is None else published_notes(report, published),
        win_rates=Markup(win_rate_plot(report)),  # noqa: S704  matplotlib escapes what it writes
        panels=[(row, Markup(panel_plot(row))) for row in report.rows if row.panel],  # noqa: S704
        gains=gains_in_words,
        training=Markup(training_plot(report)),  # noqa: S704
    )


def typeset(text: str) -> str:
    """A cell's text with minus signs where ASCII has hyphens before digits, and a dash for an empty cell."""
    return EN_DASH if text == "-" else HYPHEN_AS_MINUS.sub(MINUS, text)


def _reference(report: Report, place: int) -> dict[str, Any]:
    """What the page's script needs to show everything that depends on the reference with another row in its place."""
    other = against(report, place)
    return {
        "label": report.rows[place].label,
        "conclusions": [_table(grid) for grid in conclusion_tables(other)],
        "tables": [_table(grid) for grid in comparison_tables(other)],
        "notes": _notes(other),
    }


def _notes(report: Report) -> list[str]:
    """The lines below the tables; the citation line is last."""
    return [*footnotes(report), citation(report)]


def _table(grid: TextTable) -> dict[str, Any]:
    return {
        "title": grid.title,
        "columns": list(grid.columns),
        "rows": [
            [label, [[typeset(cell.value), typeset(cell.detail), cell.verdict.value] for cell in cells]]
            for label, cells in grid.rows
        ],
        "notes": list(grid.notes),
    }


def _escaped(value: Any) -> Any:
    """A JSON value whose texts are as the template shows them."""
    if isinstance(value, dict):
        return {name: _escaped(each) for name, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else _shown(value)
