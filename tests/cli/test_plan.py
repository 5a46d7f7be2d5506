"""``bench plan`` and ``bench profile`` as a user types them; the figures are tested in tests/planning/test_planning.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pipelines import write_sdxl

from tests.cli.conftest import CommandLine

SETS = ("--set", "global_batch_size=4", "--set", "micro_batch_size=2", "--set", "precision=fp32", "--set", "steps=10")
OF_EIGHT = ("--steps", "2", *SETS[2:], "--set", "global_batch_size=8")  # of which online algorithms make groups


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline from which all weights and tokenizers are gone."""
    folder = tmp_path_factory.mktemp("net")
    write_sdxl(folder)
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("config.json", "scheduler_config.json", "model_index.json"):
            path.unlink()
    return folder


def test_a_plan_needs_configurations_alone(command: CommandLine, architecture: Path) -> None:
    words = command.arguments("plan", "--algo", "dpo,sft", "--model", str(architecture), "--card", "l4", *SETS)
    words += ["--processes", "2"]
    done = command.run(words)
    assert done.returncode == 0, done.stderr
    dpo, sft = done.stdout.split("sft on")
    assert "dpo on" in dpo
    assert "text_encoder_2" in dpo
    assert "reference forwards" in dpo
    assert "reference" not in sft
    title = " ".join(dpo.split())
    assert "on 2 GPUs (DDP), " in title
    assert "MFU assumed (float32 without TF32)" in title
    lines = [line.split() for line in dpo.splitlines()]
    assert ["pairs", "40", "10", "steps", "of", "4"] in lines
    assert [line[:4] for line in lines if line[:1] == ["l4"]] == [["l4", "22.0", "GiB", "yes"]]


