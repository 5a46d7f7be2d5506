"""``bench report`` and ``bench power``: what finished runs say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.data import COLUMNS, Checkpoints
from bench.cli.run import Runs
from bench.cli.sentences import say
from bench.core.errors import UserError
from bench.core.terminal import Terminal

if TYPE_CHECKING:
    from bench.experiments.votes import Votes


def report(
    runs: Runs = Path("runs"),
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="markdown, csv, latex, json or html, instead of tables on the terminal.  Default: that of --output's name.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write.  Default: standard output.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Signature of the protocol to show, if there are several.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Row to compare the others with: an algorithm, algorithm/name, or a label.  Default: the base model."
        ),
    ] = None,
    primary: Annotated[
        str | None,
        typer.Option(
            help="Primary endpoint: a metric's name, or judges for the mean win rate over those that no row of the table was trained on.  "
            "Default: gold if it is there, otherwise judges."
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Also show published results for the model, in a separate section.")
    ] = False,
    judges_on: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Pairs on which people voted, held out from training, ties included: also show how often each metric agrees with "
            "them.  See --data in: bench run --help",
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(help=f"For --judges-on.  {COLUMNS}")] = None,
    checkpoints: Checkpoints = None,
) -> None:
    """Compare every run in a folder with the base model or another row: win rates, ranks, intervals, cost, curves and images."""
    from reports.report import format_of, make_report, show_report, write_report

    votes = _votes(judges_on, columns, checkpoints)
    format_ = format_ or (None if output is None else format_of(output))
    if format_ == "html" and output is None and sys.stdout.isatty():
        raise UserError("an HTML page is not for a terminal; add --output report.html")
    made = make_report(runs, protocol, primary=primary, against=against, published=published, judges_on=votes)
    if format_ is None:
        show_report(made)
    else:
        write_report(made, format_, output)
        if output is not None:
            say(f"wrote {output}")


def _votes(data: str | None, columns: str | None, checkpoints: list[str] | None) -> Votes | None:
    from bench.cli.options import parse_columns, parse_overrides
    from bench.experiments.votes import Votes

    if data is not None:
        own = parse_overrides(checkpoints or [], option="--checkpoint", example="pickscore=folder")
        return Votes(data, parse_columns(columns), own)
    if columns or checkpoints:
        raise UserError(
            "--columns and --checkpoint are about the pairs of --judges-on; add --judges-on, or leave them out"
        )
    return None


def power(
    effect: Annotated[
        float,
        typer.Option(
            help="Difference to detect, in points of win rate over the base, for example 5.", min=0.1, max=100
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Name of the model whose runs are read, for example tiny.  Default: all under --runs."),
    ] = None,
    runs: Runs = Path("runs"),
    protocol: Annotated[
        str | None, typer.Option(help="Signature of the protocol to read, if there are several.")
    ] = None,
    primary: Annotated[
        str | None, typer.Option(help="Primary endpoint, a metric's name or judges; as in bench report.")
    ] = None,
) -> None:
    """Estimate how many prompts, images and training seeds are needed to tell two methods apart, and their cost, from finished runs."""
    from reports.power import power_lines
    from reports.records import collect

    records = collect(runs if model is None else runs / model, protocol)
    console = Terminal(highlight=False, soft_wrap=True)
    for line in power_lines(records, effect, primary):
        console.print(line, markup=False)
