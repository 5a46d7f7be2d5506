"""Footnotes: what a reader must know about the tables, and what is missing from them; one sentence per line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.records.config import RECIPE, UNRECORDED
from reports.conclusion_tables import reference_name
from reports.content import Report, Row, trained_rows
from reports.interval_notes import interval_notes
from reports.overoptimisation import gains_in_words
from reports.settings import RowSettings, TrainingData

Trained = Sequence[tuple[Row, RowSettings]]


def footnotes(report: Report) -> tuple[str, ...]:
    """All footnotes, those about the intervals first."""
    trained = trained_rows(report)
    return (
        *interval_notes(report),
        *_init_notes(report),
        *_trial_notes(report, trained),
        *_prompt_notes(report, trained),
        *_data_notes(trained),
        *_code_notes(report, trained),
        *_recipe_notes(trained),
        *_change_notes(trained),
        *_budget_notes(trained),
        *_guidance_notes(report),
        *_panel_notes(report),
        *report.notes,
    )


def _init_notes(report: Report) -> list[str]:
    """Which rows started from other weights than the base model's, one line per place of such weights."""
    trained = [row for row in report.rows if row.settings is not None]
    rows: dict[str, list[str]] = {}
    for row in trained:
        if row.init:
            rows.setdefault(row.init, []).append(row.label)
    return [
        f"{'Every run' if len(trained) == len(labels) > 1 else ', '.join(labels)} started from {init}, not from the base model."
        for init, labels in rows.items()
    ]


def _trial_notes(report: Report, trained: Trained) -> list[str]:
    """What was limited: the evaluation prompts by the protocol, and the training of each row; older protocols do not say so."""
    limit = report.protocol.limit
    limits = {settings.limit for _, settings in trained}
    if limit is not None and limits == {limit}:
        return [f"Trial (--limit {limit}): at most the first {limit} evaluation prompts and training pairs were used."]
    lines = (
        [] if limit is None else [f"Trial (--limit {limit}): at most the first {limit} evaluation prompts were used."]
    )
    for each in sorted(limits - {None}, key=lambda each: each or 0):
        labels = ", ".join(row.label for row, settings in trained if settings.limit == each)
        unsaid = limit is None and each is not None and report.prompts <= each
        used = "evaluation prompts and training pairs" if unsaid else "training pairs"
        lines.append(f"Trial (--limit {each}): at most the first {each} {used} were used ({labels}).")
    return lines


def _prompt_notes(report: Report, trained: Trained) -> list[str]:
    """Which rows saw evaluation prompts in training, one line per number of prompts."""
    rows: dict[int, list[str]] = {}
    for row, settings in trained:
        if settings.prompts_in_training:
            rows.setdefault(settings.prompts_in_training, []).append(row.label)
    return [f"{_were(labels)} trained on {count} of these {report.prompts} prompts." for count, labels in rows.items()]


def _data_notes(trained: Trained) -> list[str]:
    """What the rows were trained on, row by row if the data differ."""
    known: dict[str, set[str]] = {}
    for _, settings in trained:
        labels = settings.data.labels if settings.data.labels_count else None
        known.setdefault(settings.data.digest, set()).update(filter(None, [labels]))
    rows: dict[tuple[str, str | None, int | None, bool, bool], list[str]] = {}
    described: dict[tuple[str, str | None, int | None, bool, bool], TrainingData] = {}
    for row, settings in trained:
        data = settings.data
        # unrecorded labels do not indicate different data if only one set of labels is known for the same images
        differ = len(known[data.digest]) > 1 and data.labels_count
        key = (data.digest, data.labels if differ else None, data.rounds, data.sampled, data.fits_judge)
        rows.setdefault(key, []).append(row.label)
        described.setdefault(key, data)
    if not rows:
        return []
    *others, most = sorted(rows, key=lambda key: len(rows[key]))
    if not others:
        return [f"Every run was trained on {_by_digest(described[most])}."]
    named = _by_labels if any(len(labels) > 1 for labels in known.values()) else _by_digest
    parts = [f"{_were(rows[key])} trained on {named(described[key])}" for key in others]
    rest = "the others" if len(rows[most]) > 1 else rows[most][0]
    listed = "; ".join([*parts, f"{rest} on {named(described[most])}"])
    return [f"Training data differ: {listed}; differences between such rows are not due to the algorithms alone."]


def _by_digest(data: TrainingData) -> str:
    return _described(data, f"{data.pairs:,} pairs, digest {data.digest}")


def _by_labels(data: TrainingData) -> str:
    return _described(data, f"{data.pairs:,} pairs, digest {data.digest}, labels {data.labels or 'not recorded'}")


def _described(data: TrainingData, pairs: str) -> str:
    """What a row was trained on; ``pairs`` identifies the data's pairs, for rows that read them."""
    if not data.own_pictures:
        return f"{data.source} ({pairs})"
    times = "" if data.rounds is None else f", in {data.rounds} round{'s' if data.rounds > 1 else ''},"
    own = f"images that the run sampled{times} for captions of {data.source}"
    return (
        f"{own} ({pairs}), chosen by reward models fitted to its pairs"
        if data.fits_judge
        else f"{own} (digest {data.digest})"
    )


