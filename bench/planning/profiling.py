"""What training steps really cost on this machine: the harness's own step with random weights of the real architecture."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import platform
from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from bench.core.errors import UserError
from bench.core.flops import FlopCounter
from bench.core.progress import Progress
from bench.data.preferences import PreferenceData
from bench.models.family import Condition, ModelFamily
from bench.models.find import FoundArchitecture
from bench.planning.dummy_data import DummyEncoding, prepared_data, text_shapes
from bench.planning.memory_tracker import MemoryTracker
from bench.planning.timer import Clock
from bench.planning.traced_policy import TracedPolicy
from bench.training.algorithm import Algorithm
from bench.training.batches import StepBatches
from bench.training.ledger import Ledger
from bench.training.online import SamplingAlgorithm
from bench.training.settings import TrainingSettings
from bench.training.step import Trainer, build_optimizer, training_step

CPU_SIDE, CUDA_SIDE = 1024, 8192
"""Side of the square matrices whose product measures the ceiling."""
CEILING_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """The measurements.

    Attributes:
        device: the device's name.
        precision: precision of the network's arithmetic.
        pairs: how many pairs were timed.
        pairs_per_second: training throughput, with the optimizer step shared by all pairs of the global batch.
        forwards_per_second: images through any network, a backward counting as two, over the same time.
        flops_per_pair: operations per pair, as torch counts them while the step runs.
        ceiling: operations per second of one large matrix product in the same precision.
        share: the share of the ceiling that training reaches.
        peak_memory_bytes: peak memory of the first steps.
        memory_of: what that counts: memory allocated by torch on CUDA, memory of live tensors on a CPU.
        resident_growth_bytes: by how much the process grew since before its networks were made; None on CUDA.
        phases: seconds per pair by phase; ``encode`` is done once for all algorithms and is not part of the throughput.
    """

    device: str
    precision: str
    pairs: int
    pairs_per_second: float
    forwards_per_second: float
    flops_per_pair: float
    ceiling: float
    share: float
    peak_memory_bytes: int
    memory_of: str
    resident_growth_bytes: int | None
    phases: Mapping[str, float]


def measure(
    found: FoundArchitecture, algorithm: Algorithm, settings: TrainingSettings, steps: int, accelerator: Accelerator
) -> Profile:
    """Run the same steps, of at most two micro-batches, three times: for their memory, their operations and their time.

    The steps see the same pairs, timesteps and noise each time.  The learning rate is 0: random weights must not diverge, every
    first step is checked as one before any update, and the cost does not depend on it.

    Raises:
        UserError: the algorithm is online.
    """
    refuse_online(algorithm.info.title, algorithm)
    device = accelerator.device
    cuda = device.type == "cuda"
    batch = min(settings.global_batch_size, 2 * settings.micro_batch_size)
    few = settings.model_copy(update={"global_batch_size": batch, "learning_rate": 0.0})
    clock, ledger, resident, meter = Clock(device), Ledger(), Ledger(), MemoryTracker()
    texts = text_shapes(found.build(torch.device("meta")).encode_text([""]))
    model = found.build(device)
    encode = encoding_seconds(model, few.micro_batch_size, clock)
    model.release_encoders()
    data, _ = prepared_data(algorithm, model)
    encoded = DummyEncoding(data, model, model.latent_shape(model.resolution, model.resolution), texts)
    resident.reset_peak_memory(device)
    resident.record_peak_memory(device)
    before, pairs = resident.peak_memory_bytes, steps * batch

    with Progress("measuring steps", total=3 * steps) as progress:
        with contextlib.nullcontext() if cuda else meter:
            policy = TimedPolicy(model, few, ledger, clock, with_reference=algorithm.calls_reference)
            optimizer = build_optimizer(policy.parameters(), few)
            trainer = Trainer(algorithm, few, policy, optimizer, accelerator)
            algorithm.begin(policy)
            run = functools.partial(_run_steps, trainer, data, encoded, steps, progress)
            run(0)
        resident.record_peak_memory(device)
        # In a separate pass, so that counting operations does not affect the memory that is measured.
        with FlopCounter() as counter:
            run(steps)
        phases = _timed(run, trainer, clock, pairs)

    phases["optimizer"] *= batch / settings.global_batch_size
    seconds, flops = sum(phases.values()), counter.total / pairs
    ceiling = matmul_ceiling(device, settings.precision, clock)
    return Profile(
        device=torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        precision=settings.precision,
        pairs=pairs,
        pairs_per_second=1 / seconds,
        forwards_per_second=ledger.total("forwards") / pairs / seconds,
        flops_per_pair=flops,
        ceiling=ceiling,
        share=flops / seconds / ceiling,
        peak_memory_bytes=resident.peak_memory_bytes if cuda else meter.peak,
        memory_of="allocated by CUDA" if cuda else "live tensors",
        resident_growth_bytes=None if cuda else resident.peak_memory_bytes - before,
        phases={"encode": encode, **phases},
    )


def refuse_online(name: str, algorithm: Algorithm) -> None:
    """Raise a `UserError`, which calls an algorithm by a name, if it samples and judges while it trains."""
    if isinstance(algorithm, SamplingAlgorithm):
        raise UserError(
            f"{name} samples and judges while it trains, which bench profile does not measure; time a trial instead: "
            "bench run --set steps=2 --limit 50"
        )


def _run_steps(
    trainer: Trainer, data: PreferenceData, encoded: DummyEncoding, steps: int, progress: Progress, first: int
) -> None:
    """Train for some steps, always on the same pairs, with the learning rate of the steps from ``first`` on."""
    for step in range(steps):
        batches = StepBatches(data, encoded, trainer.settings, 0, step, trainer.accelerator)
        training_step(trainer, batches, first + step)
        trainer.policy.update_average(first + step + 1)
        progress.advance()


def _timed(run: Callable[[int], None], trainer: Trainer, clock: Clock, pairs: int) -> dict[str, float]:
    """Seconds per pair by phase; ``other`` is the time outside all phases."""
    trainer.optimizer.register_step_pre_hook(lambda *_: clock.begin("optimizer"))
    trainer.optimizer.register_step_post_hook(lambda *_: clock.end())
    clock.seconds.clear()
    trainer.policy.ledger.reset_counts()
    began = clock.now()
    run(1)  # not 0: step 0 includes the check of the start
    elapsed = clock.now() - began
    phases = {name: seconds / pairs for name, seconds in clock.seconds.items()}
    return {**phases, "other": elapsed / pairs - sum(phases.values())}


class TimedPolicy(TracedPolicy):
    """A policy whose forwards and backwards are phases of a clock."""

    def __init__(
        self, model: ModelFamily, settings: TrainingSettings, ledger: Ledger, clock: Clock, *, with_reference: bool
    ) -> None:
        super().__init__(model, settings, ledger, with_reference=with_reference)
        self._clock = clock
        trained = [parameter for _, parameter in self.parameters()]
        register_multi_grad_hook(trained, lambda _: clock.end(), mode="all")

    def run_network(self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        graph = torch.is_grad_enabled()
        policy = "policy forward" if graph else "policy without gradient"
        with self._clock.phase("reference" if self.counted_as == "reference_forwards" else policy):
            prediction = super().run_network(network, latents, timesteps, condition)
        if graph:
            prediction.register_hook(lambda _: self._clock.begin("backward"))
        return prediction


def encoding_seconds(model: ModelFamily, pairs: int, clock: Clock) -> float:
    """Seconds per pair to encode its images and caption, when ``pairs`` of them are encoded together."""
    images = torch.zeros(2 * pairs, 3, model.resolution, model.resolution)

    def encode() -> None:
        model.encode_text([""] * pairs)
        model.encode_images(images)

    encode()
    began = clock.now()
    encode()
    return (clock.now() - began) / pairs


def matmul_ceiling(device: torch.device, precision: str, clock: Clock) -> float:
    """Operations per second of the product of two large square matrices; the best of repeats during `CEILING_SECONDS`."""
    side = CUDA_SIDE if device.type == "cuda" else CPU_SIDE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = torch.randn(2, side, side, device=device).to(dtype)
    best, stop = math.inf, clock.now() + CEILING_SECONDS
    while math.isinf(best) or clock.now() < stop:
        began = clock.now()
        one @ other
        best = min(best, clock.now() - began)
    return 2 * side**3 / best
