"""`bench run --evaluate-every` and `--stop-when`: what is measured while a run trains, by the real command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from launches import LAUNCH
from safetensors.numpy import load_file

from bench.experiments.watching import joined
from bench.records.runs import RunFolder
from bench.training.held_out import held_out_captions
from tests.cli.conftest import CommandLine


def weights(run: Path) -> dict[str, bytes]:
    (file,) = run.glob("weights/*.safetensors")
    return {name: value.tobytes() for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> CommandLine:
    """The run of `uninterrupted`, measured every four of its six steps."""
    command = CommandLine(tmp_path_factory.mktemp("measured"), *small_data)
    done = command.run(command.train_words("--evaluate-every", "4", "--metrics", "gold,aesthetic"))
    assert done.returncode == 0, done.stderr
    return command


def test_adapters_in_bf16_are_measured_under_a_protocol_in_fp32_and_train_the_same(command: CommandLine) -> None:
    words = ["--set", "trainable=lora", "--set", "precision=bf16", "--metrics", "gold"]
    found = {}
    for name, watched in (("alone", []), ("watched", ["--evaluate-every", "3"])):
        done = command.run(command.train_words(*words, *watched, runs=name))
        assert done.returncode == 0, done.stderr
        (run,) = (command.folder / name).glob("tiny/dpo/*/seed-0")
        found[name] = run
    assert weights(found["alone"]) == weights(found["watched"])
    curve = RunFolder(found["watched"]).curve()
    assert curve is not None
    assert [line["step"] for line in curve[1]] == [0, 3, 6]


def run_of(folder: Path) -> Path:
    (run,) = folder.glob("tiny/dpo/*/seed-0")
    return run


@pytest.mark.slow
def test_the_weights_and_the_name_are_those_of_a_run_that_nobody_measured(
    measured: CommandLine, uninterrupted: Path
) -> None:
    one, other = run_of(measured.folder / "runs"), run_of(uninterrupted)
    assert one.parent.name == other.parent.name
    assert weights(one) == weights(other)


@pytest.mark.slow  # below, an online run is followed in the same way
def test_a_line_for_the_start_every_fourth_step_and_the_end(measured: CommandLine) -> None:
    curve = RunFolder(run_of(measured.folder / "runs")).curve()
    assert curve is not None
    record, lines = curve
    assert [(line["step"], line["pairs"]) for line in lines] == [(0, 0), (4, 16), (6, 24)]
    assert len(set(record.prompts)) == 16
    assert set(lines[0]["scores"]) == {*record.titles, "diversity", "dark", "saturation", "edges"}
    assert {len(values) for line in lines for values in line["scores"].values()} == {16 * 4}
    assert lines[0]["signal"] is None
    steps = (run_of(measured.folder / "runs") / "train.jsonl").read_text().splitlines()
    margins = [json.loads(step)["margin"] for step in steps]
    assert lines[1]["signal"] == pytest.approx(sum(margins[:4]) / 4)
    assert lines[2]["signal"] == pytest.approx(sum(margins[4:]) / 2)
    assert lines[0]["scores"]["gold"] != lines[2]["scores"]["gold"]


@pytest.mark.slow  # tests/reports/test_overoptimisation.py reads curves
def test_the_report_shows_what_was_measured(measured: CommandLine) -> None:
    shown = measured.run(measured.arguments("report", "--runs", "runs", "--format", "markdown"))
    assert shown.returncode == 0, shown.stderr
    assert "diversity, %" in shown.stdout
    assert "seed 0, on training prompts: " in shown.stdout
    page = measured.run(measured.arguments("report", "--runs", "runs", "--output", "report.html"))
    assert page.returncode == 0, page.stderr
    text = (measured.folder / "report.html").read_text(encoding="utf-8")
    assert "Along the training" in text
    assert "error, policy minus reference" in text


@pytest.mark.slow  # tests/records/test_manipulations.py changes other records
def test_a_changed_curve_of_a_finished_run_is_refused(measured: CommandLine) -> None:
    log = run_of(measured.folder / "runs") / "curve.jsonl"
    before = log.read_text()
    log.write_text(before.replace('"step": 4', '"step": 5'))
    shown = measured.run(measured.arguments("report", "--runs", "runs"))
    log.write_text(before)
    assert shown.returncode == 2
    assert "curve.jsonl" in shown.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--stop-when", "overoptimised"), "needs --evaluate-every N"),
        (("--stop-when", "bored", "--evaluate-every", "2"), "overoptimised"),
    ],
)
def test_what_does_not_fit_is_one_sentence(command: CommandLine, words: tuple[str, ...], says: str) -> None:
    done = command.run(command.train_words(*words))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_rule_to_stop_is_part_of_the_identity(command: CommandLine) -> None:
    words = command.train_words("--evaluate-every", "6", "--stop-when", "overoptimised", "--name", "ruled")
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    config = RunFolder(run_of(command.folder / "runs")).config()
    assert config.resolved.training is not None
    assert config.resolved.training.to_json()["stop_when"] == {"rule": "overoptimised", "every": 6}
    other = command.run(command.train_words("--name", "ruled"))
    assert other.returncode == 2
    assert "stop_when" in other.stderr


def stopping_words(command: CommandLine) -> list[str]:
    """A run whose learning rate destroys the images in a few steps, with a rule to stop."""
    words = command.train_words(
        *("--set", "learning_rate=1e-3", "--metrics", "gold,imagereward,pickscore", "--name", "ruled"),
        *("--evaluate-every", "2", "--stop-when", "overoptimised"),
    )
    words[words.index("steps=6")] = "steps=12"
    return words


def kill_after_two_looks(command: CommandLine, words: list[str], log: Path) -> None:
    """Start a command, and kill it as soon as its curve has two lines."""
    process = command.start(words)
    try:
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert process.poll() is None, "the run ended before its second look"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_rule_stops_a_run_and_one_that_was_killed_at_the_same_step(
    command: CommandLine, tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]
) -> None:
    whole = CommandLine(tmp_path_factory.mktemp("whole"), *small_data)
    done = whole.run(stopping_words(whole))
    assert done.returncode == 0, done.stderr
    run = RunFolder(run_of(whole.folder / "runs"))
    curve = run.curve()
    assert curve is not None
    stopped = curve[1][-1]["step"]
    assert stopped < 12
    assert len(run.steps()) == stopped
    assert f"stopped at step {stopped}: Over-optimised: training reward up, " in done.stderr
    assert run.done

    other = RunFolder(command.folder / "runs/tiny/dpo/ruled/seed-0")
    kill_after_two_looks(command, stopping_words(command), other.folder / "curve.jsonl")
    continued = command.run(stopping_words(command))
    assert continued.returncode == 0, continued.stderr
    assert other.curve() == curve
    assert weights(other.folder) == weights(run.folder)


ONLINE = ("group=2", "rewards=imagereward", "sampling_steps=2", "trained=1", "within=2", "held_out=4", "clip=1e-2")


def online_words(command: CommandLine, every: int, *more: str) -> list[str]:
    """Six collections of four samples of two steps, measured on four held-out captions."""
    sets = [word for setting in (*ONLINE, *more) for word in ("--set", setting)]
    return command.train_words(
        *("--evaluate-every", str(every), "--metrics", "gold", "--name", "followed", *sets), algo="ddpo"
    )


def followed_run(command: CommandLine) -> RunFolder:
    return RunFolder(command.folder / "runs/tiny/ddpo/followed/seed-0")


@pytest.mark.parametrize("more", [(), ("ema_decay=0.5",)], ids=["last weights", "their average"])
def test_an_online_run_is_followed_on_captions_that_it_does_not_train_on(
    command: CommandLine, more: tuple[str, ...]
) -> None:
    done = command.run(online_words(command, 6, *more))
    assert done.returncode == 0, done.stderr
    run = followed_run(command)
    curve = run.curve()
    assert curve is not None
    record, lines = curve
    evaluated = command.prompts.read_text().splitlines()
    captions = pq.read_table(command.data).column("caption").to_pylist()
    assert list(record.prompts) == [each for each in held_out_captions(captions, 4) if each not in evaluated]
    assert record.held_out
    assert record.training_sampler["rules"] == [{"rule": "Ddim", "noise": 1.0, "steps": 2}]
    assert record.titles.keys() == {
        "gold",
        "imagereward",
    }  # what training uses is measured, unless it is a metric anyway
    images = 4 * len(record.prompts)
    # the protocol's two steps are guided, the training's own two are not
    assert {line["step"]: line["cost"] for line in lines} == {
        step: {"images": 2 * images, "forwards": images * 2 * 2 + images * 2, "scores": 2 * images * 2}
        for step in (0, 6)
    }
    for line in lines:
        assert {name: len(values) for name, values in line["training_sampler"].items()} == {
            "gold": images,
            "imagereward": images,
        }
        assert line["training_sampler"]["imagereward"] != line["scores"]["imagereward"]
    ledger = run.ledger()
    assert ledger is not None
    assert (ledger["samples"], ledger["reward_calls"]) == (24, 24 + 2)  # nothing of the looks
    encoded = {path.name.partition("-")[0] for path in command.folder.glob("runs/**/*.npy")}
    assert encoded >= {"text", "negative"}
    assert "posterior" not in encoded  # it reads no pictures
    shown = command.run(command.arguments("report", "--runs", "runs", "--format", "markdown"))
    assert shown.returncode == 0, shown.stderr
    assert "images by the training's own sampler and by" in shown.stdout
    assert "captions held out from training" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dpo", "ddpo"])
def test_two_processes_share_the_looks_and_write_what_one_would(
    command: CommandLine, tmp_path: Path, algorithm: str
) -> None:
    """The weights differ by rounding, and so do the images: a share of their 8-bit values, by one or two."""
    sets = [word for setting in ONLINE for word in ("--set", setting)] if algorithm == "ddpo" else []
    words = command.train_words("--evaluate-every", "3", "--metrics", "gold,aesthetic", *sets, algo=algorithm)
    curves = []
    for runs, launcher in (("one", words[:2]), ("two", [*LAUNCH, "--num_processes", "2", "-m"])):
        done = command.run([*launcher, *words[2:], "--runs", str(tmp_path / runs)])
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / runs).glob(f"tiny/{algorithm}/*/seed-0")
        curve = RunFolder(folder).curve()
        assert curve is not None
        curves.append(curve)
    (record, lines), (other, of_two) = curves
    assert other == record
    assert [(line["step"], line["pairs"], line["cost"]) for line in of_two] == [
        (line["step"], line["pairs"], line["cost"]) for line in lines
    ]
    assert len(lines) == 3
    for one, two in zip(lines, of_two, strict=True):
        for name, values in one["scores"].items():
            assert two["scores"][name] == pytest.approx(values, rel=0.01, abs=0.05), name
        for name, values in one.get("training_sampler", {}).items():
            assert two["training_sampler"][name] == pytest.approx(values, rel=0.01, abs=0.05), name


@pytest.mark.slow
def test_two_processes_whose_clocks_differ_end_together(command: CommandLine) -> None:
    """Seconds are each process's own, and the last look is made where they are used up."""
    words = command.train_words("--evaluate-every", "1000", "--metrics", "gold", "--budget", "seconds=6")
    place = words.index("steps=6")
    del words[place - 1 : place + 1]
    done = command.run([*LAUNCH, "--num_processes", "2", "-m", *words[2:]])
    assert done.returncode == 0, done.stderr
    (folder,) = command.folder.glob("runs/tiny/dpo/*/seed-0")
    curve = RunFolder(folder).curve()
    assert curve is not None
    assert [line["step"] for line in curve[1]] == [0, len(RunFolder(folder).steps())]


