"""Footnotes about intervals and marks: what they are over, where nothing is tested, and where simulations found them to miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.records.config import BASE
from reports.comparisons import paired_seeds
from reports.conclusion_tables import is_base, over_reference, reference_name, trained_on_endpoint
from reports.conclusions import placebo_in
from reports.content import Report
from reports.endpoint import GOLD, why_no_judges
from reports.records import RowRecord
from reports.statistics import Interval, Miss

SIMULATED_PROMPTS = 50
"""The fewest prompts whose intervals were simulated: docs/statistics.md."""
WITHOUT = "nothing is known about how seeds differ, and intervals do not include it"

Column = Mapping[str, Interval]
"""The intervals of a column by the row's label, without empty cells."""
MISSES: Mapping[Miss, str] = {
    "too wide": (
        "Conservative: in simulations such 95 % intervals of win rates covered the true value in 97 to 99 % of cases; they are over one training "
        "seed where seeds vary many times as much as prompts, or over one or two where seeds do not differ"
    ),
    "too narrow": (
        "Too narrow: in simulations such 95 % intervals of win rates near 0 or 100 % covered the true value in only 89 to 95 % of cases, since seeds "
        "vary many times as much as prompts"
    ),
}


def interval_notes(report: Report) -> list[str]:
    """All footnotes about intervals."""
    columns = _columns(report)
    return [
        *_what_intervals_are(report, columns),
        *_mark_notes(report, columns),
        *_metric_notes(report),
        *_seed_notes(columns),
        *_common_seed_notes(report),
        *_miss_notes(columns),
        *_weights_notes(report),
        *_length_notes(report),
    ]


def _columns(report: Report) -> dict[str, Column]:
    """The columns of win rates by heading, all that have an interval in some row."""
    rows = report.rows[1:]
    cells = {
        over_reference(report): {row.label: row.over_reference for row in rows},
        "over placebo": {row.label: row.over_placebo for row in rows},
    }
    for metric in report.metrics:
        scores = {row.label: row.scores.get(metric.name) for row in rows}
        cells[metric.info.title] = {label: None if score is None else score.win_rate for label, score in scores.items()}
    found = {name: {label: each for label, each in column.items() if each} for name, column in cells.items()}
    return {name: column for name, column in found.items() if column}


def _what_intervals_are(report: Report, columns: Mapping[str, Column]) -> Iterator[str]:
    intervals = [each for column in columns.values() for each in column.values()]
    if not intervals:
        return
    over = "prompts and training seeds" if any(each.seeds > 1 for each in intervals) else "prompts"
    images = report.prompts * report.images_per_prompt
    yield (
        f"[ ] after win rates and ± after differences are 95 % intervals over {over}, paired on the same {report.prompts} prompts and "
        f"noise ({images} images per seed), not adjusted for the number of comparisons."
    )
    if not is_base(report.rows[0]):
        yield "How much training seeds differ is estimated from all rows of a table, so the same comparison has another interval with another reference; cite the reference that was chosen beforehand."
    pairs = [pair.difference for pair in report.pairs]
    changes = [score.difference for row in report.rows for score in row.scores.values() if score.difference]
    if any(each.ends is None for each in (*intervals, *pairs, *changes)):
        yield "A win rate or difference without an interval is the same for all prompts and seeds, so it is not tested."


def _mark_notes(report: Report, columns: Mapping[str, Column]) -> Iterator[str]:
    """What is marked, and where nothing is."""
    if not report.metrics or len(report.rows) == 1:
        return
    placebos = ", over placebo too," if "over placebo" in columns else ""
    of_rows, of_all = _tested(report)
    if report.endpoint is None:
        yield "Bold is better, italic is worse (5 %), after Holm's adjustment over all cells."
        yield (
            f"No primary endpoint: {why_no_judges(report.metrics, (report.source.base, *report.source.rows))}.  --primary with a metric's "
            "name chooses one, by which rows that were trained on it are not compared."
        )
    else:
        yield (
            f"Bold is better, italic is worse (5 %): {over_reference(report)} by the primary endpoint ({report.endpoint.title}) after Holm's "
            f"adjustment over the rows ({of_rows} tests); all other cells{placebos} after Holm's adjustment over all of them ({of_all} tests), which "
            "is stricter: an interval without 50 or 0 may have no mark."
        )
    if untested := [name for name, column in columns.items() if max(each.seeds for each in column.values()) == 1]:
        where = _where(untested, [name for name, column in columns.items() if any(map(_seeded, column.values()))])
        yield f"Trained rows have no marks{where}: no comparison is over two training seeds, so {WITHOUT}."
    seeds = {*report.rows[0].seeds}
    apart = [row.label for row in report.rows[1:] if row.seeds and seeds and not seeds & {*row.seeds}]
    if apart:
        yield f"No training seed in common with {report.rows[0].label}, so not compared: {', '.join(apart)}."
    missing = [row.label for row in report.rows[1:] if row.over_reference is None and row.label not in apart]
    if report.endpoint is not None and trained_on_endpoint(report, report.rows[0]):
        title = report.endpoint.title
        yield f"{report.rows[0].label} was trained on {title}, the primary endpoint, so no row is compared with it by that endpoint."
    elif report.endpoint is not None and missing:
        yield f"No primary endpoint, and no mark there: {', '.join(missing)}."


def _tested(report: Report) -> tuple[int, int]:
    """The numbers of tests by the primary endpoint and of all others, which are adjusted together."""
    first = sum(_is_tested(row.over_reference) for row in report.rows)
    rest = sum(_is_tested(row.over_placebo) for row in report.rows)
    for row in report.rows:
        for name, score in row.scores.items():
            again = report.endpoint is not None and name == report.endpoint.name and row.over_reference is not None
            rest += _is_tested(score.difference) + (not again and _is_tested(score.win_rate))
    return first, rest


