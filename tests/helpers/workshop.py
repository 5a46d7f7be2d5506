"""A micro diffusion model and a few preference pairs, made in code, on which the real harness trains within a second."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
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

from bench.data.cache import EncodedData
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.data.reading import read_preferences
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.family import ModelFamily
from bench.records.runs import RunFolder
from bench.records.scores import MetricInfo
from bench.scoring.metric import EmbeddingMetric
from bench.tiny.building.tokenizer import write_clip_tokenizer
from bench.tiny.world import COLOURS, OBJECTS
from bench.training.algorithm import Algorithm, StepOutput
from bench.training.batch import PairBatch
from bench.training.batches import Encoded, StepBatches, make_batch
from bench.training.ledger import Ledger
from bench.training.loop import Job, train
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings
from bench.training.step import Trainer, gather_batch_stats

CPU = torch.device("cpu")
PAIRS = 40
SIDE = 8
SD_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
SD_SCHEDULER: dict[str, Any] = {**SD_SCHEDULE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def write_micro_model(folder: Path, **scheduler: Any) -> None:
    """Save a `StableDiffusionPipeline` of random weights: pictures of 8x8 pixels, latents of 4x4x4.

    Args:
        scheduler: changes to the scheduler's configuration.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    write_clip_tokenizer(folder / "tokenizer-files")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer-files")
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    vae = AutoencoderKL(
        sample_size=SIDE, latent_channels=4, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=(2, 2), norm_num_groups=4,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
        scheduler=DDIMScheduler(**{**SD_SCHEDULER, **scheduler}), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip


def write_v_model(folder: Path) -> None:
    """The same, predicting v."""
    write_micro_model(folder, prediction_type="v_prediction")


def png(seed: int) -> bytes:
    """An encoded picture of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return stream.getvalue()


def preference_columns(count: int) -> dict[str, list[Any]]:
    """Pick-a-Pic's columns for ``count`` pairs without ties."""
    objects, colours = tuple(OBJECTS), tuple(COLOURS)
    return {
        "caption": [f"a {objects[row % 50]} on a {colours[row % 10]} background" for row in range(count)],
        "jpg_0": [png(2 * row) for row in range(count)],
        "jpg_1": [png(2 * row + 1) for row in range(count)],
        "label_0": [float(row % 3 != 1) for row in range(count)],
    }


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write columns as a Parquet file."""
    pq.write_table(pa.table(columns), path)
    return path


class Brightness(EmbeddingMetric):
    """A scorer that needs no checkpoint: the mean level of the picture's pixels."""

    info: ClassVar[MetricInfo] = MetricInfo(title="Brightness", raw_range="0 to 255", unit="level", source="here")

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"version": 1}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(np.asarray(image).mean()) for image in images])

    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """The mean colour, as a direction."""
        means = [np.asarray(image.convert("RGB"), dtype=np.float32).mean((0, 1)) for image in images]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(means)), dim=-1)

    def embed_texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """The counts of three letters, as a direction."""
        counts = [[1.0 + prompt.count(letter) for letter in "abe"] for prompt in prompts]
        return torch.nn.functional.normalize(torch.tensor(counts), dim=-1)


class Workshop:
    """The micro model, its data and their cache in one folder, made when first asked for."""

    def __init__(
        self,
        folder: Path,
        write_model: Callable[[Path], None] = write_micro_model,
        family: type[ModelFamily] = StableDiffusion,
    ) -> None:
        self.folder, self._write_model, self._family = folder, write_model, family
        self._encodings: dict[str, EncodedData] = {}

    @functools.cached_property
    def model_folder(self) -> Path:
        """The saved pipeline."""
        folder = self.folder / "model"
        if not folder.exists():
            self._write_model(folder)
        return folder

    @functools.cached_property
    def data_file(self) -> Path:
        """The preference pairs on disk."""
        path = self.folder / "pairs.parquet"
        return path if path.exists() else write_parquet(path, preference_columns(PAIRS))

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

    def model(self) -> ModelFamily:
        """A fresh copy of the micro model."""
        return self._family.load(str(self.model_folder), device=CPU)

    def policy(self, **settings: Any) -> Policy:
        """A fresh policy on the micro model."""
        return Policy(self.model(), TrainingSettings(**settings), Ledger())

    def batch(
        self, rows: Sequence[int], *, seed: int = 0, step: int = 0, data: PreferenceData | None = None
    ) -> PairBatch:
        """Some pairs as the harness hands them to an algorithm."""
        data = data or self.data
        return batch_of(data, self.encoding(data), rows, caption_dropout=0.1, seed=seed, step=step)

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
        return PrepareContext(lambda name: Brightness(), model, generation, self.folder / "prepare")

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
        batch = make_batch(batches, rows, range(len(rows)) if places is None else places)
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
        job = Job(algorithm, chosen, self.model(), data, self.encoding(data), seed, prepared_forwards)
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
        return cls(data, encoded, chosen, seed, step, Accelerator(cpu=True), rows)


def batch_of(
    data: PreferenceData,
    encoded: Encoded,
    rows: Sequence[int],
    positions: Sequence[int] | None = None,
    **drawn: Any,
) -> PairBatch:
    """Some positions (default: all) of a global batch of ``rows``; see `GivenRows.of` for what else can be given."""
    batches = GivenRows.of(data, encoded, rows, **{"caption_dropout": 0.0, **drawn})
    return make_batch(batches, rows, range(len(rows)) if positions is None else positions)


def state(run: RunFolder) -> dict[str, Tensor]:
    """The tensors of its only checkpoint."""
    (folder,) = run.checkpoints.iterdir()
    return load_file(folder / "state.safetensors")
