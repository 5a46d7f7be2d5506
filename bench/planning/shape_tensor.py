"""Tensors that have a shape, a dtype and gradients, but no values."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class ShapeTensor(Tensor):
    """A tensor on torch's meta device that claims to be on a CPU, so that networks take the same path as with real values.

    The result of any operation on one is such a tensor too.  torch's own fake tensors do the same and more, at several times
    the cost per operation.

    Args:
        meta: the wrapped meta tensor, whose storage has the size that the values would have.
    """

    meta: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001

    def __new__(cls, meta: Tensor) -> Self:
        """Wrap ``meta``; the wrapper itself does not own a storage."""
        wrapper: Self = Tensor._make_wrapper_subclass(  # noqa: SLF001
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=torch.device("cpu"),
        )
        wrapper.meta = meta
        return wrapper

    def untyped_storage(self) -> torch.UntypedStorage:
        """The storage that views share."""
        return self.meta.untyped_storage()

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """Zeros, of the same shape."""
        return np.zeros(self.shape, dtype=torch.empty(0, dtype=self.dtype).numpy(force=force).dtype)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {name: _meta(value) for name, value in (kwargs or {}).items()}
        if given.get("device") is not None:
            given["device"] = torch.device("meta")
        result = func(*map(_meta, args), **given)
        # An in-place operation must return the very tensor that it was called on.
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
