"""A small model, a few preference pairs and a scorer, on which the real harness trains within a second."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from bench.core.values import digest
from bench.data.cache import EncodedCaptions, EncodedData
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.data.reading import read_preferences
from bench.experiments.contracts.small_models import PROCESSES, SIDE, SmallModel
from bench.models.family import ModelFamily
from bench.records.runs import RunFolder
from bench.records.scores import MetricInfo
from bench.rollouts.rewards import Rewards
from bench.scoring.metric import DifferentiableMetric, EmbeddingMetric
from bench.training.algorithm import Algorithm, StepOutput
from bench.training.batches import Encoded, StepBatches, make_batch
from bench.training.ledger import Ledger
from bench.training.loop import Job, train
from bench.training.pair_batch import PairBatch
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings
from bench.training.step import Trainer, gather_batch_stats

CPU = torch.device("cpu")
PAIRS = 40


class Brightness(EmbeddingMetric, DifferentiableMetric):
    """A scorer that needs no checkpoint: the mean level of the image's pixels."""

    info: ClassVar[MetricInfo] = MetricInfo(title="Brightness", raw_range="0 to 255", unit="level", source="here")
    reads_prompt: ClassVar[bool] = False

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"version": 1}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.tensor([float(np.asarray(image).mean()) for image in images])

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See `DifferentiableMetric`."""
        return 255 * pixels.flatten(1).mean(1)

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """The mean colour, as a direction."""
        means = [np.asarray(image.convert("RGB"), dtype=np.float32).mean((0, 1)) for image in images]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(means)), dim=-1)

    def embed_texts(self, prompts: Sequence[str]) -> Tensor:
        """The counts of three letters, as a direction."""
        counts = [[1.0 + prompt.count(letter) for letter in "abe"] for prompt in prompts]
        return torch.nn.functional.normalize(torch.tensor(counts), dim=-1)


def png(seed: int) -> bytes:
    """An encoded image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return stream.getvalue()


def pair_columns(captions: Sequence[str]) -> dict[str, list[Any]]:
    """Pick-a-Pic's columns for pairs of random images without ties, one for each caption."""
    count = len(captions)
    return {
        "caption": list(captions),
        "jpg_0": [png(2 * row) for row in range(count)],
        "jpg_1": [png(2 * row + 1) for row in range(count)],
        "label_0": [float(row % 3 != 1) for row in range(count)],
    }


