"""Scorers in environments and processes of their own: real environments, real processes, small scorers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image

from bench import Environment, IsolatedMetric, MetricInfo, UserError
from bench.core.values import digest
from bench.evaluation.job import EvaluationJob
from bench.evaluation.loop import evaluate
from bench.evaluation.scorer import Scorer
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.guidance import Networks
from bench.records.protocol import GenerationSettings, Protocol, prompts_digest
from bench.records.runs import RunFolder
from bench.scoring.isolated.environment import BuiltEnvironment, built, cache_folder, interpreter
from bench.scoring.isolated.worker import WorkerError

Make = Callable[..., "Isolated"]

CPU = torch.device("cpu")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
SCORER = """
import os, pathlib, signal, struct, subprocess, sys, time

def width(path):
    return struct.unpack(">I", pathlib.Path(path).read_bytes()[16:20])[0]

def honest(images, prompts):
    return [width(image) + len(prompt) / 100 for image, prompt in zip(images, prompts)]

def load(*, device, **files):
    assert device == "cpu"
    return score
"""
HONEST = "def score(images, prompts):\n    return honest(images, prompts)\n"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no network, whatever the machine has
    monkeypatch.setenv("PIP_CONSTRAINT", "/nowhere/constraints.txt")  # ours are not for others


class Isolated(IsolatedMetric):
    info: ClassVar[MetricInfo] = MetricInfo(title="Width", raw_range="above 0", unit="pixel", source="here")
    environment: ClassVar[Environment] = Environment(python=HERE)
    version: ClassVar[str] = "1"
    batch: ClassVar[int] = 3

    @classmethod
    def files(cls, checkpoint: str | None) -> Mapping[str, Path]:
        return {} if checkpoint is None else {"weights": Path(checkpoint)}


def isolated(folder: Path, source: str, checkpoint: str | None = None) -> Isolated:
    file = folder / "width_scorer.py"
    file.write_text(SCORER + source)
    return type("Made", (Isolated,), {"scorer": file}).load(checkpoint, device=CPU)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Make]:
    metrics: list[Isolated] = []

    def make(source: str, checkpoint: str | None = None) -> Isolated:
        metrics.append(isolated(tmp_path, source, checkpoint))
        return metrics[-1]

    yield make
    for metric in metrics:
        metric.worker.stop()


def some(count: int) -> tuple[list[Image.Image], list[str]]:
    return [Image.new("RGB", (10 + place, 4)) for place in range(count)], ["a" * place for place in range(count)]


def right(count: int) -> list[float]:
    return [pytest.approx(10 + place + place / 100) for place in range(count)]


def process_of(metric: Isolated) -> int:
    assert metric.worker._running is not None
    return metric.worker._running.process.pid


def wait_for_end(process: int) -> None:
    """Until a process that is not ours is gone; one that never ends hangs the test."""
    state = Path(f"/proc/{process}/stat")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while state.read_text().split()[2] != "Z":
            time.sleep(0.05)


class TestScores:
    def test_come_in_order_over_several_batches_from_one_process(self, made: Make) -> None:
        metric = made(HONEST)
        scores = metric.score(*some(8))
        first = process_of(metric)
        assert scores.dtype == torch.float32
        assert scores.tolist() == right(8)
        assert metric.score(*some(2)).tolist() == right(2)
        assert process_of(metric) == first
        assert metric.score([], []).shape == (0,)

    def test_need_as_many_prompts_as_images(self, made: Make) -> None:
        with pytest.raises(ValueError, match="2 images for 1 prompts"):
            made(HONEST).score(some(2)[0], ["one"])

    def test_prompts_arrive_as_they_are(self, made: Make, tmp_path: Path) -> None:
        prompts = ["", "东京 🐱", "two\nlines\u2028three", 'quote " and \\', "\ud800 alone"]
        metric = made(f"""
def score(images, prompts):
    pathlib.Path({str(tmp_path / "seen")!r}).write_text(ascii(prompts))
    return honest(images, prompts)

