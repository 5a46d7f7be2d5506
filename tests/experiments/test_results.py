"""What results look like in a notebook."""

from __future__ import annotations

from pathlib import Path

from bench.experiments.results import EvaluationResult, EvaluationResults, RunResult, RunResults
from bench.records.runs import Evaluation


def test_results_are_shown_by_their_folders() -> None:
    folders = [Path(f"runs/tiny/dpo/recipe/seed-{seed}") for seed in (0, 1)]
    results = [EvaluationResult(Evaluation(folder), Evaluation(Path("runs/tiny/base"))) for folder in folders]
    runs = [RunResult(folder, "dpo", "recipe", 0, result) for folder, result in zip(folders, results, strict=True)]
    shown = "runs/tiny/dpo/recipe/seed-0, runs/tiny/dpo/recipe/seed-1"
    assert repr(RunResults(runs)) == f"RunResults({shown})"
    assert repr(EvaluationResults(results)) == f"EvaluationResults({shown})"
