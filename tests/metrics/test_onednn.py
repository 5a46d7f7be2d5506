"""Linear layers through oneDNN: the same numbers, and nothing else touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from filled import PROMPTS, picture
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from metrics import inference
from metrics.hpsv2 import HPSv2
from metrics.inference import exact_inference
from metrics.onednn import OneDNNLinear, mkl_is_slow

CPU = torch.device("cpu")
OPERATOR = "mkldnn::_linear_pointwise"


class Operators(TorchDispatchMode):
    """Lists what is computed within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name().partition(".")[0])
        return func(*args, **(kwargs or {}))


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (2, 3, 7), (2, 3, 1, 129), (257, 160), (0, 7)])
@pytest.mark.parametrize("outputs", [1, 3, 64])
@pytest.mark.parametrize("biased", [True, False])
@torch.no_grad()
def test_equal_to_a_plain_linear_layer(shape: tuple[int, ...], outputs: int, *, biased: bool) -> None:
    # Results are of size 1, as a network's are.
    values, weight = numbers(*shape), numbers(outputs, shape[-1]) / shape[-1] ** 0.5
    bias = numbers(outputs) if biased else None
    with OneDNNLinear():
        found = linear(values, weight, bias)
    torch.testing.assert_close(found, linear(values, weight, bias), rtol=0, atol=2e-6)


@torch.no_grad()
def test_worked_numbers() -> None:
    with OneDNNLinear(), Operators() as computed:
        found = linear(torch.tensor([[1.0, 2.0], [0.5, -4.0]]), torch.tensor([[3.0, -1.0]]), torch.tensor([0.25]))
    assert OPERATOR in computed.names
    assert found.tolist() == [[1.25], [5.75]]


@pytest.mark.parametrize(
    ("values", "weight", "bias"),
    [
        (numbers(7, 5).T, numbers(3, 7), numbers(3)),
        (numbers(1, 7).expand(5, 7), numbers(3, 7), numbers(3)),
        (numbers(5, 14)[:, ::2], numbers(3, 7), numbers(3)),
        (numbers(5, 7), numbers(7, 3).T, numbers(3)),
        (numbers(5, 7), numbers(9, 7).chunk(3)[1], numbers(9).chunk(3)[1]),
        (numbers(5, 7), numbers(3, 14)[:, 7:], numbers(3)),
        (numbers(5, 7), numbers(3, 7), numbers(6)[::2]),
        (numbers(5, 0), numbers(3, 0), numbers(3)),
    ],
    ids=["transposed", "expanded", "gaps", "weight-transposed", "parts", "weight-gaps", "bias-gaps", "empty"],
)
@torch.no_grad()
def test_views_are_read_right(values: Tensor, weight: Tensor, bias: Tensor) -> None:
    with OneDNNLinear():
        found = linear(values, weight, bias)
    torch.testing.assert_close(found, linear(values, weight, bias), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_dtypes_are_computed_as_ever(dtype: torch.dtype) -> None:
    arguments = numbers(5, 7).to(dtype), numbers(3, 7).to(dtype), numbers(3).to(dtype)
    with OneDNNLinear(), Operators() as computed:
        found = linear(*arguments)
    assert OPERATOR not in computed.names
    assert torch.equal(found, linear(*arguments))


def test_every_linear_layer_of_a_scorer_and_none_outside(hpsv2: HPSv2, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [each for each in hpsv2.model.modules() if isinstance(each, torch.nn.Linear)]
    names = list(hpsv2.model.state_dict())
    # Both ways, whatever processor this is.
    monkeypatch.setattr(inference, "mkl_is_slow", lambda: False)
    with Operators() as computed:
        plain = hpsv2.score([picture("sq224")], PROMPTS[:1])
    assert OPERATOR not in computed.names
    monkeypatch.setattr(inference, "mkl_is_slow", lambda: True)
    with Operators() as computed:
        scores = hpsv2.score([picture("sq224")], PROMPTS[:1])
    assert computed.names.count(OPERATOR) == len(layers)
    assert scores.item() == pytest.approx(plain.item(), abs=1e-6)
    assert list(hpsv2.model.state_dict()) == names
    with torch.no_grad(), Operators() as computed:
        linear(numbers(5, 7), numbers(3, 7))
    assert OPERATOR not in computed.names


def test_only_on_processors_of_amd(tmp_path: Path) -> None:
    for maker, slow in (("AuthenticAMD", torch.backends.mkl.is_available()), ("GenuineIntel", False)):
        processors = tmp_path / maker
        processors.write_text(f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: some\n")
        assert mkl_is_slow(processors) is slow
    assert mkl_is_slow(tmp_path / "missing") is False


def test_the_caller_cannot_lower_the_precision() -> None:
    settings: Any = torch.backends.mkldnn
    before = settings.matmul.fp32_precision
    settings.matmul.fp32_precision = "bf16"
    try:
        with exact_inference(CPU):
            assert settings.matmul.fp32_precision == settings.conv.fp32_precision == "ieee"
        assert settings.matmul.fp32_precision == "bf16"
    finally:
        settings.matmul.fp32_precision = before