def test_values_of_processes_follow_each_other() -> None:
    parts = [{}, {"gold": [1.0, 2.0], "dark": [0.5]}, {}, {"gold": [3.0], "dark": [0.25]}]
    assert joined(parts) == {"gold": [1.0, 2.0, 3.0], "dark": [0.5, 0.25]}
    assert joined([{}, {}]) == {}
    with pytest.raises(KeyError):
        joined([{"gold": [1.0], "dark": [0.5]}, {"gold": [2.0]}])


def test_looks_with_sharded_weights_are_refused(command: CommandLine) -> None:
    done = command.run(
        [*LAUNCH[:3], "--use_fsdp", "--num_processes", "2", "-m", *command.train_words("--evaluate-every", "2")[2:]]
    )
    assert done.returncode == 1  # the launcher's own; both processes exit with 2
    assert "--evaluate-every and --stop-when do not work with sharded training (FSDP, DeepSpeed)" in done.stderr


def test_a_single_caption_to_look_at_is_refused_before_anything_is_computed(command: CommandLine) -> None:
    words = [word.replace("held_out=4", "held_out=1") for word in online_words(command, 6)]
    done = command.run(words)
    assert done.returncode == 2
    assert "--evaluate-every and --stop-when have one caption to look at (" in done.stderr
    assert not followed_run(command).folder.exists()


@pytest.mark.slow
def test_an_online_run_that_was_killed_has_the_same_curve_and_weights(
    command: CommandLine, tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]
) -> None:
    whole = CommandLine(tmp_path_factory.mktemp("whole"), *small_data)
    done = whole.run(online_words(whole, 2))
    assert done.returncode == 0, done.stderr
    kill_after_two_looks(command, online_words(command, 2), followed_run(command).folder / "curve.jsonl")
    continued = command.run(online_words(command, 2))
    assert continued.returncode == 0, continued.stderr
    assert followed_run(command).curve() == followed_run(whole).curve()
    assert weights(followed_run(command).folder) == weights(followed_run(whole).folder)
