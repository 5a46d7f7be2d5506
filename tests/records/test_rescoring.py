"""``bench rescore``: stored images are scored again by today's metrics, and the old scores stay beside the new ones."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import forked
import pytest
from PIL import Image

from bench.core.files import keep_lines
from bench.records.evaluations import Evaluation
from bench.records.runs import RunFolder, find_runs
from bench.tiny import ASSETS

Small = Any
"""`conftest.Small`, which is in no package."""
FOLDERS = Path(__file__).parent / "folders"


def age(evaluation: Evaluation, name: str, *, seal: bool = True) -> str:
    """Make the scores of a metric those of an older version, one higher than they were; returns their signature."""
    metrics, protocol = dict(evaluation.metrics()), evaluation.protocol()
    identity = {**metrics[name].identity, "version": "older"}
    signature = protocol.metric_signature(name, identity)
    lines = [
        {**line, "score": line["score"] + 1, "signature": signature} if line["metric"] == name else line
        for line in evaluation.all_scores()
    ]
    metrics[name] = type(metrics[name])(name, signature, identity, metrics[name].info)
    keep_lines(evaluation.scores, lines)
    evaluation.write_metrics(metrics)
    if seal:
        evaluation.finish()
    return signature


def outcomes(stdout: str) -> list[tuple[str, str, str]]:
    """Folder of the run, metric and outcome, by line of the table."""
    rows = [line.split() for line in stdout.splitlines() if "/evaluations/" in line]
    found = [row for row in rows if len(row) > 2 and row[2] in ("renewed", "current", "failed")]
    return [(row[0].split("/")[1], row[1], row[2]) for row in found]


def images(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.rglob("*.png")}


def test_a_changed_metric_is_scored_again_and_the_report_works(small: Small) -> None:
    expected, evaluation = small.bench("report", "--format", "csv").stdout, small.evaluation()
    before = evaluation.score_records()
    old = age(evaluation, "gold")
    shutil.rmtree(small.run().weights)  # only the images are needed
    made = images(small.runs)

    refused = small.bench("report", "--format", "csv")
    assert refused.returncode == 2
    assert "cannot share a table" in refused.stderr
    assert "bench rescore --metrics gold" in refused.stderr

    done = small.bench("rescore")
    assert done.returncode == 0, done.stderr
    assert "gold of Diffusion-DPO" in done.stderr  # progress
    assert outcomes(done.stdout) == [
        ("base", "aesthetic", "current"), ("base", "gold", "current"),
        ("dpo", "aesthetic", "current"), ("dpo", "gold", "renewed"),
        ("smpo", "aesthetic", "current"), ("smpo", "gold", "current"),
    ]  # fmt: skip
    assert f"{old} to {evaluation.metrics()['gold'].signature}: version ('older' and 2)" in done.stdout
    assert "1 renewed, 5 current, 0 not finished, 0 failed" in done.stdout

    key = ("metric", "prompt_index")
    assert sorted(evaluation.score_records(), key=lambda line: [line[each] for each in key]) == sorted(
        before, key=lambda line: [line[each] for each in key]
    )
    assert [line["score"] for line in evaluation.all_scores() if line["signature"] == old] == [
        line["score"] + 1 for line in before if line["metric"] == "gold"
    ]
    assert images(small.runs) == made
    assert not (evaluation.folder / "rescoring.jsonl").exists()
    assert small.bench("report", "--format", "csv").stdout == expected

    again = small.bench("rescore")
    assert "0 renewed, 6 current, 0 not finished, 0 failed" in again.stdout


def test_a_model_folder_says_by_which_checkpoints_it_is_scored(small: Small) -> None:
    """No run says where the folder of its model is; the published checkpoints would be other scorers."""
    folder = Path(shutil.copytree(ASSETS / "model", small.folder / "mine"))
    scorer = str(ASSETS / "scorers" / "aesthetic")
    (folder / "bench.json").write_text(json.dumps({"metrics": {"aesthetic": scorer}}))
    words = ("--prompts", "prompts.txt", "--image", "steps=2", "--runs", "own")
    made = small.bench("eval", "--model", "mine", *words)
    assert made.returncode == 0, made.stderr

    unknown = small.bench("rescore", "--runs", "own")
    assert unknown.returncode == 2, unknown.stderr
    assert outcomes(unknown.stdout) == [("base", "aesthetic", "failed")]
    assert "giveitsfolderwith--model,orthecheckpointwith--checkpointaesthetic=..." in "".join(unknown.stdout.split())

    for given in (("--model", "mine"), ("--checkpoint", f"aesthetic={scorer}")):
        known = small.bench("rescore", "--runs", "own", *given)
        assert known.returncode == 0, known.stderr
        assert outcomes(known.stdout) == [("base", "aesthetic", "current")]

    other = small.bench("rescore", "--model", "mine")
    assert other.returncode == 2
    assert "no finished evaluation is of mine, whose runs are called mine-" in other.stderr


def test_scores_of_an_interrupted_call_are_not_made_again(small: Small) -> None:
    evaluation = small.evaluation()
    signature = evaluation.metrics()["gold"].signature
    age(evaluation, "gold")
    partial = [
        {"prompt_index": prompt, "image_index": 0, "metric": "gold", "score": 5.0 + prompt, "signature": signature}
        for prompt in range(2)
    ]
    keep_lines(evaluation.folder / "rescoring.jsonl", partial)
    assert small.bench("rescore", "--metrics", "gold").returncode == 0
    assert [line for line in evaluation.score_records() if line["metric"] == "gold"] == partial


def test_damaged_scores_of_an_interrupted_call_are_named(small: Small) -> None:
    evaluation = small.evaluation()
    age(evaluation, "gold")
    (evaluation.folder / "rescoring.jsonl").write_text('{"note": "mine"}\n')
    done = small.bench("rescore", "--metrics", "gold")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    text = "".join(done.stdout.split())
    assert "line1isnottherecordofascore(ithasno'prompt_index');deleteittoscoretheseimagesfromthefirst" in text


@pytest.mark.parametrize("moment", ["before", "scores", "metrics"])
def test_a_call_that_was_killed_while_it_put_new_scores_in_place_is_finished(small: Small, moment: str) -> None:
    evaluation = small.evaluation()
    expected = small.bench("report", "--format", "csv").stdout
    new, today = evaluation.score_records(), dict(evaluation.metrics())
    age(evaluation, "gold")
    keep_lines(evaluation.folder / "rescoring.jsonl", [line for line in new if line["metric"] == "gold"])
    evaluation.reopen()
    if moment != "before":
        keep_lines(evaluation.scores, [*evaluation.all_scores(), *(line for line in new if line["metric"] == "gold")])
    if moment == "metrics":
        evaluation.write_metrics(today)
    done = small.bench("rescore")
    assert done.returncode == 0, done.stderr
    assert evaluation.done
    assert small.bench("report", "--format", "csv").stdout == expected


def test_nothing_is_written_through_a_link(small: Small, tmp_path: Path) -> None:
    (small.runs / "tiny" / "dpo").rename(tmp_path / "elsewhere")
    (small.runs / "tiny" / "dpo").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.glob("elsewhere/**/*"))
    done = small.bench("rescore", "--metrics", "gold")
    assert done.returncode == 2
    assert "is a symbolic link" in " ".join(done.stdout.split())
    assert outcomes(done.stdout) == [
        ("base", "gold", "current"),
        ("dpo", "gold", "failed"),
        ("smpo", "gold", "current"),
    ]
    assert sorted(tmp_path.glob("elsewhere/**/*")) == before


def test_what_cannot_be_renewed_is_named_and_the_others_are_renewed(small: Small) -> None:
    for algorithm in ("base", "dpo", "smpo"):
        age(small.evaluation(algorithm), "gold")
    lost, painted = small.evaluation("base").image(1, 0), small.evaluation("dpo").image(0, 0)
    lost.unlink()
    content = painted.read_bytes()
    painted.unlink()
    painted.write_bytes(content[:-1] + b"\0")
    before = small.evaluation("base").all_scores()
    done = small.bench("rescore", "--metrics", "gold")
    assert done.returncode == 2
    assert "error: 2 of 3 could not be scored again; the table says why" in done.stderr
    assert outcomes(done.stdout) == [("base", "gold", "failed"), ("dpo", "gold", "failed"), ("smpo", "gold", "renewed")]
    text = "".join(line[-200:].strip() for line in done.stdout.splitlines()).replace(" ", "")
    assert "1of2imagesarenotthere,thefirstis" in text
    assert "itsSHA-256isnottheoneinDONE" in text
    assert small.evaluation("base").all_scores() == before


def test_only_what_is_named_is_renewed(small: Small) -> None:
    for algorithm in ("dpo", "smpo"):
        age(small.evaluation(algorithm), "gold")
        age(small.evaluation(algorithm), "aesthetic")
    done = small.bench("rescore", "tiny/smpo", "--metrics", "aesthetic")
    assert done.returncode == 0, done.stderr
    assert outcomes(done.stdout) == [("smpo", "aesthetic", "renewed")]
    assert outcomes(small.bench("rescore", "tiny/smpo", "tiny/base").stdout)[-1] == ("smpo", "gold", "renewed")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tiny/nope"], "runs/tiny/nope has no runs"),
        (["--metrics", "clip"], "no finished evaluation has 'clip' scores; choose from aesthetic, gold"),
        (["--checkpoint", "clip=x"], "no finished evaluation has 'clip' scores"),
        (
            ["--metrics", "gold", "--checkpoint", "aesthetic=x"],
            "--checkpoint aesthetic=... is for a metric that is not in --metrics; add it there",
        ),
        (["--checkpoint", "gold"], "--checkpoint 'gold' is not of the form field=value"),
        (["--runs", "nowhere"], "has no runs"),
    ],
)
def test_mistakes(small: Small, words: list[str], sentence: str) -> None:
    done = small.bench("rescore", *words)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert sentence in done.stderr


def test_a_scorer_that_cannot_be_loaded_and_a_run_in_use_are_reasons(small: Small) -> None:
    done = small.bench("rescore", "--checkpoint", "aesthetic=nowhere/at-all")
    assert done.returncode == 2
    assert [row for row in outcomes(done.stdout) if row[1] == "aesthetic"] == [
        (run, "aesthetic", "failed") for run in ("base", "dpo", "smpo")
    ]
    assert {row[2] for row in outcomes(done.stdout) if row[1] == "gold"} == {"current"}, done.stdout
    with small.run().locked():
        held = small.bench("rescore", "tiny/dpo")
    assert held.returncode == 2
    assert f"process {os.getpid()} already works on" in " ".join(held.stdout.split())


def test_unfinished_evaluations_are_left_to_their_command(small: Small) -> None:
    small.evaluation().reopen()
    done = small.bench("rescore")
    assert done.returncode == 0, done.stderr
    row, total = [line for line in done.stdout.splitlines() if "not finished" in line]
    assert "tiny/dpo/" in row
    assert "0 renewed, 4 current, 1 not finished, 0 failed" in total


@pytest.mark.parametrize("schema", sorted(path.name for path in FOLDERS.glob("schema-*")))
def test_folders_of_older_versions_are_scored_again(schema: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / schema / "runs", tmp_path / "runs")
    for run in find_runs(tmp_path / "runs"):
        (evaluation,) = run.evaluations()
        with Image.open(evaluation.image(0, 0)) as first:  # the only one that the folders have
            for prompt, image in evaluation.items[1:]:
                first.rotate(90 * prompt).save(evaluation.image(prompt, image))
    (folder,) = (tmp_path / "runs").glob("tiny/dpo/*/seed-0")
    (evaluation,) = RunFolder(folder).evaluations()
    old = age(evaluation, "aesthetic", seal=False)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    assert forked.run(("report",), tmp_path, environment).returncode == 2

    done = forked.run(("rescore",), tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert ("dpo", "aesthetic", "renewed") in outcomes(done.stdout)
    kept = [json.loads(line) for line in evaluation.scores.read_text().splitlines()]
    assert sum(line["signature"] == old for line in kept) == 3
    report = forked.run(("report", "--format", "csv"), tmp_path, environment)
    assert report.returncode == 0, report.stderr
    assert {row["metric"] for row in csv.DictReader(io.StringIO(report.stdout))} == {"aesthetic", "gold"}
