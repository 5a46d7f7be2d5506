"""A report as one self-contained HTML page."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.citation import citation
from reports.footnotes import footnotes
from reports.plots import training_plot, win_rate_plot
from reports.published_tables import HEADING, published_grids, published_notes
from reports.table import Report
from reports.text_tables import grids, settings_grid, settings_lines


def page(report: Report) -> str:
    """The page: tables, plots and images, in one file that loads nothing from elsewhere."""
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    published = report.published
    return environment.get_template("page.html").render(
        report=report,
        grids=grids(report),
        settings=settings_lines(report),
        footnotes=(*footnotes(report), citation(report)),
        row_settings=settings_grid(report),
        published_heading=HEADING,
        published_grids=() if published is None else published_grids(report, published),
        published_notes=() if published is None else published_notes(report, published),
        win_rates=Markup(win_rate_plot(report)),  # noqa: S704  matplotlib escapes what it writes
        training=Markup(training_plot(report)),  # noqa: S704
    )
