"""The authors' packages as isolated scorers, as far as can be told without installing them."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from bench import IsolatedMetric, UserError
from bench.scoring.metric import METRICS
from bench.tiny import ASSETS
from metrics.official.hpsv2 import HPSv2Official
from metrics.official.imagereward import ImageRewardOfficial
from metrics.official.legacy import LEGACY

OFFICIAL: list[type[IsolatedMetric]] = [HPSv2Official, ImageRewardOfficial]


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_they_are_registered() -> None:
    assert METRICS.get("hpsv2-official") is HPSv2Official
    assert METRICS.get("imagereward-official") is ImageRewardOfficial


@pytest.mark.parametrize("metric", OFFICIAL)
def test_a_worker_file_imports_nothing_that_its_environment_lacks(metric: type[IsolatedMetric]) -> None:
    installed = {"torch", "hpsv2", "ImageReward"}
    assert imported(metric.scorer) - installed <= sys.stdlib_module_names


def test_the_server_needs_the_standard_library_alone() -> None:
    from bench.scoring.isolated.worker import SERVE

    assert imported(SERVE) <= sys.stdlib_module_names


def test_every_package_is_pinned() -> None:
    assert {"torch==2.0.1", "torchvision==0.15.2", "transformers==4.30.2"} <= set(LEGACY.requirements)
    assert LEGACY.unresolved == ("hpsv2==1.2.0", "image-reward==1.5")
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LEGACY.requirements)


def test_hpsv2_hands_over_its_weights() -> None:
    folder = ASSETS / "scorers" / "hpsv2"
    assert HPSv2Official.files(str(folder)) == {"weights": folder / "HPS_v2.1_tiny.pt"}


def test_imagereward_hands_over_weights_configuration_and_vocabulary(tmp_path: Path) -> None:
    folder = ASSETS / "scorers" / "imagereward"
    assert ImageRewardOfficial.files(str(folder)) == {
        "weights": folder / "ImageReward.pt",
        "med_config": folder / "med_config.json",
        "vocabulary": folder / "vocab.txt",
    }
    shutil.copy(folder / "ImageReward.pt", tmp_path)
    with pytest.raises(UserError, match="med_config.json does not exist; put the published one beside ImageReward.pt"):
        ImageRewardOfficial.files(str(tmp_path))


@pytest.mark.parametrize("metric", OFFICIAL)
def test_without_checkpoint_and_hub_it_is_one_sentence(
    metric: type[IsolatedMetric], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="cannot be downloaded from the Hugging Face hub") as caught:
        metric.files(None)
    assert "\n" not in str(caught.value)
    assert "connect, or leave the metric out with --metrics, or name a local copy: for a model folder" in str(
        caught.value
    )
