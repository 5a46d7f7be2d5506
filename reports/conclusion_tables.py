"""The first tables of a report: the primary endpoint, the rows against each other, and which judges agree."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.config import BASE
from reports.agreement import RULES, Agreement
from reports.endpoint import JUDGES, trained_on_judges
from reports.grids import DASH, Cell, Grid, Verdict, rate_cell, verdict
from reports.table import Report, Row

WIDEST = 10
"""Number of rows up to which all pairs are shown as a table; JSON always has them."""


def reference_name(report: Report) -> str:
    """What the rows are compared with, in a title."""
    reference = report.rows[0]
    return "the base" if reference.algorithm == BASE else reference.label


def seeds_cell(row: Row) -> Cell:
    """A row's number of training seeds."""
    return Cell(str(len(row.seeds))) if row.seeds else DASH


def conclusion_grid(report: Report) -> Grid | None:
    """The primary endpoint over the reference and over the placebo, with ranks and groups; None where nothing is compared."""
    shown = [row for row in report.rows[1:] if row.over_reference is not None]
    if report.endpoint is None or not shown:
        return None
    with_placebo = any(row.over_placebo is not None for row in shown)
    with_ranks = sum(row.standing is not None for row in shown) > 1
    name = reference_name(report)
    columns = [f"over {name.removeprefix('the ')}"]
    columns += ["over placebo"] if with_placebo else []
    columns += ["rank", "group"] if with_ranks else []
    rows = []
    for row in shown:
        cells = [seeds_cell(row), rate_cell(row.over_reference)]
        cells += [rate_cell(row.over_placebo)] if with_placebo else []
        cells += _standing_cells(row) if with_ranks else []
        rows.append((row.label, tuple(cells)))
    return Grid(
        f"Primary endpoint, {report.endpoint.title}: win rate, %",
        ("seeds", *columns),
        tuple(rows),
        tuple(_conclusion_notes(report, shown, with_placebo=with_placebo, with_ranks=with_ranks)),
    )


def _standing_cells(row: Row) -> list[Cell]:
    if row.standing is None:
        return [DASH, DASH]
    place = row.standing
    return [Cell(str(place.rank), f"[{place.best}, {place.worst}]"), Cell(place.groups)]


def _conclusion_notes(report: Report, shown: list[Row], *, with_placebo: bool, with_ranks: bool) -> list[str]:
    name = reference_name(report)
    over = (
        f"Over {name.removeprefix('the ')}: share of images that are better than those of {name} for the same prompt and noise; ties "
        "count half."
    )
    based = report.rows[0].algorithm == BASE
    lines = [f"{over}  It says what training did, whatever the preferences were." if based else over]
    lines += _judge_notes(report)
    if with_placebo:
        lines.append(
            "Over placebo: share of images that are better than those of the same algorithm trained with shuffled labels, for the same "
            "prompt, noise and training seed.  It says what the preferences did; at 50, no more than shuffled ones."
        )
    elif based and any(row.seeds for row in shown):
        lines.append(
            "No row has a placebo, so a gain may come from training on these images at all, whatever the preferences; with --placebo, "
            "bench run also trains each run's twin on shuffled labels."
        )
    lines += _without_placebo(shown) if with_placebo else []
    if left_out := [row.label for row in report.rows[1:] if _trained_on_endpoint(report, row)]:
        lines.append(f"Not compared by it, because they were trained on it: {', '.join(left_out)}.")
    if with_ranks:
        without = (
            f"{name} and placebos have" if any(row.placebo_of is not None for row in shown) else f"{name} itself has"
        )
        lines.append(
            f"Rank: by the first column, 1 is best, and below it the ranks that cannot be excluded; {without} none.  Group: rows that "
            "share a letter cannot be told apart, which does not show that they are equal (paired differences, Holm over all pairs, 5 %)."
        )
    return lines


def _judge_notes(report: Report) -> list[str]:
    """Which metrics the mean of the held-out judges is over, and which it leaves out."""
    if report.endpoint is None or report.endpoint.name != JUDGES:
        return []
    used = {name for group in report.endpoint.witnesses for name in group}
    held = ", ".join(metric.info.title for metric in report.metrics if metric.name in used)
    left = trained_on_judges(report.metrics, (report.source.base, *report.source.rows))
    line = f"Held-out judges, the same for all rows: {held}."
    return [f"{line}  Left out, since a row was trained on it: {left}." if left else line]


