"""How often a metric agrees with people's votes, with ties counted as the metric's own paper counts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import special

from bench.core.errors import UserError
from bench.records.scores import MetricRecord, Ties
from bench.records.votes import VotesRecord
from reports.clusters import clustered_share
from reports.seed_variance import Array
from reports.statistics import Interval

TIE = 0.5
"""The vote of people who find two images equally good."""
THRESHOLDS = np.linspace(0, 1, 11)
"""Differences of preference probabilities up to which PickScore's evaluation may call two images a tie."""
FOLDS = 5
"""Parts of the prompts; the threshold for one part is the best one for the others."""

RULES: Mapping[Ties, str] = {
    "half": "pairs that people call a tie are left out; equal scores count half",
    "agree": "only opposite orders are wrong, so a tie of people or equal scores count as agreement, as in HPSv2's evaluation",
    "disagree": "pairs that people call a tie are left out; equal scores count as wrong, as in ImageReward's evaluation",
    "threshold": "close preference probabilities are a tie, which agrees with a tie of people and counts half otherwise, as in PickScore's "
    f"evaluation; how close is chosen on the other prompts ({FOLDS} parts)",
}
"""The rules in words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How often a metric agrees with people.

    Attributes:
        metric: registered name.
        title: what tables call it.
        ties: how ties count in ``own``.
        own: agreement with ties counted as the metric's paper counts them; a share.
        decided: agreement on the pairs that people do not call a tie, equal scores counting half: the same for all metrics.
        pairs: number of pairs.
        tied: number of those that people call a tie.
        equal: number of those with equal scores.
        prompts: number of captions, over which the intervals are.
        source: what the user called the data.
        data: digest of its captions and images.
        labels: digest of its votes.
    """

    metric: str
    title: str
    ties: Ties
    own: Interval
    decided: Interval
    pairs: int
    tied: int
    equal: int
    prompts: int
    source: str
    data: str
    labels: str


def agreements(metrics: Sequence[MetricRecord], votes: Iterable[VotesRecord]) -> tuple[Agreement, ...]:
    """The agreement of metrics with people, in the order of the records.

    Args:
        metrics: the metrics of a report.
        votes: their scores of pairs on which people voted.

    Raises:
        UserError: fewer than two captions have a pair that people decided.
    """
    by_name = {metric.name: metric for metric in metrics}
    return tuple(_agreement(by_name[each.metric], each) for each in votes)


def _agreement(metric: MetricRecord, votes: VotesRecord) -> Agreement:
    labels, prompts = np.array(votes.label_0, dtype=np.float64), np.array(votes.prompts)
    scores = np.array(votes.scores, dtype=np.float64).reshape(-1, 2) * (1 if metric.info.higher_is_better else -1)
    difference = scores[:, 0] - scores[:, 1]
    decided = labels != TIE
    if len(set(prompts[decided].tolist())) < 2:
        raise UserError(
            f"{votes.source} has {int((~decided).sum())} ties, and other votes on fewer than two captions; --judges-on needs two "
            "for an interval"
        )
    kept = decided if metric.info.ties in ("half", "disagree") else np.ones_like(decided)
    points = agreement_points(metric.info.ties, difference, labels, prompts)
    halves = agreement_points("half", difference, labels, prompts)
    return Agreement(
        metric=metric.name,
        title=metric.info.title,
        ties=metric.info.ties,
        own=clustered_share(points[kept], prompts[kept].tolist()),
        decided=clustered_share(halves[decided], prompts[decided].tolist()),
        pairs=len(labels),
        tied=int((~decided).sum()),
        equal=int((difference == 0).sum()),
        prompts=len(set(prompts.tolist())),
        source=votes.source,
        data=votes.data,
        labels=votes.labels,
    )


def agreement_points(ties: Ties, difference: Array, labels: Array, prompts: Array) -> Array:
    """What each pair counts, (N,), between 0 and 1; pairs that a rule leaves out have any value.

    Args:
        ties: the rule.
        difference: score of image 0 less that of image 1, higher is better, (N,).
        labels: people's votes on image 0, (N,).
        prompts: numbers of the captions, (N,).
    """
    if ties == "threshold":
        return _points_by_threshold(difference, labels, prompts)
    with_vote = np.sign(difference) * np.sign(
        labels - TIE
    )  # 1 for the same order, 0 for a tie of either, -1 for opposite orders
    values = {"half": 0.5, "agree": 1.0, "disagree": 0.0}
    return np.where(with_vote == 0, values[ties], (1 + with_vote) / 2)


def _points_by_threshold(difference: Array, labels: Array, prompts: Array) -> Array:
    """Of the thresholds with equal points, the smallest is the best one."""
    apart = np.abs(2 * special.expit(difference) - 1)
    called = np.where(apart > THRESHOLDS[:, None], np.sign(difference), 0)
    voted = np.sign(labels - TIE)
    points = 1 - np.abs(called - voted) / 2  # 1 for the same, 1/2 where one is a tie, 0 for opposite orders
    numbers = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts.tolist()))}
    fold = np.array([numbers[prompt] for prompt in prompts.tolist()]) % min(FOLDS, len(numbers))
    best = [int(points[:, fold != part].mean(axis=1).argmax()) for part in range(int(fold.max()) + 1)]
    return np.asarray(points[np.array(best)[fold], np.arange(len(labels))])
