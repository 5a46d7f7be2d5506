"""A diffusers pipeline, in a folder or on the hub, whose components are checked and loaded one by one."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from bench.core.digests import files_digest
from bench.core.errors import UserError
from bench.core.hub import HUB_ID, hub_model
from bench.core.inputs import regular_files
from bench.core.resources import memory_sentence
from bench.models.checkpoints.component import component_weights, network_digest, texts_digest, unmerged
from bench.models.checkpoints.stated import (
    check_stated,
    check_vocabulary,
    class_name,
    component_entry,
    known_class,
    positive,
    read_object,
    scheduler_class,
)

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
STEPS = "num_train_timesteps"
FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


class PipelineFolder:
    """The components of one pipeline.

    Args:
        source: a diffusers folder or hub id.
        pipeline_class: the diffusers class that it must hold.
        components: what is downloaded from the hub; nothing else is.
        classes: by component, a class that the family brings and that is loaded besides those of
            `bench.models.checkpoints.stated.CLASSES`.

    Attributes:
        files: patterns of the files that are downloaded for each component.

    Raises:
        UserError: there is no such pipeline, or it is of another class.
    """

    files: ClassVar[Sequence[str]] = FILES

    def __init__(
        self, source: str, pipeline_class: str, components: Sequence[str], classes: Mapping[str, type] | None = None
    ) -> None:
        found = pipeline_class_of(source)
        if found != pipeline_class:
            raise UserError(
                f"{source} holds a {found}, but this model family loads a {pipeline_class}; choose the model that fits"
            )
        wanted = [f"{component}/{pattern}" for component in components for pattern in self.files]
        self.path = fetch(source, [INDEX, *wanted])
        self._classes = classes or {}
        self._places = [self.path]
        self._index = read_index(str(self.path))

    def with_parts_of(self, other: Path) -> Self:
        """This pipeline with the components of another one, a folder, wherever that holds them or says that it has none."""
        stated = read_index(str(other)) if (other / INDEX).is_file() else {}
        made = copy.copy(self)
        made._places = [other, *self._places]  # noqa: SLF001 (its own class)
        made._index = self._index | {  # noqa: SLF001
            name: value
            for name, value in stated.items()
            if (other / name).is_dir() or not isinstance(value, list) or value[1] is None
        }
        return made

    def holds(self, component: str) -> bool:
        """Whether the pipeline has the component; some are optional."""
        return component_entry(self._index, component, self.path / INDEX)[1] is not None

    def option(self, name: str, *, default: bool) -> bool:
        """A flag in the pipeline's own configuration."""
        value = self._index.get(name, default)
        if not isinstance(value, bool):
            raise UserError(f"{self.path / INDEX}: {name} is {str(value)[:40]}, not true or false; correct it")
        return value

    def config(self, component: str) -> dict[str, Any]:
        """Configuration of a diffusers model, with the defaults of its class; nothing else is loaded."""
        path = self._folder(component) / "config.json"
        stated = read_object(path)
        parameters = inspect.signature(self.component_class(component)).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        return defaults | stated

    def number(self, component: str, field: str) -> int:
        """A positive whole number in the configuration of a component.

        Raises:
            UserError: it is absent or something else.
        """
        return positive(self.config(component), field, self._folder(component) / "config.json")

    def digest(self, component: str) -> str:
        """SHA-256 over the weights of a component, shortened to 16 hex digits."""
        return files_digest(component_weights(self._folder(component)).files)

    def network_digest(self, component: str) -> str:
        """Digest of all files of a network that decide what it computes, 12 hex digits."""
        return network_digest(self._folder(component), ".".join(self._entry(component)))

    def texts_digest(self, component: str) -> str:
        """Digest of all files of a tokenizer or a scheduler that decide what it does, 12 hex digits."""
        return texts_digest(self._folder(component), ".".join(self._entry(component)))

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
        """The class of a component: the family's own, one of `bench.models.checkpoints.stated.CLASSES`, or a scheduler of diffusers."""
        library, name = self._entry(component)
        own = self._classes.get(component)
        return (
            own
            if own is not None and own.__name__ == name
            else known_class(component, library, name, self.path / INDEX)
        )

    def _entry(self, component: str) -> tuple[str, str]:
        library, name = component_entry(self._index, component, self.path / INDEX)
        if library is None or name is None:
            raise UserError(f"{self.path} has no component {component!r} in its {INDEX}; give a complete pipeline")
        return library, name

    def _folder(self, component: str) -> Path:
        folder = next((place / component for place in self._places if (place / component).is_dir()), None)
        if folder is None:
            raise UserError(
                f"{self.path} lacks the component {component!r}; the download is incomplete, download it again"
            )
        return regular_files(folder)


