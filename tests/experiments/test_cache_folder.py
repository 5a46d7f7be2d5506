"""Latents, embeddings and scores are cached apart for models and data that encode differently, and together otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workshop import Workshop

from bench.experiments.experiment import Experiment
from bench.experiments.identity import cache_folder

Edit = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("file", "change", "apart"),
    [
        ("vae/config.json", lambda each: each.update(scaling_factor=0.2), True),
        ("text_encoder/config.json", lambda each: each.update(layer_norm_eps=1e-4), True),
        ("tokenizer/tokenizer_config.json", lambda each: each.update(model_max_length=9), True),
        ("scheduler/scheduler_config.json", lambda each: each.update(beta_end=0.013), False),
        ("unet/config.json", lambda each: each.update(norm_eps=1e-4), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_encodes_images_and_captions_has_a_cache_of_its_own(
    workshop: Workshop, tmp_path: Path, file: str, change: Edit, apart: bool
) -> None:
    model = shutil.copytree(workshop.model_folder, tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("a cat\na bee\n")

    def place() -> Path:
        experiment = Experiment(
            str(model), runs=tmp_path / "runs", prompts=str(tmp_path / "prompts.txt"), metrics=["gold"]
        )
        return cache_folder(experiment, workshop.data, experiment.load_model())

    before = place()
    assert place() == before
    value = json.loads((model / file).read_text())
    change(value)
    (model / file).write_text(json.dumps(value))
    assert (place() != before) == apart