def test_a_folders_own_card_says_how_many_images_are_made_and_how(
    command: CommandLine, architecture: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(architecture, tmp_path / "own")
    card = {"generation": {"steps": 3, "guidance_scale": 1.0, "images_per_prompt": 4}}
    (folder / "bench.json").write_text(json.dumps(card))
    (command.folder / "three.txt").write_text("a cat\na dog\na bird\n")
    study = f'model = "{folder}"\nprompts = "three.txt"\n[[algorithms]]\nname = "sft"\n[settings]\nsteps = 10\n'
    (command.folder / "study.toml").write_text(study)
    done = command.run(command.arguments("plan", "study.toml", "--card", "l4"))
    assert done.returncode == 0, done.stderr
    # without guidance an image takes one forward a step
    assert "12 images of 3 forwards in " in done.stdout

    (folder / "bench.json").write_text('{"generation": {"stepps": 3}}')
    refused(command, "bench.json: there is no field 'stepps'", "--model", str(folder))


def test_a_profile_is_also_a_file(command: CommandLine, architecture: Path) -> None:
    words = command.arguments("profile", "--algo", "dpo", "--model", str(architecture), "--steps", "2", *SETS)
    done = command.run([*words, "--output", "figures.json"])
    assert done.returncode == 0, done.stderr
    assert "pairs per second" in done.stdout
    figures = json.loads((command.folder / "figures.json").read_text())["algorithms"]["dpo"]
    assert figures["pairs"] == 8
    assert figures["phases"].keys() >= {"encode", "policy forward", "reference", "backward", "optimizer", "other"}
    # a pair: 2 images, 2 forwards and a backward each
    assert figures["forwards_per_second"] == pytest.approx(8 * figures["pairs_per_second"])
    assert figures["resident_growth_bytes"] >= 0


def test_what_cannot_be_measured_is_refused_before_the_others_are(command: CommandLine, architecture: Path) -> None:
    words = command.arguments("profile", "--algo", "sft,ddpo", "--model", str(architecture), *OF_EIGHT)
    done = command.run([*words, "--output", "figures.json"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: ddpo samples and judges while it trains, which bench profile does not measure" in done.stderr
    assert "measuring" not in done.stderr
    assert not (command.folder / "figures.json").exists()


def test_all_that_can_be_measured_are_and_the_others_are_named(command: CommandLine, architecture: Path) -> None:
    # of the algorithms that judge by any metric, rankdpo alone does not sample
    words = command.arguments("profile", "--algo", "all", "--model", str(architecture), *OF_EIGHT)
    done = command.run([*words, "--set", "rewards=gold", "--output", "figures.json"])
    assert done.returncode == 0, done.stderr
    assert "ddpo, dpok, flow-grpo, nft, npo-joint, spo, tailorpo are left out: awm samples and judges" in done.stderr
    assert list(json.loads((command.folder / "figures.json").read_text())["algorithms"]) == ["rankdpo"]


def test_an_optimizer_that_needs_cuda_is_planned_anywhere_and_not_measured_on_a_cpu(
    command: CommandLine, architecture: Path
) -> None:
    words = ("--algo", "dpo", "--model", str(architecture), *SETS, "--set", "optimizer=adamw-8bit")
    planned = command.run(command.arguments("plan", *words))
    assert planned.returncode == 0, planned.stderr
    measured = command.run(command.arguments("profile", *words))
    assert measured.returncode == 2
    assert "optimizer=adamw-8bit runs on CUDA only; use --set optimizer=adamw" in measured.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--card", "h10"), "unknown GPU 'h10': did you mean"),
        (("--set", "micro=1"), "dpo has no field 'micro'"),
        (("--budget", "pairs"), "--budget 'pairs' is not of the form unit=amount"),
    ],
)
def test_bad_input_is_one_sentence(command: CommandLine, words: tuple[str, ...], sentence: str) -> None:
    refused(command, sentence, "--model", "sdxl", *words)


def test_a_model_that_is_not_here_is_one_sentence(command: CommandLine) -> None:
    refused(command, "and cannot be downloaded from the hub", "--model", "nobody/nothing")
    refused(command, "does not exist", "--model", "no/such/folder")


def test_a_missing_configuration_is_named(command: CommandLine, architecture: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    for path in architecture.rglob("*.json"):
        if path.parent.name != "text_encoder_2":
            copy = folder / path.relative_to(architecture)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    refused(command, "lacks the component 'text_encoder_2'", "--model", str(folder))


def refused(command: CommandLine, sentence: str, *words: str) -> None:
    done = command.run(command.arguments("plan", "--algo", "dpo", *words))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert sentence in done.stderr


def test_an_old_name_is_noted(command: CommandLine) -> None:
    done = command.run(command.arguments("plan", "--algo", "dpo", "--model", "tiny", "--set", "clip_norm=0.5"))
    assert done.returncode == 0, done.stderr
    assert "note: renamed settings: clip_norm is now max_grad_norm" in done.stderr


STUDY = """\
model = "tiny"
limit = 8
seeds = [0, 1]
placebo = true

[settings]
steps = 2

[images]
images_per_prompt = 3

[[algorithms]]
name = "dpo"
settings = { learning_rate = [1e-5, 3e-5] }

[[algorithms]]
name = "dpo"
label = "longer"
settings = { steps = 4 }
"""


def test_a_study_is_planned_with_its_limit_and_in_all(command: CommandLine) -> None:
    (command.folder / "study.toml").write_text(STUDY)
    done = command.run(command.arguments("plan", "study.toml", "--card", "l4"))
    assert done.returncode == 0, done.stderr
    *pages, total = done.stdout.replace("all runs together", "dpo (").split("dpo (")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]

    # each configuration by what was set, whose batch is lowered to the 8 pairs, as the run lowers it
    assert [page.partition(") on tiny")[0] for page in pages[1:]] == [
        "steps=2, learning_rate=1e-05",
        "steps=2, learning_rate=3e-05",
        "longer: steps=4",
    ]
    assert lines.count("pairs 16 2 steps of 8") == 2
    assert lines.count("pairs 32 4 steps of 8") == 1
    assert sum(line.endswith("for 8 rows of the data") for line in lines) == 3
    assert sum(line.endswith("at most, for 24 images") for line in lines) == 3

    told = [" ".join(line.split()) for line in total.splitlines()]
    assert "runs 12 3 configurations x 2 seeds, and 6 placebos" in told
    assert "evaluations 13 12 of runs, 1 of base models" in told
    assert "evaluation images 312 of all evaluations" in told
    assert "pairs 256 of all runs" in told
    assert [line.split()[:2] for line in told if line.startswith("l4 ")] == [["l4", "yes"]]
    assert "There is no estimate for CPUs; the README's figures" in total


def test_a_plan_of_tiny_counts_its_own_data_and_prompts(command: CommandLine) -> None:
    done = command.run(command.arguments("plan", "--algo", "sft", "--model", "tiny", "--card", "l4"))
    assert done.returncode == 0, done.stderr
    assert "for 3,000 rows of the data" in done.stdout
    assert "at most, for 200 images" in done.stdout
    assert "settings: recipe their source: ours: the best of four trials" in " ".join(done.stdout.split())
    more = command.run(command.arguments("plan", "--algo", "sft", "--model", "tiny", "--card", "l4", "--images", "5"))
    assert "at most, for 5 images" in more.stdout


def test_data_of_a_file_that_cannot_be_read_is_refused_with_its_line(command: CommandLine) -> None:
    (command.folder / "study.toml").write_text('model = "tiny"\ndata = "x.parquet"\n[[algorithms]]\nname = "sft"\n')
    (command.folder / "x.parquet").write_bytes(b"PAR1")
    done = command.run(command.arguments("plan", "study.toml"))
    assert done.returncode == 2
    assert "error: study.toml, line 2: " in done.stderr


def test_a_wrong_path_of_a_file_is_noted(command: CommandLine) -> None:
    lines = 'model = "tiny"\ndata = "absent.parquet"\nprompts = "absent.txt"\n[[algorithms]]\nname = "sft"\n'
    (command.folder / "study.toml").write_text(lines)
    done = command.run(command.arguments("plan", "study.toml", "--card", "l4"))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("note: ")] == [
        "note: absent.parquet is not on this machine, so figures are for 1,000 rows of data",
        "note: absent.txt is not on this machine, so figures are for 1,000 evaluation images",
    ]
