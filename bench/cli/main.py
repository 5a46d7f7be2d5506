"""The command line."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bench.cli.check import app as check_app
from bench.cli.data import app as data_app
from bench.cli.plan import plan, profile
from bench.cli.run import Runs, eval_, export, run
from bench.core import termination
from bench.core.errors import UserError
from bench.core.registry import DISTRIBUTION

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(data_app, name="data")
app.add_typer(check_app, name="check")
app.command()(plan)
app.command()(profile)

START = """\
Compare preference-alignment algorithms for diffusion models.  To start, on a tiny model that is part of the package:

  bench list                          what there is: algorithms, metrics, models, prompts
  bench run --algo dpo --model tiny   train, generate and score; a few minutes on a laptop
  bench report                        compare the results with the base model

All commands: bench --help
"""

STOPPED: Mapping[Any, str] = {130: "Ctrl-C", termination.EXIT_CODE: "SIGTERM"}
"""What stopped the work, by exit code; typer turns Ctrl-C into 130."""


def _show_version(wanted: bool) -> None:
    from importlib.metadata import version

    if wanted:
        Console().print(f"{DISTRIBUTION} {version(DISTRIBUTION)}", highlight=False)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show name and version, and end.")
    ] = False,
) -> None:
    """Compare preference-alignment algorithms for diffusion models: same data, same noise, same evaluation."""
    if context.invoked_subcommand is None:
        Console(soft_wrap=True).print(START, end="", highlight=False, markup=False)


app.command()(run)


@app.command()
def score(
    images: Annotated[Path, typer.Argument(help="Folder of images; folders in it are searched too.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="One prompt a line, in the order of the images' names; or a CSV, TSV, JSON, JSON-lines or Parquet table with "
            "the columns file_name and prompt.  Default: a text file beside each image."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas; default: those of --model.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A registered model whose checkpoints of the metrics are used, for example tiny.")
    ] = None,
    checkpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint", help="metric=path: a metric's own checkpoint; default: the model's, or the published."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")] = Path("scores.parquet"),
) -> None:
    """Score a folder of images, made by anything, with any metrics.

    The same command again continues, or finds everything done.
    """
    from bench.cli.options import choose_metrics, parse_overrides, split_names
    from bench.scoring.folder import check_output, score_folder
    from reports.scores import show_scores

    check_output(output)
    own = parse_overrides(checkpoints or [], option="--checkpoint", example="pickscore=folder")
    judges = choose_metrics(None if metrics is None else split_names(metrics), model, own)
    show_scores(score_folder(images, prompts, judges, output), output)


app.command("eval")(eval_)
app.command()(export)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="What to list: algorithms, metrics, models, prompts, families, training, images.  Default: the first five."
        ),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One entry: bench list algorithms dpo")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the page of every entry, in a pager on a terminal.")
    ] = False,
) -> None:
    """Show algorithms, metrics, models, prompt sets and model families: what they are and who brings them."""
    from bench.cli.listing import show, show_entry

    if kind is not None and name is not None:
        show_entry(kind, name)
    else:
        show(kind, verbose=verbose)


@app.command()
def report(
    runs: Runs = Path("runs"),
    format_: Annotated[
        str | None,
        typer.Option("--format", help="markdown, csv, latex, json or html, instead of the terminal's tables."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for --format; default: standard output.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Signature of the protocol to show, when there are several.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Also what papers have published about the model, in a section apart.")
    ] = False,
) -> None:
    """Compare every run under a folder with the base model: tables with intervals and cost, curves and pictures."""
    from reports.report import make_report, show_report, write_report
    from reports.table import with_published

    if format_ is None and output is not None:
        raise UserError("--output needs --format: markdown, csv, latex, json or html")
    made = make_report(runs, protocol)
    if published:
        made = with_published(made)
    if format_ is None:
        show_report(made)
    else:
        write_report(made, format_, output)


@app.command()
def beta(
    value: Annotated[float, typer.Argument(help="A published beta.", min=0)],
    convention: Annotated[str, typer.Option("--from", help="Convention of the published beta.  See docs/beta.md")],
    elements: Annotated[
        int | None,
        typer.Option(help="Elements of a latent, C x H x W; needed where the errors of a convention are sums.", min=1),
    ] = None,
) -> None:
    """Convert a beta from another paper or repository to this project's convention: factor 1/2, mean errors."""
    from bench.cli.beta import find, sharing_ours

    whose = find(convention)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"beta={whose.to_ours(value, elements):.10g}")
    console.print(f"for {', '.join(sharing_ours())}")
    if whose.own is not None:
        console.print(f"for {whose.own} alone: beta={value:.10g}")
    console.print(
        escape(f"{whose.source}: {whose.factor:g} beta margin, {whose.reduction} errors. {whose.note}".rstrip())
    )


def _needed(record: logging.LogRecord) -> bool:
    return "requires torchvision (not installed)" not in record.getMessage()


def main() -> None:
    """Run the command line.

    What the user can fix ends in one sentence and exit code 2; Ctrl-C and SIGTERM end in one line and exit codes 130 and 143.
    """
    # diffusers' pipelines name classes of transformers that need torchvision, of which we use none.
    logging.getLogger("transformers.utils.import_utils").addFilter(_needed)
    termination.listen()
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except SystemExit as end:
        if end.code in STOPPED:
            _say_stopped(STOPPED[end.code])
        raise
    except Exception:
        # A process of several may find the others gone while it waits for them, because the signal has ended them first.
        if not termination.requested():
            raise
        _say_stopped(STOPPED[termination.EXIT_CODE])
        raise SystemExit(termination.EXIT_CODE) from None


def _say_stopped(by: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes only the first speaks
        Console(stderr=True).print(f"stopped by {by}; the same command continues", highlight=False, soft_wrap=True)