def _code_notes(report: Report, trained: Trained) -> list[str]:
    """Rows and seeds that were trained by different code, and what older records do not say."""
    lines = _harness_notes(trained)
    for row, settings in trained:
        if len(set(settings.code)) > 1:
            by = ", ".join(f"seed {seed} by {code}" for seed, code in zip(row.seeds, settings.code, strict=True))
            lines.append(
                f"{row.label}: different code trained its seeds ({by}); --same-code declared that it gives the same results."
            )
    if labels := [row.label for row, settings in trained if UNRECORDED in settings.code]:
        lines.append(
            f"{', '.join(labels)}: an older version trained {'them' if len(labels) > 1 else 'it'} and did not record its code and "
            "the model's files, so it is not known whether those were the same for all seeds and rows."
        )
    if report.protocol.code is None:
        lines.append(
            "An older version made the images and did not record its code and the model's files, so it is not known whether those "
            "were the same for all rows."
        )
    return lines


def _harness_notes(trained: Trained) -> list[str]:
    """Which rows were trained by which harness, if there were several."""
    # Training in rounds uses more of the harness, so its rows are compared with each other alone.
    kinds = [[each for each in trained if (each[1].data.rounds is None) == single] for single in (True, False)]
    return [note for rows in kinds for note in _harness_note(rows)]


def _harness_note(trained: Trained) -> list[str]:
    rows: dict[str, list[str]] = {}
    for row, settings in trained:
        for harness in sorted(set(settings.harness) - {UNRECORDED}):
            rows.setdefault(harness, []).append(row.label)
    if len(rows) < 2:
        return []
    parts = [f"{', '.join(labels)} by {harness}" for harness, labels in rows.items()]
    sentence = f"Different versions of the harness or of its libraries trained the rows: {'; '.join(parts)}"
    return [f"{sentence}; differences between such rows are not due to the algorithms alone."]


def _recipe_notes(trained: Trained) -> list[str]:
    """What the label of a row with unchanged settings means; a recipe borrowed from another model has that model's name before it."""
    names = sorted({row.own_name for row, _ in trained if f"-{row.own_name}".endswith(f"-{RECIPE}")}, key=len)
    return [
        f"{name}: the settings that bench has for an algorithm and {name.removesuffix(f'-{RECIPE}') if name != RECIPE else 'this model'}, "
        "unchanged; bench list algorithms NAME says where they come from."
        for name in names
    ]


def _change_notes(trained: Trained) -> list[str]:
    """Changes to the recipes, one line for all rows with the same changes; rows whose label states them have none."""
    rows: dict[str, list[str]] = {}
    for row, settings in trained:
        changes = ", ".join(f"{field}={value}" for field, value in settings.changed.items())
        if changes not in row.label:
            rows.setdefault(changes, []).append(row.label)
    return [f"{', '.join(labels)}: {changes}." for changes, labels in rows.items()]


def _budget_notes(trained: Trained) -> list[str]:
    budgets = [(row.label, settings.training.budget) for row, settings in trained]
    labels = [label for label, budget in budgets if budget is not None and budget.unit == "forwards"]
    return [f"A budget in forwards counts a backward as two forwards ({', '.join(labels)})."] if labels else []


def _guidance_notes(report: Report) -> list[str]:
    """How rows are sampled that do not use the protocol's guidance."""
    lines = []
    reference = report.rows[0]
    if reference.variants:
        lines.append(
            f"{reference.label} was sampled in another way than by the protocol, and all rows are compared with that."
        )
    elif any(variant.negative is None for row in report.rows for variant in row.variants):
        lines.append(
            f"Rows with a different guidance scale are compared with {reference_name(report)} at the protocol's scale."
        )
    negative = [
        (row, variant, variant.negative) for row in report.rows for variant in row.variants[:1] if variant.negative
    ]
    if negative:
        lines.append(
            "A + B (alpha, beta): the conditional branch of guidance uses the weights A, the unconditional branch base + alpha (A - base) "
            "+ beta (B - base), in two forward passes per step."
        )
    for row, variant, weights in negative:
        # records before version 0.2 name the weights by the hash of what was changed
        if weights.title.partition(" (")[0] == row.label.partition(" (")[0]:
            made = f"{variant.positive.title} + {row.label} ({variant.alpha:g}, {variant.beta:g})"
            lines.append(
                f"{row.label} trains weights for the unconditional branch of guidance, so its images are those of {made}."
            )
    return lines


def _panel_notes(report: Report) -> list[str]:
    """What images of training prompts say about over-optimisation, one line per run."""
    panels = [(row, row.panel) for row in report.rows if row.panel is not None]
    if not panels:
        return []
    made: dict[str, list[str]] = {}
    for row, panel in panels:
        made.setdefault(f"{panel.prompted} with {panel.images_per_prompt} images each", []).append(row.label)
    where = next(iter(made)) if len(made) == 1 else "; ".join(f"{on} ({', '.join(rows)})" for on, rows in made.items())
    lines = [
        f"diversity: mean distance between images of one prompt; its change over the training with a 95 % interval, on {where}."
    ]
    for row, panel in panels:
        for seed, finding in zip(row.seeds, panel.findings, strict=True):
            on = "captions held out from training" if panel.held_out else "training prompts"
            lines.append(f"{row.label}, seed {seed}, on {on}: {finding}.")
        lines += [f"{row.label}: {each}." for each in gains_in_words(panel)]
    return lines


def _were(labels: Iterable[str]) -> str:
    """Names followed by was or were."""
    names = list(labels)
    return f"{', '.join(names)} {'were' if len(names) > 1 else 'was'}"
