"""A second implementation of the arithmetic of reports, from docs/statistics.md, with scipy's distributions and optimizers.

It reads the files of run folders itself and imports nothing of this project.  Loops instead of arrays, densities instead of
formulas, root finding instead of bisection: slow, and easy to compare with the page.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats


class Row:
    """Runs that differ only in training seed, or weights that were not trained here."""

    def __init__(
        self, config: Mapping[str, Any], scores: Mapping[Any, Mapping[str, Any]], varied: float | None
    ) -> None:
        self.algorithm, self.name = config["algorithm"], config.get("name", "")
        self.placebo_of = config.get("placebo_of")
        self.trained_on = set(config.get("trained_on", ()))
        self.varied = varied  # the guidance scale, if sampled in another way than the protocol's
        self.by_seed = dict(scores)  # seed (None without one) to metric to (prompts, images)

    @property
    def seeds(self) -> list[int]:
        return sorted(seed for seed in self.by_seed if seed is not None)


def read(runs: Path) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """The rows, the base first, and what is known about each metric."""
    found: dict[tuple[str, str, float | None], tuple[Any, dict[Any, Any]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for path in sorted(runs.glob("**/config.json")):
        config = json.loads(path.read_text())
        if "algorithm" not in config:
            continue  # of a network
        for folder in sorted(path.parent.glob("evaluations/*")):
            metrics = json.loads((folder / "metrics.json").read_text())
            about |= metrics
            prompts = json.loads((folder / "prompts.json").read_text())
            lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
            images = 1 + max(line["image_index"] for line in lines)
            tables = {name: np.full((len(prompts), images), math.nan) for name in metrics}
            for line in lines:
                tables[line["metric"]][line["prompt_index"], line["image_index"]] = line["score"]
            variant = folder / "variant.json"
            scale = json.loads(variant.read_text())["guidance_scale"] if variant.exists() else None
            key = (config["algorithm"], config.get("name", ""), scale)
            found.setdefault(key, (config, {}))[1][config.get("seed")] = tables
    order = sorted(found, key=lambda key: (key[0] != "base", key[2] is not None))
    return [Row(*found[key], key[2]) for key in order], about


def together(row: Row, reference: Row, metric: str) -> tuple[Any, Any]:
    """Scores of a row and its reference on common seeds, (seeds, prompts, images)."""
    if not row.seeds or not reference.seeds:
        seeds = [(one, other) for one in row.by_seed for other in reference.by_seed]
    else:
        seeds = [(seed, seed) for seed in row.seeds if seed in reference.seeds]
    mine = np.stack([row.by_seed[one][metric] for one, _ in seeds])
    return mine, np.stack([reference.by_seed[other][metric] for _, other in seeds])


def wins(row: Row, reference: Row, metric: str, *, higher: bool) -> Any:
    mine, other = together(row, reference, metric)
    better, same = (mine > other) if higher else (mine < other), mine == other
    return better * 1.0 + same * 0.5


def judging(rows: Sequence[Row], about: Mapping[str, Any], reference: Row, primary: str) -> list[list[str]]:
    """The metrics of the primary endpoint, in groups that count as one metric."""
    if primary != "judges":
        return [[primary]]
    names = [name for name in about if name != "gold" and not any(name in row.trained_on for row in rows)]
    others = [row for row in rows if row is not reference and not apart(row, reference)]
    if len(others) < 8:
        return [[name] for name in names]
    rates = {
        name: [wins(row, reference, name, higher=about[name]["info"]["higher_is_better"]).mean() for row in others]
        for name in names
    }
    groups: list[list[str]] = []
    for name in names:
        near = [
            group for group in groups if any(stats.spearmanr(rates[name], rates[one]).statistic >= 0.9 for one in group)
        ]
        groups = [group for group in groups if group not in near] + [[name, *(one for group in near for one in group)]]
    return groups


def apart(row: Row, reference: Row) -> bool:
    """Whether two trained rows have no training seed in common."""
    return bool(row.seeds and reference.seeds and not set(row.seeds) & set(reference.seeds))


def judged(row: Row, reference: Row, groups: Sequence[Sequence[str]], about: Mapping[str, Any]) -> Any:
    """Wins by the primary endpoint, (seeds, prompts); None where one of both was trained on it."""
    if any(name in row.trained_on | reference.trained_on for group in groups for name in group):
        return None
    each = [
        sum(wins(row, reference, name, higher=about[name]["info"]["higher_is_better"]) for name in group) / len(group)
        for group in groups
    ]
    return (sum(each) / len(each)).mean(axis=2)


def squares(table: Any) -> tuple[float, float, float, float]:
    """Mean, M_P, M_S and M_R by sums over the cells, (seeds, prompts)."""
    seeds, prompts = table.shape
    mean = sum(table.flat) / table.size
    row_means = [math.fsum(row) / prompts for row in table]
    column_means = [math.fsum(column) / seeds for column in table.T]
    of_prompts = seeds * math.fsum((each - mean) ** 2 for each in column_means) / (prompts - 1)
    if seeds == 1:
        return mean, of_prompts, math.nan, math.nan
    of_seeds = prompts * math.fsum((each - mean) ** 2 for each in row_means) / (seeds - 1)
    rest = math.fsum(
        (table[s, p] - row_means[s] - column_means[p] + mean) ** 2 for s in range(seeds) for p in range(prompts)
    )
    return mean, of_prompts, of_seeds, rest / ((seeds - 1) * (prompts - 1))


def pool(parts: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The scale and k, from S - 1 and M_S of the rows with two seeds or more."""
    # F's density at 0 is 0 or infinite; its limit is what compares scales and k
    seen = [(own, max(square, 1e-200)) for own, square, _ in parts]
    nothing = all(square == 0 for _, square, _ in parts)

    def likelihood(log_scale: float, k: float) -> float:
        return math.fsum(stats.f.logpdf(square / math.exp(log_scale), own, k) - log_scale for own, square in seen)

    def best(k: float) -> float:
        def slope(log_scale: float) -> float:  # of the likelihood; falls with the scale
            ratios = [(own, own * square / math.exp(log_scale) / k) for own, square in seen]
            return math.fsum((own + k) / 2 * ratio / (1 + ratio) - own / 2 for own, ratio in ratios)

        if nothing:
            return 0.0
        top = math.log(max(square for _, square in seen))
        if slope(top - 40) <= 0:
            return top - 40
        return float(optimize.brentq(slope, top - 40, top + 1e-9, xtol=1e-13, rtol=1e-14))

    spreads = [(2 * number + 1) / 64 for number in range(32)]
    values = [likelihood(best(1 / each), 1 / each) for each in spreads]
    weights = [math.exp(value - max(values)) for value in values]
    k = math.fsum(weights) / math.fsum(weight * each for weight, each in zip(weights, spreads, strict=True))
    return 0.0 if nothing else math.exp(best(k)), k


