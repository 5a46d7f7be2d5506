"""One resumable fit, shared by every part of the tiny world that is trained."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.core.progress import Progress

CHECKPOINT_SECONDS = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class FitSettings:
    """How a part is fitted: AdamW, linear warm-up, cosine decay to zero, exponential moving average of the weights.

    Attributes:
        decay: share of the steps after the warm-up over which the learning rate falls; before, it is constant, and ``steps``
            can still be changed between two calls.
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 100
    average: float = 0.998
    clip: float = 1.0
    decay: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of one step (0-based)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        falling = self.decay * max(1, self.steps - self.warmup)
        done = max(0.0, 1 - (self.steps - step) / falling)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    name: str,
    modules: nn.ModuleDict,
    loss: Callable[[int], Tensor],
    settings: FitSettings,
    work: Path,
) -> None:
    """Minimise ``loss(step)`` over the parameters of ``modules``, in place; leaves the averaged weights in them.

    ``loss`` must depend on the step alone, not on a stream of random numbers: then a resumed fit equals one that never
    stopped.  Everything is float32: on a CPU without matrix units that is up to twice as fast as bfloat16.  The state is
    saved every two minutes under ``work`` and taken up again by the next call.
    """
    parameters: list[Tensor] = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    average = [parameter.detach().clone() for parameter in parameters]
    path, start = work / f"{name}.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]
    modules.train()
    saved = time.monotonic()
    with Progress(name, total=settings.steps, done=start) as progress:
        for step in range(start, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(step)
            value = loss(step)
            if not torch.isfinite(value):
                raise RuntimeError(f"fitting {name}: the loss is {value.item()} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            with torch.no_grad():
                keep = min(settings.average, (step + 1) / (step + 10))
                torch._foreach_mul_(average, keep)
                torch._foreach_add_(average, parameters, alpha=1 - keep)
            progress.advance(1, loss=value.item())
            if time.monotonic() - saved > CHECKPOINT_SECONDS or step + 1 == settings.steps:
                _save(path, {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(),
                             "average": average, "step": step + 1})  # fmt: skip
                saved = time.monotonic()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    modules.eval()


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    partial.replace(path)


def unfinished_average(path: Path, modules: nn.ModuleDict) -> int:
    """Put the averaged weights of an unfinished fit, the file ``<name>.pt`` of its state, into ``modules``; returns its step."""
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
        for parameter, mean in zip(trained, state["average"], strict=True):
            parameter.copy_(mean)
    modules.eval()
    step: int = state["step"]
    return step


def draws(step: int, count: int, size: int, *, seed: int = 0) -> Tensor:
    """``size`` indices below ``count`` that depend on the step alone; int64, shape (size,)."""
    return torch.randint(count, (size,), generator=torch.Generator().manual_seed(seed * 1_000_003 + step))
