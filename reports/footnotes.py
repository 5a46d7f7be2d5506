"""What must be known to read the tables, and what is not in them, a sentence a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports.settings import RowSettings, TrainingData
from reports.table import Report, Row, trained_rows

FEW_PROMPTS = 30
"""Below it, images that all win are no rarity: of 30 prompts, a true win rate of 90 % wins all with a chance of 4 %."""

Trained = Sequence[tuple[Row, RowSettings]]


def footnotes(report: Report) -> tuple[str, ...]:
    """All footnotes, those about the intervals first."""
    trained = trained_rows(report)
    return (
        *_interval_notes(report),
        *_seed_notes(report),
        *(f"{row.label} started from {row.init}, not from the base model." for row in report.rows if row.init),
        *_trial_notes(trained),
        *_prompt_notes(report, trained),
        *_data_notes(trained),
        *_change_notes(trained),
        *_budget_notes(trained),
        *_guidance_notes(report),
        *report.notes,
    )


def _interval_notes(report: Report) -> list[str]:
    images = report.prompts * report.images_per_prompt
    paired = f"paired with the base on the same {report.prompts} prompts and noise ({images} images a seed)"
    lines = [
        f"[ ] and ± are 95 % intervals over prompts and training seeds, {paired}.",
        "bold is better than the base beyond the interval, italic is worse.",
    ]
    if report.prompts < FEW_PROMPTS and len(report.rows) > 1:
        lines.append(
            f"{report.prompts} prompts are few: intervals may be too narrow, above all those of win rates near 0 or 100 %; where "
            "all images win, or none, they have no width."
        )
    if any(score.trained_on for row in report.rows for score in row.scores.values()):
        lines.append("† trained on this metric: its score is no independent evidence.")
    if not all(metric.info.higher_is_better for metric in report.metrics):
        lines.append("↓ lower is better; a win is a lower score.")
    return lines


def _seed_notes(report: Report) -> list[str]:
    lines = []
    if single := [row.label for row in report.rows if len(row.seeds) == 1]:
        lines.append(
            f"one training seed: {', '.join(single)}; the interval covers prompts, not how training seeds differ."
        )
    if pairs := [row.label for row in report.rows if len(row.seeds) == 2]:
        lines.append(
            f"two training seeds: {', '.join(pairs)}; such intervals are unreliable (simulated coverage down to 88 %, not 95 %). Use "
            "three seeds or more."
        )
    if seedless := [row.label for row in report.rows[1:] if not row.seeds]:
        lines.append(f"no training seed of ours: {', '.join(seedless)}; the interval covers prompts alone.")
    return lines


def _trial_notes(trained: Trained) -> list[str]:
    trials: dict[int, list[str]] = {}
    for row, settings in trained:
        if settings.limit is not None:
            trials.setdefault(settings.limit, []).append(row.label)
    return [
        f"trial (--limit {limit}): {', '.join(labels)} used the first {limit} evaluation prompts and training pairs at most."
        for limit, labels in trials.items()
    ]


def _prompt_notes(report: Report, trained: Trained) -> list[str]:
    """Which rows have seen evaluation prompts in training, one line a number."""
    rows: dict[int, list[str]] = {}
    for row, settings in trained:
        if settings.prompts_in_training:
            rows.setdefault(settings.prompts_in_training, []).append(row.label)
    return [f"{_were(labels)} trained on {count} of these {report.prompts} prompts." for count, labels in rows.items()]


def _data_notes(trained: Trained) -> list[str]:
    """What the rows were trained on, and which row on what where it is not the same."""
    known: dict[str, set[str]] = {}
    for _, settings in trained:
        known.setdefault(settings.data.digest, set()).update(filter(None, [settings.data.labels]))
    rows: dict[tuple[str, str | None], list[str]] = {}
    described: dict[tuple[str, str | None], TrainingData] = {}
    for row, settings in trained:
        data = settings.data
        # labels that were not recorded are no sign of other data where the same images have but one set of labels
        key = (data.digest, data.labels if len(known[data.digest]) > 1 else None)
        rows.setdefault(key, []).append(row.label)
        described.setdefault(key, data)
    if not rows:
        return []
    *others, most = sorted(rows, key=lambda key: len(rows[key]))
    if not others:
        return [f"every run was trained on {_by_digest(described[most])}."]
    named = _by_digest if len(known) == len(rows) else _by_labels
    parts = [f"{_were(rows[key])} trained on {named(described[key])}" for key in others]
    rest = "the others" if len(rows[most]) > 1 else rows[most][0]
    told = "; ".join([*parts, f"{rest} on {named(described[most])}"])
    return [f"not the same training data: {told}; such rows do not compare algorithms alone."]


def _by_digest(data: TrainingData) -> str:
    return f"{data.source} ({data.pairs:,} pairs, digest {data.digest})"


def _by_labels(data: TrainingData) -> str:
    return f"{data.source} ({data.pairs:,} pairs, digest {data.digest}, labels {data.labels or 'not recorded'})"


def _change_notes(trained: Trained) -> list[str]:
    """What was changed in the recipes, a line for the rows with the same changes; rows whose label says it have none."""
    rows: dict[str, list[str]] = {}
    for row, settings in trained:
        changes = ", ".join(f"{field}={value}" for field, value in settings.changed.items())
        if changes not in row.label:
            rows.setdefault(changes, []).append(row.label)
    return [f"{', '.join(labels)}: {changes}." for changes, labels in rows.items()]


def _budget_notes(trained: Trained) -> list[str]:
    budgets = [(row.label, settings.training.budget) for row, settings in trained]
    labels = [label for label, budget in budgets if budget is not None and budget.unit == "forwards"]
    return [f"a budget in forwards counts a backward as two forwards: {', '.join(labels)}."] if labels else []


def _guidance_notes(report: Report) -> list[str]:
    """How the rows are sampled that do not follow the protocol's guidance."""
    lines = []
    if any(variant.negative is None for row in report.rows for variant in row.variants):
        lines.append("a row at a guidance of its own is compared with the base at the protocol's guidance.")
    negative = [
        (row, variant, variant.negative) for row in report.rows for variant in row.variants[:1] if variant.negative
    ]
    if negative:
        lines.append(
            "A + B (alpha, beta): A sees the prompt, and base + alpha (A - base) + beta (B - base) the negative prompt, "
            "in two forward passes a step."
        )
    for row, variant, weights in negative:
        # records before version 0.2 name the weights by the hash of what was changed
        if weights.title.partition(" (")[0] == row.label.partition(" (")[0]:
            made = f"{variant.positive.title} + {row.label} ({variant.alpha:g}, {variant.beta:g})"
            lines.append(f"{row.label} is a negative, so its images are those of {made}.")
    return lines


def _were(labels: Iterable[str]) -> str:
    """Names as the subject of a sentence in the passive."""
    names = list(labels)
    return f"{', '.join(names)} {'were' if len(names) > 1 else 'was'}"