class SmallSetup:
    """A small model, its data and their cache in one folder, made when they are first used.

    Args:
        folder: for everything that is written.
        model: which small model.
    """

    def __init__(self, folder: Path, model: SmallModel = PROCESSES["epsilon"]) -> None:
        self.folder, self._small = folder, model
        self._encodings: dict[str, EncodedData] = {}
        self._policies: dict[str, tuple[Policy, list[Tensor]]] = {}

    @functools.cached_property
    def model_folder(self) -> Path:
        """The saved pipeline."""
        folder = self.folder / "model"
        if not folder.exists():
            self._small.write(folder)
        return folder

    @property
    def captions(self) -> list[str]:
        """What the pairs are of."""
        return [f"picture {row}" for row in range(PAIRS)]

    @functools.cached_property
    def data_file(self) -> Path:
        """The preference pairs on disk."""
        path = self.folder / "pairs.parquet"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(pair_columns(self.captions)), path)
        return path

    @functools.cached_property
    def data(self) -> PreferenceData:
        """The preference pairs."""
        return read_preferences(self.data_file)

    @functools.cached_property
    def encoded(self) -> EncodedData:
        """What the network sees of the pairs."""
        return self.encoding(self.data)

    def encoding(self, data: PreferenceData) -> EncodedData:
        """What the network sees of some data."""
        if data.digest not in self._encodings:
            self._encodings[data.digest] = EncodedData(data, self.model(), self.folder / "cache" / data.digest)
        return self._encodings[data.digest]

    def captions_of(self, data: PreferenceData) -> EncodedCaptions:
        """What the network sees of some data's captions."""
        return EncodedCaptions(data.captions, self.model(), self.folder / "captions" / data.digest)

    def model(self) -> ModelFamily:
        """A fresh copy of the small model."""
        return self._small.family.load(str(self.model_folder), device=CPU)

    def policy(self, **settings: Any) -> Policy:
        """A fresh policy on the small model."""
        return Policy(self.model(), TrainingSettings(**settings), Ledger())

    def reset_policy(self, **settings: Any) -> Policy:
        """The policy of these settings as it was when it was new: one for all callers, since making one takes longest."""
        key = digest(settings)
        if key not in self._policies:
            made = self.policy(**settings)
            self._policies[key] = made, [parameter.detach().clone() for _, parameter in made.parameters()]
        policy, initial = self._policies[key]
        policy.snapshots.clear()
        policy.network.zero_grad(set_to_none=True)
        policy.model.network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for (_, parameter), value in zip(policy.parameters(), initial, strict=True):
                parameter.copy_(value)
        return policy

    def batch(self, rows: Sequence[int], *, data: PreferenceData | None = None) -> PairBatch:
        """Some pairs as the harness hands them to an algorithm."""
        data = data or self.data
        return batch_of(data, self.encoding(data), rows, caption_dropout=0.1)

    def context(self) -> PrepareContext:
        """What `prepare` gets; every metric is `Brightness`."""
        model = self.model()
        changes = {
            "steps": 2,
            "guidance_scale": 2,
            "height": model.resolution,
            "width": model.resolution,
            "precision": "fp32",
        }
        generation = model.generation.model_copy(update=changes)
        return PrepareContext(lambda _: Brightness(), model, generation, self.folder / "prepare")

    def step(
        self,
        algorithm: Algorithm,
        rows: Sequence[int],
        policy: Policy,
        data: PreferenceData,
        *,
        places: Sequence[int] | None = None,
    ) -> StepOutput:
        """One step as the harness calls it on a global batch of ``rows``, or on the pairs at some places of it."""
        if not policy.snapshots:
            algorithm.begin(policy)
        batches = GivenRows.of(data, self.encoding(data), rows)
        optimizer = torch.optim.SGD([torch.zeros(1)])
        trainer = Trainer(algorithm, batches.settings, policy, optimizer, batches.accelerator)
        stats = gather_batch_stats(trainer, batches)
        batch = make_batch(batches, batches.at(range(len(rows)) if places is None else places))
        return algorithm.step(dataclasses.replace(batch, global_batch_stats=stats), policy)

    def train(
        self,
        folder: Path,
        algorithm: Algorithm,
        *,
        data: PreferenceData | None = None,
        seed: int = 0,
        prepared_forwards: int = 0,
        accelerator: Accelerator | None = None,
        **settings: Any,
    ) -> RunFolder:
        """Train as `bench run` does, or go on with what is in ``folder``."""
        run = RunFolder(folder / "micro" / "algorithm" / "name" / "seed-0")
        run.folder.mkdir(parents=True, exist_ok=True)
        chosen = TrainingSettings(
            **{"steps": 2, "global_batch_size": 8, "micro_batch_size": 8, "warmup_steps": 0, **settings}
        )
        accelerator = accelerator or Accelerator(cpu=True)
        data = data or self.data
        rewards = Rewards(dict.fromkeys(algorithm.trained_on, Brightness))
        job = Job(
            algorithm,
            chosen,
            self.model(),
            data,
            self.encoding(data) if algorithm.reads_pictures else self.captions_of(data),
            seed,
            "a small model",
            "small",
            prepared_forwards,
            rewards=rewards,
        )
        train(job, run, accelerator)
        return run


@dataclasses.dataclass(frozen=True)
class GivenRows(StepBatches):
    """The batches of a step whose global batch is given instead of drawn; one micro-batch unless the settings say otherwise."""

    rows: Sequence[int] = ()

    @classmethod
    def of(
        cls,
        data: PreferenceData,
        encoded: Encoded,
        rows: Sequence[int],
        *,
        seed: int = 0,
        step: int = 0,
        **settings: Any,
    ) -> Self:
        """All rows in this process, with settings of `TrainingSettings`."""
        size = {"global_batch_size": len(rows), "micro_batch_size": len(rows)}
        chosen = TrainingSettings(**{**size, **settings})
        return cls(data, encoded, chosen, seed, step, Accelerator(cpu=True), rows=rows)


def batch_of(
    data: PreferenceData,
    encoded: Encoded,
    rows: Sequence[int],
    positions: Sequence[int] | None = None,
    **drawn: Any,
) -> PairBatch:
    """Some positions (default: all) of a global batch of ``rows``; see `GivenRows.of` for what else can be given."""
    batches = GivenRows.of(data, encoded, rows, **{"caption_dropout": 0.0, **drawn})
    return make_batch(batches, batches.at(range(len(rows)) if positions is None else positions))


def state(run: RunFolder) -> dict[str, Tensor]:
    """The tensors of a run's only checkpoint."""
    (folder,) = run.checkpoints.iterdir()
    return load_file(folder / "state.safetensors")
