"""A policy that knows which of its networks is being asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor

from bench.models.family import Condition
from bench.training.policy import Policy


class TracedPolicy(Policy):
    """A policy for those who watch `Policy.run_network`.

    Attributes:
        asked: what the network that runs counts as, a name of `bench.training.ledger.COUNTS`.
    """

    asked: str = "policy_forwards"

    def reference(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        with self._as_reference():
            return super().reference(latents, timesteps, condition)

    def predict_with_snapshot(self, name: str, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        with self._as_reference():
            return super().predict_with_snapshot(name, latents, timesteps, condition)

    @contextlib.contextmanager
    def _as_reference(self) -> Iterator[None]:
        before, self.asked = self.asked, "reference_forwards"
        try:
            yield
        finally:
            self.asked = before
