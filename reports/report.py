"""Make and write reports; called by the command line and by `bench.report`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.core.terminal import table_terminal
from bench.records.votes import JudgedVotes
from reports.conclusion_tables import trained_on_endpoint
from reports.content import Report, build_report, find_row, with_published, with_votes
from reports.content import against as with_reference
from reports.flat import flat_rows
from reports.latex import latex
from reports.page import page
from reports.records import collect
from reports.render import as_csv, as_json, markdown, print_report

if TYPE_CHECKING:  # pandas is loaded on demand
    import pandas as pd


class Format(NamedTuple):
    """A text format of reports.

    Attributes:
        suffix: how the names of its files end.
        render: the text of a report.
    """

    suffix: str
    render: Callable[[Report], str]


FORMATS: Mapping[str, Format] = {
    "markdown": Format(".md", markdown),
    "csv": Format(".csv", as_csv),
    "latex": Format(".tex", latex),
    "json": Format(".json", as_json),
    "html": Format(".html", page),
}
"""Text formats by name; `show_report` prints the tables for a terminal."""


def make_report(
    runs: Path,
    protocol: str | None = None,
    *,
    primary: str | None = None,
    against: str | None = None,
    published: bool = False,
    judges_on: JudgedVotes | None = None,
) -> Report:
    """Compare everything under a folder that was evaluated under one protocol.

    Args:
        runs: the runs folder.
        protocol: signature of the protocol; needed only if runs were evaluated under several.
        primary: the primary endpoint, a metric's name or ``judges`` for the mean over those that no row was trained on; None means gold
            where it is there, else the judges.
        against: the row that all others are compared with, by label, algorithm, or ``algorithm/name``; None means the base.
        published: whether to add published numbers about the model.
        judges_on: pairs on which people voted, with which every metric is compared.

    Raises:
        UserError: there is nothing to report, records cannot share a table, a metric or row does not exist, or the row was trained
            on the primary endpoint.
    """
    made = build_report(collect(runs, protocol), primary)
    if against is not None:
        place = find_row(made, against)
        _check_reference(made, place)
        made = with_reference(made, place)
    if published:
        made = with_published(made)
    if judges_on is not None:
        made = with_votes(made, judges_on.judged(runs, made.model, made.source.prompts, made.metrics))
    return made


def _check_reference(report: Report, place: int) -> None:
    """Refuse a reference that was trained on the primary endpoint, which favours it."""
    row = report.rows[place]
    if report.endpoint is not None and trained_on_endpoint(report, row):
        raise UserError(
            f"{row.label} was trained on {report.endpoint.title}, the primary endpoint, so it cannot serve as the reference; "
            "choose another --primary, or another row with --against"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ReportResult:
    """The result of `bench.report`.

    Attributes:
        report: the report's content.
    """

    report: Report

    def to_pandas(self) -> pd.DataFrame:
        """One row per configuration and metric, with the columns of ``bench report --format csv``.

        ``mean``, ``difference`` and ``win_rate`` (a share in [0, 1]) are in the unit that tables show; ``_low`` and ``_high`` are the
        ends of their 95 % intervals, paired with the reference by prompt and noise; ``_p`` and ``_p_adjusted`` are p values, ``_seeds``
        is the number of training seeds behind them, and ``_miss`` how such intervals were seen to miss their level.
        """
        import pandas as pd

        return pd.DataFrame(flat_rows(self.report))

    def save(self, path: Path | str, format_name: str | None = None) -> None:
        """Write the report as a file.

        Args:
            path: the file.
            format_name: ``markdown``, ``csv``, ``latex``, ``json`` or ``html``; None means by the end of the file's name: ``.md``, ``.csv``,
                ``.tex``, ``.json`` or ``.html``.

        Raises:
            UserError: the format does not exist, the name ends in none that is known, or the file cannot be written.
        """
        write_report(self.report, format_name or format_of(Path(path)), Path(path))

    def __str__(self) -> str:
        return markdown(self.report)


def report(
    runs: Path | str = "runs",
    *,
    protocol: str | None = None,
    primary: str | None = None,
    against: str | None = None,
    published: bool = False,
    judges_on: JudgedVotes | None = None,
) -> ReportResult:
    """Compare every run under a folder with the base model or another row, as ``bench report`` does.

    Args:
        runs: the runs folder.
        protocol: signature of the protocol; needed only if runs were evaluated under several.
        primary: the primary endpoint, a metric's name or ``judges`` for the mean over those that no row was trained on; None means gold
            where it is there, else the judges.
        against: the row that all others are compared with, by label, algorithm, or ``algorithm/name``; None means the base.
        published: whether to add published numbers about the model.
        judges_on: a `bench.Votes`, pairs on which people voted, with which every metric is compared; `to_pandas` leaves that out, the
            other formats show it.

    Raises:
        UserError: there is nothing to report, records cannot share a table, or a metric or row does not exist.
    """
    made = make_report(Path(runs), protocol, primary=primary, against=against, published=published, judges_on=judges_on)
    return ReportResult(made)


def show_report(report: Report) -> None:
    """Print the tables."""
    print_report(report, table_terminal())


def format_of(path: Path) -> str:
    """The format of a file, by the end of its name.

    Raises:
        UserError: the name ends in none that is known.
    """
    names = {form.suffix: name for name, form in FORMATS.items()}
    if path.suffix not in names:
        raise UserError(f"{str(path)!r} must end in {', '.join(names)}, or needs a format: {', '.join(FORMATS)}")
    return names[path.suffix]


def write_report(report: Report, format_name: str, path: Path | None) -> None:
    """Write a report as text.

    Args:
        report: what to write.
        format_name: a name in `FORMATS`.
        path: the file; None for standard output.

    Raises:
        UserError: the format does not exist, or the file cannot be written.
    """
    if format_name not in FORMATS:
        raise UserError(f"unknown format {format_name!r}; choose one of {', '.join(FORMATS)}")
    text = FORMATS[format_name].render(report)
    if path is None:
        sys.stdout.write(text)
        return
    try:
        replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose a different --output") from error
