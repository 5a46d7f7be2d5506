"""From candidates to preference pairs: a judge's ranking, or the Pareto fronts of several rewards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UserError
from bench.core.files import replace_file
from bench.core.progress import Progress
from bench.data.preferences import PreferenceData
from bench.data.ranking import Verdict, both_orders, calibrated_rewards, dominating_pairs, rank_by_comparison

Judge = Callable[[int, int, int], bool]
"""``judge(row, first, second)``: whether image ``first`` of a row, shown first, is preferred to ``second``; called in both orders."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """Preference pairs among the images of data.

    Attributes:
        rows: row numbers, ascending, (M,).
        winners: which image of each is preferred, (M,).
        losers: the image it is preferred to, (M,).
        found: counts for the record.
        scores: scores of all images of the data, computed for the choice, (N, K) each.
    """

    rows: NDArray[np.int64]
    winners: NDArray[np.int64]
    losers: NDArray[np.int64]
    found: dict[str, Any]
    scores: Mapping[str, NDArray[np.float64]] = dataclasses.field(default_factory=dict)


def pairwise(data: PreferenceData, scores: Sequence[NDArray[np.float64]], output: Path) -> Chosen:
    """Iterative pairwise ranking by one metric; the comparisons are logged beside the output."""
    return rank_data(data, score_judge(scores[0]), output.with_suffix(".comparisons.jsonl"))


def pareto(data: PreferenceData, scores: Sequence[NDArray[np.float64]], output: Path) -> Chosen:  # noqa: ARG001 (methods share a signature)
    """CaPO's pairs between the Pareto fronts, with the mean of the calibrated rewards as the score ``calibrated``."""
    rewards = np.stack(scores)
    chosen = choose_pairs(data, dominating_pairs(rewards))
    return dataclasses.replace(chosen, scores={"calibrated": calibrated_rewards(rewards).mean(0)})


def score_judge(better: NDArray[np.float64]) -> Judge:
    """A judge that prefers the higher score, (N, K); with equal scores, neither is preferred in either order, which is a tie."""
    return lambda row, first, second: bool(better[row, first] > better[row, second])


def rank_data(data: PreferenceData, judge: Judge, log: Path) -> Chosen:
    """The first and the last image of each row's iterative pairwise ranking; rows where these two tie have no pair.

    Args:
        log: JSON-lines file to write: one comparison per line, with row, both images and the verdict.

    Raises:
        UserError: in no row does the first image beat the last one.
    """
    best: list[tuple[int, int, int]] = []
    counts = {"comparisons": 0, "ties": 0}

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as stream, Progress("ranking", total=len(data)) as progress:
            for row in range(len(data)):
                compare = _logged(judge, row, stream, counts)
                order = rank_by_comparison(data.width, compare)
                # a champion need not have met the last image, and transitivity is only assumed
                if compare(order[0], order[-1]) == "first":
                    best.append((row, order[0], order[-1]))
                progress.advance()

    replace_file(log, write)
    without = len(data) - len(best)
    if not best:
        raise UserError(f"{data.report.source}: the judge finds no difference in any row; use another judge")
    return _chosen(best, {**counts, "rows without a pair": without})


def choose_pairs(data: PreferenceData, pairs: NDArray[np.int64]) -> Chosen:
    """Pairs as `bench.data.ranking.dominating_pairs` returns them.

    Raises:
        UserError: there are none.
    """
    if not len(pairs):
        raise UserError(
            f"{data.report.source}: no image is better than another of its caption under every reward; use more images per "
            "caption, or fewer metrics"
        )
    return _chosen(pairs.tolist(), {"rows without a pair": len(data) - len(set(pairs[:, 0].tolist()))})


def _logged(judge: Judge, row: int, stream: TextIO, counts: dict[str, int]) -> Callable[[int, int], Verdict]:
    """Comparisons of one row's images, each made once and logged."""
    known: dict[tuple[int, int], Verdict] = {}
    ask = both_orders(lambda first, second: judge(row, first, second))

    def compare(one: int, other: int) -> Verdict:
        if (one, other) not in known:
            verdict = ask(one, other)
            reverse: dict[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}
            known[one, other], known[other, one] = verdict, reverse[verdict]
            stream.write(json.dumps({"row": row, "first": one, "second": other, "verdict": verdict}) + "\n")
            counts["comparisons"] += 1
            counts["ties"] += verdict == "tie"
        return known[one, other]

    return compare


def _chosen(pairs: list[tuple[int, int, int]], found: dict[str, Any]) -> Chosen:
    rows, winners, losers = np.asarray(pairs, dtype=np.int64).T
    return Chosen(rows, winners, losers, {"pairs": len(pairs), **found})
