"""The summary of a scored folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from bench.core.terminal import table_terminal
from bench.records.scores import FolderScores, MetricScores
from bench.records.titles import distinct_titles
from reports.clusters import clustered_interval

SHOWN = 20
"""Maximum number of unreadable images to list; the table on disk lists all."""


def show_scores(scores: FolderScores, output: Path) -> None:
    """Print one line per metric, and the images that could not be read."""
    console = table_terminal()
    prompts = [picture.prompt for picture in scores.pictures]
    distinct = len(set(prompts))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("metric", "shown as", "mean", "95 % interval", "images", "signature"):
        table.add_column(column, justify="right" if column in ("mean", "images") else "left", no_wrap=True)
    titles = distinct_titles({metric.name: metric.info.title for metric in scores.metrics})
    for metric in scores.metrics:
        table.add_row(*map(escape, (titles[metric.name], *summary(metric, prompts))))
    console.print(table)
    unit = f"{distinct} prompts" if distinct > 1 else f"{len(prompts)} images of one prompt"
    lines = [f"Intervals are over {unit}.", f"Raw scores with signatures and identities: {output}"]
    if scores.unreadable:
        lines.append(f"{len(scores.unreadable)} images could not be read and have no score:")
        lines += [f"  {file}: {reason}" for file, reason in list(scores.unreadable.items())[:SHOWN]]
        if len(scores.unreadable) > SHOWN:
            lines.append(f"  and {len(scores.unreadable) - SHOWN} more, in the table")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary(metric: MetricScores, prompts: list[str]) -> tuple[str, ...]:
    """A metric's line after its title: scale, mean, interval, number of images, signature.

    Images of the same prompt are not independent, so the interval is over prompts; with a single prompt, over its images.
    """
    factor = metric.info.display_factor
    values = np.asarray(metric.scores, dtype=np.float64) * factor
    clusters = prompts if len(set(prompts)) > 1 else list(map(str, range(len(prompts))))
    ends = clustered_interval(values, clusters).ends if len(clusters) > 1 else None
    interval = "-" if ends is None else f"[{ends[0]:.4g}, {ends[1]:.4g}]"
    scale = metric.info.unit if factor == 1 else f"{metric.info.unit} x {factor:g}"
    return scale, f"{values.mean():.4g}", interval, str(len(values)), metric.signature
