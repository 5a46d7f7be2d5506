"""A matrix on a real Slurm of two nodes on this machine: `tox run -e py311-tests,cluster`, or pytest -m slow with Slurm installed.

BENCH_CLUSTER_MINUTES is the time limit of the matrix's jobs, 2 unless a slow machine needs more to start at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cluster
import pytest
from pages import install

from bench.records.states import states_of_study
from bench.records.studies import StudyFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(cluster.missing()), reason=f"needs Slurm: {', '.join(cluster.missing())}"),
]
MINUTES = int(os.environ.get("BENCH_CLUSTER_MINUTES", "2"))
NOTICE = 30
PATIENCE = 3600
"""Seconds after which something that should have happened is given up; a busy machine starts torch in minutes."""
FILE = """\
model = "tiny"
seeds = {seeds}
prompts = "prompts.txt"
metrics = ["aesthetic"]
limit = 8

[images]
steps = 2

[settings]
global_batch_size = 4
micro_batch_size = 4
warmup_steps = 0
checkpoint_seconds = 0

[executor]
name = "slurm"
partition = "p"
gpus = 0
threads = 1
"""
PACE = 2 * MINUTES
"""Seconds that a step of the algorithm `paced` takes at least, so that how many time limits it meets is not up to the machine."""
PACED = """\
import os
import time

from algorithms.dpo import DPO


class Paced(DPO):
    def loss(self, errors, preference):
        time.sleep(float(os.environ.get("PACE", "0")))
        return super().loss(errors, preference)
