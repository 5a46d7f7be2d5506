"""Reads run folders into typed records and refuses what cannot share a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import UserError
from bench.records.config import BASE
from bench.records.curve import CurveLine, CurveRecord
from bench.records.evaluations import DONE, Evaluation
from bench.records.protocol import Protocol, Variant
from bench.records.runs import find_runs
from bench.records.scores import MetricRecord
from bench.records.titles import distinct_titles
from reports.checks import check_metrics, check_seeds, check_unique, choose_protocol, readable
from reports.evaluations import RunEvaluation, by_settings, distinct, grouped, read_judged
from reports.missing import missing_notes
from reports.seed_variance import Array
from reports.settings import RowSettings, row_settings, shown_source

UNLISTED = "unlisted"
"""Metadata of a field that no format shows: it decides what is compared, which the formats say in words."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowRecord:
    """What a row of a table describes: runs that differ only in training seed, released weights, or the base model.

    Attributes:
        algorithm: registered name, ``base``, or ``weights`` for weights that were not trained here.
        name: name of the run; empty for the base.
        label: label in tables.
        seeds: training seeds; empty if not trained here.
        variants: by seed, how sampling differs from the protocol's; empty if it does not.
        own_name: see `bench.records.config.RunConfig.own_name`; empty for the base.
        own: whether the scores are the runs' own result; weights for the unconditional branch have a variant there, too.
        placebo: what a placebo of the algorithm is, in words; empty if it has none, None if not recorded.
        placebo_of: name of the runs of the same algorithm whose placebo these are; None for all others.
        init: the weights that training started from, if not the base model's.
        settings: settings of training; None if not trained here.
    """

    algorithm: str
    name: str
    label: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    own_name: str = dataclasses.field(default="", metadata={UNLISTED: True})
    own: bool = dataclasses.field(default=True, metadata={UNLISTED: True})
    placebo: str | None = None
    placebo_of: str | None = None
    init: str | None = None
    settings: RowSettings | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RowRecord):
    """A row with its raw scores and logs.

    Attributes:
        trained_on: names of the metrics that training used.
        scores: raw scores by metric, float64, (seeds, prompts, images); weights without a seed count as one seed.
        ledgers: cost by seed; empty if another row of the same run has it, or if not trained here.
        steps: lines of the training log by seed; empty if `ledgers` is.
        watched: measurements along the training by seed; empty if some seed has none, or if `ledgers` is.
        evaluation: evaluation of the first seed; holds the images.
    """

    trained_on: tuple[str, ...]
    scores: Mapping[str, Array]
    ledgers: tuple[Mapping[str, Any], ...]
    steps: tuple[Sequence[Mapping[str, Any]], ...]
    watched: tuple[tuple[CurveRecord, Sequence[CurveLine]], ...]
    evaluation: Evaluation


@dataclasses.dataclass(frozen=True, slots=True)
class Records:
    """Everything under a folder that was evaluated under one protocol.

    Attributes:
        signature: signature of the protocol.
        protocol: settings of the protocol.
        prompts: the evaluation prompts.
        metrics: ``gold`` first, then in the order of the base's evaluation; every format keeps this order.
        base: the base model.
        rows: training runs in the order of `reports.evaluations.by_settings`.
        notes: what is missing from the rows, and why.
    """

    signature: str
    protocol: Protocol
    prompts: tuple[str, ...]
    metrics: tuple[MetricRecord, ...]
    base: RunRecord
    rows: tuple[RunRecord, ...]
    notes: tuple[str, ...]