def _is_tested(interval: Interval | None) -> bool:
    return interval is not None and interval.adjusted is not None


def _metric_notes(report: Report) -> Iterator[str]:
    yield from (
        f"{metric.info.title}: the expected utility of an image for the tiny world's simulated voters, computed from what a trained checker measures; "
        "where people vote it is unknown.  The tiny world's versions of other metrics are small models trained on votes of these voters, so their scores do not compare "
        "with those of the published models."
        for metric in report.metrics
        if metric.name == GOLD
    )
    if report.prompts < SIMULATED_PROMPTS and len(report.rows) > 1:
        yield f"With only {report.prompts} prompts, intervals may be too narrow: {SIMULATED_PROMPTS} or more were simulated."
    if any(score.trained_on for row in report.rows for score in row.scores.values()):
        yield "† trained on this metric: not independent evidence."
    if any(score.trained_on for score in report.rows[0].scores.values()):
        yield (
            f"† at the head of a column: {report.rows[0].label} was trained on this metric, so win rates over it are not independent "
            "evidence."
        )
    if not all(metric.info.higher_is_better for metric in report.metrics):
        yield "↓ lower is better; a win is a lower score."


def _seed_notes(columns: Mapping[str, Column]) -> Iterator[str]:
    """Which cells take from others how much training seeds differ."""
    tested = {name: column for name, column in columns.items() if max(each.seeds for each in column.values()) > 1}
    for where, labels in _by_column(tested, columns, lambda interval: interval.seeds == 1):
        yield f"{', '.join(labels)}: over one training seed{where}, so that the interval takes from other rows how much seeds differ."


def _miss_notes(columns: Mapping[str, Column]) -> Iterator[str]:
    """Which intervals were seen to miss their level."""
    for kind, sentence in MISSES.items():
        for where, labels in _by_column(columns, columns, _misses(kind)):
            yield f"{sentence} ({', '.join(labels)}{where})."


def _misses(kind: Miss) -> Callable[[Interval], bool]:
    return lambda interval: interval.miss == kind


def _by_column(
    columns: Mapping[str, Column], every: Mapping[str, Column], wanted: Callable[[Interval], bool]
) -> list[tuple[str, list[str]]]:
    """Rows that have wanted cells, together with those that have them in the same columns, and in words which these are.

    Args:
        columns: the columns to look at.
        every: all columns; they are not named where all of a row's cells that are over training seeds are wanted.
        wanted: what to look for.
    """
    places: dict[str, list[str]] = {}
    for name, column in columns.items():
        for label, interval in column.items():
            if wanted(interval):
                places.setdefault(label, []).append(name)
    found: dict[str, list[str]] = {}
    for label, names in places.items():
        all_names = [name for name, column in every.items() if label in column and _seeded(column[label])]
        found.setdefault(_where(names, all_names), []).append(label)
    return list(found.items())


def _where(names: Sequence[str], every: Sequence[str]) -> str:
    """Which columns, in words; empty where it is every one."""
    return "" if set(names) == set(every) else f" in {', '.join(names)}"


def _seeded(interval: Interval) -> bool:
    return interval.seeds > 0


def _common_seed_notes(report: Report) -> Iterator[str]:
    """Which comparisons are over fewer training seeds than their row has."""
    reference = report.rows[0]
    compared = [row for row in report.rows[1:] if any(score.win_rate for score in row.scores.values())]
    if reference.seeds and (fewer := _fewer([(row, reference) for row in compared])):
        yield f"Compared with {reference_name(report)} on the training seeds that both have: {fewer}."
    known = (report.source.base, *report.source.rows)
    twins = [(row, placebo_in(known, row)) for row in report.rows[1:] if row.over_placebo is not None]
    if fewer := _fewer([(row, twin) for row, twin in twins if twin is not None]):
        yield f"Over placebo, on the training seeds that both have: {fewer}."


def _fewer(pairs: Sequence[tuple[RowRecord, RowRecord]]) -> str:
    """The trained rows of which only some seeds are compared, with these seeds."""
    common = [(row, paired_seeds(row, other)) for row, other in pairs if row.seeds]
    return "; ".join(
        f"{row.label} on {len(seeds)} of its {len(row.seeds)} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
        for row, seeds in common
        if len(seeds) < len(row.seeds)
    )


def _weights_notes(report: Report) -> Iterator[str]:
    """What was not trained here."""
    reference = report.rows[0]
    if seedless := [row.label for row in report.rows[1:] if not row.seeds]:
        several = len(reference.seeds) > 1
        over = f"prompts and the training seeds of {reference.label}" if several else "prompts only"
        yield f"{', '.join(seedless)}: not trained here, so that intervals are over {over}."
    bases = [row.label for row in report.rows if is_base(row)]
    yield from (f"{label} is the base model." for label in bases if label != BASE)


def _length_notes(report: Report) -> Iterator[str]:
    """Which placebos were trained for more or fewer steps than their runs, as with a rule to stop."""
    rows = report.source.rows
    for row, twin in [(row, placebo_in(rows, row)) for row in rows]:
        if twin is None:
            continue
        steps, others = (dict(zip(each.seeds, map(len, each.steps), strict=False)) for each in (row, twin))
        apart = [seed for seed in steps if seed in others and steps[seed] != others[seed]]
        if apart:
            each = ", ".join(f"seed {seed}: {steps[seed]} and {others[seed]}" for seed in apart)
            yield (
                f"{row.label} and its placebo were trained for different numbers of steps ({each}), so over placebo also "
                "reflects the different lengths of training."
            )
