"""The table of all algorithms of this distribution in `docs/algorithms.md`: ``python -m algorithms.overview``."""

from __future__ import annotations

from collections.abc import Iterable

from bench import ALGORITHMS


def markdown() -> str:
    """One row per algorithm, in the order of the registry; algorithms of other distributions are left out."""
    lines = ["| name | paper | formula | needs | status |", "| :-- " * 5 + "|"]
    for name in ALGORITHMS:
        if ALGORITHMS.point(name).module.partition(".")[0] == __package__:
            algorithm = ALGORITHMS.get(name)
            info, needs = algorithm.info, ", ".join(sorted(algorithm.needs))
            lines.append(_row([f"`{name}`", info.paper, f"`{info.formula}`", needs, info.status]))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201 (prints by design)
