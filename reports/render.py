"""A report as terminal tables, Markdown, CSV, LaTeX and JSON."""

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

from bench.core.errors import UserError
from reports.citation import citation
from reports.flat import flat_rows
from reports.footnotes import footnotes
from reports.published_tables import HEADING, published_grids, published_notes
from reports.table import Report
from reports.text_tables import Cell, Grid, Verdict, grids, settings_lines

_TERMINAL = {Verdict.BETTER: "bold green", Verdict.WORSE: "italic red", Verdict.OPEN: ""}
_MARKDOWN = {Verdict.BETTER: "**{}**", Verdict.WORSE: "*{}*", Verdict.OPEN: "{}"}
_LATEX = {Verdict.BETTER: r"\textbf{{{}}}", Verdict.WORSE: r"\textit{{{}}}", Verdict.OPEN: "{}"}
_LATEX_SPECIALS = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "†": r"\textsuperscript{\dag}",
        "±": r"$\pm$",
        "↓": r"$\downarrow$",
        "|": r"\textbar{}",
    }
)
_MARKDOWN_SPECIALS = str.maketrans({character: f"\\{character}" for character in "\\`*_<>|"})


def print_report(report: Report, console: Console) -> None:
    """Print the tables to a terminal."""
    _print_section(grids(report), _notes(report), console)
    if report.published is not None:
        console.rule(HEADING, style="dim")
        notes = published_notes(report, report.published)
        _print_section(published_grids(report, report.published), notes, console)


def _notes(report: Report) -> tuple[str, ...]:
    """The lines below the tables; the citation line is last."""
    return (*settings_lines(report), *footnotes(report), citation(report))


def _print_section(section: Sequence[Grid], notes: Sequence[str], console: Console) -> None:
    for grid in section:
        table = Table(
            "", title=grid.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for column in grid.columns:
            table.add_column(escape(column), justify="right")
        for label, cells in grid.rows:
            table.add_row(escape(label), *map(_terminal_cell, cells))
        console.print(table)
    for line in notes:
        console.print(line, style="dim", markup=False, highlight=False)


def markdown(report: Report) -> str:
    """The tables in GitHub-flavoured Markdown."""
    parts = _markdown_section(grids(report), _notes(report))
    if report.published is not None:
        notes = published_notes(report, report.published)
        parts += [f"## {HEADING}", *_markdown_section(published_grids(report, report.published), notes)]
    return "\n\n".join(parts) + "\n"


def _markdown_section(section: Sequence[Grid], notes: Sequence[str]) -> list[str]:
    parts = []
    for grid in section:
        lines = [[""] + [_markdown(column) for column in grid.columns], [":--"] + ["--:"] * len(grid.columns)]
        lines += [[_markdown(label), *map(_markdown_cell, cells)] for label, cells in grid.rows]
        parts.append(f"**{grid.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return [*parts, "\n".join(f"- {_markdown(line)}" for line in notes)]


def latex(report: Report) -> str:
    """The tables in LaTeX; needs the package ``booktabs``."""
    text = "% needs \\usepackage{booktabs}\n" + _latex_section(grids(report), _notes(report))
    if report.published is not None:
        notes = published_notes(report, report.published)
        text += f"\n\\section*{{{_latex(HEADING)}}}\n" + _latex_section(
            published_grids(report, report.published), notes
        )
    return text


def _latex_section(section: Sequence[Grid], notes: Sequence[str]) -> str:
    tables = "".join(f"{_latex_table(grid)}\n\n" for grid in section)
    lines = "\n\n".join(map(_latex, notes))
    return f"{tables}{{\\footnotesize\n{lines}\n\n}}\n"


def as_json(report: Report) -> str:
    """The whole report, including curves and the citation line, but without images, which only the page shows."""
    value = dataclasses.asdict(report)
    value["citation"] = citation(report)
    del value["comparison"]
    for metric, record in zip(value["metrics"], report.metrics, strict=True):
        del metric["info"]
        metric.update(dataclasses.asdict(record.info))
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_model_as_json) + "\n"


def _model_as_json(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def as_csv(report: Report) -> str:
    """One line per row and metric, in displayed units; every line carries its signatures.

    Raises:
        UserError: the report includes published numbers, which need a separate table.
    """
    if report.published is not None:
        raise UserError(
            "csv has a single table, without room for published numbers; drop --published, or choose a different --format"
        )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    lines = flat_rows(report)
    writer.writerow(lines[0])
    writer.writerows(line.values() for line in lines)
    return stream.getvalue()


def _terminal_cell(cell: Cell) -> str:
    style = _TERMINAL[cell.verdict]
    text = escape(f"{cell.value}\n{cell.detail}" if cell.detail else cell.value)
    return f"[{style}]{text}[/]" if style else text


def _markdown_cell(cell: Cell) -> str:
    value = _MARKDOWN[cell.verdict].format(_markdown(cell.value))
    return f"{value} {_markdown(cell.detail)}" if cell.detail else value


def _markdown(text: str) -> str:
    return text.translate(_MARKDOWN_SPECIALS)


def _latex_table(grid: Grid) -> str:
    head = " & ".join(["", *map(_latex, grid.columns)])
    lines = [" & ".join([_latex(label), *map(_latex_cell, cells)]) for label, cells in grid.rows]
    rows = "\n".join(f"{line} \\\\" for line in lines)
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{_latex(grid.title)}}}\n\\begin{{tabular}}{{l{'r' * len(grid.columns)}}}\n"
        f"\\toprule\n{head} \\\\\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}"
    )


def _latex_cell(cell: Cell) -> str:
    value = _LATEX[cell.verdict].format(_latex(cell.value))
    return f"{value} {{\\scriptsize {_latex(cell.detail)}}}" if cell.detail else value


def _latex(text: str) -> str:
    return text.translate(_LATEX_SPECIALS)
