"""Finding released weights: a file, a folder, or a repository of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.core.hub import HUB_ID, hub_model
from bench.core.progress import say
from bench.models.checkpoints.compatibility import loaded_files
from bench.models.checkpoints.component import PICKLED
from bench.models.checkpoints.pipeline_folder import FILES, INDEX, SCHEDULER, load_scheduler_config, read_index
from bench.models.family import ModelFamily
from bench.models.forward_process import FlowProcess, ForwardProcess

COMPONENTS = ("unet", "transformer")
"""Where a diffusers pipeline keeps its denoiser."""

PROBES = ("a bee on a yellow background", "Two cats, 1990s photo; sharp!", "")
HALF = 0.005
"""Largest relative difference between what weights in float32 and in half precision compute."""

WANTED = "a safetensors file, the folder of a diffusers unet or transformer, of a pipeline, or of a LoRA, or a hub id"


def find_released(typed: str) -> Path:
    """The safetensors file, or the folder that holds the denoiser or its adapters; a hub id is downloaded once.

    Raises:
        UserError: there are no weights, or they are incomplete or pickled, or one of several files must be chosen.
    """
    path = Path(typed)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UserError(
                f"{path} is not a safetensors file, and other formats can run code when they are loaded; convert it"
            )
        return path
    folder = path if path.is_dir() else _download(typed)
    places = [*(folder / component for component in COMPONENTS), folder]
    place = next((place for place in places if any(place.glob("*.safetensors"))), None)
    if place is None:
        pickled = sorted(file.name for each in places for pattern in PICKLED for file in each.glob(pattern))
        why = (
            f", only pickled ones ({pickled[0]}), which can run code when they are loaded: convert them"
            if pickled
            else ""
        )
        raise UserError(f"{typed} holds no safetensors weights{why}; give {WANTED}")
    loaded_files(place)
    return place


def check_process(place: Path, typed: str, base: ModelFamily, model: str) -> None:
    """Check that the denoiser of a pipeline was trained for the forward process under which it will be sampled.

    Args:
        place: as `find_released` returns it; only a pipeline states what its denoiser was trained for.
        typed: what the user typed, for messages.
        base: the model under whose process it will be sampled.
        model: its name, for messages.

    Raises:
        UserError: the pipeline's scheduler describes another process, or an unsupported one.
    """
    scheduler = place.parent / "scheduler"
    if place.name not in COMPONENTS or not (scheduler / SCHEDULER).is_file():
        return
    try:
        stated = base.process_of(load_scheduler_config(scheduler))
    except UserError as error:
        raise UserError(f"{typed}: {error}") from error
    if different := _difference(stated, base.process):
        raise UserError(
            f"{typed} was trained for another forward process than {model!r}, which would misread its predictions: its "
            f"pipeline has {different}; evaluate that pipeline as its own model, with --model"
        )


def check_encoders(place: Path, typed: str, base: ModelFamily, model: str) -> None:
    """Check that the parts beside the denoiser of a pipeline are the base model's, with which its images are made.

    Copies in half precision count as the same: what is compared, unless the files are equal, is what text encoders and
    autoencoder compute.  Of a hub id, these parts are downloaded; a note names those that the pipeline lists and does not hold.

    Args:
        place: as `find_released` returns it.
        typed: what the user typed, for messages.
        base: the model whose parts are used.
        model: its name, for messages.

    Raises:
        UserError: a part computes something else, is incomplete, or cannot be downloaded.
    """
    if place.name not in COMPONENTS:
        return
    pipeline = place.parent if Path(typed).exists() else _download_parts(typed, list(base.encoding_parts))
    _note_absent(pipeline, typed, base, model)
    own = base.with_parts_of(pipeline)
    ours, theirs = base.encoding_parts, own.encoding_parts
    changed = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if changed and not _encode_alike(own, base):
        raise UserError(
            f"{typed} is a pipeline with another {' and '.join(changed)} than {model!r}, and --weights would use those of {model!r}; "
            "evaluate the pipeline as its own model, with --model"
        )


def _note_absent(pipeline: Path, typed: str, base: ModelFamily, model: str) -> None:
    listed = read_index(str(pipeline)) if (pipeline / INDEX).is_file() else {}
    absent = [name for name in base.encoding_parts if name in listed and not (pipeline / name).is_dir()]
    absent = [name for name in absent if listed[name][1] is not None]
    if absent:
        say(f"{typed} lists {' and '.join(absent)} but holds no such folder: images are made with {model!r}'s own")


def _encode_alike(one: ModelFamily, other: ModelFamily) -> bool:
    """Whether two models encode texts and images, and decode latents, alike up to half precision."""
    side, device = other.resolution, next(other.network.parameters()).device
    pixels = torch.linspace(-1, 1, 3 * side * side, device=device).reshape(1, 3, side, side)
    latents = [model.encode_images(pixels).mean for model in (one, other)]
    images = [torch.from_numpy(model.decode(latents[0])).float() for model in (one, other)]
    texts = [
        [*model.encode_text(list(PROBES)).values(), *model.encode_negative([""]).values()] for model in (one, other)
    ]
    pairs = [latents, images, *([each.float() for each in pair] for pair in zip(*texts, strict=True))]
    return all(mine.shape == theirs.shape and (mine - theirs).norm() <= HALF * theirs.norm() for mine, theirs in pairs)


def _difference(stated: ForwardProcess, expected: ForwardProcess) -> str | None:
    if stated.prediction_type != expected.prediction_type:
        return f"the prediction type {stated.prediction_type}, not {expected.prediction_type}"
    if stated.train_timesteps != expected.train_timesteps:
        return f"{stated.train_timesteps} training timesteps, not {expected.train_timesteps}"
    if isinstance(expected, FlowProcess):
        return None  # flow networks are conditioned on sigma itself, whatever the schedule
    same = torch.allclose(_schedule(stated), _schedule(expected), rtol=0, atol=1e-6)
    return None if same else "another noise schedule"


def _schedule(process: ForwardProcess) -> Tensor:
    """Signal and sigma at all training times; float64, (2, T)."""
    times = torch.arange(process.train_timesteps)
    like = torch.zeros(len(times), dtype=torch.float64)
    return torch.stack([process.alpha(times, like), process.sigma(times, like)])


def _download(typed: str) -> Path:
    """The denoiser of a repository with a complete pipeline; of any other repository, the top-level files."""
    if not HUB_ID.fullmatch(typed):
        raise UserError(f"weights {typed!r} do not exist; give {WANTED}")
    complaint = _complaint(typed)
    parts = [f"{component}/*.{ending}" for component in COMPONENTS for ending in ("safetensors", "json")]
    folder = hub_model(typed, [INDEX, f"scheduler/{SCHEDULER}", *parts], complaint=complaint)
    if any((folder / component).is_dir() for component in COMPONENTS):
        return folder
    top = ["*.safetensors", "*.json"]
    return hub_model(typed, top, complaint=complaint, ignore=["*/*"])


def _download_parts(typed: str, names: Sequence[str]) -> Path:
    """The folder of a repository's pipeline, with some of its components, if it has them."""
    patterns = [f"{name}/{pattern}" for name in names if name != INDEX for pattern in FILES]
    return hub_model(typed, [INDEX, *patterns], complaint=_complaint(typed))


def _complaint(typed: str) -> str:
    return f"weights {typed!r} are not local files and cannot be downloaded from the hub"