"""
POINTS = '[project.entry-points."bench.algorithms"]\npaced = "my_package.paced:Paced"\n'
ENTRY = '[[algorithms]]\nname = "{name}"\nsettings = {{ steps = {steps} }}\n'


class Site:
    """A folder with an experiment file, beside a cluster.

    Args:
        folder: the folder.
        slurm: the cluster.
    """

    def __init__(self, folder: Path, slurm: cluster.Cluster) -> None:
        self.folder, self.slurm = folder, slurm
        self.environment = {
            **slurm.environment,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PYTHONPATH": str(folder),
            "PACE": str(PACE),
        }
        install(folder, {"my_package/paced.py": PACED}, [POINTS])
        (folder / "prompts.txt").write_text("a bee on a red background\na cat on a blue background\n")

    def write(self, *, seeds: list[int], steps: dict[str, int]) -> None:
        entries = "".join(ENTRY.format(name=name, steps=count) for name, count in steps.items())
        (self.folder / "matrix.toml").write_text(FILE.format(seeds=seeds) + entries)

    def bench(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench", *words],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    def submit(self, *words: str) -> str:
        done = self.bench("run", "matrix.toml", *words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def locally(self) -> None:
        words = ("--executor", "local", "--resource", "threads=1", "--runs", "local")
        done = self.bench("run", "matrix.toml", *words, PACE="0")
        assert done.returncode == 0, done.stderr

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.folder / "runs", "matrix")

    def kinds(self) -> dict[str, str]:
        return {state.name: state.kind for state in states_of_study(self.study)}

    def cells(self, algorithm: str) -> list[str]:
        return [cell.name for cell in self.study.cells() if f"/{algorithm}/" in cell.name]

    def steps(self, cell: str) -> int:
        log = self.folder / "runs" / cell / "train.jsonl"
        return log.read_text().count("\n") if log.exists() else 0

    def said(self, cell: str) -> str:
        log = self.folder / "runs" / ".studies" / "matrix" / "logs" / f"{cell}.log"
        return log.read_text() if log.exists() else ""

    def until(self, what: Callable[[], bool]) -> None:
        """Wait for something, for as long as there are jobs."""

        def look() -> bool:
            lines = self.slurm.queue()
            found = what()
            assert found or lines or self.slurm.queue(), f"no job is left: {self.kinds()}"
            return found

        self.slurm.wait_for(look, PATIENCE, every=2)

    def restarts(self) -> int:
        """How often jobs of the study were put back at their time limit."""
        logs = (self.folder / "runs" / ".studies" / "matrix" / "slurm").glob("*.out")
        return sum(path.read_text().count("Requeued job") for path in logs)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with cluster.cluster(tmp_path / "slurm") as slurm:
        folder = tmp_path / "site"
        folder.mkdir()
        yield Site(folder, slurm)


def results(runs: Path) -> dict[str, bytes]:
    """Weights, pictures and scores by path."""
    kinds = ("weights/*.safetensors", "*.png", "scores.jsonl")
    found = {str(path.relative_to(runs)): path.read_bytes() for kind in kinds for path in runs.rglob(kind)}
    return {path: content for path, content in found.items() if "checkpoints" not in path}


def table(site: Site, runs: str) -> object:
    """The report of all runs without what they cost."""
    shown = site.bench("report", "--format", "json", "--runs", runs)
    assert shown.returncode == 0, shown.stderr
    return _free(json.loads(shown.stdout))


def _free(value: object) -> object:
    if isinstance(value, dict):
        return {name: _free(each) for name, each in value.items() if name != "cost"}
    return [_free(each) for each in value] if isinstance(value, list) else value


def check_same_as_local(site: Site) -> None:
    site.locally()
    slurm, local = results(site.folder / "runs"), results(site.folder / "local")
    assert any(path.endswith(".safetensors") for path in local)
    assert slurm.keys() == local.keys()
    assert [path for path, content in local.items() if slurm[path] != content] == []
    assert table(site, "runs") == table(site, "local")


def test_a_run_saves_at_every_notice_and_goes_on_to_the_same_weights(site: Site) -> None:
    site.write(seeds=[0], steps={"paced": 16})
    site.submit("--resource", "minutes=60")
    (cell,) = site.cells("paced")
    for number in range(1, 5):
        seen = site.steps(cell)
        site.until(lambda seen=seen: site.steps(cell) >= seen + 2)  # type: ignore[misc]
        (job,) = site.slurm.queue()
        site.slurm.call("scancel", "--signal=USR2", job)  # as the limit does
        site.until(lambda number=number: site.restarts() == number)  # type: ignore[misc]
        assert site.said(cell).count("stopped by SIGTERM; run the same command to resume") == number
    site.until(lambda: not site.slurm.queue())
    assert site.kinds() == {"tiny/base": "done", cell: "done"}
    assert "Traceback" not in site.said(cell)
    assert "submitted 0 jobs to Slurm (2 commands are done, 0 were in the queue)" in site.submit()
    check_same_as_local(site)


def test_two_nodes_share_a_run(site: Site) -> None:
    site.write(seeds=[0], steps={"dpo": 2})
    site.submit("--resource", "minutes=60", "--resource", "nodes=2", "--resource", "processes=2")
    site.until(lambda: not site.slurm.queue())
    assert set(site.kinds().values()) == {"done"}, site.said(site.cells("dpo")[0])
    (run,) = (site.folder / "runs" / cell for cell in site.cells("dpo"))
    assert json.loads((run / "environment.json").read_text())["processes"] == 2


def test_a_base_model_that_fails_takes_its_runs_out_of_the_queue(site: Site) -> None:
    site.write(seeds=[0], steps={"dpo": 2})
    blocked = site.folder / "runs" / "tiny" / "base"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("")  # a file where the folder should be
    site.submit("--resource", "minutes=60")
    site.until(lambda: not site.slurm.queue())
    (cell,) = site.cells("dpo")
    assert site.kinds() == {"tiny/base": "failed", cell: "waiting"}
    assert "is a file, not a folder" in site.said("tiny/base")


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A file system of 300 kB in the place of a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def lose_node(site: Site, cell: str) -> None:
    """Kill the daemon of the node that runs a cell, and start it again once Slurm has put the job back."""
    job = site.study.jobs()[cell]
    (node,) = [line.split()[1] for line in site.slurm.queue("%i %N") if line.split()[0] == job]
    site.slurm.kill_node(node)
    site.until(lambda: f"{job} {node}" not in site.slurm.queue("%i %N"))
    site.slurm.start_node(node)


def test_a_matrix_survives_what_happens_on_a_cluster(site: Site) -> None:
    # Two limits of pauses for each of two runs, and each of their jobs works for less than a limit: four notices and more.
    site.write(seeds=[0, 1], steps={"sft": 4, "smpo": 4, "paced": 2 * MINUTES * 60 // PACE})
    assert site.bench("run", "matrix.toml", "--print-commands").returncode == 0
    filled, (lost, cancelled) = site.cells("sft")[1], site.cells("paced")
    words = ("--resource", f"minutes={MINUTES}", "--resource", f"notice={NOTICE}")
    with full_disk(site.folder / "runs" / filled):
        site.submit(*words)
        site.until(lambda: site.steps(cancelled) > 1)
        site.slurm.call("scancel", site.study.jobs()[cancelled])
        site.until(lambda: site.steps(lost) > 1 and site.kinds()[lost] == "running")
        lose_node(site, lost)
        site.until(lambda: not site.slurm.queue())
        kinds = site.kinds()
        assert {name for name, kind in kinds.items() if kind == "failed"} == {filled}
        assert {name for name, kind in kinds.items() if kind == "waiting"} == {cancelled}
        assert "the disk is full" in site.said(filled).splitlines()[-1]
    assert "submitted 2 jobs to Slurm (5 commands are done, 0 were in the queue)" in site.submit(*words)
    site.until(lambda: not site.slurm.queue())
    assert set(site.kinds().values()) == {"done"}
    assert site.restarts() >= 4
    check_same_as_local(site)
