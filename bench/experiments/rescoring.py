"""Stored images scored again with today's version of their metrics; no image is made and no model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench.core.errors import UserError
from bench.core.files import keep_lines
from bench.core.paths import unlinked
from bench.core.precision import this_device
from bench.core.values import differing
from bench.evaluation.scorer import Scorer
from bench.models.find import find_model, metrics_of
from bench.records.evaluations import Evaluation
from bench.records.lines import ScoreLine
from bench.records.runs import RunFolder, find_runs
from bench.records.scores import MetricRecord
from bench.scoring.loop import Judge, refuse_constant, score_images
from bench.scoring.metric import METRICS
from bench.scoring.records import read_records

PARTIAL = "rescoring.jsonl"
"""In the folder of an evaluation: scores under a new signature until all are there, from where an interrupted call goes on."""

Outcome = Literal["renewed", "current", "not finished", "failed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Renewal:
    """What became of one metric of one evaluation.

    Attributes:
        evaluation: the evaluation.
        metric: registered name; empty where it concerns all.
        outcome: whether it was renewed, and why not.
        detail: old and new signature with the fields that differ, or the reason.
    """

    evaluation: Evaluation
    metric: str
    outcome: Outcome
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A metric with which an evaluation was scored, and the scorer to do it with today.

    Attributes:
        root: the folder that the user named, in which the run was found.
        run: the run.
        evaluation: one of its evaluations.
        metric: registered name.
        judge: its scorer.
    """

    root: Path
    run: RunFolder
    evaluation: Evaluation
    metric: str
    judge: Judge


def rescore(
    runs: Path,
    places: Sequence[str],
    metrics: Collection[str] | None,
    checkpoints: Mapping[str, str],
    model: str | None = None,
) -> Iterator[Renewal]:
    """Score the images of finished evaluations again where a metric's signature has changed since.

    The old scores stay in ``scores.jsonl`` under their own signature; ``metrics.json`` names the new one.  An evaluation that
    cannot be scored again keeps what it has, and the others go on; an interrupted call continues where it stopped.

    Args:
        runs: the folder of all runs.
        places: runs, or folders of runs, relative to it or to the current folder; empty means all.
        metrics: registered names; None means those that each evaluation has.
        checkpoints: other checkpoints by metric.
        model: the folder of a model, whose checkpoints are used for its runs; no run says where it is.

    Raises:
        UserError: there are no runs, or none of the model; or a name or a checkpoint is for a metric that no evaluation has or that
            is not scored again.
    """
    if metrics is not None and (others := [name for name in checkpoints if name not in metrics]):
        raise UserError(f"--checkpoint {others[0]}=... is for a metric that is not in --metrics; add it there")
    found = None if model is None else find_model(model)
    stated = {} if found is None else {found.name: found.card.metrics}
    known: set[str] = set()
    models: set[str] = set()
    tasks: list[Task] = []
    for root, run in _find(runs, places):
        for evaluation in run.evaluations():
            if not evaluation.done and not (evaluation.folder / PARTIAL).exists():
                yield Renewal(evaluation, "", "not finished", "give its `bench run` or `bench eval` command again")
                continue
            try:
                names = list(evaluation.metrics())
                base = run.config().model
            except UserError as error:
                yield Renewal(evaluation, "", "failed", str(error))
                continue
            known |= set(names)
            models.add(base)
            own = stated.get(base, metrics_of(base))
            for name in names if metrics is None else [name for name in names if name in metrics]:
                try:
                    tasks.append(Task(root, run, evaluation, name, _judge(name, checkpoints, own)))
                except UserError as error:
                    yield Renewal(evaluation, name, "failed", str(error))
    if found is not None and found.name not in models:
        raise UserError(
            f"no finished evaluation is of {model}, whose runs are called {found.name}; name the folder as it was when they were made"
        )
    if unknown := sorted(({*(metrics or ())} | checkpoints.keys()) - known):
        choose = f"choose from {', '.join(sorted(known))}" if known else "no evaluation is finished"
        raise UserError(f"no finished evaluation has {unknown[0]!r} scores; {choose}")
    for judge in dict.fromkeys(task.judge for task in tasks):  # one scorer in memory at a time
        yield from _renew_all([task for task in tasks if task.judge == judge], judge)


