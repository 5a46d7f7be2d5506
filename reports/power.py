"""How many prompts, images and seeds tell two methods apart, from the variances measured in run folders."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from bench.core.errors import UserError
from reports.anova import Crossed
from reports.comparisons import compare_scores
from reports.endpoint import choose_endpoint, endpoint_wins, why_no_judges
from reports.records import Records, RunRecord
from reports.seed_variance import Array

WANTED = 0.8
"""Power that a design should have: the probability of an interval that excludes 0."""
PROMPTS = (50, 100, 200, 500, 1000, 2000)
IMAGES = (1, 2, 4)
MOST_SEEDS = 20
LEVELS = (np.arange(1000) + 0.5) / 1000
"""Levels of the quantiles over which powers are averaged."""


@dataclasses.dataclass(frozen=True, slots=True)
class Components:
    """Variances of the difference of two methods' wins, mean over the pairs of rows that were measured.

    Attributes:
        endpoint: what the wins are by.
        prompt: of prompts, common to all seeds and images.
        seed: of training seeds.
        interaction: of what a prompt and a seed have together, common to all images; with one image per prompt it is part of ``image``.
        image: of an image, given its prompt and seed.
        images: images per prompt that were measured.
        pairs: number of pairs of rows with two common seeds or more.
        others: degrees of freedom with which the other rows of such a table know the seeds.
        seconds: mean device seconds of one training run.
    """

    endpoint: str
    prompt: float
    seed: float
    interaction: float
    image: float
    images: int
    pairs: int
    others: int
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Design:
    """An experiment of two methods.

    Attributes:
        prompts: number of prompts.
        images: images per prompt.
        seeds: training seeds of each method.
        power: probability that the 95 % interval of the difference excludes 0.
        seconds: device seconds of training both methods.
        generated: number of images to generate and score.
    """

    prompts: int
    images: int
    seeds: int
    power: float
    seconds: float
    generated: int


def measure(records: Records, primary: str | None = None) -> Components:
    """Variance components of the primary endpoint over all pairs of trained rows that are no placebos.

    With several images per prompt, the variance between images of one prompt and seed is that of ``image``, and what ``M_R`` has beyond it is
    ``interaction``.

    Raises:
        UserError: fewer than two methods have the primary endpoint, or no two of them have two training seeds in common, so that
            nothing is known about seeds.
    """
    rows = (records.base, *records.rows)
    endpoint = choose_endpoint(records.metrics, rows, compare_scores(rows, records.base, records.metrics), primary)
    if endpoint is None:
        raise UserError(
            f"there is no primary endpoint, since {why_no_judges(records.metrics, rows)}; choose a metric with --primary"
        )
    wins: dict[int, Array] = {}
    for place, row in enumerate(rows):
        won = endpoint_wins(endpoint, row, records.base, records.metrics) if row.seeds else None
        if won is not None and row.placebo_of is None:
            wins[place] = won
    if len(wins) < 2:
        raise UserError(
            f"fewer than two trained methods can be compared by {endpoint.title}, the primary endpoint; train or score another one, or "
            "choose another --primary"
        )
    tables = _differences(rows, wins)
    if not tables:
        raise UserError("no two rows have two training seeds in common; run two algorithms with `--seeds 0,1,2` first")
    crossed = Crossed.of(tables)
    images = tables[0].shape[2]
    image = (
        np.mean([table.var(axis=2, ddof=1).mean() for table in tables]) if images > 1 else crossed.rest_square.mean()
    )
    prompt = np.maximum(0, (crossed.prompt_square - crossed.rest_square) / crossed.seeds)
    seed = np.maximum(0, (crossed.seed_square - crossed.rest_square) / crossed.prompts)
    seconds = [float(ledger["seconds"]) for row in records.rows if row.placebo_of is None for ledger in row.ledgers]
    return Components(
        endpoint=endpoint.title,
        prompt=float(prompt.mean()),
        seed=float(seed.mean()),
        interaction=max(0.0, float(crossed.rest_square.mean() - image / images)),
        image=float(image),
        images=images,
        pairs=len(tables),
        others=sum(len(won) - 1 for won in wins.values()),
        seconds=float(np.mean(seconds)) if seconds else 0.0,
    )


def _differences(rows: Sequence[RunRecord], wins: Mapping[int, Array]) -> list[Array]:
    """Differences of wins (seeds, prompts, images) of all pairs of rows with two training seeds in common or more."""
    tables = []
    for one, other in itertools.combinations(wins, 2):
        common = [seed for seed in rows[one].seeds if seed in rows[other].seeds]
        if len(common) > 1:
            first, second = ([rows[each].seeds.index(seed) for seed in common] for each in (one, other))
            tables.append(wins[one][first] - wins[other][second])
    return tables


def power_of(measured: Components, effect: float, prompts: int, images: int, seeds: int) -> float:
    """Probability that the 95 % interval of a true difference excludes 0: a tail of the non-central t distribution.

    It is the mean over quantiles of the estimated variance, since scipy's distribution is not a number for large effects.
    The degrees of freedom are those of `reports.statistics`, for two methods that join a table of the rows that were measured.

    Args:
        measured: the variances.
        effect: the true difference, as a share: 0.05 for five points of win rate.
        prompts: number of prompts.
        images: images per prompt.
        seeds: training seeds of each method.
    """
    of_prompts = measured.prompt / prompts
    of_seeds = (measured.seed + (measured.interaction + measured.image / images) / prompts) / seeds
    total = of_prompts + of_seeds
    degrees = total**2 / (of_prompts**2 / (prompts - 1) + of_seeds**2 / (seeds - 1 + measured.others))
    quantile = float(stats.t.ppf(0.975, degrees))
    shift = effect / total**0.5
    needed = quantile * np.sqrt(stats.chi2.ppf(LEVELS, degrees) / degrees)
    return float(np.mean(stats.norm.sf(needed - shift) + stats.norm.cdf(-needed - shift)))


def designs(measured: Components, effect: float) -> Iterator[Design]:
    """For each number of prompts and images the fewest seeds that reach `WANTED`, where `MOST_SEEDS` suffice."""
    for prompts, images in itertools.product(PROMPTS, _images(measured)):
        for seeds in range(1, MOST_SEEDS + 1):
            reached = power_of(measured, effect, prompts, images, seeds)
            if reached >= WANTED:
                yield Design(
                    prompts, images, seeds, reached, 2 * seeds * measured.seconds, 2 * seeds * prompts * images
                )
                break


def _images(measured: Components) -> Sequence[int]:
    """The numbers of images per prompt of which something is known: one, unless several were measured."""
    return IMAGES if measured.images > 1 else IMAGES[:1]


def power_lines(records: Records, points: float, primary: str | None = None) -> Sequence[str]:
    """What ``bench power`` prints.

    Args:
        records: the run folders.
        points: the difference to detect, in points of win rate over the base.
        primary: see `reports.endpoint.choose_endpoint`.

    Raises:
        UserError: the difference is not a number of points, two methods cannot be compared (see `measure`), or their difference is the
            same for all prompts, seeds and images.
    """
    if not 0 < points <= 100:
        raise UserError(f"--effect must be above 0 and at most 100 points of win rate, not {points:g}")
    measured = measure(records, primary)
    if not measured.prompt + measured.seed + measured.interaction + measured.image > 0:
        raise UserError(
            "the methods measured differ in the same way for every prompt, seed and image, so nothing is known about how much such "
            "differences vary; train methods that score differently"
        )
    lines = [
        *_deviations(records, measured),
        (
            f"If two methods truly differ by {points:g} points of win rate over the base, the 95 % interval of their difference excludes 0 in at "
            f"least {100 * WANTED:.0f} % of experiments with"
        ),
        "",
        "prompts  images per prompt  seeds per method  power   device seconds of training   images to generate",
    ]
    found = list(designs(measured, points / 100))
    lines += [
        f"{each.prompts:7d}  {each.images:17d}  {each.seeds:16d}  {100 * each.power:3.0f} %  {each.seconds:27,.0f}  {each.generated:19,d}"
        for each in found
    ]
    if not found:
        images = _images(measured)[-1]
        least = smallest_effect(measured, PROMPTS[-1], images, MOST_SEEDS)
        lines.append(
            f"none: the largest considered, {MOST_SEEDS} seeds and {PROMPTS[-1]} prompts with {images} image{'s' if images > 1 else ''}, does so "
            f"for differences of {100 * least:.1f} points or more"
        )
    lines += [
        "",
        (
            "Seconds and images are for both methods with all their seeds, at the mean cost of the runs that are not placebos; the base needs its "
            f"images once.  Designs that need more than {MOST_SEEDS} seeds are left out.  The report is assumed to hold the rows measured here as "
            "well, which say how much seeds differ: two methods alone need more seeds.  The deviation between seeds is an estimate itself, from as "
            "few seeds as these rows have, and the number of seeds needed grows with its square.  A comparison that is adjusted for others (ranks, "
            "groups, marks) needs more.  Comparisons with a placebo are not covered."
        ),
    ]
    return lines


def _deviations(records: Records, measured: Components) -> Iterator[str]:
    """What was measured, and what could not be."""
    counted = "pair" if measured.pairs == 1 else "pairs"
    alone = measured.images == 1
    yield (
        f"Standard deviations of the difference of two methods, in points of win rate over the base by {measured.endpoint}: between prompts "
        f"{100 * measured.prompt**0.5:.1f}, between training seeds {100 * measured.seed**0.5:.1f}, "
        + ("" if alone else f"of how prompts react to seeds {100 * measured.interaction**0.5:.1f}, ")
        + f"between images of one prompt and seed {100 * measured.image**0.5:.1f}; measured on {measured.pairs} {counted} of rows that are not "
        f"placebos, under protocol {records.signature}."
    )
    if alone:
        yield (
            "These runs have one image per prompt, so that the variation between images cannot be separated from how prompts react to training "
            "seeds; designs with more images per prompt are not listed.  Runs with --image images_per_prompt=2 separate the two."
        )


def smallest_effect(measured: Components, prompts: int, images: int, seeds: int) -> float:
    """The smallest true difference, as a share, that a design shows with a probability of `WANTED`, by bisection."""
    low, high = 0.0, 4.0  # a difference of shares is at most 1; what is larger says that nothing can be shown
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(measured, middle, prompts, images, seeds) >= WANTED else (middle, high)
    return high
