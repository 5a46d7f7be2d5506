"""Finding, reading and checking the files of a scorer."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import UserError

Source = tuple[str, Callable[[Tensor], Tensor]]
"""Where a parameter comes from: its name in the file, and what turns the tensor there into it."""

SHOWN_KEYS = 8


def find_weights(checkpoint: str, weights: Sequence[str], partial: Sequence[str]) -> Path:
    """The weights file of a checkpoint; what belongs to it lies in the same folder.

    Args:
        checkpoint: a weights file, a folder, or a hub id, which is downloaded or taken from the cache.
        weights: file names or patterns, the preferred first.
        partial: patterns of the other files to download.

    Raises:
        UserError: there is no such path and no such hub id, or no weights file in it.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    for pattern in weights:
        folder = path if path.is_dir() else download(checkpoint, [pattern, *partial])
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise UserError(f"checkpoint {checkpoint!r} holds no weights file; expected {' or '.join(weights)}")


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """The local folder with the files of a hub id that match ``patterns``.

    Raises:
        UserError: the hub has no such id, or cannot be reached and the cache does not hold it.
    """
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"checkpoint {hub_id!r} is not a path on this machine and could not be had from the Hugging Face hub "
            f"({reason}); name a file or folder that exists, or a hub id that you can reach"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a plain PyTorch file; floating-point ones as float32, on the CPU.

    Raises:
        UserError: the file is missing, is cut off, or holds something other than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"weights file {path} does not exist; name the checkpoint that holds it") from error
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"weights file {path} cannot be read, perhaps it is cut off: fetch it again ({reason})"
        ) from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"weights file {path} does not hold named tensors; name a checkpoint of this scorer")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object, or ``default`` when there is no such file.

    Raises:
        UserError: the file is not a JSON object, or is missing and there is no default.
    """
    if not path.exists():
        if default is None:
            raise UserError(f"configuration {path} does not exist; name the folder of a complete checkpoint")
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"configuration {path} is not valid JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"configuration {path} is not a JSON object; fetch it again")
    return value


def build(make: Callable[[], nn.Module], path: Path) -> Any:
    """A network, ``make()``, from numbers that a configuration beside ``path`` gave; without weights, for `fill`.

    Raises:
        UserError: the configuration cannot be built.
    """
    try:
        # On the meta device nothing is allocated or drawn: a full-size scorer would need its memory twice.
        with torch.device("meta"):
            return make()
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"the configuration beside {path} describes no network of this scorer: {error!r}") from error


def same_name(name: str) -> Source:
    """The `Source` of a parameter that the file stores as it is."""
    return name, lambda tensor: tensor


def fill(
    module: nn.Module,
    tensors: dict[str, Tensor],
    path: Path,
    source: Callable[[str], Source] = same_name,
    ignored: Iterable[str] = (),
) -> None:
    """Set every parameter of ``module`` from a file; nothing may be missing and nothing left over.

    Args:
        module: gets the tensors themselves, not copies.
        tensors: what `read_tensors` gave.
        path: the file, for messages.
        source: where the parameter of a given name comes from.
        ignored: prefixes of names in the file that the scorer does not use.  Index buffers (``position_ids``), which
            files of older libraries hold, are always ignored.

    Raises:
        UserError: names that are missing, left over, or of another shape; they are listed in the file's own names.
    """
    wanted = {name: (source(name), parameter) for name, parameter in module.state_dict().items()}
    known = {official for (official, _), _ in wanted.values()}
    missing = sorted(known - tensors.keys())
    skipped = tuple(ignored)
    unexpected = sorted(
        name for name in tensors.keys() - known if not name.endswith("position_ids") and not name.startswith(skipped)
    )
    if missing or unexpected:
        lists = {"missing": missing, "unexpected": unexpected}
        found = "; ".join(f"{kind} {_listed(names)}" for kind, names in lists.items() if names)
        raise UserError(f"weights file {path} has another layout than this scorer: {found}")
    state = {name: convert(tensors[official]) for name, ((official, convert), _) in wanted.items()}
    misfits = [
        f"{wanted[name][0][0]} {tuple(value.shape)} instead of {tuple(wanted[name][1].shape)}"
        for name, value in state.items()
        if value.shape != wanted[name][1].shape
    ]
    if misfits:
        raise UserError(f"weights file {path} does not fit its configuration: {_listed(misfits)}")
    module.load_state_dict(state, assign=True)
    _number_positions(module)


def _number_positions(module: nn.Module) -> None:
    """Make the index buffers (``position_ids``: 0, 1, 2, ...), which files do not hold."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            if leaf != "position_ids":
                raise ValueError(f"the buffer {name} is in no file")
            places = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            module.get_submodule(owner).register_buffer(leaf, places, persistent=False)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN_KEYS])
    return shown if len(names) <= SHOWN_KEYS else f"{shown} and {len(names) - SHOWN_KEYS} more"


def digest(*paths: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the files' bytes, one file after the other."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                total.update(block)
    return f"sha256:{total.hexdigest()[:16]}"


def load_tokenizer(kind: Any, folder: Path, hub_id: str, *, vocabulary: int) -> Any:
    """A tokenizer of class ``kind`` from the files in ``folder``, or from the hub when the folder has none.

    Raises:
        UserError: the files cannot be read, the hub id cannot be had, or there are more than ``vocabulary`` tokens, which
            is what the network knows.
    """
    files = ("tokenizer.json", "vocab.json", "vocab.txt")
    if not any((folder / name).exists() for name in files):
        folder = download(hub_id, [*files, "merges.txt", "tokenizer_config.json"])
    try:
        tokenizer = kind.from_pretrained(str(folder))
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise UserError(f"the tokenizer files in {folder} cannot be read ({error}); fetch them again") from error
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, its network knows {vocabulary}; use its own"
        )
    return tokenizer
