"""The picture of README.md that shows the same prompts under several algorithms, from run folders.

python docs/comparison.py runs docs/comparison.png
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bench.core.errors import UserError
from bench.core.files import replace_file
from reports.content import Report
from reports.pictures import compare, open_picture
from reports.report import make_report


def comparison_sheet(report: Report, path: Path, *, prompts: int = 8) -> None:
    """Write a PNG grid of pictures: a row for each prompt, a column for each model.

    Args:
        report: of the runs whose pictures are shown.
        path: the PNG file.
        prompts: how many of the report's prompts, chosen evenly.

    Raises:
        UserError: an image of the runs is missing.
    """
    names, compared = [row.label for row in report.rows], compare(report.source, report.places).prompts
    chosen = np.unique(np.linspace(0, len(compared) - 1, min(prompts, len(compared))).round().astype(int)).tolist()
    side, left, top, gap = 1.0, 1.6, 0.35, 0.05  # inches
    width, height = left + len(names) * (side + gap), top + len(chosen) * (side + gap)
    with mpl.rc_context({"font.size": 8, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=128)
        for line, index in enumerate(chosen):
            bottom = height - top - (line + 1) * (side + gap) + gap
            caption = textwrap.fill(compared[index].prompt, 24, max_lines=6, placeholder=" ...")
            figure.text((left - 0.1) / width, (bottom + side / 2) / height, caption, ha="right", va="center")
            for column, (name, picture) in enumerate(zip(names, compared[index].pictures, strict=True)):
                if picture is None:
                    raise UserError(f"images of {name} are missing; copy the images of its run folder too")
                place = ((left + column * (side + gap)) / width, bottom / height, side / width, side / height)
                axes = figure.add_axes(place)
                axes.imshow(open_picture(picture), interpolation="lanczos")
                axes.set_axis_off()
                if line == 0:
                    axes.set_title(textwrap.fill(name, 16), fontsize=8)
        replace_file(path, lambda partial: figure.savefig(partial, format="png", metadata={"Software": None}))


if __name__ == "__main__":
    comparison_sheet(make_report(Path(sys.argv[1])), Path(sys.argv[2]))
