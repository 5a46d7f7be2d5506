"""How often metrics agree with people's votes, and how ties count."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from lab import Lab

from bench.core.errors import UserError
from bench.records.scores import Ties
from bench.records.votes import VotesRecord
from reports.agreement import agreement_points
from reports.clusters import clustered_share
from reports.content import with_votes
from reports.flat import flat_rows
from reports.render import as_json, markdown
from reports.report import make_report
from reports.statistics import share_intervals

# What people voted, and score 0 less score 1: agreed, opposed, equal scores; then a tie of people with scores apart, and with equal scores.
LABELS = np.array([1.0, 1.0, 0.0, 0.5, 0.5])
DIFFERENCES = np.array([2.0, -1.0, 0.0, 0.3, 0.0])


@pytest.mark.parametrize(
    ("ties", "points"),
    [
        ("half", [1, 0, 0.5]),  # ties of people are left out
        ("disagree", [1, 0, 0]),
        ("agree", [1, 0, 1, 1, 1]),
    ],
)
def test_each_paper_counts_ties_in_its_own_way(ties: Ties, points: list[float]) -> None:
    found = agreement_points(ties, DIFFERENCES, LABELS, np.arange(5))
    assert found[: len(points)].tolist() == points


def test_a_threshold_is_chosen_on_the_other_prompts() -> None:
    # Two captions.  |2 sigmoid(d) - 1| is .0997, .291, .462 and .761 for differences of .2, .6, 1 and 2.
    # Of caption 0, differences of .2 and .6 are ties of people, so .3 is the smallest threshold with all points: 1 + 1 + 1.
    # Of caption 1, people call nothing a tie and the metric is right, so 0 is the best.
    labels = np.array([0.5, 0.5, 1.0, 1.0, 0.0, 1.0])
    differences = np.array([0.2, 0.6, 2.0, 1.0, -0.2, 0.6])
    prompts = np.array([0, 0, 0, 1, 1, 1])
    found = agreement_points("threshold", differences, labels, prompts)
    # Caption 0 by threshold 0: a half for each tie that was not seen; caption 1 by .3: a half for each called tie.
    assert found.tolist() == [0.5, 0.5, 1, 1, 0.5, 0.5]


def test_a_share_without_clusters_has_the_interval_of_a_win_rate() -> None:
    wins = np.array([1, 0, 1, 1, 0.5, 1, 1])
    (expected,) = share_intervals([wins[None]])
    found = clustered_share(wins, range(7))
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high), abs=1e-9)
    whole = clustered_share(np.ones(20), range(20))
    assert whole.high == 1
    assert (
        0.8 < whole.low < 0.9
    )  # 2.5 % of 20 wins at the lower end: (.05 for the half of mid-P) ** (1 / 20) = .861, with t(19) below


def test_pairs_of_one_caption_are_one_witness() -> None:
    alone = clustered_share(np.array([1.0, 0, 1, 1, 0, 1]), range(6))
    together = clustered_share(np.repeat([1.0, 0, 1, 1, 0, 1], 50), [place // 50 for place in range(300)])
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-9)


def votes(metric: str, labels: list[float], scores: list[tuple[float, float]]) -> VotesRecord:
    return VotesRecord("votes.parquet", "d" * 16, "v" * 16, metric, "s", list(range(len(labels))), labels, scores)


def test_every_format_shows_it(full_lab: Lab) -> None:
    labels = [1.0, 0.0, 1.0, 1.0, 0.5]
    scores = [(2.0, 1.0), (2.0, 1.0), (3.0, 1.0), (5.0, 1.0), (1.0, 1.0)]
    made = make_report(full_lab.runs)
    assert made.agreements == ()
    assert "people's votes" not in markdown(made)
    assert "agreement" not in flat_rows(made)[0]
    report = with_votes(made, [votes("gold", labels, scores), votes("distance", labels, scores)])
    gold, distance = report.agreements
    # "distance" is better if lower, so it says the opposite; the tie of people is left out
    assert (gold.own.mean, distance.own.mean, gold.pairs, gold.tied, gold.equal) == (0.75, 0.25, 5, 1, 1)
    text = markdown(report)
    assert "**Agreement of metrics with people's votes, %**" in text
    assert "| Gold | 75.0 [" in text
    assert "5 pairs of votes.parquet (5 captions, 1 pairs called a tie" in text
    value: Any = json.loads(as_json(report))
    assert value["agreements"][0]["decided"]["mean"] == 0.75
    lines = {line["metric"]: line for line in flat_rows(report)}
    assert (lines["gold"]["agreement"], lines["pickscore"]["agreement"]) == (0.75, None)
    assert list(lines["gold"]) == list(lines["pickscore"])


def test_ties_alone_say_nothing(full_lab: Lab) -> None:
    record = votes("gold", [0.5, 0.5, 1.0], [(1.0, 2.0)] * 3)
    with pytest.raises(UserError, match="ties, and other votes on fewer than two captions"):
        with_votes(make_report(full_lab.runs), [record])
