"""``bench rescore``: stored images scored again after a metric has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from bench.cli.data import Checkpoints
from bench.cli.run import Runs
from bench.core.errors import UserError
from bench.core.terminal import table_terminal

if TYPE_CHECKING:
    from bench.experiments.rescoring import Renewal


def rescore(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Runs or folders of runs, for example tiny/dpo.  Default: all under --runs."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas.  Default: all that each evaluation has.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The folder of a model that is not registered, whose bench.json names the metrics' checkpoints."
        ),
    ] = None,
    checkpoints: Checkpoints = None,
    runs: Runs = Path("runs"),
) -> None:
    """Score the stored images of finished evaluations again where a metric has changed since they were scored.

    No image is generated and no model is loaded.  The new scores are those that `bench report` shows; the old ones stay beside
    them under their own signature.  Safe to re-run: finished work is skipped, interrupted work resumes.

    Exit code 0: every finished evaluation has scores by today's metrics; 2: some could not be scored again, and the table says
    why.
    """
    from bench.cli.options import parse_overrides, split_names
    from bench.experiments.rescoring import rescore as renewals

    own = parse_overrides(checkpoints or [], option="--checkpoint", example="pickscore=folder")
    done = list(
        renewals(runs, places or [], None if metrics is None else split_names(metrics, "--metrics"), own, model)
    )
    _print(done, runs)
    if failed := sum(renewal.outcome == "failed" for renewal in done):
        raise UserError(f"{failed} of {len(done)} could not be scored again; the table says why and what to do")


def _print(renewals: Sequence[Renewal], runs: Path) -> None:
    """One line for each metric of each evaluation, and how many had which outcome."""
    from bench.experiments.rescoring import Outcome

    console = table_terminal()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("evaluation", "metric", "", "detail"):
        table.add_column(column, overflow="fold", no_wrap=column != "detail")
    for renewal in sorted(renewals, key=lambda renewal: renewal.evaluation.folder):
        folder = renewal.evaluation.folder
        shown = folder.relative_to(runs) if folder.is_relative_to(runs) else folder
        table.add_row(*map(escape, (str(shown), renewal.metric, renewal.outcome, renewal.detail)))
    console.print(table)
    counts = {outcome: sum(each.outcome == outcome for each in renewals) for outcome in get_args(Outcome)}
    console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()), highlight=False)
