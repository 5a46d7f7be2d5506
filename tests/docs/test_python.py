"""The page on the Python interface, run top to bottom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pages import DOCS, blocks

CHECKS = """
METRICS, PROMPTS = 2, 4
assert [(run.algorithm, run.seed) for run in results] == [("dpo", 0), ("dpo", 1), ("sft", 0), ("sft", 1)]
assert len(scores) == 4 * METRICS * PROMPTS
assert scores.groupby(["metric", "prompt"])["base_score"].nunique().eq(1).all()
assert len(results[0].training_log()) == 4
assert len(guided.to_pandas()) == 2 * METRICS * PROMPTS
labels = set(table["label"])
assert len(labels) == 5, labels  # the base, two algorithms, and the base at two scales
assert [run.name for run in pair] == ["mine", "mine-placebo"]
assert gold["win_rate"].between(0, 1).all()
"""


def test_the_page_runs(tmp_path: Path) -> None:
    code = "\n".join(blocks(DOCS / "python.md", "python")) + CHECKS
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unknown algorithm 'dpoo': did you mean 'dpo'" in done.stdout
    assert sorted(path.name for path in (tmp_path / "runs" / "tiny").iterdir()) == ["base", "dpo", "sft"]