def estimates(tables: Sequence[Any], c: float, *, share: bool) -> list[dict[str, float]]:
    """Interval and p value of each row of a column, from tables (seeds, prompts)."""
    analysed = []
    for table in tables:
        seeds, prompts = table.shape
        mean, m_p, m_s, m_r = squares(table)
        moved = (prompts * mean + 0.5) / (prompts + 1)
        v = max(moved * (1 - moved), mean * (1 - mean)) if share else 1.0
        analysed.append((seeds, prompts, mean, m_p / v, m_s / v, m_r / v, v))
    several = [(seeds - 1, m_s, m_r) for seeds, _, _, _, m_s, m_r, _ in analysed if seeds > 1]
    scale, k, whole, pooled_rest = 0.0, math.nan, 0.0, 0.0
    if several:
        scale, k = pool(several)
        whole = sum(own for own, _, _ in several)
        pooled_rest = sum(own * rest for own, _, rest in several) / whole
        whole /= 1 + (len(several) - 1) * c
    found = []
    for seeds, prompts, mean, m_p, m_s, m_r, v in analysed:
        own = seeds - 1
        if not several:
            a, t, f = m_p, 0.0, 1.0
        else:
            others = max(0.0, whole - own)
            w = k * others / (k + others)
            rest = m_r if own else pooled_rest
            a, f = max(0.0, m_p - rest), w + own
            t = max(rest, (w * scale + (own * m_s if own else 0.0)) / f)
        if share:
            a += (1 - mean * (1 - mean) / v) * seeds * prompts / (prompts - 1)
        degrees = (a + t) ** 2 / (a**2 / (prompts - 1) + t**2 / f) if a + t else prompts - 1
        variance = (a + t) * v / (seeds * prompts)
        if math.sqrt(variance) <= 1e-9 * abs(mean):
            found.append({"mean": mean})
        elif share:
            found.append(share_ends(mean, (a + t) / (seeds * prompts), degrees))
        else:
            found.append(mean_ends(mean, variance, degrees))
    return found