def load_part(kind: Any, folder: Path) -> Any:
    """A tokenizer or a scheduler from its folder.

    Raises:
        UserError: it is incomplete.
    """
    check_stated(folder)
    if hasattr(kind, "vocab_files_names"):
        check_vocabulary(kind, folder)
    if STEPS in (stated := read_object(folder / SCHEDULER) if (folder / SCHEDULER).is_file() else {}):
        positive(stated, STEPS, folder / SCHEDULER)  # a table of 10^12 steps would look like a lack of memory
    with explained(folder):
        part = kind.from_pretrained(folder, local_files_only=True)
        if callable(part):  # a tokenizer, which looks at some of its configuration only with a text
            part(["a", "a bee"], padding=True, truncation=True)
    return part


def load_scheduler_config(folder: Path) -> dict[str, Any]:
    """Configuration of the scheduler that a folder holds, with the defaults of its class.

    Raises:
        UserError: it is incomplete, or its class is not one of diffusers.
    """
    kind = scheduler_class(read_object(folder / SCHEDULER).get("_class_name"), folder)
    return dict(load_part(kind, folder).config)


def load_weights(kind: Any, folder: Path, device: torch.device) -> Any:
    """A diffusers or transformers network from a folder with safetensors weights, frozen and in float32.

    Raises:
        UserError: part of the weights is missing, or a weight is not finite.
    """
    quiet()
    variant = component_weights(folder).variant
    check_stated(folder)
    with explained(folder):
        network, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            variant=variant,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        unmerged(folder, report["unexpected_keys"])
        first = min(report["missing_keys"])
        raise UserError(
            f"{folder} lacks {len(report['missing_keys'])} weights, such as {first}; download the model again"
        )
    check_finite(network, folder)
    return network.to(device).eval().requires_grad_(False)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn whatever a library raises about the contents of a folder's files into a `UserError`."""
    try:
        yield
    except (UserError, PermissionError):  # not about what the files hold
        raise
    except Exception as error:
        if (memory := memory_sentence(error)) is not None:
            raise UserError(f"{folder} cannot be loaded: {memory}") from error
        # Anything may be raised about a damaged file: division by a size of 0, a missing field, tokenizers' bare Exception.
        reason = next(iter(str(error).split("\n")), "") or type(error).__name__
        raise UserError(
            f"{folder} cannot be loaded ({reason}): its configuration and its other files do not belong together, or are "
            "damaged; download the model again"
        ) from error


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
    if not path.exists():
        raise UserError(f"{source} has no {INDEX}; give a diffusers pipeline folder")
    return read_object(path)


def pipeline_class_of(source: str) -> str:
    """The class of the pipeline in a diffusers folder or hub id.

    Raises:
        UserError: see `read_index`, or its index does not say.
    """
    return class_name(read_index(source), Path(source) / INDEX)


def refuse_single_file(typed: str) -> None:
    """Raise a `UserError` if a model was typed that is one file, in the layout of the original code."""
    if Path(typed).exists() and not Path(typed).is_dir():
        raise UserError(
            f"{typed} is a single file, and a model is a diffusers folder; convert it with diffusers first: "
            "from_single_file(FILE), then save_pretrained(FOLDER)"
        )


def fetch(source: str, patterns: Sequence[str]) -> Path:
    """The local folder of a diffusers folder or hub id; only files that match ``patterns`` are downloaded from the hub.

    Raises:
        UserError: neither a folder nor a repository that can be reached or is cached.
    """
    if Path(source).is_dir():
        return Path(source)
    refuse_single_file(source)
    if not HUB_ID.fullmatch(source):
        raise UserError(f"model folder {source!r} does not exist; give a diffusers folder or a hub id")
    complaint = f"model {source!r} is not a local folder and cannot be downloaded from the hub"
    return hub_model(source, patterns, complaint=complaint)
