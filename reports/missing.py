"""Notes on what is missing from the rows of a table, and why."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from bench.core.commas import join_commas
from bench.core.errors import listed
from bench.records.protocol import Protocol
from bench.records.runs import RunFolder
from bench.records.scores import MetricRecord
from reports.checks import run_label
from reports.evaluations import RunEvaluation

SHOWN = 3
"""Maximum number of runs that a note names."""


def missing_notes(
    found: Iterable[RunFolder], judged: Sequence[RunEvaluation], metrics: Sequence[MetricRecord], protocol: Protocol
) -> tuple[str, ...]:
    """What is missing from the rows, one sentence per line.

    Args:
        found: all runs under the folder.
        judged: their finished evaluations under the protocol.
        metrics: the metrics of the table.
        protocol: the protocol.
    """
    runs = list(found)
    return (
        *_unfinished(runs, protocol.signature, protocol.model),
        *_elsewhere(runs, protocol.model),
        *_unscored(judged, metrics),
        *_without_digests(judged),
        *_barely_watched(judged),
    )


def _unfinished(found: Iterable[RunFolder], signature: str, model: str) -> list[str]:
    lines, elsewhere = [], []
    for run in found:
        config = run.config()
        if config.model != model:
            continue
        if not run.done and config.resolved.training is not None:
            total = config.resolved.training.length
            lines.append(f"{run_label(run)} (training: step {len(run.steps())} of {total})")
        elif _judged_elsewhere(run, signature):
            elsewhere.append(run_label(run))
        else:
            lines += [f"{run_label(run)} ({stage})" for stage in _missing(run, signature)]
    notes = [f"Not finished: {', '.join(lines)}."] if lines else []
    return (
        [*notes, f"Evaluated only under a different protocol, so not shown: {', '.join(elsewhere)}."]
        if elsewhere
        else notes
    )


def _judged_elsewhere(run: RunFolder, signature: str) -> bool:
    """Whether a trained run has finished evaluations, and not even an unfinished one under this protocol."""
    evaluations = run.evaluations()
    begun = any(each.protocol_signature == signature for each in evaluations)
    return not begun and any(each.done for each in evaluations)


def _missing(run: RunFolder, signature: str) -> list[str]:
    """The unfinished evaluations of a trained run."""
    begun = [each for each in run.evaluations() if each.protocol_signature == signature]
    if not begun:
        return ["evaluation under this protocol not started"]
    return ["evaluation" if each.own else "evaluation with other guidance" for each in begun if not each.done]


def _elsewhere(found: Iterable[RunFolder], model: str) -> list[str]:
    """The models of other runs; a base model that nothing was done with is none."""
    configs = [run.config() for run in found if not (run.config().is_base and not run.evaluations())]
    others = sorted({config.model for config in configs} - {model})
    return [f"Not in this table: runs of {', '.join(others)}."] if others else []


def _unscored(judged: Sequence[RunEvaluation], metrics: Sequence[MetricRecord]) -> list[str]:
    """Notes on the evaluations that lack metrics, one for all that lack the same, with the command that adds them to the first."""
    lacking: dict[tuple[str, ...], list[RunFolder]] = {}
    for each in judged:
        has = each.evaluation.metrics()
        if missing := tuple(metric.name for metric in metrics if metric.name not in has):
            lacking.setdefault(missing, []).append(each.run)
    titles = {metric.name: metric.info.title for metric in metrics}
    return [
        f"No {', '.join(titles[name] for name in missing)} score: {listed(dict.fromkeys(map(run_label, runs)), SHOWN)}. "
        f"To add the first: {_command_that_scores(runs[0], missing)}; existing images are reused."
        for missing, runs in lacking.items()
    ]


def _command_that_scores(run: RunFolder, metrics: Sequence[str]) -> str:
    """The command that made a run, with other metrics, where it is recorded."""
    config = run.config()
    chosen = ["--metrics", join_commas(metrics)]
    if config.typed:
        return shlex.join(["bench", *_without_option(config.typed, "--metrics"), *chosen])
    which = ["--weights", config.source] if config.source else []
    if config.is_trained:
        which = ["--run", "/".join(run.folder.parts[-4:])]
    command = shlex.join(["bench", "eval", "--model", config.model, *which, *chosen])
    return f"{command} (with the --prompts, --image, --guidance-scale, --limit and --runs of the original command)"


def _without_option(words: Sequence[str], option: str) -> list[str]:
    """A command line without an option and its value."""
    kept, skipped = [], False
    for word in words:
        if not skipped and word.partition("=")[0] != option:
            kept.append(word)
        skipped = word == option
    return kept


def _without_digests(judged: Sequence[RunEvaluation]) -> list[str]:
    """A note on the records in which a change would not be noticed, as older versions wrote them."""
    old = [each.run for each in judged if not (each.run.has_digests and each.evaluation.has_digests)]
    labels = list(dict.fromkeys(map(run_label, old)))
    return [f"Records without digests, in which changes cannot be noticed: {listed(labels, SHOWN)}."] if labels else []


def _barely_watched(judged: Sequence[RunEvaluation]) -> list[str]:
    """A note on the runs whose images along the training are of one prompt, as older versions allowed."""
    alone = [each.run for each in judged if (curve := each.run.curve()) is not None and len(curve[0].prompts) == 1]
    labels = list(dict.fromkeys(map(run_label, alone)))
    return (
        [
            f"Measured along the training with one prompt, too few for an interval, so not shown: {listed(labels, SHOWN)}."
        ]
        if labels
        else []
    )
