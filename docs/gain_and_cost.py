"""What methods of several reports under one protocol gained, and what it cost: a table of docs/findings-online.md.

python docs/gain_and_cost.py docs/readme-study.json docs/online-study.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def methods(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were trained here and are not placebos, the cheapest first."""
    rows = [row for report in reports for row in report["rows"] if row["cost"] and row["placebo_of"] is None]
    return sorted(rows, key=lambda row: float(row["cost"]["flops"]))


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "|  | TFLOP | samples | reward calls | seconds | gold, difference from the base |"
    yield "| :-- | --: | --: | --: | --: | --: |"
    for row in rows:
        cost, gain = row["cost"], row["scores"]["gold"]["difference"]
        half = "" if gain["high"] is None else f" ± {gain['high'] - gain['mean']:.2f}"
        counts = (f"{cost[name]:,.0f}" for name in ("samples", "reward_calls", "seconds"))
        yield f"| {row['label']} | {cost['flops'] / 1e12:.1f} | {' | '.join(counts)} | {gain['mean']:+.2f}{half} |"


def main() -> None:
    reports = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    if len({report["signature"] for report in reports}) != 1:
        sys.exit("the reports are under different protocols; give reports of one")
    sys.stdout.write("".join(f"{line}\n" for line in lines(methods(reports))))


if __name__ == "__main__":
    main()