def mean_ends(mean: float, variance: float, degrees: float) -> dict[str, float]:
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    p = 2 * stats.t.sf(abs(mean) / math.sqrt(variance), degrees)
    return {"mean": mean, "low": mean - half, "high": mean + half, "p_value": p}


def share_ends(share: float, relative: float, degrees: float) -> dict[str, float]:
    """By the beta distribution: I(x; a, b) is its distribution function; at no wins or no losses one of its two terms is 1 or 0."""
    n = 1 / relative
    won, lost = n * share, n * (1 - share)

    def score(p: float) -> float:
        at_most = stats.beta.cdf(1 - p, lost, won + 1) if lost else 1.0
        fewer = stats.beta.cdf(1 - p, lost + 1, won) if won else 0.0
        at_least = stats.beta.cdf(p, won, lost + 1) if won else 1.0
        more = stats.beta.cdf(p, won + 1, lost) if lost else 0.0
        below, above = (at_most + fewer) / 2, (at_least + more) / 2
        return float(stats.norm.ppf(below) if below < above else stats.norm.isf(above))

    quantile = float(stats.t.ppf(0.975, degrees))
    tiny = 1e-13  # with one degree of freedom the quantile is 12.7, and an end may be nearer to 0 or 1 than that
    ends = [0.0, 1.0]
    if won and score(tiny) > quantile:
        ends[0] = optimize.brentq(lambda p: score(p) - quantile, tiny, 1 - tiny, xtol=1e-13)
    if lost and score(1 - tiny) < -quantile:
        ends[1] = optimize.brentq(lambda p: score(p) + quantile, tiny, 1 - tiny, xtol=1e-13)
    low, high = ends
    return {"mean": share, "low": low, "high": high, "p_value": 2 * float(stats.t.sf(abs(score(0.5)), degrees))}


def holm(values: Mapping[Any, float]) -> dict[Any, float]:
    """Adjusted p values."""
    order = sorted(values, key=lambda key: values[key])
    return {
        key: min(1.0, max((len(order) - before) * values[order[before]] for before in range(place + 1)))
        for place, key in enumerate(order)
    }


def column(
    tables: Mapping[int, Any], rows: Sequence[Row], reference: Row, *, share: bool
) -> dict[int, dict[str, float]]:
    """Estimates by row: those that were not trained here for themselves, unless the reference was trained."""
    alone = [place for place in tables if not rows[place].seeds and not reference.seeds]
    trained = [place for place in tables if place not in alone]
    found = dict(zip(alone, estimates([tables[place] for place in alone], 0, share=share), strict=True))
    of_trained = estimates([tables[place] for place in trained], 0.25 if reference.seeds else 0, share=share)
    if all(len(tables[place]) == 1 for place in trained):
        of_trained = [{name: each[name] for name in each if name != "p_value"} for each in of_trained]
    return {**found, **dict(zip(trained, of_trained, strict=True))}


def verdict(runs: Path, reference_place: int, primary: str = "gold") -> dict[str, Any]:
    """What a report against a row says: intervals, adjusted p values, ranks, by the row's place."""
    rows, about = read(runs)
    reference = rows[reference_place]
    others = [place for place, row in enumerate(rows) if place != reference_place and not apart(row, reference)]
    differences, rates = {}, {}
    for metric, known in about.items():
        factor, higher = known["info"]["display_factor"], known["info"]["higher_is_better"]
        pairs = {place: together(rows[place], reference, metric) for place in others}
        tables = {place: (mine - other).mean(axis=2) * factor for place, (mine, other) in pairs.items()}
        differences[metric] = column(tables, rows, reference, share=False)
        won = {place: wins(rows[place], reference, metric, higher=higher).mean(axis=2) for place in others}
        rates[metric] = column(won, rows, reference, share=True)
    groups = judging(rows, about, reference, primary)
    won = {place: table for place in others if (table := judged(rows[place], reference, groups, about)) is not None}
    over = column(won, rows, reference, share=True)
    if primary in rates:
        rates[primary] |= over  # one comparison has one interval, whatever other rows a column has
    placebo = over_placebo(rows, about, groups)
    first = holm({place: each["p_value"] for place, each in over.items() if "p_value" in each})
    rest = {("placebo", place): each["p_value"] for place, each in placebo.items() if "p_value" in each}
    for metric in about:
        for kind, columns in (("difference", differences), ("win_rate", rates)):
            for place, each in columns[metric].items():
                if "p_value" in each and not (kind == "win_rate" and metric == primary and place in over):
                    rest[kind, metric, place] = each["p_value"]
    return {
        "rows": rows,
        "difference": differences,
        "win_rate": rates,
        "over": over,
        "placebo": placebo,
        "first": first,
        "rest": holm(rest),
        **standings(rows, reference, won),
    }


