"""A diffusers pipeline, in a folder or on the hub, whose components are checked and loaded one by one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from bench.core.digests import files_digest
from bench.core.errors import UserError
from bench.core.hub import HUB_ID, hub_model
from bench.models.checkpoints.component import component_weights, network_digest, texts_digest

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


class PipelineFolder:
    """The components of one pipeline.

    Args:
        source: a diffusers folder or hub id.
        pipeline_class: the diffusers class that it must hold.
        components: what is downloaded from the hub; nothing else is.

    Attributes:
        files: patterns of the files that are downloaded for each component.

    Raises:
        UserError: there is no such pipeline, or it is of another class.
    """

    files: ClassVar[Sequence[str]] = FILES

    def __init__(self, source: str, pipeline_class: str, components: Sequence[str]) -> None:
        found = read_index(source)["_class_name"]
        if found != pipeline_class:
            raise UserError(
                f"{source} holds a {found}, but this model family loads a {pipeline_class}; choose the model that fits"
            )
        wanted = [f"{component}/{pattern}" for component in components for pattern in self.files]
        self.path = fetch(source, [INDEX, *wanted])
        self._index = read_index(str(self.path))

    def holds(self, component: str) -> bool:
        """Whether the pipeline has the component; some are optional."""
        return self._index.get(component, [None, None])[1] is not None

    def option(self, name: str, *, default: bool) -> bool:
        """A flag in the pipeline's own configuration."""
        value: bool = self._index.get(name, default)
        return value

    def config(self, component: str) -> dict[str, Any]:
        """Configuration of a diffusers model, with the defaults of its class; nothing else is loaded."""
        path = self._folder(component) / "config.json"
        if not path.is_file():
            raise UserError(f"{path} is missing; the download is incomplete, download the model again")
        parameters = inspect.signature(self.component_class(component)).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        stated: dict[str, Any] = json.loads(path.read_text())
        return defaults | stated

    def digest(self, component: str) -> str:
        """SHA-256 over the weights of a component, shortened to 16 hex digits."""
        return files_digest(component_weights(self._folder(component)).files)

    def network_digest(self, component: str) -> str:
        """Digest of all files of a network that decide what it computes, 12 hex digits."""
        return network_digest(self._folder(component), ".".join(self._index[component]))

    def texts_digest(self, component: str) -> str:
        """Digest of all files of a tokenizer or a scheduler that decide what it does, 12 hex digits."""
        return texts_digest(self._folder(component), ".".join(self._index[component]))

    def load_model(self, component: str, device: torch.device) -> Any:
        """A network of the pipeline, frozen and in float32.

        Raises:
            UserError: the component or part of its weights is missing, or a weight is not finite.
        """
        return load_weights(self.component_class(component), self._folder(component), device)

    def load_part(self, component: str) -> Any:
        """A part without weights: a tokenizer or a scheduler.

        Raises:
            UserError: the component is missing or incomplete.
        """
        return load_part(self.component_class(component), self._folder(component))

    def component_class(self, component: str) -> Any:
        if not self.holds(component):
            raise UserError(f"{self.path} has no component {component!r} in its {INDEX}; give a complete pipeline")
        library, name = self._index[component]
        found = getattr(_library(library), name, None)
        if found is None:
            raise UserError(f"{self.path}: component {component!r} is a {library} {name}, which is not supported")
        return found

    def _folder(self, component: str) -> Path:
        folder = self.path / component
        if not folder.is_dir():
            raise UserError(
                f"{self.path} lacks the component {component!r}; the download is incomplete, download it again"
            )
        return folder


def _library(name: str) -> Any:
    import diffusers
    import transformers

    return {"diffusers": diffusers, "transformers": transformers}.get(name)


def load_part(kind: Any, folder: Path) -> Any:
    """A tokenizer or a scheduler from its folder.

    Raises:
        UserError: it is incomplete.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} cannot be loaded ({reason}); download the model again") from error


def load_scheduler_config(folder: Path) -> dict[str, Any]:
    """Configuration of the scheduler that a folder holds, with the defaults of its class.

    Raises:
        UserError: it is incomplete, or its class is not one of diffusers.
    """
    stated = json.loads((folder / SCHEDULER).read_text())
    kind = getattr(_library("diffusers"), stated.get("_class_name", ""), None)
    if kind is None:
        raise UserError(
            f"{folder}: diffusers has no scheduler {stated.get('_class_name')!r}; give a model with another one"
        )
    return dict(load_part(kind, folder).config)


def load_weights(kind: Any, folder: Path, device: torch.device) -> Any:
    """A diffusers or transformers network from a folder with safetensors weights, frozen and in float32.

    Raises:
        UserError: part of the weights is missing, or a weight is not finite.
    """
    quiet()
    network, report = kind.from_pretrained(
        folder,
        dtype=torch.float32,
        variant=component_weights(folder).variant,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    if report["missing_keys"]:
        first = min(report["missing_keys"])
        raise UserError(
            f"{folder} lacks {len(report['missing_keys'])} weights, such as {first}; download the model again"
        )
    check_finite(network, folder)
    return network.to(device).eval().requires_grad_(False)


def quiet() -> None:
    """Switch off the progress bars of diffusers and transformers; loading reports its own errors."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def check_finite(network: nn.Module, folder: Path) -> None:
    """Raise a `UserError` that names the first weight of ``network`` that is not finite."""
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(f"{folder}: the weight {name} is not finite; the file is damaged or its training diverged")


def read_index(source: str) -> dict[str, Any]:
    """The ``model_index.json`` of a diffusers folder or hub id.

    Raises:
        UserError: there is none.
    """
    path = fetch(source, [INDEX]) / INDEX
    if not path.is_file():
        raise UserError(f"{source} has no {INDEX}; give a diffusers pipeline folder")
    index: dict[str, Any] = json.loads(path.read_text())
    return index


def fetch(source: str, patterns: Sequence[str]) -> Path:
    """The local folder of a diffusers folder or hub id; only files that match ``patterns`` are downloaded from the hub.

    Raises:
        UserError: neither a folder nor a repository that can be reached or is cached.
    """
    if Path(source).is_dir():
        return Path(source)
    if not HUB_ID.fullmatch(source):
        raise UserError(f"model folder {source!r} does not exist; give a diffusers folder or a hub id")
    complaint = f"model {source!r} is not a local folder and cannot be downloaded from the hub"
    return hub_model(source, patterns, complaint=complaint)