""")
        metric.batch = 5
        metric.score(some(5)[0], prompts)
        assert (tmp_path / "seen").read_text() == ascii(prompts)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "F"])
    def test_pictures_of_every_mode_are_handed_over(self, made: Make, mode: str) -> None:
        image = Image.new("L", (23, 5)).convert(mode) if mode != "I;16" else Image.new(mode, (23, 5))
        assert made(HONEST).score([image], [""]).tolist() == [23]

    def test_files_reach_the_scorer(self, made: Make, tmp_path: Path) -> None:
        (tmp_path / "offset.txt").write_text("1000")
        source = """
def load(*, device, weights):
    offset = int(pathlib.Path(weights).read_text())
    return lambda images, prompts: [score + offset for score in honest(images, prompts)]
"""
        metric = made(source, str(tmp_path / "offset.txt"))
        assert metric.score(*some(1)).tolist() == [1010]
        # printf 1000 | sha256sum
        assert metric.identity()["files"] == {"weights": "sha256:40510175845988f1"}


class TestWorkerThatPrints:
    def test_garbage_on_stdout_and_stderr_is_no_answer(self, made: Make) -> None:
        metric = made("""
print('{"scores": [99, 99, 99]}', flush=True)
def score(images, prompts):
    print('{"scores": [99, 99, 99]}', flush=True)
    os.write(1, b'{"ready": true}\\n\\x00\\xff' * 5000)
    os.write(2, b"warning\\n")
    subprocess.run(["echo", '{"scores": [99, 99, 99]}'])
    print("no line end", end="")
    return honest(images, prompts)
""")
        assert metric.score(*some(7)).tolist() == right(7)


class TestWorkerThatDies:
    def test_killed_in_the_middle_it_is_started_again_and_no_score_is_wrong(self, made: Make, tmp_path: Path) -> None:
        metric = made(f"""
marker = pathlib.Path({str(tmp_path / "died")!r})
def score(images, prompts):
    if width(images[0]) == 13 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(images, prompts)
""")
        assert metric.score(*some(8)).tolist() == right(8)
        assert (tmp_path / "died").exists()

    def test_killed_from_outside_between_two_calls(self, made: Make) -> None:
        metric = made(HONEST)
        metric.score(*some(1))
        first = process_of(metric)
        os.kill(first, signal.SIGKILL)
        assert metric.score(*some(4)).tolist() == right(4)
        assert process_of(metric) != first

    def test_a_child_that_outlives_it_is_no_sign_of_life(self, made: Make, tmp_path: Path) -> None:
        metric = made(f"""
def score(images, prompts):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child))
    os._exit(3)
""")
        with pytest.raises(UserError, match="exit code 3"):
            metric.score(*some(1))
        child = int((tmp_path / "child").read_text())
        wait_for_end(child)

    def test_twice_over_the_same_images_it_is_given_up_in_one_sentence(self, made: Make) -> None:
        metric = made("""
def score(images, prompts):
    print("out of memory", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
""")
        with pytest.raises(UserError) as caught:
            metric.score(*some(3))
        assert str(caught.value) == (
            "the worker process of Width died 2 times on the same 3 images (signal 9; its last output: out of "
            "memory); check that it has enough memory, or leave this metric out"
        )

    def test_while_loading_it_is_given_up_too(self, made: Make) -> None:
        with pytest.raises(UserError, match="exit code 5; its last output: nothing"):
            made("os._exit(5)\n").score(*some(1))

    def test_after_an_interrupted_call_the_next_one_gets_no_old_answer(self, made: Make, tmp_path: Path) -> None:
        metric = made(f"""
marker = pathlib.Path({str(tmp_path / "interrupted")!r})
def score(images, prompts):
    if not marker.exists():
        marker.touch()
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.2)
    return honest(images, prompts)
