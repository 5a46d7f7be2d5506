"""Released weights from a hub, from its cache, and the errors when they cannot be downloaded; by the real command line."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hub import local_hub, nowhere
from safetensors.torch import load_file, save_file

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Someone's pipeline, LoRA, gated and pickled repositories."""
    folder = tmp_path_factory.mktemp("hub")
    someone = folder / "models" / "someone"
    tuned = someone / "tuned"
    shutil.copytree(ASSETS / "model" / "unet", tuned / "unet")
    shutil.copy(ASSETS / "model" / "model_index.json", tuned)
    (tuned / "all-in-one.safetensors").write_bytes(b"never asked for")
    unet = tuned / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(unet)
    layer = next(name for name in tensors if name.endswith("attn1.to_q.weight"))
    save_file({**tensors, layer: tensors[layer] * 1.5}, unet, {"format": "pt"})

    shutil.copytree(tuned, someone / "velocity")
    scheduler = json.loads((ASSETS / "model" / "scheduler" / "scheduler_config.json").read_text())
    (someone / "velocity" / "scheduler").mkdir()
    (someone / "velocity" / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({**scheduler, "prediction_type": "v_prediction"})
    )

    rows, columns = tensors[layer].shape
    random = torch.Generator().manual_seed(0)
    adapters = {
        f"unet.{layer.removesuffix('.weight')}.lora_A.weight": torch.randn(2, columns, generator=random),
        f"unet.{layer.removesuffix('.weight')}.lora_B.weight": torch.randn(rows, 2, generator=random),
    }
    (someone / "lora").mkdir()
    save_file(adapters, someone / "lora" / "step-2000.safetensors")
    shutil.copytree(someone / "lora", someone / "lost")
    (someone / "lost" / "LOST").touch()
    (someone / "gated").mkdir()
    (someone / "gated" / "GATED").touch()
    (someone / "pickled" / "unet").mkdir(parents=True)
    (someone / "pickled" / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    return folder


@pytest.fixture
def environment(hub: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    with local_hub(hub, tmp_path / "cache") as variables:
        yield variables


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> CommandLine:
    folder = tmp_path_factory.mktemp("released")
    (folder / "prompts.txt").write_text("\n".join(small_data[1].read_text().splitlines()[:2]) + "\n")
    return CommandLine(folder, small_data[0], folder / "prompts.txt")


def evaluate(
    line: CommandLine, environment: dict[str, str], weights: str, preexec: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    words = line.arguments(
        "eval", "--model", "tiny", "--weights", weights, "--prompts", str(line.prompts), "--sampling-steps", "2",
        "--metrics", "aesthetic",
    )  # fmt: skip
    return subprocess.run(
        words, cwd=line.folder, env=environment, capture_output=True, text=True, check=False, preexec_fn=preexec
    )


def refusal(
    line: CommandLine, environment: dict[str, str], weights: str, preexec: Callable[[], None] | None = None
) -> str:
    done = evaluate(line, environment, weights, preexec)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return next(text for text in done.stderr.splitlines() if text.startswith("error: "))


def cached_names(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").rglob("snapshots/*/**/*") if path.is_file()}


@pytest.mark.slow
def test_a_lora_of_the_hub_is_a_row_of_the_report(
    line: CommandLine, environment: dict[str, str], tmp_path: Path
) -> None:
    done = evaluate(line, environment, "someone/lora")
    assert done.returncode == 0, done.stderr
    again = evaluate(line, nowhere(tmp_path / "cache"), "someone/lora")
    assert again.returncode == 0, again.stderr
    assert "step-2000.safetensors" in cached_names(tmp_path)
    assert means(line).keys() == {"Tiny", "lora"}
    assert len(set(means(line).values())) == 2


@pytest.mark.slow
def test_of_a_pipeline_of_the_hub_only_what_is_needed_is_downloaded(
    line: CommandLine, environment: dict[str, str], tmp_path: Path
) -> None:
    done = evaluate(line, environment, "someone/tuned")
    assert done.returncode == 0, done.stderr
    assert "diffusion_pytorch_model.safetensors" in cached_names(tmp_path)
    assert "all-in-one.safetensors" not in cached_names(tmp_path)
    assert means(line)["tuned"] != means(line)["Tiny"]


def means(line: CommandLine) -> dict[str, str]:
    """The mean score of each row of the report, by label."""
    shown = line.run(line.arguments("report", "--format", "csv"))
    return {row.split(",")[3]: row.split(",")[5] for row in shown.stdout.splitlines()[1:]}


@pytest.mark.slow
def test_what_the_hub_refuses(line: CommandLine, environment: dict[str, str]) -> None:
    gated = refusal(line, environment, "someone/gated")
    assert "someone/gated is gated; accept its terms on the hub's page and log in with `hf auth login`" in gated
    missing = refusal(line, environment, "someone/else")
    assert "the hub has no model someone/else, or it is private; check the name" in missing
    pickled = refusal(line, environment, "someone/pickled")
    assert "someone/pickled holds no safetensors weights" in pickled


@pytest.mark.slow
def test_training_starts_from_weights_of_the_hub(line: CommandLine, environment: dict[str, str]) -> None:
    def train(init: str) -> subprocess.CompletedProcess[str]:
        words = line.train_words("--metrics", "aesthetic", "--init", init, runs="started")
        return subprocess.run(words, cwd=line.folder, env=environment, capture_output=True, text=True, check=False)

    done = train("someone/tuned")
    assert done.returncode == 0, done.stderr
    (config,) = (json.loads(path.read_text()) for path in line.folder.glob("started/tiny/dpo/*/seed-0/config.json"))
    assert config["init"] == "someone/tuned"
    assert config["resolved"]["init"] != config["base_weights"]

    refused = train("someone/velocity")
    assert refused.returncode == 2
    assert "someone/velocity was trained for another forward process than 'tiny'" in refused.stderr
    assert "prediction type v_prediction, not epsilon" in refused.stderr


@pytest.mark.slow
def test_a_download_that_breaks_off(line: CommandLine, environment: dict[str, str], tmp_path: Path) -> None:
    lost = refusal(line, environment, "someone/lost")
    assert "cannot be downloaded from the hub: the download of someone/lost was interrupted (" in lost
    assert f"check the connection and that {tmp_path / 'cache' / 'hub'} can be written" in lost
    full = refusal(
        line, environment, "someone/tuned", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    )
    assert f"the disk is full: {tmp_path / 'cache' / 'hub'} could not be written; free some space" in full


@pytest.mark.slow
def test_without_a_network_and_a_cached_copy(line: CommandLine, tmp_path: Path) -> None:
    text = refusal(line, nowhere(tmp_path), "someone/tuned")
    assert (
        "weights 'someone/tuned' are not local files and cannot be downloaded from the hub: the hub cannot be reached"
        in text
    )
    text = refusal(line, {**nowhere(tmp_path), "HF_HUB_OFFLINE": "1"}, "someone/tuned")
    assert "HF_HUB_OFFLINE is set and the cache has no complete copy of someone/tuned" in text


@pytest.mark.slow
def test_weights_of_another_family(line: CommandLine, environment: dict[str, str], tmp_path: Path) -> None:
    save_file({"transformer_blocks.0.attn.to_q.weight": torch.zeros(8, 8)}, tmp_path / "flux.safetensors")
    text = refusal(line, environment, str(tmp_path / "flux.safetensors"))
    assert "holds another architecture than 'tiny'" in text


def test_a_run_exports_its_adapters_for_user_interfaces(hub: Path, line: CommandLine) -> None:
    run = line.folder / "mine" / "seed-0"
    (run / "weights").mkdir(parents=True)
    adapters = hub / "models" / "someone" / "lora" / "step-2000.safetensors"
    shutil.copy(adapters, run / "weights" / "pytorch_lora_weights.safetensors")
    refused = line.run(line.arguments("export", str(run), "mine.safetensors"))
    assert refused.returncode == 2
    assert "is not a finished run; name the folder of one" in refused.stderr
    (run / "DONE").touch()
    done = line.run(line.arguments("export", str(run), "mine.safetensors"))
    assert done.returncode == 0, done.stderr
    (line.folder / "mine.txt").write_text("a bee\n")
    (line.folder / "folder.safetensors").mkdir()
    shutil.copy(adapters, line.folder / "other.safetensors")
    (layer,) = {name.partition(".")[0] for name in load_file(line.folder / "mine.safetensors")}
    assert layer.startswith("lora_unet_")
    assert layer.endswith("attn1_to_q")
    again = line.run(line.arguments("export", "mine/seed-0", "mine.safetensors", "--runs", "."))
    assert again.returncode == 0, again.stderr
    for name, sentence in {
        "mine.txt": "'mine.txt' must end in .safetensors",
        "other.safetensors": "other.safetensors exists and is not an export of this run; choose another file, or delete it",
        "/sys/mine.safetensors": "/sys/mine.safetensors cannot be written (Permission denied); give another --output",
        "folder.safetensors": "folder.safetensors exists and is not an export of this run",
    }.items():
        refused = line.run(line.arguments("export", str(run), name))
        assert refused.returncode == 2, name
        assert sentence in refused.stderr
    assert (line.folder / "mine.txt").read_text() == "a bee\n"
    assert (line.folder / "other.safetensors").read_bytes() == adapters.read_bytes()
