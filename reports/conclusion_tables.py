"""The first tables of a report: the primary endpoint, the rows against each other, and which judges agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.records.config import BASE
from reports.agreement import RULES, Agreement
from reports.conclusions import placebo_in
from reports.content import Report, Row, trained_rows
from reports.endpoint import FEWEST_ROWS, JUDGES, TOGETHER, trained_on_judges
from reports.text_table import DASH, Cell, TextTable, Verdict, plus_minus, rate_cell, verdict

WIDEST = 10
"""Number of rows up to which all pairs are shown as a table; JSON always has them."""


def is_base(row: Row) -> bool:
    """Whether a row is the base model as the protocol samples it."""
    return row.algorithm == BASE and not row.variants


def reference_name(report: Report) -> str:
    """What the rows are compared with, in a title."""
    reference = report.rows[0]
    return "the base" if is_base(reference) else reference.label


def over_reference(report: Report) -> str:
    """Heading of the column of the primary endpoint."""
    return f"over {reference_name(report).removeprefix('the ')}"


def seeds_cell(row: Row) -> Cell:
    """A row's number of training seeds."""
    return Cell(str(len(row.seeds))) if row.seeds else DASH


def conclusion_table(report: Report) -> TextTable | None:
    """The primary endpoint over the reference and over the placebo, with ranks and groups; None where nothing is compared."""
    shown = [row for row in report.rows[1:] if row.over_reference is not None or row.over_placebo is not None]
    if report.endpoint is None or not shown:
        return None
    with_placebo = any(row.over_placebo is not None for row in shown)
    ranked = [row for row in shown if row.standing is not None]
    with_ranks, with_groups = len(ranked) > 1, any(row.standing is not None and row.standing.groups for row in shown)
    columns = [over_reference(report), *(["over placebo"] if with_placebo else [])]
    columns += [*(["rank"] if with_ranks else []), *(["group"] if with_groups else [])]
    rows = []
    for row in shown:
        cells = [seeds_cell(row), rate_cell(row.over_reference)]
        cells += [rate_cell(row.over_placebo)] if with_placebo else []
        cells += _standing_cells(row)[: with_ranks + with_groups]
        rows.append((row.label, tuple(cells)))
    return TextTable(
        f"Primary endpoint, {report.endpoint.title}: win rate, %{_trial(report)}",
        ("seeds", *columns),
        tuple(rows),
        (
            *_endpoint_notes(report),
            *_placebo_notes(report, shown),
            *(_rank_notes(report, ranked) if with_ranks else ()),
        ),
        kind="primary",
    )


def _trial(report: Report) -> str:
    """What the title of the first table says of a trial, whose footnotes say what was limited."""
    limits = {report.protocol.limit, *(settings.limit for _, settings in trained_rows(report))}
    return "" if limits == {None} else " (a trial: it says nothing about the methods)"


def _standing_cells(row: Row) -> list[Cell]:
    place = row.standing
    if place is None:
        return [DASH, DASH]
    rank = Cell(str(place.rank), "" if place.best is None else f"[{place.best}, {place.worst}]")
    return [rank, Cell(place.groups) if place.groups else DASH]


def _endpoint_notes(report: Report) -> Iterator[str]:
    name = reference_name(report)
    over = over_reference(report).capitalize() if is_base(report.rows[0]) else f"Over {name}"
    line = (
        f"{over}: share of images that are better than those of {name} for the same prompt and noise; ties count half."
    )
    yield f"{line}  It says what training did, whatever the preferences were." if is_base(report.rows[0]) else line
    yield from _judge_notes(report)
    if left_out := [row.label for row in report.rows[1:] if trained_on_endpoint(report, row)]:
        yield f"Not compared by it, because they were trained on it: {', '.join(left_out)}."


def _placebo_notes(report: Report, shown: Sequence[Row]) -> Iterator[str]:
    """What the column over placebo says, and for each row that has no value there why."""
    known = (report.source.base, *report.source.rows)
    methods = [(row, placebo_in(known, row)) for row in shown if row.seeds and row.placebo_of is None and row.own]
    without = [row.label for row, twin in methods if twin is None and row.placebo != ""]
    if any(row.over_placebo is not None for row in shown):
        yield (
            "Over placebo: share of images that are better than those of the same algorithm trained on shuffled preferences, for the same "
            "prompt, noise and training seed.  It says what the preferences did: 50 % means that they did no better than shuffled ones.  It is "
            "a comparison of its own, not a difference of two win rates."
        )
    if without and is_base(report.rows[0]) and not any(twin for _, twin in methods):
        yield (
            "No row has a placebo, so a gain may come from training on these images at all, whatever the preferences; with --placebo, "
            "bench run also trains each run's twin on shuffled labels or scores."
        )
    elif without and any(twin for _, twin in methods):
        yield f"No placebo in this table, so the effect of the preferences is unknown: {', '.join(without)}."
    if useless := [row.label for row, twin in methods if twin is None and row.placebo == ""]:
        yield f"Without a placebo, because they read nothing that could be shuffled: {', '.join(useless)}."
    if apart := [row.label for row, twin in methods if twin is not None and not {*row.seeds} & {*twin.seeds}]:
        yield f"No training seed in common with the placebo, so not compared with it: {', '.join(apart)}."


