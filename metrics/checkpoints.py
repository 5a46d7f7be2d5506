"""Finding, reading and checking the files of a scorer."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import UserError, check_vocabulary, hub_folder, read_object, weights_digest

Source = tuple[str, Callable[[Tensor], Tensor]]
"""Where a parameter comes from: its name in the file, and the conversion of the tensor found there."""

SHOWN_KEYS = 8

VOCABULARY = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
"""Files that hold the vocabularies of tokenizers; a class reads some of them."""


def tokenizer_files(kind: Any) -> list[str]:
    """What a tokenizer class of transformers reads, in the order of digests: these files are downloaded, and these alone count."""
    own = [name for name in VOCABULARY if name in kind.vocab_files_names.values()]
    return ["tokenizer_config.json", *own, "special_tokens_map.json", "added_tokens.json"]


def find_weights(checkpoint: str, weights: Sequence[str], companions: Sequence[str]) -> Path:
    """The weights file of a checkpoint; its other files are in the same folder.

    Args:
        checkpoint: a weights file, a folder, or a hub id, which is downloaded or read from the cache.
        weights: file names or patterns, in order of preference.
        companions: patterns of the other files to download.

    Raises:
        UserError: neither a path nor a hub id of that name exists, or it has no weights file, or several that match the first
            pattern that any matches.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        return path
    for pattern in weights:
        folder = path if path.is_dir() else download(checkpoint, [pattern, *companions])
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = _listed([each.name for each in found])
            raise UserError(
                f"checkpoint {checkpoint!r} holds several weights files, {names}; name one of them: {found[0]}"
            )
        if found:
            return found[0]
    raise UserError(f"checkpoint {checkpoint!r} holds no weights file; expected {' or '.join(weights)}")


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """The local folder with the files of a hub id that match ``patterns``.

    Raises:
        UserError: see `bench.hub_folder`.
    """
    complaint = (
        f"checkpoint {hub_id!r} is not a path on this machine and cannot be downloaded from the Hugging Face hub"
    )
    otherwise = (
        "leave the metric out with --metrics, or name a local copy: for a model folder in its bench.json, for bench score with "
        "--checkpoint"
    )
    return hub_folder(hub_id, patterns, kind="model", complaint=complaint, otherwise=otherwise)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a plain PyTorch file; floating-point ones as float32, on the CPU.

    Raises:
        UserError: the file is missing or truncated, or holds something other than named tensors.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"weights {path} are not a file; name the checkpoint that holds them")
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
            f"weights file {path} cannot be read and may be truncated; download it again ({reason})"
        ) from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"weights file {path} does not hold named tensors; name a checkpoint of this scorer")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration beside weights, see `bench.read_object`; or ``default`` when there is no such file."""
    return read_object(path) if default is None or path.exists() else default


def build(make: Callable[[], nn.Module], path: Path) -> Any:
    """The network that ``make()`` builds from the configuration beside ``path``; without weights, for `fill`.

    Raises:
        UserError: the configuration cannot be built.
    """
    try:
        # On the meta device nothing is allocated or drawn: otherwise a full-size scorer would need twice its memory.
        with torch.device("meta"):
            return make()
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(
            f"the configuration beside {path} does not describe a network of this scorer: {error!r}"
        ) from error


def same_name(name: str) -> Source:
    """The `Source` of a parameter that the file stores unchanged."""
    return name, lambda tensor: tensor


def fill(
    module: nn.Module,
    tensors: dict[str, Tensor],
    path: Path,
    source: Callable[[str], Source] = same_name,
    ignored: Iterable[str] = (),
) -> None:
    """Set every parameter of ``module`` from a file; missing and unexpected names are errors.

    Args:
        module: receives the tensors themselves, not copies.
        tensors: what `read_tensors` returned.
        path: the file, for messages.
        source: where the parameter of a given name comes from.
        ignored: prefixes of names in the file that the scorer does not use.  Index buffers (``position_ids``), which
            files of older libraries hold, are always ignored.

    Raises:
        UserError: names are missing or unexpected, or have a different shape; they are listed as the file names them.
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
        raise UserError(f"weights file {path} does not have the layout of this scorer: {found}")
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
    """Create the index buffers (``position_ids``: 0, 1, 2, ...), which files do not hold."""
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


def load_tokenizer(kind: Any, folder: Path, hub_id: str, *, vocabulary: int) -> Any:
    """A tokenizer of class ``kind`` from the files in ``folder``, or from the hub if the folder has none.

    Raises:
        UserError: a file of the vocabulary is missing, the files cannot be read, the hub id cannot be downloaded, or there are
            more than ``vocabulary`` tokens, the network's number of embeddings.
    """
    if not any((folder / name).exists() for name in kind.vocab_files_names.values()):
        folder = download(hub_id, tokenizer_files(kind))
    check_vocabulary(kind, folder)
    try:
        tokenizer = kind.from_pretrained(str(folder))
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise UserError(f"the tokenizer files in {folder} cannot be read ({error}); download them again") from error
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, but the network knows {vocabulary}; use the network's own tokenizer"
        )
    return tokenizer


def checkpoint_digest(*files: Path, tokenizer: Any = None) -> str:
    """The `bench.weights_digest` of what a scorer reads, and of nothing that another program left in the same folder of the hub's cache.

    Args:
        files: weights, then configurations; those that do not exist, where a scorer has defaults, are left out.
        tokenizer: its files count too.
    """
    beside = (
        [] if tokenizer is None else [Path(tokenizer.name_or_path, name) for name in tokenizer_files(type(tokenizer))]
    )
    return weights_digest(*(file for file in (*files, *beside) if file.is_file()))