def collect(runs: Path, protocol: str | None = None) -> Records:
    """Read all runs under a folder that were evaluated under one protocol.

    Args:
        runs: the runs folder, or a part of it that includes the base model.
        protocol: signature of the protocol; needed only if runs were evaluated under several.

    Raises:
        UserError: there is nothing to report, records differ in protocol, metric or settings and cannot share a table, or the protocol has a
            single prompt, and an interval needs at least two.
    """
    found = find_runs(runs)
    if not found:
        raise UserError(f"{runs} has no runs; make one with `bench run`, or point --runs at the folder that has them")
    signature = choose_protocol(runs, found, protocol)
    judged = read_judged(readable(found), signature)
    base = [each for each in judged if each.run.config().is_base and each.own]
    settings = next(
        evaluation.protocol()
        for run in found
        for evaluation in run.evaluations()
        if evaluation.done and evaluation.protocol_signature == signature
    )
    if not base:
        raise UserError(
            f"{runs} has no finished evaluation of the base model under protocol {signature}; "
            f"repeat the `bench run` command, or copy {settings.model}/{BASE} there too"
        )
    prompts = tuple(base[0].evaluation.prompts())
    if len(prompts) < 2:
        raise UserError("the protocol has a single prompt; an interval needs at least two: evaluate on more prompts")
    judged_runs = [run for run in found if any(each.run is run for each in judged)]
    check_unique(judged_runs)
    check_seeds(judged_runs)
    check_metrics((each.run, each.evaluation) for each in judged)
    metrics = _metrics(judged)
    others = by_settings(grouped(each for each in judged if each is not base[0]))
    first, *rows = distinct([(base[0].label(), base), *others])
    return Records(
        signature=signature,
        protocol=settings,
        prompts=prompts,
        metrics=metrics,
        base=_row(*first, metrics),
        rows=tuple(_row(*row, metrics) for row in rows),
        notes=missing_notes(found, judged, metrics, settings),
    )


def _metrics(judged: Sequence[RunEvaluation]) -> tuple[MetricRecord, ...]:
    """The metrics of the table, of which no two have the same title."""
    described: dict[str, MetricRecord] = {}
    for each in sorted(judged, key=lambda each: each.run.config().is_base, reverse=True):
        for name, metric in each.evaluation.metrics().items():
            described.setdefault(name, metric)
    titles = distinct_titles({name: metric.info.title for name, metric in described.items()})
    titled = [
        dataclasses.replace(metric, info=dataclasses.replace(metric.info, title=titles[name]))
        for name, metric in described.items()
    ]
    return tuple(sorted(titled, key=lambda metric: metric.name != "gold"))


def _row(label: str, judged: Sequence[RunEvaluation], metrics: Iterable[MetricRecord]) -> RunRecord:
    judged = sorted(judged, key=lambda each: each.run.config().seed or 0)
    first = judged[0]
    config = first.run.config()
    tables = [_scores(each.evaluation) for each in judged]
    scores = {
        metric.name: np.stack([table[metric.name] for table in tables])
        for metric in metrics
        if all(metric.name in table for table in tables)
    }
    trained = [(ledger, each.run.steps()) for each in judged if each.own and (ledger := each.run.ledger()) is not None]
    watched = [each.run.curve() for each in judged if each.own and each.run.ledger() is not None]
    return RunRecord(
        algorithm=config.algorithm,
        name=config.name,
        label=label,
        own_name=config.own_name,
        seeds=tuple(seed for each in judged if (seed := each.run.config().seed) is not None),
        trained_on=_trained_on(first),
        variants=tuple(each.variant for each in judged if each.variant is not None),
        own=first.own,
        scores=scores,
        ledgers=tuple(ledger for ledger, _ in trained),
        steps=tuple(steps for _, steps in trained),
        watched=tuple(each for each in watched if each is not None) if None not in watched else (),
        evaluation=first.evaluation,
        placebo=config.placebo,
        placebo_of=config.placebo_of,
        init=None if config.init == BASE else shown_source(config.init),
        settings=row_settings([each.run for each in judged], first.evaluation.protocol_signature),
    )


def _trained_on(judged: RunEvaluation) -> tuple[str, ...]:
    """The metrics that either branch of guidance was trained on."""
    negative = None if judged.variant is None else judged.variant.negative
    names = [*judged.run.config().trained_on, *(negative.trained_on if negative else ())]
    return tuple(dict.fromkeys(names))


def _scores(evaluation: Evaluation) -> dict[str, Array]:
    """Raw scores by metric, float64, (prompts, images)."""
    shape = (len(evaluation.prompts()), evaluation.protocol().generation.images_per_prompt)
    tables = {name: np.full(shape, np.nan) for name in evaluation.metrics()}
    for record in evaluation.score_records():
        tables[record["metric"]][record["prompt_index"], record["image_index"]] = record["score"]
    for name, table in tables.items():
        if missing := int(np.isnan(table).sum()):
            raise UserError(
                f"{evaluation.scores} lacks {missing} of {table.size} {name!r} scores; "
                f"delete {evaluation.folder / DONE} and repeat the `bench run` or `bench eval` command"
            )
    return tables
