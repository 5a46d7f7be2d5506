"""From scores and comparisons of a caption's images to rankings, calibrated rewards and pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["first", "second", "tie"]


def calibrated_rewards(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """CaPO's calibrated rewards: the mean chance that an image beats another of its caption; (..., K) to (..., K), in 0 to 1.

    ``1 / (K - 1) * sum over j != i of sigmoid(R_i - R_j)`` (Lee et al. 2025, arXiv 2502.02588).  Rewards must be in units in
    which a difference of 1 is meaningful: PickScore's cosine times 100, not the cosine.
    """
    from scipy.special import expit

    return mean_chances(expit(rewards[..., :, None] - rewards[..., None, :]))


def mean_chances(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over rivals of ``chances[..., i, j]``, the chance that image i beats image j; (..., K, K) to (..., K)."""
    rivals = ~np.eye(chances.shape[-1], dtype=bool)
    return np.asarray(np.where(rivals, chances, 0).sum(-1) / (chances.shape[-1] - 1))


def win_shares(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """RankDPO's psi: the share of comparisons that each image wins, over rewards and rivals; (R, K) to (K,), in 0 to 1."""
    wins = rewards[:, :, None] > rewards[:, None, :]
    return np.asarray(wins.sum((0, 2)) / (len(rewards) * (rewards.shape[1] - 1)))


def dominates(rewards: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether image i is better than image j under every reward; (R, K) to (K, K)."""
    return np.asarray((rewards[:, :, None] > rewards[:, None, :]).all(0))


def pareto_pairs(rewards: NDArray[np.float64]) -> list[tuple[int, int]]:
    """CaPO's pairs: (i, j) with i on the upper and j on the lower Pareto front and i better under every reward; in order.

    Args:
        rewards: (R, K), one row per reward.  An image that equals an earlier one under every reward is left out.
    """
    _, first = np.unique(rewards, axis=1, return_index=True)
    kept = np.zeros(rewards.shape[1], dtype=bool)
    kept[first] = True
    better = dominates(rewards)
    upper, lower = kept & ~better.any(0), kept & ~better.any(1)
    return [(int(i), int(j)) for i, j in np.argwhere(better & upper[:, None] & lower[None, :])]


def dominating_pairs(rewards: NDArray[np.float64]) -> NDArray[np.int64]:
    """`pareto_pairs` of many captions: (R, N, K) to rows of (caption, better image, worse image), (M, 3)."""
    found = [(row, *pair) for row in range(rewards.shape[1]) for pair in pareto_pairs(rewards[:, row])]
    return np.asarray(found, dtype=np.int64).reshape(-1, 3)


def rank_by_comparison(count: int, compare: Callable[[int, int], Verdict]) -> list[int]:
    """Iterative pairwise ranking, best first: a champion is compared with one challenger after another, then the rest is ranked likewise.

    ``count * (count - 1) / 2`` comparisons; transitivity is assumed.  A champion stays on a tie.  Idea: Chen et al. 2024, arXiv
    2411.05875, whose full text was not available.

    Args:
        compare: ``compare(champion, challenger)`` on image numbers.
    """
    left, order = list(range(count)), []
    while left:
        champion = left[0]
        for challenger in left[1:]:
            if compare(champion, challenger) == "second":
                champion = challenger
        order.append(champion)
        left.remove(champion)
    return order


def both_orders(prefers_first: Callable[[int, int], bool]) -> Callable[[int, int], Verdict]:
    """A comparison by a judge in both orders; contradictory answers are a tie.

    Args:
        prefers_first: whether the judge, shown two images in this order, prefers the first.
    """

    def compare(one: int, other: int) -> Verdict:
        forth, back = prefers_first(one, other), prefers_first(other, one)
        if forth == back:
            return "tie"
        return "first" if forth else "second"

    return compare
