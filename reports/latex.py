"""A report as LaTeX tables that fit the page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from bench.core import escaping
from bench.core.chunks import batch_slices
from reports.content import Report
from reports.published_tables import HEADING, published_notes, published_tables
from reports.render import notes_of
from reports.result_tables import HYPHEN_AS_MINUS, report_tables
from reports.splitting import split_columns
from reports.text_table import Cell, TextTable, Verdict

WIDTH = 100
"""Characters on a line of a table before it is split; on the standard page such a line is set at about two thirds of its size."""
ROWS = 36
"""Rows of a table before it is split: as many as stand on LaTeX's standard page."""

_MARKS = {Verdict.BETTER: r"\textbf{{{}}}", Verdict.WORSE: r"\textit{{{}}}", Verdict.OPEN: "{}"}
_BREAKS = re.compile(r"(?<=[/=_,:.\-])(?=\w)")
_LONG = 24
"""Longer words of a note may be broken after punctuation."""
_HEAD = (
    "% needs \\usepackage{booktabs,graphicx}; a table that is wider than the line is made smaller, and one that would become too "
    "small is split\n"
)


def latex(report: Report) -> str:
    """The tables in LaTeX, each with caption and label; needs the packages ``booktabs`` and ``graphicx``."""
    text = _HEAD + _section(report_tables(report), notes_of(report), "bench")
    if report.published is not None:
        notes = published_notes(report, report.published)
        text += f"\n\\section*{{{escaping.latex(HEADING)}}}\n" + _section(
            published_tables(report, report.published), notes, "published"
        )
    return text


def _section(section: Sequence[TextTable], notes: Sequence[str], prefix: str) -> str:
    tables = "".join(f"{table}\n\n" for grid in section for table in _tables(grid, prefix))
    lines = "\\par\n".join(map(_note, notes))
    return f"{tables}{{\\footnotesize\\raggedright\n{lines}\\par\n}}\n"


def _tables(grid: TextTable, prefix: str) -> Iterator[str]:
    """The tables of a grid, each with a label of its own; the parts of one that is split are numbered in their captions."""
    parts = list(_parts(grid))
    label = f"tab:{prefix}-{grid.kind}"
    for number, part in enumerate(parts, start=1):
        which = "" if len(parts) == 1 else f" (part {number} of {len(parts)})"
        yield _table(part, f"{escaping.latex(grid.title)}{which}", label if number == 1 else f"{label}-{number}")


def _parts(grid: TextTable) -> Iterator[TextTable]:
    """The grid by groups of columns that fit a line, and by groups of rows that fit a page."""
    for part in split_columns(grid, WIDTH, lambda cell: len(cell.value) + len(cell.detail) * 3 // 4):
        for group in batch_slices(max(1, len(part.rows)), ROWS):
            notes = part.notes if group.stop >= len(part.rows) else ()
            yield dataclasses.replace(part, rows=part.rows[group], notes=notes)


def _table(grid: TextTable, caption: str, label: str) -> str:
    head = " & ".join(["", *map(escaping.latex, grid.columns)])
    lines = [" & ".join([escaping.latex(name), *map(_cell, cells)]) for name, cells in grid.rows]
    rows = "\n".join(f"{line} \\\\" for line in lines)
    notes = f"\\par\\medskip\\footnotesize\\raggedright {' '.join(map(_note, grid.notes))}\n" if grid.notes else ""
    return (
        f"\\begin{{table}}[htbp]\n\\centering\n\\caption{{{caption}}}\n\\label{{{label}}}\n\\sbox0{{%\n"
        f"\\begin{{tabular}}{{l{'r' * len(grid.columns)}}}\n"
        f"\\toprule\n{head} \\\\\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}}}%\n"
        f"\\ifdim\\wd0>\\linewidth\\resizebox{{\\linewidth}}{{!}}{{\\usebox0}}\\else\\usebox0\\fi\n{notes}\\end{{table}}"
    )


def _cell(cell: Cell) -> str:
    value = _MARKS[cell.verdict].format("--" if cell.value == "-" else _number(cell.value))
    return f"{value} {{\\scriptsize {_number(cell.detail)}}}" if cell.detail else value


def _number(text: str) -> str:
    """A number, or an interval in brackets, with a minus sign where ASCII has a hyphen."""
    return HYPHEN_AS_MINUS.sub("$-$", escaping.latex(text).removeprefix("{}"))


def _note(line: str) -> str:
    """A line below the tables, whose long words (digests, paths, settings) may be broken."""
    return " ".join(_breakable(word) if len(word) > _LONG else escaping.latex(word) for word in line.split(" "))


def _breakable(word: str) -> str:
    return r"\allowbreak{}".join(map(escaping.latex, _BREAKS.split(word)))