""")
        before = signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # what a shell starts in the background ignores it
        try:
            with pytest.raises(KeyboardInterrupt):
                metric.score(*some(3))
        finally:
            signal.signal(signal.SIGINT, before)
        images, prompts = some(6)
        assert metric.score(images[3:], prompts[3:]).tolist() == right(6)[3:]

    def test_nothing_is_left_running(self, made: Make) -> None:
        metric = made(HONEST)
        metric.score(*some(1))
        process = metric.worker._running.process
        metric.worker.stop()
        assert process.returncode is not None  # killed, or it saw first that nobody listens any more

    def test_even_at_work_it_ends_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        scorer, image, process = tmp_path / "scorer.py", tmp_path / "image.png", tmp_path / "process"
        scorer.write_text(f"""{SCORER}
def score(images, prompts):
    pathlib.Path({str(process)!r}).write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
""")
        Image.new("RGB", (10, 4)).save(image)
        source = f"""
import pathlib, sys
from bench.scoring.isolated.worker import Worker
worker = Worker("Width", sys.executable, pathlib.Path({str(scorer)!r}), {{"device": "cpu"}})
worker.score([pathlib.Path({str(image)!r})], [""])
"""
        done = subprocess.run([sys.executable, "-c", source], check=False)
        assert done.returncode == -signal.SIGKILL
        wait_for_end(int(process.read_text()))


class TestWorkerThatIsWrong:
    @pytest.mark.parametrize(
        ("answer", "complaint"),
        [
            ("honest(images, prompts)[:-1]", "returned 2 scores for 3 images"),
            ("honest(images, prompts) + [1.0]", "returned 4 scores for 3 images"),
            ("[]", "returned 0 scores for 3 images"),
            ("[1.0, float('nan'), 2.0]", "not finite as float32, for image 1 of 3"),
            ("[1.0, 2.0, float('inf')]", "not finite as float32, for image 2 of 3"),
            ("[1.0, 2.0, 1e39]", "not finite as float32, for image 2 of 3"),  # beyond float32
        ],
    )
    def test_too_few_too_many_or_not_finite_is_an_error(self, made: Make, answer: str, complaint: str) -> None:
        metric = made(f"def score(images, prompts):\n    return {answer}\n")
        with pytest.raises(UserError, match=complaint):
            metric.score(*some(3))

    @pytest.mark.parametrize("answer", ["None", "['good', 1, 2]", "[None, 1, 2]"])
    def test_what_is_no_number_keeps_its_traceback(self, made: Make, answer: str) -> None:
        with pytest.raises(WorkerError, match="TypeError|ValueError"):
            made(f"def score(images, prompts):\n    return {answer}\n").score(*some(3))

    def test_an_exception_keeps_its_traceback_and_the_next_call_works(self, made: Make) -> None:
        metric = made("""
def score(images, prompts):
    if "bad" in prompts:
        raise RuntimeError("no such prompt")
    return honest(images, prompts)
""")
        with pytest.raises(WorkerError, match=r'(?s)width_scorer.py", line.*RuntimeError: no such prompt'):
            metric.score(some(1)[0], ["bad"])
        assert metric.score(*some(2)).tolist() == right(2)

    def test_a_line_that_is_not_json_is_an_error(self, made: Make) -> None:
        metric = made("""
def score(images, prompts):
    for descriptor in range(3, 512):
        try:
            os.write(descriptor, b"hello\\n")
        except OSError:
            pass
    return honest(images, prompts)
""")
        with pytest.raises(UserError, match="broke the protocol"):
            metric.score(*some(1))


DIES_LATER = """
def score(images, prompts):
    if "prompt 35" in prompts:
        os.kill(os.getpid(), signal.SIGKILL)
    return [place + len(prompt) for place, prompt in enumerate(prompts)]
"""
NAN_LATER = """
def score(images, prompts):
    return [float("nan") if prompt == "prompt 35" else place + 1.0 for place, prompt in enumerate(prompts)]
"""
SHORT_LATER = """
def score(images, prompts):
    return [place + 1.0 for place, prompt in enumerate(prompts) if prompt != "prompt 35"]
