"""Can be imported, but are no algorithms."""

from bench import PairBatch, PairwiseAlgorithm, StepOutput
from bench.training.policy import Policy


class Stateless(PairwiseAlgorithm):
    """Does not say what it is."""

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        raise AssertionError("never stepped")


class Plain:
    """Comes from nothing."""
