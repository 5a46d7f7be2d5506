"""The step that the harness is timed against computes what the harness computes."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from workshop import batch_of, write_parquet

from algorithms.dpo import DPO
from bench import PairBatch, TrainingSettings
from bench.data.cache import EncodedData, to_pixels
from bench.data.preferences import PreferenceData
from bench.data.reading import read_preferences
from bench.models.find import find_model
from bench.models.inversion import InversionSettings, invert
from bench.training.ledger import Ledger
from bench.training.policy import Policy
from tests.models import published_step
from tests.models.published_step import PublishedStep

CPU = torch.device("cpu")


class Pair:
    """One pair, before a published step and before the harness, both with the same trained weights."""

    def __init__(self, source: Path, folder: Path, *, steps: int = 0, renoise: bool = False) -> None:
        model = find_model(str(source)).card.family.load(str(source), device=CPU)
        settings = TrainingSettings()
        self.published = PublishedStep(model, settings, steps=steps, renoise=renoise)
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in self.published.policy.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
        self.policy = Policy(model, settings, Ledger())
        self.policy.network.load_state_dict(self.published.policy.state_dict())
        columns = {"caption": ["a bee"], "jpg_0": [picture(1)], "jpg_1": [picture(2)], "label_0": [0.0]}
        self.data: PreferenceData = read_preferences(write_parquet(folder / "pairs.parquet", columns))
        encoded = EncodedData(self.data, model, folder / "cache")
        self.batch: PairBatch = batch_of(self.data, encoded, [0], size_conditioning="nominal")

    @property
    def drawn(self) -> Tensor:
        """The noise of the posterior's draw, of the preferred picture, which is the second, and of the other."""
        return self.batch.draws.normal("posterior", self.batch.candidates.shape[1:])[0].flip(0)

    @property
    def pixels(self) -> Tensor:
        """The preferred picture, which is the second, and the other."""
        side = self.published.model.resolution
        return torch.stack([to_pixels(self.data.image(0, which), (side, side)) for which in (1, 0)])


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="png")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3"])
def test_its_loss_is_that_of_dpo(pipeline_folder: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    pair = Pair(pipeline_folder(kind), tmp_path)
    ours = DPO(beta=published_step.BETA).step(pair.batch, pair.policy)
    noise = pair.batch.draws.normal("noise", pair.batch.winner.shape[1:])
    published = pair.published.loss(pair.pixels, "a bee", ours.timesteps, noise, pair.drawn)
    assert abs(ours.losses.item() - 0.693147) > 0.01  # the weights have moved
    # beta/2 multiplies the rounding of float32 errors near 1 by 2500, which processors do differently
    assert published.item() == pytest.approx(ours.losses.item(), abs=2500 * 4e-7)


@pytest.mark.parametrize("renoise", [False, True])
@pytest.mark.parametrize("time", [3, 430, 999])
def test_it_inverts_a_picture_as_inpo_and_smpo_do(
    pipeline_folder: Callable[..., Path], tmp_path: Path, time: int, renoise: bool
) -> None:
    pair = Pair(pipeline_folder("sdxl"), tmp_path, steps=4, renoise=renoise)
    batch, policy, t = pair.batch, pair.policy, torch.tensor([time])
    ours = invert(
        lambda latents, times, rows: policy.predict(latents, times, batch.condition), policy.process, batch.winner, t,
        InversionSettings(steps=4, renoise="next" if renoise else "none"),
    )  # fmt: skip
    clean, condition = pair.published.encode(pair.pixels, "a bee", pair.drawn)
    latents, reached = pair.published.invert(clean[:1], t, condition)
    assert reached.tolist() == ours.timesteps.tolist()
    torch.testing.assert_close(latents, ours.latents, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_ratio_is_measured_by_hand(pipeline_folder: Callable[..., Path]) -> None:
    words = ["--inversion-steps", "2", "--renoise", "--pairs", "1"]
    for setting in ("global_batch_size=2", "micro_batch_size=1", "precision=fp32", "optimizer=adafactor"):
        words += ["--set", setting]
    script = [sys.executable, published_step.__file__, str(pipeline_folder("sdxl")), *words]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (lines[0][0], lines[0][-1]) == ("smpo", "adafactor")
    assert [line[0] for line in lines[1:]] == ["published", "harness", "ratio", "cache"]
    published, harness, ratio = float(lines[1][2]), float(lines[2][1]), float(lines[3][1].rstrip(";"))
    assert harness / published == pytest.approx(ratio, abs=0.01)
