"""Whether every text of `algorithms/sources.csv` stands where the table says; run by hand, on clones of the repositories.

    python tests/algorithms/check_sources.py FOLDER

FOLDER holds a git clone of each repository as OWNER/NAME, bare or not.  Nothing is fetched.
"""

from __future__ import annotations

import functools
import runpy
import subprocess
import sys
from pathlib import Path

ROWS = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "algorithm_tables.py"))["read_sources"]()
LONGEST = 14
"""Lines that a text may span."""


@functools.cache
def lines_of(clone: Path, commit: str, file: str) -> list[str]:
    shown = subprocess.run(["git", "-C", str(clone), "show", f"{commit}:{file}"], capture_output=True, check=True)
    return shown.stdout.decode().splitlines()


def main() -> None:
    folder, checked, wrong = Path(sys.argv[1]), 0, []
    for row in ROWS:
        if not row.repository:
            continue
        start = int(row.line) - 1
        lines = lines_of(folder / row.repository, row.commit, row.file)[start : start + LONGEST]
        checked += 1
        if row.text not in " ".join(" ".join(lines).split()) or row.text in " ".join(" ".join(lines[1:]).split()):
            wrong.append(f"{row.algorithm}, {row.recipe}, {row.field}: {row.file}:{row.line} is not {row.text!r}")
    sys.stdout.write("\n".join([*wrong, f"{checked - len(wrong)} of {checked} rows stand where the table says"]) + "\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
