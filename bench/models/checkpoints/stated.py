"""What the files of a model say of it: configurations as JSON objects that name no code, and classes from a list."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.files import from_json
from bench.core.inputs import read_bytes

CLASSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "vae": {"diffusers": ("AutoencoderKL",)},
    "unet": {"diffusers": ("UNet2DConditionModel",)},
    "transformer": {"diffusers": ("SD3Transformer2DModel", "FluxTransformer2DModel")},
    "text_encoder": {"transformers": ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")},
    "tokenizer": {"transformers": ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")},
}
"""The classes that are loaded, by component without its number and by library; of a scheduler, see `scheduler_class`."""

CODE = ("auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "quantization_config")
"""Fields of configurations by which libraries load code from elsewhere, or packages that nobody chose here."""

MOST_NUMBER = 1 << 20
"""What sizes and numbers of steps in configurations stay below."""

MOST = 1 << 28
"""Bytes of the largest configuration or vocabulary."""


def json_of_model(text: str | bytes, what: str) -> Any:
    """A JSON value that came with a model; ``what`` it is begins the sentence.

    Raises:
        UserError: it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return from_json(text if isinstance(text, str) else text.decode())
    except ValueError as error:  # of JSON, or of the encoding
        raise UserError(f"{what} is not valid JSON ({error}); download the model again") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a model, which does not ask for code.

    Raises:
        UserError: the file is missing or not a JSON object in UTF-8, or names code.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing or is not a file; the download is incomplete, download the model again")
    content = read_bytes(path, MOST)
    if content.startswith(codecs.BOM_UTF8):
        raise UserError(
            f"{path} begins with a byte order mark, which other programs do not read; save it as UTF-8 without"
        )
    if not content.strip():
        raise UserError(f"{path} is empty; download the model again")
    value = json_of_model(content, str(path))
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; download the model again")
    if (asked := _code_field(value)) is not None:
        raise UserError(
            f"{path} has {asked}, by which other code would be loaded, and none is; save the model without it if you trust it"
        )
    return value


def _code_field(value: Any) -> str | None:
    """A field of `CODE` that a JSON value sets, at any depth, since parts of a configuration are handed on as wholes; None if none is."""
    inner = [value]
    while inner:
        each = inner.pop()
        if isinstance(each, dict):
            if asked := [field for field in CODE if each.get(field)]:
                return asked[0]
            inner += each.values()
        elif isinstance(each, list):
            inner += each
    return None


def check_stated(folder: Path) -> None:
    """Check every configuration of a component with `read_object`, before a library reads it."""
    for path in sorted(folder.glob("*config.json")):
        read_object(path)


def check_vocabulary(kind: Any, folder: Path) -> None:
    """Check that the files of a tokenizer are there; without them transformers makes one that knows its special tokens alone.

    Args:
        kind: a tokenizer class of transformers, which states the names of its files.
        folder: of the tokenizer.

    Raises:
        UserError: a file is missing.
    """
    own = dict(kind.vocab_files_names)
    whole = [own.pop("tokenizer_file", "tokenizer.json")]
    parts = list(own.values())
    if not any(all((folder / name).is_file() for name in names) for names in (whole, parts)):
        raise UserError(
            f"the tokenizer in {folder} is not complete: it needs {whole[0]}, or {' and '.join(parts)}; download it again"
        )


def positive(stated: Mapping[str, Any], field: str, path: Path) -> int:
    """A field of a configuration that is a positive whole number.

    Raises:
        UserError: it is absent or something else.
    """
    value = stated.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MOST_NUMBER:
        found = "is absent" if value is None else f"is {str(value)[:40]}"
        raise UserError(
            f"{path}: {field} {found}, and a positive whole number below {MOST_NUMBER:,} is needed; correct the configuration"
        )
    return value


def class_name(index: Mapping[str, Any], path: Path) -> str:
    """The class of a pipeline by its ``model_index.json``.

    Raises:
        UserError: it is absent or not a name.
    """
    name = index.get("_class_name")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{path} has no _class_name, which says what pipeline it is; save it with diffusers' save_pretrained"
        )
    return name


def component_entry(index: Mapping[str, Any], component: str, path: Path) -> tuple[str | None, str | None]:
    """Library and class of a component, which are None where the pipeline does not have it.

    Raises:
        UserError: the entry is something else.
    """
    entry = index.get(component, [None, None])
    if entry == [None, None]:
        return None, None
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        raise UserError(
            f"{path}: {component} is {str(entry)[:60]}, not a library and a class; download the model again"
        )
    return entry[0], entry[1]


def known_class(component: str, library: str, name: str, path: Path) -> Any:
    """The class of a component, which is one that is listed.

    Raises:
        UserError: it is not.
    """
    kind = component.rstrip("0123456789").rstrip("_")
    if kind == "scheduler" and library == "diffusers":
        return scheduler_class(name, path)
    if name not in CLASSES.get(kind, {}).get(library, ()):
        listed = [each for names in CLASSES.get(kind, {}).values() for each in names]
        raise UserError(
            f"{path}: component {component!r} is a {library} {name}, which is not supported; "
            f"it may be a {' or '.join(listed) or 'scheduler of diffusers'}"
        )
    return getattr(_library(library), name)


def scheduler_class(name: Any, path: Path) -> Any:
    """A scheduler of diffusers.

    Raises:
        UserError: there is none of that name, or its package is not installed.
    """
    import diffusers

    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise UserError(f"{path}: diffusers has no scheduler {name!r} here; give a model with another one")
    return kind


def _library(name: str) -> Any:
    import diffusers
    import transformers

    return {"diffusers": diffusers, "transformers": transformers}[name]
