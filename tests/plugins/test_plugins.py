"""Third-party parts, installed from `tests/plugin_package` and `tests/broken_plugin`: run by ``tox run -e plugin``."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image
from workshop import preference_columns, write_parquet

PROMPTS = ["a bee on a red background", "a cat on a blue background"]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "300", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    write_parquet(folder / "pairs.parquet", preference_columns(6))
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    brief = ["--set", "steps=2", "--set", "global_batch_size=3", "--set", "micro_batch_size=3", "--sampling-steps", "2"]
    return bench(folder, "run", "--data", "pairs.parquet", "--prompts", "prompts.txt", *brief, *arguments)


def line(text: str, name: str) -> str:
    (found,) = [each for each in text.splitlines() if each.split()[:1] == [name]]
    return found


def test_the_plugins_are_installed_as_distributions() -> None:
    assert version("bench-hinge") == "0.3.1"
    assert version("bench-broken") == "0.0.9"


@pytest.mark.parametrize("file", ["squared_hinge.py", "brightness.py"])
def test_a_part_takes_thirty_lines_at_most(file: str) -> None:
    source = Path(__file__).parent.parent / "plugin_package" / "src" / "bench_hinge" / file
    assert len(source.read_text().splitlines()) <= 30


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = bench(tmp_path_factory.mktemp("list"), "list")
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestList:
    def test_the_parts_of_a_plugin_are_listed_with_their_origin(self, listing: str) -> None:
        assert "bench-hinge 0.3.1" in line(listing, "squared-hinge")
        group = listing[: listing.index("squared-hinge")].rpartition("algorithms that need ")[2]
        assert group.startswith("preference pairs")
        assert "bench-hinge 0.3.1" in line(listing, "brightness")
        assert "bench-hinge 0.3.1" in line(listing, "tiny-bright")

    def test_a_broken_plugin_is_listed_with_its_true_exception(self, listing: str) -> None:
        assert "broken: ModuleNotFoundError: No module named 'flux_capacitor'" in line(listing, "broken")
        assert "bench-broken 0.0.9" in line(listing, "broken")
        assert "broken: RuntimeError: crooked needs CUDA 99" in line(listing, "crooked")

    def test_a_part_that_is_not_what_it_must_be_is_listed_as_broken(self, listing: str) -> None:
        assert "broken: " in line(listing, "stateless")
        assert "Stateless states no info" in line(listing, "stateless")
        assert "Plain is not a subclass of bench.Algorithm" in line(listing, "plain")

    def test_a_broken_plugin_leaves_our_own_parts_alone(self, listing: str) -> None:
        for name in ("sft", "dpo", "smpo", "inpo", "pickscore", "gold", "sd15"):
            assert "bench-" not in line(listing, name)  # the owner is named for plug-ins only
            assert "broken" not in line(listing, name)


class TestRun:
    def test_an_algorithm_a_metric_and_a_model_of_a_plugin_run_through_the_command_line(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--algo", "squared-hinge", "--model", "tiny-bright", "--set", "beta=500")
        assert done.returncode == 0, done.stderr
        (log,) = tmp_path.glob("runs/tiny-bright/squared-hinge/*/seed-0/train.jsonl")
        steps = [json.loads(each) for each in log.read_text().splitlines()]
        assert [step["step"] for step in steps] == [0, 1]
        assert steps[0]["loss"] == 1.0
        (scores,) = log.parent.glob("evaluations/*/scores.jsonl")
        records = [json.loads(each) for each in scores.read_text().splitlines()]
        assert {record["metric"] for record in records} == {"brightness"}
        assert len(records) == len(PROMPTS)
        assert all(0 <= record["score"] <= 255 for record in records)
        report = bench(tmp_path, "report", "--format", "markdown")
        assert report.returncode == 0, report.stderr
        assert "Squared hinge" in report.stdout
        assert "brightness" in report.stdout

    def test_an_algorithm_of_a_plugin_runs_on_the_tiny_model(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--algo", "squared-hinge", "--model", "tiny")
        assert done.returncode == 0, done.stderr
        (config,) = tmp_path.glob("runs/tiny/squared-hinge/*/seed-0/config.json")
        assert json.loads(config.read_text())["resolved"]["algorithm"] == {"beta": 1000.0}

    def test_a_metric_of_a_plugin_is_a_reward_for_our_own_algorithm(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--algo", "smpo", "--model", "tiny-bright", "--set", "reward=brightness")
        assert done.returncode == 0, done.stderr
        (prepared,) = tmp_path.glob("runs/tiny-bright/smpo/*/seed-0/prepared.json")
        low, high = json.loads(prepared.read_text())["reward_range"]
        assert 0 <= low < high <= 255

    def test_a_metric_of_a_plugin_judges_beside_one_of_the_models_own(self, tmp_path: Path) -> None:
        chosen = ["--algo", "sft", "--model", "tiny", "--metrics", "brightness,gold"]
        done = run(tmp_path, *chosen)
        assert done.returncode == 0, done.stderr
        for scores in tmp_path.glob("runs/tiny/**/scores.jsonl"):
            records = [json.loads(each) for each in scores.read_text().splitlines()]
            assert [record["metric"] for record in records] == ["brightness"] * 2 + ["gold"] * 2
        again = run(tmp_path, *chosen[:-1], "brightness")
        assert again.returncode == 0, again.stderr
        (described,) = tmp_path.glob("runs/tiny/sft/*/seed-0/evaluations/*/metrics.json")
        assert list(json.loads(described.read_text())) == ["brightness", "gold"]
        report = bench(tmp_path, "report", "--format", "markdown")
        assert "brightness" in report.stdout
        assert "gold" in report.stdout

    def test_a_metric_of_a_plugin_scores_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        for level in (10, 30):
            Image.new("RGB", (8, 8), (level, level, level)).save(tmp_path / "images" / f"{level}.png")
            (tmp_path / "images" / f"{level}.txt").write_text("grey")
        done = bench(tmp_path, "score", "images", "--metrics", "brightness", "--output", "out.csv")
        assert done.returncode == 0, done.stderr
        with (tmp_path / "out.csv").open(newline="") as stream:
            assert [float(row["score"]) for row in csv.DictReader(stream)] == [10.0, 30.0]


class TestCheck:
    """What an author has: the installed package, without our tests."""

    def test_a_part_of_a_plugin_keeps_every_contract_that_applies(self, tmp_path: Path) -> None:
        done = bench(tmp_path, "check", "algorithm", "squared-hinge")
        assert (done.returncode, done.stderr) == (0, "")
        *lines, summary = done.stdout.splitlines()
        assert {each.split("  ")[0] for each in lines} == {"held", "not applicable"}
        assert re.fullmatch(
            rf"algorithm squared-hinge: {len(lines)} contracts in \d+ s: \d+ held, 0 broken, \d not applicable", summary
        )

    def test_a_metric_that_does_not_say_that_it_ignores_prompts_learns_only_that(self, tmp_path: Path) -> None:
        done = bench(tmp_path, "check", "metric", "brightness")
        assert done.returncode == 2
        (broken,) = [each for each in done.stdout.splitlines() if each.startswith("broken ")]
        assert "expected other scores for other prompts, found the same; state reads_prompt = False" in broken

    @pytest.mark.parametrize(
        ("kind", "name", "finding"),
        [
            ("algorithm", "averaged", "A step returns one finite float32 loss per pair with gradient, a time per pair, and logs per pair without gradient: epsilon: expected losses of shape (5,) for 5 pairs, found ()"),
            ("algorithm", "neighbourly", "A pair's loss does not depend on which pairs share its micro-batch: epsilon: expected "),
            ("algorithm", "not-a-number", "A step returns one finite float32 loss per pair with gradient, a time per pair, and logs per pair without gradient: epsilon: expected finite losses, found [nan, nan, nan, nan, nan]"),
            ("metric", "relative", "The score of an image does not depend on the other images of the call: expected "),
            ("metric", "unscored", "It returns one finite float32 score per image, on the CPU and without gradient: expected finite scores, found nan"),
        ],
    )  # fmt: skip
    def test_a_wrong_part_is_named_with_the_contract_it_breaks(
        self, tmp_path: Path, kind: str, name: str, finding: str
    ) -> None:
        done = bench(tmp_path, "check", kind, name)
        assert done.returncode == 2
        assert any(each.startswith("broken ") and finding in each for each in done.stdout.splitlines())
        assert f"{kind} '{name}' breaks " in done.stderr
        assert "Traceback" not in done.stderr

    def test_what_cannot_be_imported_raises_its_true_exception(self, tmp_path: Path) -> None:
        done = bench(tmp_path, "check", "algorithm", "broken")
        assert done.returncode == 1
        assert "ModuleNotFoundError: No module named 'flux_capacitor'" in done.stderr


class TestRefusal:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--algo", "squared-hing", "--model", "tiny"], "unknown algorithm 'squared-hing': did you mean 'squared-hinge'"),
            (["--algo", "squared-hinge", "--model", "tiny-brite"], "unknown model 'tiny-brite': did you mean 'tiny-bright'"),
            (["--algo", "squared-hinge", "--model", "tiny", "--set", "betta=1"], "squared-hinge has no field 'betta': did you mean 'beta'"),
            (["--algo", "squared-hinge", "--model", "tiny", "--metrics", "brihgtness"], "unknown metric 'brihgtness': did you mean 'brightness'"),
            (["--algo", "squared-hinge", "--model", "tiny", "--set", "beta=-1"], "squared-hinge: beta='-1' is not allowed"),
            (["--algo", "smpo", "--model", "tiny", "--set", "reward=bright"], "unknown metric 'bright': did you mean 'brightness'"),
        ],
    )  # fmt: skip
    def test_a_name_that_is_unknown_answers_with_the_nearest(
        self, tmp_path: Path, arguments: list[str], sentence: str
    ) -> None:
        done = run(tmp_path, *arguments)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr

    def test_asking_for_a_broken_algorithm_raises_its_true_exception(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--algo", "broken", "--model", "tiny")
        assert done.returncode == 1
        assert "ModuleNotFoundError: No module named 'flux_capacitor'" in done.stderr

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [("stateless", "Stateless states no info"), ("plain", "Plain is not a subclass of bench.Algorithm")],
    )
    def test_a_part_that_is_not_what_it_must_be_is_one_sentence(self, tmp_path: Path, name: str, sentence: str) -> None:
        done = run(tmp_path, "--algo", name, "--model", "tiny")
        assert done.returncode == 2
        assert f"algorithm '{name}' of bench-broken 0.0.9 is malformed: {sentence}" in done.stderr
        assert "Traceback" not in done.stderr

    def test_asking_for_a_broken_metric_raises_its_true_exception(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--algo", "smpo", "--model", "tiny-bright", "--set", "reward=crooked")
        assert done.returncode == 1
        assert "RuntimeError: crooked needs CUDA 99" in done.stderr
