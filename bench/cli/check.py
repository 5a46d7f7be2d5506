"""``bench check``: whether an installed algorithm or metric honours the contracts that the harness relies on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bench.cli.app import App
from bench.core.errors import UserError
from bench.core.terminal import Terminal

if TYPE_CHECKING:
    from bench.experiments.contracts.contract import Finding

app = App(no_args_is_help=True, help="Check that an algorithm or a metric honours the harness's contracts.")

STYLES = {"held": "green", "broken": "bold red", "not applicable": "dim"}


@app.command()
def algorithm(
    name: Annotated[str, typer.Argument(help="A registered algorithm.  See: bench list algorithms")],
) -> None:
    """Check an installed algorithm against the harness's contracts, and report each in a sentence.

    Needs no data, no weights and no test framework: the algorithm runs with its default fields on small random networks, one
    each for epsilon, v and flow prediction, on 40 random pairs, with a brightness scorer in place of any reward model.  It
    takes about a minute on one CPU core, and leaves nothing on disk.

    What is checked: what the algorithm states about itself (title, paper, formula, recipes); its fields (described, bounded,
    frozen, unknown and infinite values refused by name); its loss (one finite float32 number per pair, repeatable, the same in
    any order and any micro-batch, equal to initial_loss with a margin of 0 while policy and reference are alike, in float32 and
    bfloat16, for all weights and for LoRA); its gradient (none into the reference, towards the winner, a small step lowers the
    loss); and its training (the harness's own loop changes the weights; a resumed run equals one that never stopped).

    Each contract is one line: held, broken, or not applicable, with what was measured.  A broken one says what was expected and
    what was found.  Exit code 0: everything that applies holds; 2: a contract is broken; 1: the plug-in cannot be imported.
    """
    from bench.experiments.contracts.algorithm import check_algorithm

    _print("algorithm", name, check_algorithm(name))


@app.command()
def metric(
    name: Annotated[str, typer.Argument(help="A registered metric.  See: bench list metrics")],
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The metric's checkpoint, a path or a hub id.  Default: --model's, or the published one."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A registered model whose checkpoint of the metric is used; tiny has small ones.")
    ] = None,
) -> None:
    """Check an installed metric against the harness's contracts, and report each in a sentence.

    Eight synthetic images of different sizes are scored on the CPU for eight prompts of the tiny model.  A metric that needs
    weights takes them from --checkpoint or --model, or else its published checkpoint, which may be downloaded.  A metric in
    its own environment (bench.IsolatedMetric) is checked in the same way.

    What is checked: what the metric states (scale, direction); its scores (one finite float32 number per image on the CPU,
    repeatable, the same in any order and any batch, not one for all images, dependent on the prompt exactly when reads_prompt
    says so); greyscale, palette and transparent images; its identity (JSON, and the same for every copy); the refusal of a
    checkpoint that does not exist; and its embeddings, if it has any.

    Each contract is one line: held, broken, or not applicable, with what was measured.  A broken one says what was expected and
    what was found.  Exit code 0: everything that applies holds; 2: a contract is broken; 1: the plug-in cannot be imported.
    """
    from bench.experiments.contracts.metric import check_metric

    _print("metric", name, check_metric(name, checkpoint=checkpoint, model=model))


def _print(kind: str, name: str, findings: Iterator[Finding]) -> None:
    """Print each finding as soon as it is made, then a summary.

    Raises:
        UserError: a contract is broken.
    """
    console, began, made = Terminal(highlight=False, soft_wrap=True), time.monotonic(), []
    for finding in findings:
        style, detail = STYLES[finding.outcome], f" ({finding.detail})" if finding.detail else ""
        if finding.outcome == "broken":
            detail = f": {finding.detail}"
        console.print(f"[{style}]{finding.outcome:14}[/]  {escape(finding.sentence + detail)}")
        made.append(finding)
    counts = {outcome: sum(finding.outcome == outcome for finding in made) for outcome in STYLES}
    parts = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    console.print(f"{kind} {escape(name)}: {len(made)} contracts in {time.monotonic() - began:.0f} s: {parts}")
    if counts["broken"]:
        first = next(finding for finding in made if finding.outcome == "broken")
        raise UserError(
            f"{kind} {name!r} breaks {counts['broken']} of {len(made)} contracts; fix it, starting with: "
            f"{first.sentence} ({first.detail})"
        )
