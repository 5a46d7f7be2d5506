"""Published numbers as tables of text, in a separate section: they never share rows or marks with what was run here."""

from __future__ import annotations

from bench.records.scores import MetricRecord
from reports.content import Report
from reports.published import Published, PublishedSource, PublishedValue
from reports.text_table import DASH, Cell, TextTable

HEADING = "Published, not run here"
DOUBT = "?"
DIFFERENCES = (
    "Published protocols differ in prompts, images per prompt, and mean or median, as stated below, and in scheduler, steps "
    "and guidance, which are unknown."
)


def published_tables(report: Report, published: Published) -> tuple[TextTable, ...]:
    """Tables of published scores and win rates; empty tables are left out."""
    titles = {"score": "Published scores", "win rate": "Published win rates, %"}
    tables = []
    for kind, title in titles.items():
        sources = [source for source in published.sources if source.kind == kind]
        metrics = [metric for metric in report.metrics if any(_has(source, metric) for source in sources)]
        if sources:
            tables.append(_table(title, sources, metrics))
    return tuple(tables)


def published_notes(report: Report, published: Published) -> tuple[str, ...]:
    """Where the numbers come from and how their protocols differ from the report's."""
    if not published.sources:
        titles = ", ".join(metric.info.title for metric in report.metrics)
        carried = " and ".join(published.models)
        return (
            f"There are no published numbers for {report.model!r} with {titles}; this package has numbers for {carried}.",
        )
    lines = [
        "These numbers are as published and cannot be compared across papers or with this report.",
        f"The numbers of this report are means over all images: {report.settings}.",
        DIFFERENCES,
        *_scale_notes(report, published),
    ]
    if any(source.kind == "win rate" for source in published.sources):
        lines.append(
            "Published win rates are of the first method against the second; those of this report are against the row that its tables name."
        )
    return (*lines, *(_source_note(source) for source in published.sources), *_doubt_notes(published))


def _has(source: PublishedSource, metric: MetricRecord) -> bool:
    return any(metric.name in values for _, values in source.rows)


def _table(title: str, sources: list[PublishedSource], metrics: list[MetricRecord]) -> TextTable:
    return TextTable(
        title,
        ("source", "prompts", *(metric.info.title for metric in metrics)),
        tuple(
            (
                method,
                (
                    Cell(f"{source.paper} [{source.number}]"),
                    Cell(source.prompts),
                    *(_value(values.get(metric.name)) for metric in metrics),
                ),
            )
            for source in sources
            for method, values in source.rows
        ),
        kind=f"{sources[0].kind}s".replace(" ", "-"),
    )


def _value(value: PublishedValue | None) -> Cell:
    return DASH if value is None else Cell(f"{value.value:.{value.decimals}f}{DOUBT if value.doubt else ''}")


def _scale_notes(report: Report, published: Published) -> list[str]:
    scores = [source for source in published.sources if source.kind == "score"]
    scaled = [
        f"{metric.info.title} x {metric.info.display_factor:g}"
        for metric in report.metrics
        if metric.info.display_factor != 1 and any(_has(source, metric) for source in scores)
    ]
    lines = (
        [f"Published scores are shown in the scale of this report: raw, except {', '.join(scaled)}."] if scaled else []
    )
    return lines + [
        f"[{source.number}] prints {', '.join(source.rescaled)} in a different scale; converted here."
        for source in scores
        if source.rescaled
    ]


def _source_note(source: PublishedSource) -> str:
    note = f"; {source.note}" if source.note else ""
    return f"[{source.number}] {source.paper}, {source.place}: {source.prompts}, {source.statistic}{note}."


def _doubt_notes(published: Published) -> list[str]:
    """One line per reason, with the sources it applies to."""
    numbers: dict[str, list[int]] = {}
    for source in published.sources:
        reasons = {value.doubt for _, values in source.rows for value in values.values() if value.doubt}
        for reason in sorted(reasons):
            numbers.setdefault(reason, []).append(source.number)
    return [f"{DOUBT} in {' '.join(f'[{number}]' for number in which)}: {reason}." for reason, which in numbers.items()]
