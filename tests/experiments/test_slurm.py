"""The Slurm executor as far as it goes without Slurm; tests/cluster has the rest."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.errors import UserError
from bench.experiments.executors.base import Matrix, command, make_executor, outcome
from bench.experiments.executors.slurm import Slurm
from bench.experiments.executors.slurm_job import FOLDER, CellJob, machine_words
from bench.records.studies import Cell, StudyFolder, study_of_file

CELL = Cell("m/a", ("run", "--seeds", "0"), "0" * 12, ())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"processes": 3, "nodes": 2}, "processes=3 cannot be shared evenly by nodes=2"),
        ({"minutes": 1, "notice": 60}, "notice=60 seconds must be less than minutes=1"),
        ({"sbatch": "--qos=high exclusive"}, "'exclusive' is not of the form --option or --option=value"),
        ({"partion": "p"}, "did you mean 'partition'"),
        ({"minutes": "long"}, "minutes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        make_executor({"name": "slurm", **fields})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_slurm_the_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="there is no sbatch on this machine; .* --jobs N"):
        Slurm().start(Matrix([CELL], StudyFolder(tmp_path, "s")))


def test_without_submitit_the_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package 'submitit', .* 'diffusion-alignment-bench\[slurm\]'"):
        Slurm().start(Matrix([CELL], StudyFolder(tmp_path, "s")))


def test_processes_of_several_nodes_meet_at_the_first_one() -> None:
    assert machine_words({"SLURM_JOB_ID": "7"}) == ()
    node = {
        "SLURM_JOB_ID": "1230007", "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.5"
    }  # fmt: skip
    shared = dataclasses.replace(CELL, processes=16)
    assert command(shared, machine_words(node))[1:] == [
        *(
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "16",
            "--num_machines",
            "2",
            "--machine_rank",
            "1",
        ),
        *("--main_process_ip", "10.0.0.5", "--main_process_port", "20007", "-m", "bench", "run", "--seeds", "0"),
    ]
    assert command(CELL) == [sys.executable, "-m", "bench", "run", "--seeds", "0"]


def test_what_a_stopped_command_came_to() -> None:
    shared = dataclasses.replace(CELL, processes=2)
    assert (outcome(CELL, 1, stopped=True), outcome(CELL, -9), outcome(CELL, 143)) == (1, 137, 143)
    assert (outcome(shared, 1, stopped=True), outcome(shared, 1)) == (143, 1)  # what accelerate launch returns


def test_files_of_one_name_have_studies_of_their_own(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "small.toml", tmp_path / "b" / "small.toml"
    runs = tmp_path / "runs"
    first = study_of_file(runs, one)
    first.write("", [CELL], one)
    assert (first.name, study_of_file(runs, one).name) == ("small", "small")
    second = study_of_file(runs, other)
    second.write("", [], other)
    assert second.name.startswith("small-")
    assert study_of_file(runs, other).name == second.name
    assert first.cells() == [CELL]
    # The folder as a whole may move.
    assert json.loads((first.folder / "file.json").read_text()) == "../a/small.toml"


JOB = """
import os, signal, sys, threading
from pathlib import Path
from bench.experiments.executors.slurm_job import CellJob
from bench.records.studies import Cell, StudyFolder
job = CellJob(Cell("m/a", tuple(sys.argv[2:]), "0" * 12, ()), StudyFolder(Path(sys.argv[1]), "s"), 3, 20, True)
job()
"""


def test_a_job_runs_its_command_and_records_how_it_ended(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path, "s")
    for words, code in ((["--version"], 0), (["beta", "1", "--from", "nowhere"], 2)):
        ended = subprocess.run([sys.executable, "-c", JOB, str(tmp_path), *words], capture_output=True, check=False)
        assert ended.returncode == code, ended.stderr
        attempt = study.attempt(CELL)
        assert attempt is not None
        assert (attempt.code, attempt.here, attempt.alive) == (code, True, False)
    # A job ends as its command does where that cannot be recorded.
    (study.folder / "logs" / "m" / "a.json").unlink()
    (study.folder / "logs" / "m" / "a.json").mkdir()
    ended = subprocess.run([sys.executable, "-c", JOB, str(tmp_path), "--version"], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    version, *error = study.log(CELL).read_text().splitlines()
    assert version.startswith("diffusion-alignment-bench")
    assert "nowhere" in " ".join(error[:-1])


def test_a_file_that_a_job_was_writing_when_it_lost_its_node_does_not_keep_it_out_of_the_queue(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from submitit.core.utils import DelayedSubmission, pickle_load

    study = StudyFolder(tmp_path, "s")
    folder = study.folder / FOLDER
    folder.mkdir(parents=True)
    job = CellJob(Cell("m/a", ("--version",), "0" * 12, ()), study, 1, 20, True)
    for name in ("7_submitted.pkl", "8_3_submitted.pkl"):
        DelayedSubmission(job).dump(folder / name)
    halves = [folder / f"{name}.save_tmp" for name in ("7_submitted.pkl", "7_0_result.pkl", "8_3_submitted.pkl")]
    for half in halves:
        half.write_text("half")
    environment = {**os.environ, "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7"}

    def start(**more: str) -> list[bool]:
        subprocess.run(
            [sys.executable, "-m", "submitit.core._submit", str(folder)], env=environment | more, capture_output=True, check=True
        )  # fmt: skip
        return [half.exists() for half in halves]

    assert start() == [False, False, True]  # the job's own, not those of others
    assert pickle_load(folder / "7_0_result.pkl") == ("success", None)
    assert start(SLURM_JOB_ID="9", SLURM_ARRAY_JOB_ID="8", SLURM_ARRAY_TASK_ID="3") == [False, False, False]


SBATCH = """#!/bin/sh
for file in "$@"; do :; done
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$file")
if [ "${last:-0}" -gt 1000 ]; then echo "Invalid job array specification" >&2; exit 1; fi
echo "${last:-0}" >> "$SUBMITTED"
echo "Submitted batch job $(wc -l < "$SUBMITTED")"
"""


def test_more_runs_than_an_array_holds_are_several_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    for name, script in (("sbatch", SBATCH), ("squeue", "#!/bin/sh\n"), ("srun", "#!/bin/sh\n")):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "submitted"))
    study = StudyFolder(tmp_path / "runs", "s")
    cells = [dataclasses.replace(CELL, name=f"m/{number}") for number in range(1002)]
    study.write("", cells)
    Slurm().start(Matrix(cells, study))
    assert (tmp_path / "submitted").read_text().split() == ["999", "1"]
    jobs = study.jobs()
    assert len(set(jobs.values())) == 1002
    assert (jobs["m/999"], jobs["m/1000"], jobs["m/1001"]) == ("1_999", "2_0", "2_1")
