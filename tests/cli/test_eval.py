"""`bench eval` and negative runs, by the real command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from shared import made_once

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine, write_prompts

DPO = "tiny/dpo/mine/seed-0"
NPO = "tiny/npo/mine/seed-0"
SHORT = (
    "--set",
    "steps=2",
    "--set",
    "global_batch_size=4",
    "--set",
    "micro_batch_size=4",
    "--set",
    "warmup_steps=0",
    "--set",
    "learning_rate=1e-3",
)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> CommandLine:
    """A folder with a run of dpo and one of npo, judged on five prompts."""

    def made(folder: Path) -> CommandLine:
        return CommandLine(folder, small_data[0], write_prompts(folder / "prompts.txt", 5))

    def train(folder: Path) -> None:
        line = made(folder)
        words = ("run", "--algo", "dpo,npo", "--data", str(line.data), "--name", "mine", *SHORT, *common(line))
        done = line.run(line.arguments(*words))
        assert done.returncode == 0, done.stderr

    folder = tmp_path_factory.mktemp("eval")
    shutil.copytree(made_once(tmp_path_factory, "two-runs", train), folder, dirs_exist_ok=True)
    return made(folder)


def common(line: CommandLine) -> list[str]:
    return [
        "--model",
        "tiny",
        "--prompts",
        str(line.prompts),
        "--sampling-steps",
        "2",
        "--runs",
        str(line.folder / "runs"),
    ]


def evaluate(line: CommandLine, *words: str) -> list[Path]:
    """Evaluate, and give the folders that the command line names."""
    done = line.run(line.arguments("eval", *common(line), *words))
    assert done.returncode == 0, done.stderr
    return [Path(text.removeprefix("done: ")) for text in done.stderr.splitlines() if text.startswith("done: ")]


def refusal(line: CommandLine, *words: str) -> str:
    done = line.run(line.arguments("eval", *common(line), *words))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def pictures(folder: Path) -> list[bytes]:
    """The pixels' data of every image; the texts before them differ with the variant."""
    found = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    assert len(found) == 5
    return [data[data.index(b"IDAT") :] for data in found]


def own(line: CommandLine, run: str) -> Path:
    (folder,) = (path for path in (line.folder / "runs" / run / "evaluations").iterdir() if "-" not in path.name)
    return folder


def test_a_negative_run_is_judged_as_negative_of_the_base(line: CommandLine) -> None:
    config = json.loads((line.folder / "runs" / NPO / "config.json").read_text())
    assert config["resolved"]["negative"] == {"alpha": 1.0, "beta": 1.0}
    variant = json.loads((own(line, NPO) / "variant.json").read_text())
    assert (variant["alpha"], variant["beta"], variant["guidance_scale"]) == (1, 1, 3)
    assert (variant["positive"]["source"], variant["negative"]["source"]) == ("base", NPO)
    before = (own(line, NPO) / "DONE").stat().st_mtime_ns
    assert evaluate(line, "--negative", NPO) == [own(line, NPO)]  # asked for otherwise, it is the same and done
    assert (own(line, NPO) / "DONE").stat().st_mtime_ns == before
    weights = line.folder / "runs" / NPO / "weights"
    (alone,) = evaluate(line, "--weights", str(weights), "--name", "alone")
    images = [pictures(each) for each in (own(line, "tiny/base"), alone, own(line, NPO))]
    assert images[0] != images[1] != images[2] != images[0]
    assert not (own(line, DPO) / "variant.json").exists()