"""


@pytest.mark.parametrize("source", [DIES_LATER, NAN_LATER, SHORT_LATER])
def test_no_wrong_score_enters_a_record(made: Make, source: str, micro_model: Path, tmp_path: Path) -> None:
    model = StableDiffusion.load(str(micro_model), device=CPU)
    prompts = [f"prompt {number}" for number in range(40)]  # two chunks; the second has the bad one
    protocol = Protocol(
        model="micro",
        base_weights=model.digest,
        prompts=prompts_digest(prompts),
        prompt_count=len(prompts),
        generation=GenerationSettings(steps=1, guidance_scale=1, height=model.resolution, width=model.resolution),
    )
    evaluation = RunFolder(tmp_path / "run").evaluation(protocol.signature)
    networks = Networks.single(model.network)
    scorer = Scorer(lambda: made(source), prompts)
    job = EvaluationJob(evaluation, "micro", model, lambda: networks, protocol, None, prompts)
    with pytest.raises(UserError):
        evaluate(job, {"width": scorer})
    assert not evaluation.done
    records = evaluation.all_scores()
    assert [record["prompt_index"] for record in records] == list(range(32))
    assert all(1 <= record["score"] <= 11 for record in records)
    assert json.loads((evaluation.folder / "metrics.json").read_text()) == {}  # named only once all its scores exist


def wheel(folder: Path, name: str, requires: str = "") -> str:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    facts = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 41\n")
        archive.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}")
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{facts}/RECORD", "")
    return str(path)


class TestEnvironment:
    def test_requirements_are_installed_and_recorded_and_built_once(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        impossible = wheel(tmp_path, "stubborn", "Requires-Dist: no-such-package==7\n")
        wanted = Environment(python=HERE, requirements=(wheel(tmp_path, "helper"),), unresolved=(impossible,))
        interrupted = cache_folder() / f".{digest(dataclasses.asdict(wanted))}.partial"
        (interrupted / "half").mkdir(parents=True)
        first = built("Width", wanted)
        assert "building the environment of Width" in capfd.readouterr().err
        packages = first.identity()["packages"]
        assert packages == {"helper": "1.0", "stubborn": "1.0"}
        assert first.identity()["python"] == HERE
        found = subprocess.run(
            [first.python, "-c", "import helper, stubborn; print(helper.VALUE)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout == "41\n"
        assert not (first.folder / "half").exists()
        again = built("Width", wanted)
        assert again == first
        assert capfd.readouterr().err == ""

    def test_the_identity_names_scorer_packages_and_device(self, tmp_path: Path) -> None:
        metric = isolated(tmp_path, HONEST)
        identity = json.loads(json.dumps(metric.identity()))
        assert (identity["version"], identity["device"]) == ("1", "cpu")
        assert identity["environment"] == {"python": HERE, "packages": {}}
        other = isolated(tmp_path, HONEST + "# changed\n").identity()
        assert other["scorer"] != identity["scorer"]

    def test_without_the_index_it_is_one_sentence_and_nothing_is_left(self, cache: Path) -> None:
        wanted = Environment(python=HERE, requirements=("bench-no-such-package==1.0",))
        with pytest.raises(UserError) as caught:
            built("Width", wanted)
        sentence = str(caught.value)
        assert "\n" not in sentence
        assert "environment of Width could not be built" in sentence
        assert "No matching distribution found for bench-no-such-package==1.0" in sentence
        log = Path(sentence.rpartition(" is in ")[2])
        assert "bench-no-such-package" in log.read_text()
        assert not log.with_suffix("").exists()

    def test_a_python_that_is_not_there_is_one_sentence(self) -> None:
        with pytest.raises(
            UserError, match=r"Width needs its own environment with Python 3.99, .* so that python3.99 is on the PATH"
        ):
            built("Width", Environment(python="3.99"))

    def test_a_name_on_the_path_that_does_not_run_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shim = tmp_path / "python3.99"
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        with pytest.raises(UserError, match="3.99"):
            interpreter("Width", "3.99")

    def test_an_environment_that_lost_its_python_says_so(self, tmp_path: Path) -> None:
        folder = tmp_path / "moved"
        metric = isolated(tmp_path, HONEST)
        metric.worker.command[0] = str(BuiltEnvironment(folder).python)
        with pytest.raises(UserError, match="cannot be started"):
            metric.score(*some(1))