def _trained_on_endpoint(report: Report, row: Row) -> bool:
    score = None if report.endpoint is None else row.scores.get(report.endpoint.name)
    return score is not None and score.trained_on


def _without_placebo(shown: list[Row]) -> list[str]:
    labels = [row.label for row in shown if row.placebo == ""]
    return [f"Without a placebo, because they use no preferences: {', '.join(labels)}."] if labels else []


def pairs_grid(report: Report) -> Grid | None:
    """Differences of all pairs of rows by the primary endpoint, in points; None for fewer than two rows or more than `WIDEST`."""
    places = [place for place, row in enumerate(report.rows) if row.standing is not None]
    if not report.pairs or len(places) > WIDEST:
        return None
    cells: dict[tuple[int, int], Cell] = {}
    for pair in report.pairs:
        change, shown = pair.difference, verdict(pair.difference, 0.0)
        half = 50 * (change.high - change.low)
        opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}.get(shown, shown)
        cells[pair.one, pair.other] = Cell(f"{100 * change.mean:+z.1f}", f"± {half:.1f}", shown)
        cells[pair.other, pair.one] = Cell(f"{-100 * change.mean:+z.1f}", f"± {half:.1f}", opposite)
    labels = [report.rows[place].label for place in places]
    rows = tuple(
        (label, tuple(cells.get((place, other), DASH) for other in places))
        for label, place in zip(labels, places, strict=True)
    )
    note = (
        f"Win rate over {reference_name(report)} of the row less that of the column, by the primary endpoint, paired by prompt, noise "
        "and training seed.  Bold or italic: better or worse than the column after Holm's adjustment over all pairs."
    )
    return Grid("Row less column, points of win rate", tuple(labels), rows, (note,))


def correlation_grid(report: Report) -> Grid | None:
    """Rank correlations between metrics over the rows; None where there are too few rows or metrics."""
    if report.endpoint is None or not report.endpoint.correlations:
        return None
    titles = [metric.info.title for metric in report.metrics]
    values = {(each.one, each.other): each.value for each in report.endpoint.correlations}
    values |= {(other, one): value for (one, other), value in values.items()}
    rows = tuple(
        (one, tuple(Cell(f"{values[one, other]:+.2f}") if one != other else DASH for other in titles)) for one in titles
    )
    together = [group for group in report.endpoint.witnesses if len(group) > 1]
    names = {metric.name: metric.info.title for metric in report.metrics}
    notes = [
        (
            "Spearman's correlation of the rows' win rates: near 1, two metrics rank the rows alike, so that both are better says no more than "
            "that one is.  From 8 rows on, those at 0.90 or more count as one in the mean over judges."
        )
    ]
    notes += [f"Counted as one witness: {', '.join(names[name] for name in group)}." for group in together]
    return Grid("Do the metrics rank the rows alike?", tuple(titles), rows, tuple(notes))


def agreement_grid(report: Report) -> Grid | None:
    """How often each metric agrees with people's votes; None where that was not asked for."""
    found = report.agreements
    if not found:
        return None
    rows = tuple(
        (each.title, (rate_cell(each.own), rate_cell(each.decided), Cell(f"{each.equal:,}"))) for each in found
    )
    first = found[0]
    data = (
        f"Votes of people on {first.pairs:,} pairs of {first.source} ({first.prompts:,} captions, {first.tied:,} pairs called a tie, data "
        f"{first.data}, votes {first.labels}); 95 % intervals over captions.  50 without ties is chance."
    )
    notes = [
        data,
        "Without ties: pairs that people do not call a tie, equal scores counting half; the same for all metrics.",
        *_rule_notes(found),
        "It is not known here whether a metric was trained on these pairs; if it was, it agrees more often than with other people.",
    ]
    columns = ("as its paper counts", "without ties", "equal scores")
    return Grid("Agreement of metrics with people's votes, %", columns, rows, tuple(notes))


def _rule_notes(found: Sequence[Agreement]) -> list[str]:
    """How the metrics' papers count ties, one line per rule."""
    rules = dict.fromkeys(each.ties for each in found)
    titles = {rule: ", ".join(each.title for each in found if each.ties == rule) for rule in rules}
    return [f"As its paper counts, {titles[rule]}: {RULES[rule]}." for rule in rules]