@pytest.mark.slow
def test_negative_guidance_of_a_run_a_sweep_and_released_weights_share_a_table(line: CommandLine) -> None:
    (both,) = evaluate(line, "--run", DPO, "--negative", NPO)
    assert both.parent == own(line, DPO).parent
    assert both.name.startswith(f"{own(line, DPO).name}-")
    assert pictures(both) != pictures(own(line, DPO))
    (plain,) = evaluate(line, "--run", DPO, "--negative", NPO, "--alpha", "1", "--beta", "0")
    assert pictures(plain) == pictures(own(line, DPO))

    sweep = evaluate(line, "--guidance-scale", "1,3,5")
    assert sweep[1] == own(line, "tiny/base")
    assert len({tuple(pictures(folder)) for folder in sweep}) == 3

    theirs = line.folder / "theirs"
    shutil.copytree(line.folder / "runs" / DPO / "weights", theirs / "unet")
    (released,) = evaluate(line, "--weights", str(theirs))
    assert pictures(released) == pictures(own(line, DPO))

    shown = line.run(line.arguments("report", "--runs", str(line.folder / "runs"), "--format", "csv"))
    assert shown.returncode == 0, shown.stderr
    for label in (
        "Tiny", "Diffusion-DPO (mine)", "Diffusion-NPO (mine)", "Diffusion-DPO (mine) + Diffusion-NPO (mine) (1, 1)",
        "Diffusion-DPO (mine) + Diffusion-NPO (mine) (1, 0)", "Tiny, guidance 1", "Tiny, guidance 5", "theirs",
    ):  # fmt: skip
        assert label in shown.stdout


def test_training_starts_from_another_run_which_is_its_reference(line: CommandLine) -> None:
    words = ("run", "--algo", "dpo", "--data", str(line.data), *SHORT, *common(line), "--name", "second", "--init")
    done = line.run(line.arguments(*words, DPO))
    assert done.returncode == 0, done.stderr
    first, second = (line.folder / "runs" / run for run in (DPO, "tiny/dpo/second/seed-0"))
    configs = [json.loads((run / "config.json").read_text()) for run in (first, second)]
    assert [config["init"] for config in configs] == ["base", DPO]
    assert configs[0]["resolved"]["init"] == configs[0]["base_weights"] == configs[1]["base_weights"]
    assert configs[1]["resolved"]["init"] != configs[0]["resolved"]["init"]
    steps = [json.loads(text) for text in (second / "train.jsonl").read_text().splitlines()]
    assert steps[0]["margin"] == 0  # the reference starts there too
    assert pictures(own(line, "tiny/dpo/second/seed-0")) != pictures(own(line, DPO))

    other = line.run(line.arguments(*words, "tiny/base"))
    assert (other.returncode, "differs in init" in other.stderr) == (2, True)
    shown = line.run(line.arguments("report", "--runs", str(line.folder / "runs"), "--format", "markdown"))
    assert f"Diffusion-DPO (second) started from {DPO}, not from the base model." in shown.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--init", NPO), "trained weights for the unconditional branch"),
        (
            ("--init", DPO, "--set", "trainable=lora"),
            "dpo: LoRA on top of --init Diffusion-DPO (mine) cannot be saved on its own",
        ),
        (
            ("--init", DPO, "--algo", "npo-joint", "--set", "rewards=gold", "--set", "threshold=0"),
            "npo-joint samples with the weights that it starts from in one branch of guidance",
        ),
        (("--init", "tiny/dpo/none/seed-0"), "there is no run 'tiny/dpo/none/seed-0'"),
    ],
)
def test_what_training_cannot_start_from_is_refused(line: CommandLine, words: tuple[str, ...], reason: str) -> None:
    algorithm = () if "--algo" in words else ("--algo", "dpo")
    done = line.run(line.arguments("run", *algorithm, "--data", str(line.data), *common(line), *words))
    assert done.returncode == 2
    assert reason in done.stderr


def test_an_evaluation_that_was_cut_short_is_continued(line: CommandLine) -> None:
    words = ("--run", DPO, "--guidance-scale", "4")
    (whole,) = evaluate(line, *words)
    images, scores = pictures(whole), sorted((whole / "scores.jsonl").read_text().splitlines())
    (whole / "DONE").unlink()
    (whole / "images" / "00003-00.png").unlink()
    (whole / "scores.jsonl").write_text("")
    assert evaluate(line, *words) == [whole]
    assert pictures(whole) == images
    assert sorted((whole / "scores.jsonl").read_text().splitlines()) == scores


def test_an_unknown_run(line: CommandLine) -> None:
    text = refusal(line, "--run", "tiny/dop/mine/seed-0")
    assert "there is no run 'tiny/dop/mine/seed-0'" in text
    assert f"did you mean '{DPO}'" in text


