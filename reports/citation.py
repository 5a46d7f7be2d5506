"""The line that identifies a table, to print below it in a paper."""

from __future__ import annotations

from importlib.metadata import version

from bench.core.registry import DISTRIBUTION
from reports.conclusion_tables import reference_name
from reports.content import Report


def citation(report: Report) -> str:
    """Version, protocol, base model, prompts, sampler, metrics with their signatures, and how intervals are computed.

    The signatures are hashes of everything that determines a score, so two tables whose lines are equal (except the version)
    hold comparable numbers.
    """
    made = report.protocol.generation
    parts = (
        f"bench {version(DISTRIBUTION)}",
        f"protocol {report.signature}",
        f"{report.model}@{report.protocol.base_weights[:12]}",
        f"{report.prompts} prompts x {report.images_per_prompt}",
        f"{made.scheduler}-{made.steps}, guidance {made.guidance_scale:g}",
        ", ".join(f"{metric.info.title} {metric.signature}" for metric in report.metrics),
        f"{reference_name(report).removeprefix('the ').replace(' ', '-')}-paired 95 % intervals",
    )
    return " | ".join(parts)