def over_placebo(
    rows: Sequence[Row], about: Mapping[str, Any], groups: Sequence[Sequence[str]]
) -> dict[int, dict[str, float]]:
    tables = {}
    for place, row in enumerate(rows):
        for twin in rows:
            same = twin.algorithm == row.algorithm and twin.placebo_of == row.name
            if twin.placebo_of is not None and same and set(twin.seeds) & set(row.seeds):
                tables[place] = judged(row, twin, groups, about)
    found = {place: table for place, table in tables.items() if table is not None}
    return column(found, rows, rows[0], share=True)


def standings(rows: Sequence[Row], reference: Row, won: Mapping[int, Any]) -> dict[str, Any]:
    """All pairs of rows but placebos, and the ranks that cannot be excluded."""
    others = [place for place in won if rows[place].placebo_of is None]
    seeds = {
        place: [seed for seed in rows[place].seeds if not reference.seeds or seed in reference.seeds]
        if rows[place].seeds
        else reference.seeds
        for place in others
    }
    tables = {}
    for number, one in enumerate(others):
        for other in others[number + 1 :]:
            if seeds[one] and seeds[other]:
                common = [seed for seed in seeds[one] if seed in seeds[other]]
                if common:
                    tables[one, other] = np.stack(
                        [won[one][seeds[one].index(seed)] - won[other][seeds[other].index(seed)] for seed in common]
                    )
            else:
                tables[one, other] = won[one] - won[other]
    alone = [pair for pair in tables if not seeds[pair[0]] and not seeds[pair[1]]]
    trained = [pair for pair in tables if pair not in alone]
    pairs = dict(zip(alone, estimates([tables[pair] for pair in alone], 0, share=False), strict=True))
    with_seeds = {place for place in others if seeds[place]}
    of_trained = estimates([tables[pair] for pair in trained], correlation(trained, with_seeds), share=False)
    pairs |= dict(zip(trained, of_trained, strict=True))
    if all(len(tables[pair]) == 1 for pair in trained):
        for pair in trained:
            pairs[pair].pop("p_value", None)
    marks = holm({pair: each["p_value"] for pair, each in pairs.items() if "p_value" in each})
    above: dict[int, set[int]] = {place: set() for place in others}
    for (one, other), p in marks.items():
        if p < 0.05:
            winner, loser = (one, other) if pairs[one, other]["mean"] > 0 else (other, one)
            above[loser].add(winner)
    means = {place: float(won[place].mean()) for place in others}

    def gap(one: int, other: int) -> float:
        """How much better the first is, on common seeds where there are any."""
        if (one, other) in pairs:
            return pairs[one, other]["mean"]
        return -pairs[other, one]["mean"] if (other, one) in pairs else means[one] - means[other]

    ranks: dict[int, tuple[int, int | None, int | None]] = {}
    for place in others:
        rank = 1 + sum(gap(other, place) > 1e-12 for other in others if other != place)
        best, worst = 1 + len(above[place]), len(others) - sum(place in above[other] for other in others)
        ranks[place] = (rank, best, worst) if any(place in pair for pair in marks) else (rank, None, None)
    return {"pairs": pairs, "pair_marks": marks, "ranks": ranks}


def correlation(pairs: Sequence[tuple[int, int]], trained: set[int]) -> float:
    """Mean squared correlation of the seeds' parts of two pairs of rows."""
    found = []
    for first, second in itertools.permutations(pairs, 2):
        covariance = sum(
            (1 if first.index(row) == second.index(row) else -1) for row in trained if row in first and row in second
        )
        variances = [sum(row in trained for row in pair) for pair in (first, second)]
        found.append(covariance**2 / (variances[0] * variances[1]))
    return math.fsum(found) / len(found) if found else 0.0
