"""How often an algorithm calls the networks: counted by running its step with a policy that has none."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from bench.data.preferences import PreferenceData
from bench.models.family import Condition, ModelFamily
from bench.planning.dummy_batches import dummy_batches, whole_groups
from bench.planning.dummy_data import DummyEncoding
from bench.training.algorithm import Algorithm
from bench.training.ledger import COUNTS, Ledger
from bench.training.online import SamplingAlgorithm
from bench.training.policy import Policy
from bench.training.reward_gradients import RewardGradientAlgorithm
from bench.training.settings import TrainingSettings
from bench.training.step import Trainer, accumulate

PAIRS = 512
"""How many pairs are counted: the number of calls of an inversion depends on the timesteps drawn."""
FEW = 4
"""How many samples of each step are counted of an algorithm that samples: those of a step cost the same."""
STEPS = 8
"""How many steps of such an algorithm are counted at most: as many calls in each, unless an algorithm draws how many it makes."""
DRAWN_STEPS = 64
"""The same of one that trains on the reward's gradient: how far a sample is followed may be drawn for each step."""
SMALL = (1, 1, 1)
"""Shape of the latents; the counts do not depend on it."""


def count_calls(
    model: ModelFamily, algorithm: Algorithm, settings: TrainingSettings, data: PreferenceData
) -> Mapping[str, float]:
    """Forwards and backwards per pair, or per sample of an algorithm that samples, counted per image, averaged over some; by name of `bench.training.ledger.COUNTS`.

    They are those of the first steps with seed 0.

    Args:
        model: only its forward process matters.
        data: prepared by the algorithm.
    """
    sampling = isinstance(algorithm, SamplingAlgorithm)
    most = DRAWN_STEPS if isinstance(algorithm, RewardGradientAlgorithm) else STEPS
    count, steps = (whole_groups(algorithm, FEW), min(settings.steps, most)) if sampling else (PAIRS, 1)
    many = settings.model_copy(update={"global_batch_size": count, "micro_batch_size": whole_groups(algorithm, 64)})
    policy = SilentPolicy(model, with_reference=algorithm.calls_reference)
    encoded = DummyEncoding(data, model, SMALL, dict.fromkeys(model.condition_names, (1,)))
    accelerator = Accelerator(cpu=True)
    algorithm.begin(policy)
    trainer = Trainer(algorithm, many, policy, torch.optim.SGD([policy.anchor]), accelerator)
    for step in range(steps):
        accumulate(trainer, dummy_batches(trainer, data, encoded, step), step)
    return {name: getattr(policy.ledger, name) / count / steps for name in COUNTS}


class SilentPolicy(Policy):
    """A policy that counts calls and predicts 0; instead of a network it has a single weight, which snapshots can copy.

    Attributes:
        anchor: the weight, to which the gradient of the predictions flows.
    """

    def __init__(self, model: ModelFamily, *, with_reference: bool) -> None:
        anchor = nn.Linear(1, 1, bias=False)
        silent = copy.copy(model)
        vars(silent)["network"] = anchor  # replaces the cached property
        super().__init__(silent, TrainingSettings(), Ledger(), with_reference=with_reference)
        self.anchor = next(self.network.parameters())

    def run_network(self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        return torch.zeros(latents.shape) * self.anchor.sum()
