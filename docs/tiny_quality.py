"""How good the judges of the tiny world are: a table of docs/tiny-world.md, from what ``python -m bench.tiny.quality --output FILE`` wrote.

python docs/tiny_quality.py docs/tiny-quality.json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

JUDGES = {"pickscore": "PickScore", "hpsv2": "HPSv2.1", "imagereward": "ImageReward", "aesthetic": "Aesthetic"}
PREFERS = re.compile(r"prefers the right (\w+) \((\d+) pairs\)")
LEAST = 30
"""Pairs below which a share says nothing."""


def lines(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A table in Markdown."""
    named = {name: PREFERS.fullmatch(name) for name in figures["pickscore"]}
    shown = {name: match for name, match in named.items() if match and int(match[2]) >= LEAST}
    heads = [f"prefers the right {match[1]}, % of {match[2]} pairs" for match in shown.values()]
    heads = [
        "agrees with gold, % of pairs",
        "correlation with gold",
        "share of the best image's gain",
        *heads,
        "held-out votes predicted, %",
    ]
    yield f"| judge | {' | '.join(heads)} |"
    yield f"| :-- |{' --: |' * len(heads)}"
    for name, title in JUDGES.items():
        judge = figures[name]
        cells = [
            f"{100 * judge['agreement with gold']:.1f}",
            f"{judge['correlation with gold']:.2f}",
            f"{judge['share of the gold that the best gains']:.2f}",
            *(f"{100 * judge[column]:.0f}" for column in shown),
            f"{100 * judge['accuracy on held-out votes']:.1f}",
        ]
        yield f"| {title} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in lines(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