def test_a_run_among_released_weights(line: CommandLine) -> None:
    for typed in (DPO, str(line.folder / "runs" / DPO)):
        assert f"--weights {typed} is a run; use --run {typed}" in refusal(line, "--weights", typed)


def test_weights_that_cannot_be_loaded_do_not_keep_their_name(line: CommandLine) -> None:
    file = line.folder / "mine.safetensors"
    whole = load_file(ASSETS / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({name: value * float("nan") for name, value in whole.items()}, file)
    assert "is not finite; the file is damaged" in refusal(line, "--weights", str(file))
    assert not (line.folder / "runs" / "tiny" / "weights" / "mine" / "config.json").exists()
    save_file(whole, file)
    (place,) = evaluate(line, "--weights", str(file), "--metrics", "aesthetic")
    assert place.is_relative_to(line.folder / "runs" / "tiny" / "weights" / "mine")


def test_weights_in_a_run_are_called_after_it(line: CommandLine) -> None:
    weights = line.folder / "runs" / DPO / "weights"
    (file,) = weights.glob("*.safetensors")
    for typed in (weights, file):
        (folder,) = evaluate(line, "--weights", str(typed))
        assert folder.parts[-3] == "dpo-mine-seed-0"


def test_an_unfinished_run(line: CommandLine, tmp_path: Path) -> None:
    shutil.copytree(line.folder / "runs" / DPO, tmp_path / "runs" / DPO)
    (tmp_path / "runs" / DPO / "DONE").unlink()
    assert "has not finished training" in refusal(dataclasses.replace(line, folder=tmp_path), "--run", DPO)


def test_a_negative_of_another_architecture(line: CommandLine, tmp_path: Path) -> None:
    config = UNet2DConditionModel.load_config(ASSETS / "model" / "unet")
    UNet2DConditionModel.from_config({**config, "cross_attention_dim": 24}).save_pretrained(tmp_path / "other")
    assert "holds another architecture than 'tiny'" in refusal(line, "--negative", str(tmp_path / "other"))


def test_a_negative_prompt_without_guidance(line: CommandLine) -> None:
    prompt = ("--image", "negative_prompt=blurry")
    assert "has no effect: images with guidance_scale 1 are made without one" in refusal(
        line, *prompt, "--image", "guidance_scale=1"
    )
    assert "has an effect only with guidance above 1" in refusal(line, *prompt, "--guidance-scale", "3,1")


def test_a_negative_without_guidance(line: CommandLine) -> None:
    assert "--negative has an effect only with guidance above 1" in refusal(
        line, "--negative", NPO, "--guidance-scale", "1"
    )


def test_guidance_that_means_nothing(line: CommandLine) -> None:
    assert "--guidance-scale '3,,5' is not a list of numbers from 1 to 1000" in refusal(
        line, "--guidance-scale", "3,,5"
    )


def test_a_sampler_that_draws_noise_makes_the_same_images_again(tmp_path: Path) -> None:
    prompts = tmp_path / "two.txt"
    line = CommandLine(tmp_path, tmp_path, prompts)
    prompts.write_text("a bee on a yellow background\na cat on a red background\n")
    words = (
        "--image", "scheduler=EulerAncestralDiscreteScheduler", "--prompts", str(prompts), "--sampling-steps", "3",
        "--metrics", "aesthetic", "--weights", str(ASSETS / "model" / "unet"), "--name", "own",
    )  # fmt: skip
    made = []
    for runs in ("once", "twice"):
        done = line.run(line.arguments("eval", "--model", "tiny", "--runs", str(line.folder / runs), *words))
        assert done.returncode == 0, done.stderr
        pictures = sorted((line.folder / runs).rglob("*.png"))
        made.append({path.relative_to(line.folder / runs): path.read_bytes() for path in pictures})
    assert len(made[0]) == 4
    assert made[0] == made[1]
    base, own = ([content for path, content in made[0].items() if kind in path.parts] for kind in ("base", "weights"))
    assert base == own
    shown = line.run(line.arguments("report", "--runs", str(line.folder / "once"), "--format", "json"))
    (row,) = [row for row in json.loads(shown.stdout)["rows"] if row["label"] == "own"]
    assert row["scores"]["aesthetic"]["difference"]["mean"] == 0.0
