"""Tensors that have a shape, a type and gradients, and no values."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor


class ShapeTensor(Tensor):
    """A tensor of torch's meta device that says it is on a CPU, so that networks do what they do where they have values.

    What meets one in an operation counts as blank too.  torch's own fake tensors do the same and more, at several times the cost
    of an operation.

    Args:
        meta: what it has for values; its storage is of the size that they would have.
    """

    meta: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001

    def __new__(cls, meta: Tensor) -> Self:
        """Wrap it; the wrapper has no storage of its own."""
        blank: Self = Tensor._make_wrapper_subclass(  # noqa: SLF001
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=torch.device("cpu"),
        )
        blank.meta = meta
        return blank

    def untyped_storage(self) -> torch.UntypedStorage:
        """The storage that views share."""
        return self.meta.untyped_storage()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {name: _meta(value) for name, value in (kwargs or {}).items()}
        if given.get("device") is not None:
            given["device"] = torch.device("meta")
        result = func(*map(_meta, args), **given)
        # an operation in place gives back the very tensor that it was given
        return _blank(result, {id(value.meta): value for value in args if isinstance(value, ShapeTensor)})


def _meta(value: Any) -> Any:
    if isinstance(value, ShapeTensor):
        return value.meta
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, list | tuple):
        return [_meta(each) for each in value]
    return value


def _blank(value: Any, known: dict[int, ShapeTensor]) -> Any:
    if isinstance(value, Tensor):
        return known[id(value)] if id(value) in known else ShapeTensor(value)
    if isinstance(value, list | tuple):
        return [_blank(each, known) for each in value]
    return value
