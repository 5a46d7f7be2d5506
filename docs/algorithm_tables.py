"""The table of all algorithms of this distribution in docs/algorithms.md, and the page on where every published setting is from.

python docs/algorithm_tables.py prints the table; the page is made from `algorithms/sources.csv` at every build of the documentation.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench import ALGORITHMS

PACKAGE = "algorithms"
SOURCES = Path(__file__).parents[1] / PACKAGE / "sources.csv"
LOSS = "loss"
"""The field whose value is an algorithm's formula."""


def overview() -> str:
    """One row per algorithm, in the order of the registry; algorithms of other distributions are left out."""
    lines = ["| name | paper | formula | needs | status |", "| :-- " * 5 + "|"]
    for name in ALGORITHMS:
        if ALGORITHMS.point(name).module.partition(".")[0] == PACKAGE:
            algorithm = ALGORITHMS.get(name)
            info, needs = algorithm.info, ", ".join(sorted(algorithm.needs))
            lines.append(_row([f"`{name}`", info.paper, f"`{info.formula}`", needs, info.status]))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where one value is from.

    The values themselves are those of the algorithms' recipes; a test holds both equal.

    Attributes:
        algorithm: its registered name.
        recipe: key among its recipes; empty for the loss.
        field: name of the setting, or `LOSS`.
        value: what it is here, as JSON.
        paper: identifier of the paper.
        equation: number in the paper, where it was known.
        repository: owner and name on GitHub; empty, as is all that follows of the place, if no repository was opened.
        commit: SHA-1, 40 hex digits.
        file: path in the repository.
        line: where ``text`` begins, from 1.
        text: what stands there, each run of white space as one space.
        opened: ``yes`` if ``text`` was read there, ``no`` if the value is from notes.
        relation: ``as published``, ``converted`` (the note says how) or ``departs`` (the note says from what); empty if not opened.
        note: what else to know.
    """

    algorithm: str
    recipe: str
    field: str
    value: str
    paper: str
    equation: str
    repository: str
    commit: str
    file: str
    line: str
    text: str
    opened: str
    relation: str
    note: str

    @property
    def link(self) -> str:
        """Address of the line."""
        return f"https://github.com/{self.repository}/blob/{self.commit}/{self.file}#L{self.line}"


def read_sources() -> list[Source]:
    """All rows of the table."""
    with SOURCES.open(encoding="utf-8", newline="") as stream:
        return [Source(**row) for row in csv.DictReader(stream)]


def sources_page() -> str:
    """The page, with a table for each recipe."""
    rows = read_sources()
    unread = sum(row.opened == "no" for row in rows)
    lines = [
        "# Where every setting is from",
        "",
        f"{len(rows)} settings of published recipes and losses, each with the line of code it was read from. {unread} of them are marked *not opened*:",
        "they are in a paper alone, and are here from notes on its text. *As published* is the line's own value; *converted* and *departs* say how the value here",
        "follows or differs from it. Not in the table are recipes of the tiny world, those called `untried`, whose settings nobody has published or tried,",
        "and those called `summarised`, which are from notes on a publication that could not be opened.",
        "The table is `algorithms/sources.csv`.",
    ]
    for (algorithm, recipe), group in itertools.groupby(rows, key=lambda row: (row.algorithm, row.recipe)):
        found = list(group)
        if recipe == "":
            lines += ["", f"## {algorithm}", "", f"{found[0].paper}"]
        lines += ["", f"### {algorithm}, {recipe or LOSS}", "", *_table(found)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Source]) -> Iterator[str]:
    yield "| setting | here | read from | text | relation |"
    yield "| :-- " * 5 + "|"
    for row in rows:
        place = f"[{row.file}:{row.line}]({row.link})" if row.repository else "*not opened*"
        text = f"`{row.text}`" if row.text else ""
        value = json.loads(row.value)
        shown = value if isinstance(value, str) else row.value
        relation = ": ".join(part for part in (row.relation, row.note) if part)
        yield _row([f"`{row.field}`", f"`{shown}`", place, text, relation])


if __name__ == "__main__":
    sys.stdout.write(overview())
