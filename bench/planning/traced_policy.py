"""A policy that knows which of its networks is being called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor

from bench.models.family import Condition
from bench.training.policy import Policy


class TracedPolicy(Policy):
    """A base class for policies that override `Policy.run_network` and need to know what a call counts as.

    Attributes:
        counted_as: what the current call counts as, a name of `bench.training.ledger.COUNTS`.
    """

    counted_as: str = "policy_forwards"

    def reference(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        with self._as_reference():
            return super().reference(latents, timesteps, condition)

    def predict_with_snapshot(self, name: str, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        with self._as_reference():
            return super().predict_with_snapshot(name, latents, timesteps, condition)

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[None]:
        before, self.counted_as = self.counted_as, "reference_forwards"
        try:
            yield
        finally:
            self.counted_as = before