def _rank_notes(report: Report, ranked: Sequence[Row]) -> Iterator[str]:
    tested = [row for row in ranked if row.standing is not None and row.standing.groups]
    common = ", on the training seeds that two rows have in common" if _differ_in_seeds(ranked) else ""
    excluded = "; in brackets, the ranks that were not excluded (Holm over all pairs, 5 %)" if tested else ""
    name = reference_name(report)
    placebos = any(row.placebo_of is not None for row in report.rows[1:])
    none = f"{name} and placebos have none" if placebos else f"{name} itself has none"
    yield f"Rank: by {over_reference(report)} (1 is best){common}{excluded}; {none}."
    if any(row.over_placebo is not None for row in ranked):
        yield "Over placebo is neither ranked nor compared between rows, each of which has its own placebo."
    if tested:
        yield (
            f"Group: rows without a common letter differ in win rate {over_reference(report)} (paired differences, Holm over all pairs, 5 %); a "
            "common letter does not show that two rows are equal."
        )
        if sum(pair.difference.adjusted is not None for pair in report.pairs) < len(tested) * (len(tested) - 1) / 2:
            yield "Two rows that could not be tested, with no common training seed or no variation, may share a letter too."
        if alone := [row.label for row in ranked if row not in tested]:
            yield f"Ranked without a rank interval, because no comparison could be tested: {', '.join(alone)}."
    else:
        yield f"No rank is tested, because {_why_untested(report)}."
    if len(ranked) > WIDEST:
        yield f"Differences of all pairs of these {len(ranked)} rows are in JSON; tables show those of up to {WIDEST} rows."


def _differ_in_seeds(rows: Iterable[Row]) -> bool:
    """Whether rows have different training seeds; weights that were not trained here have none."""
    return len({row.seeds for row in rows if row.seeds}) > 1


def _why_untested(report: Report) -> str:
    """Why no pair of rows was tested."""
    if any(pair.difference.seeds != 1 for pair in report.pairs):
        return "what differs between two rows is the same for all prompts and seeds"
    return "no two rows have two training seeds in common"


def _judge_notes(report: Report) -> list[str]:
    """Which metrics the mean of the held-out judges is over, and which it leaves out."""
    if report.endpoint is None or report.endpoint.name != JUDGES:
        return []
    used = {name for group in report.endpoint.witnesses for name in group}
    held = ", ".join(metric.info.title for metric in report.metrics if metric.name in used)
    left = trained_on_judges(report.metrics, (report.source.base, *report.source.rows))
    line = f"Held-out judges, the same for all rows: {held}."
    return [f"{line}  Left out, since a row was trained on it: {left}." if left else line]


def trained_on_endpoint(report: Report, row: Row) -> bool:
    """Whether a row was trained on the metric of the primary endpoint."""
    score = None if report.endpoint is None else row.scores.get(report.endpoint.name)
    return score is not None and score.trained_on


def pairs_table(report: Report) -> TextTable | None:
    """Differences of all pairs of rows by the primary endpoint, in points; None for fewer than two rows or more than `WIDEST`."""
    places = [place for place, row in enumerate(report.rows) if row.standing is not None]
    if not report.pairs or len(places) > WIDEST:
        return None
    cells: dict[tuple[int, int], Cell] = {}
    for pair in report.pairs:
        change, shown = pair.difference, verdict(pair.difference, 0.0)
        half = plus_minus(change, 1, 100)
        opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}.get(shown, shown)
        cells[pair.one, pair.other] = Cell(f"{100 * change.mean:+z.1f}", half, shown)
        cells[pair.other, pair.one] = Cell(f"{-100 * change.mean:+z.1f}", half, opposite)
    labels = [report.rows[place].label for place in places]
    rows = tuple(
        (label, tuple(cells.get((place, other), DASH) for other in places))
        for label, place in zip(labels, places, strict=True)
    )
    tested = any(pair.difference.adjusted is not None for pair in report.pairs)
    note = (
        f"Win rate over {reference_name(report)} of the row minus that of the column, by the primary endpoint, paired by prompt, noise "
        "and training seed.  "
    )
    if _differ_in_seeds(report.rows[place] for place in places):
        note += "Only training seeds that both have count, so it may be another number than the difference of the win rates above.  "
    note += (
        "Bold or italic: better or worse than the column after Holm's adjustment over all pairs."
        if tested
        else f"Nothing is marked: {_why_untested(report)}."
    )
    other = (
        f"It compares how often each wins over {reference_name(report)}, not how often one wins over the other, which --against ROW "
        "shows; the two can disagree."
    )
    return TextTable("Row minus column, points of win rate", tuple(labels), rows, (note, other), kind="pairs")


def correlation_table(report: Report) -> TextTable | None:
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
    counts = [each.rows for each in report.endpoint.correlations]
    few = min(counts) < FEWEST_ROWS
    compared = (
        f"{min(counts)} rows"
        if min(counts) == max(counts)
        else f"{min(counts)} to {max(counts)} rows, those that have both metrics"
    )
    notes = [
        (
            "Spearman's correlation of the rows' win rates, placebos included: near 1, two metrics rank the rows alike, and a win by both is "
            f"hardly more evidence than a win by one.  {compared}: {'a hint at most' if few else 'each value is rough'}."
        )
    ]
    if report.endpoint.name == JUDGES:
        notes.append(
            f"From {FEWEST_ROWS} rows on, those at {TOGETHER:.2f} or more count as one metric in the mean over judges."
        )
    notes += [f"Counted as one metric: {', '.join(names[name] for name in group)}." for group in together]
    return TextTable("Do the metrics rank the rows alike?", tuple(titles), rows, tuple(notes), kind="correlations")


def agreement_table(report: Report) -> TextTable | None:
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
    return TextTable("Agreement of metrics with people's votes, %", columns, rows, tuple(notes), kind="agreement")


def _rule_notes(found: Sequence[Agreement]) -> list[str]:
    """How the metrics' papers count ties, one line per rule."""
    rules = dict.fromkeys(each.ties for each in found)
    titles = {rule: ", ".join(each.title for each in found if each.ties == rule) for rule in rules}
    return [f"As its paper counts, {titles[rule]}: {RULES[rule]}." for rule in rules]
