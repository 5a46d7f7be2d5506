"""The command line."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from bench.cli.app import App, Commands
from bench.cli.bundle import bundle, verify
from bench.cli.check import app as check_app
from bench.cli.data import SCORED_BY, Checkpoints
from bench.cli.data import app as data_app
from bench.cli.doctor import doctor
from bench.cli.ending import STOPPED, finish
from bench.cli.evaluate import eval_
from bench.cli.export import export
from bench.cli.plan import plan
from bench.cli.profile import profile
from bench.cli.report import power, report
from bench.cli.rescore import rescore
from bench.cli.reward import reward
from bench.cli.run import run
from bench.cli.status import status
from bench.core import launched, termination
from bench.core.errors import UserError
from bench.core.progress import shortened
from bench.core.registry import DISTRIBUTION
from bench.core.terminal import Terminal

app = App(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(data_app, name="data")
app.add_typer(check_app, name="check")
app.command()(plan)
app.command()(profile)

START = """\
Compare preference-alignment algorithms for diffusion models.  To start, on a tiny model that is part of the package:

  bench list                          what is available: algorithms, metrics, models, prompts
  bench run --algo dpo --model tiny   train, generate and score; a few minutes on a laptop
  bench report                        compare the results with the base model

All commands: bench --help
"""


def _show_version(wanted: bool) -> None:
    from importlib.metadata import version

    if wanted:
        Terminal().print(f"{DISTRIBUTION} {version(DISTRIBUTION)}", highlight=False)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the name and version, and exit."),
    ] = False,
) -> None:
    """Compare preference-alignment algorithms for diffusion models: same data, same noise, same evaluation."""
    if context.invoked_subcommand is None:
        Terminal(soft_wrap=True).print(START, end="", highlight=False, markup=False)


app.command()(run)


@app.command()
def score(
    images: Annotated[Path, typer.Argument(help="Folder of images; subfolders are searched too.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="A text file with one prompt per line, in the order of the images' names; or a CSV, TSV, JSON, JSON-lines or "
            "Parquet table with the columns file_name and prompt.  Default: a text file next to each image."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas.  Default: those of --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=SCORED_BY)] = None,
    checkpoints: Checkpoints = None,
    output: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")] = Path("scores.parquet"),
) -> None:
    """Score a folder of images from any source with any metrics.

    Safe to re-run: finished work is skipped, interrupted work resumes.
    """
    from bench.cli.options import choose_metrics, parse_overrides, split_names
    from bench.scoring.folder import check_output, score_folder
    from reports.folder_summary import show_scores

    check_output(output)
    own = parse_overrides(checkpoints or [], option="--checkpoint", example="pickscore=folder")
    judges = choose_metrics(None if metrics is None else split_names(metrics, "--metrics"), model, own)
    show_scores(score_folder(images, prompts, judges, output), output)


app.command()(status)
app.command()(doctor)
app.command()(bundle)
app.command()(verify)
app.command("eval")(eval_)
app.command()(rescore)
app.command()(reward)
app.command()(export)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="What to list: algorithms, metrics, models, prompts, families, training, images.  Default: the first five."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="One entry: bench list algorithms dpo; also a model's folder: bench list models PATH"),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print the page of every entry, in a pager on a terminal.")
    ] = False,
) -> None:
    """Show algorithms, metrics, models, prompt sets and model families: what they are and which package they come from."""
    from bench.cli.listing import show, show_entry

    if kind is not None and name is not None:
        show_entry(kind, name)
    else:
        show(kind, verbose=verbose)


app.command()(report)
app.command()(power)


@app.command(context_settings={"ignore_unknown_options": True})  # so that -5 is a value, which is refused as such
def beta(
    value: Annotated[float, typer.Argument(help="A published beta.")],
    convention: Annotated[str, typer.Option("--from", help="Convention of the published beta.  See docs/beta.md")],
    elements: Annotated[
        int | None,
        typer.Option(help="Number of elements of a latent, C x H x W; needed if the convention uses sums.", min=1),
    ] = None,
) -> None:
    """Convert a beta from another paper or repository to that of the algorithms here, whose errors are means."""
    from bench.experiments.beta import find

    whose = find(convention)
    console = Terminal(highlight=False, soft_wrap=True)
    for here, algorithms in whose.of_algorithms(value, elements).items():
        console.print(f"beta={here:.10g}")  # as --set takes it
        console.print(f"for {', '.join(algorithms)}")
    console.print(
        escape(f"{whose.source}: {whose.factor:g} beta {whose.of}, {whose.reduction} errors. {whose.note}".rstrip())
    )


def refuse_unusable(words: Sequence[str]) -> None:
    """An empty value, as of a variable of a shell that is not set, is not the default; and records hold text.

    Raises:
        UserError: one of the words of a command line is empty or is not text, or an option has nothing behind ``=``.
    """
    for before, word in itertools.pairwise(["", *words]):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        what = option if option.startswith("-") else "an argument"
        if equals and not value:
            raise UserError(f"{what} is empty; give a value, or leave it out for the default")
        try:
            word.encode()
        except UnicodeEncodeError as error:  # bytes of a name, which Python has as halves of surrogate pairs
            raise UserError(
                f"{what} is {shortened(ascii(word), 80)}, which is not UTF-8, so that no record can hold it; rename the file or folder"
            ) from error


def _needed(record: logging.LogRecord) -> bool:
    return "requires torchvision (not installed)" not in record.getMessage()


def main() -> None:
    """Run the command line.

    An error that the user can fix prints one sentence, with exit code 2; Ctrl-C and SIGTERM print one line, with exit codes 130
    and 143; a closed terminal is code 129.  Of several processes one speaks, and all have its exit code.
    """
    # diffusers' pipelines import classes of transformers that need torchvision, none of which are used here.
    logging.getLogger("transformers.utils.import_utils").addFilter(_needed)
    termination.listen()
    try:
        _run()
    except SystemExit as end:
        if end.code in STOPPED:
            termination.ignore()
            finish(end)
        raise
    except Exception as error:  # noqa: BLE001 (it is shown, or raised again)
        finish(error)


def _run() -> NoReturn:
    launched.join()
    refuse_unusable(sys.argv[1:])
    # alone, typer ends the process itself, and prints what was mistyped; of several processes one does, in `finish`
    raise SystemExit(app(standalone_mode=not launched.joined()))