def _find(runs: Path, places: Sequence[str]) -> list[tuple[Path, RunFolder]]:
    """Every run once, after the folder that was named."""
    found: dict[Path, tuple[Path, RunFolder]] = {}
    folders = [next((each for each in (runs / place, Path(place)) if each.is_dir()), runs / place) for place in places]
    for folder in folders or [runs]:
        inside = find_runs(folder)
        if not inside:
            raise UserError(f"{folder} has no runs; name a run or a folder of runs under --runs")
        found |= {run.folder.resolve(): (folder, run) for run in inside}
    return list(found.values())


def _judge(name: str, checkpoints: Mapping[str, str], own: Mapping[str, str | None] | None) -> Judge:
    """The metric with the checkpoint that was given, or the model's ``own``, or the published one.

    Raises:
        UserError: the metric is unknown, or which checkpoints are the model's own.
    """
    if own is None and name not in checkpoints:
        raise UserError(
            "this model is neither registered nor from the hub, so that its bench.json may name another checkpoint; give its folder with "
            f"--model, or the checkpoint with --checkpoint {name}=..."
        )
    return Judge(METRICS.get(name), checkpoints.get(name, (own or {}).get(name)))


def _renew_all(tasks: Sequence[Task], judge: Judge) -> Iterator[Renewal]:
    try:
        metric = judge.load(this_device())
    except UserError as error:
        yield from (Renewal(task.evaluation, task.metric, "failed", str(error)) for task in tasks)
        return
    for task in tasks:
        try:
            unlinked(task.root, task.run.folder)
            with task.run.locked():
                yield _renew(task, Scorer(lambda: metric, task.evaluation.prompts()))
        except UserError as error:
            yield Renewal(task.evaluation, task.metric, "failed", str(error))


def _renew(task: Task, scorer: Scorer) -> Renewal:
    evaluation, name = task.evaluation, task.metric
    metrics, partial = evaluation.metrics(), evaluation.folder / PARTIAL
    old, new = metrics[name], scorer.record(name, evaluation.protocol())
    if new.signature == old.signature:
        if not evaluation.done:  # an earlier call was stopped while it put the new scores in place
            _replace(evaluation, metrics, evaluation.all_scores())
        return Renewal(evaluation, name, "current", f"signature {old.signature}")
    pictures = evaluation.pictures()
    if lost := [picture.path for picture in pictures if not picture.path.exists()]:
        reason = f"{len(lost)} of {len(pictures)} images are not there, the first is {lost[0]}; put them there"
        return Renewal(evaluation, name, "failed", reason)
    evaluation.check_images(*evaluation.items)
    written = evaluation.all_scores()
    if not partial.exists():  # scores that an even older version left under this signature count
        keep_lines(partial, [line for line in written if (line["metric"], line["signature"]) == (name, new.signature)])
    read_records(partial, ("prompt_index", "image_index"), "delete it to score these images from the first")
    bound = scorer.load()
    scores = score_images(partial, _title(task), name, bound, new.signature, pictures)
    refuse_constant(name, bound, scores, _title(task))
    kept = [line for line in written if (line["metric"], line["signature"]) != (name, new.signature)]
    added = [
        ScoreLine(prompt_index=prompt, image_index=image, metric=name, score=score, signature=new.signature)
        for (prompt, image), score in zip(evaluation.items, scores, strict=True)
    ]
    _replace(evaluation, {**metrics, name: new}, [*kept, *added])
    return Renewal(evaluation, name, "renewed", f"{old.signature} to {new.signature}{_differences(old, new)}")


def _replace(evaluation: Evaluation, metrics: Mapping[str, MetricRecord], lines: Sequence[ScoreLine]) -> None:
    evaluation.reopen()
    keep_lines(evaluation.scores, lines)
    evaluation.write_metrics(metrics)
    evaluation.finish()
    (evaluation.folder / PARTIAL).unlink(missing_ok=True)


def _title(task: Task) -> str:
    seed = task.run.config().seed
    return task.run.title if seed is None else f"{task.run.title} seed {seed}"


def _differences(old: MetricRecord, new: MetricRecord) -> str:
    fields = differing(dict(old.identity), dict(new.identity))
    return f": {', '.join(fields)}" if fields else ""
