"""The training loop: one for every algorithm, model and number of processes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping

from accelerate import Accelerator

from bench.core import termination
from bench.core.files import append_lines, replace_folder, write_json
from bench.core.processes import Processes
from bench.core.progress import Progress, say
from bench.data.cache import EncodedCaptions
from bench.data.preferences import PreferenceData
from bench.models.family import ModelFamily
from bench.records.runs import LEDGER, RunFolder
from bench.rollouts.rewards import Rewards
from bench.training.algorithm import Algorithm
from bench.training.batches import PairSource, Source
from bench.training.checkpoint import TrainingState
from bench.training.checkpointer import Checkpointer
from bench.training.collecting import Collector, collection_size
from bench.training.distributed.launch import choose_strategy
from bench.training.distributed.strategy import ParallelStrategy
from bench.training.held_out import trained_rows
from bench.training.ledger import Ledger, refuse_spent_budget
from bench.training.online import OnlineAlgorithm, SamplingAlgorithm, samples_together
from bench.training.policy import Policy
from bench.training.reward_gradients import GradientSource, RewardGradientAlgorithm
from bench.training.rollout_sampler import RolloutSampler
from bench.training.settings import ONLINE_UNITS, Precision, TrainingSettings
from bench.training.step import Trainer, build_optimizer, training_step
from bench.training.step_pair_source import StepPairSource
from bench.training.step_pairs import StepPairAlgorithm
from bench.training.watching import Watcher, unwatched


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is trained, and on what.

    Attributes:
        algorithm: the objective.
        settings: how it trains.
        model: the model whose denoiser is trained, in place.
        data: the prepared data.
        encoded: its embeddings, and its latents if the algorithm reads images.
        seed: the training seed.
        name: what messages call it.
        run_id: which run it is, so that no other one's checkpoint is continued; see `bench.records.config.RunConfig.run_id`.
        prepared_forwards: forwards of the base model spent on preparing the data; counted as reference forwards.
        watcher: looks at the network between steps, and may stop the training.
        rewards: judge the images of an algorithm that samples; None for others.
        image_precision: arithmetic in which the watcher makes images.
    """

    algorithm: Algorithm
    settings: TrainingSettings
    model: ModelFamily
    data: PreferenceData
    encoded: EncodedCaptions
    seed: int
    name: str
    run_id: str
    prepared_forwards: int = 0
    watcher: Watcher = unwatched
    rewards: Rewards | None = None
    image_precision: Precision = "fp32"


def train(job: Job, run: RunFolder, accelerator: Accelerator) -> None:
    """Train from the newest checkpoint of the run's folder, or from the start, until the steps or the budget are spent.

    Random draws are addressed by (seed, step, pair): a resumed run equals one that was never stopped, and the update does not
    depend, beyond rounding, on how a batch is cut into micro-batches and spread over processes.

    Raises:
        DivergedError: a loss or a gradient is not finite, or the first loss is not what identical policy and reference must
            produce.
        TerminatedError: SIGTERM or Ctrl-C arrived; the training so far is saved.
        UserError: the processes cannot share a batch, or preparing the data has used up the budget.
    """
    algorithm, settings, processes = job.algorithm, job.settings, Processes(accelerator)

    # Checks that do not need the weights.
    strategy = choose_strategy(accelerator)
    strategy.check(settings, samples_together(algorithm))
    refuse_spent_budget(settings.budget, job.prepared_forwards)

    # Everything that training changes.
    ledger = Ledger()
    ledger.reset_peak_memory(accelerator.device)
    policy = policy_of(job, ledger, strategy)
    optimizer = build_optimizer(policy.parameters(), settings)
    state = TrainingState(policy.parameters(), optimizer, policy.snapshots, strategy, policy.measured, policy.average)
    trainer = Trainer(algorithm, settings, policy, optimizer, accelerator)
    source = batch_source(job, policy, accelerator)

    # Resume from the newest checkpoint, or begin; log lines from after that checkpoint are dropped.
    checkpointer = Checkpointer(run.checkpoints, state, ledger, accelerator, job.run_id, settings.checkpoint_seconds)
    step = checkpointer.resume()
    if step == 0:
        ledger.reference_forwards = job.prepared_forwards if processes.main else 0
        algorithm.begin(policy)
    else:
        say(f"resuming {job.name} at step {step}" + (f" of {settings.steps}" if settings.budget is None else ""))
    if processes.main:
        run.keep_steps(step)
    accelerator.wait_for_everyone()

    def spent() -> float:
        """How much of ``limit`` is used up; collective, every process must call it."""
        return step if settings.budget is None else checkpointer.total_cost().total(settings.budget.unit)

    def ended() -> bool:
        """Whether training ends here; collective, and one decision for all processes, whose clocks differ."""
        last = processes.broadcast(done >= limit and step % together == 0)  # what was paid for at once is used
        return job.watcher(step, ledger.pairs, policy.evaluated(), last=last) or last

    # The loop.  A signal is handled between micro-batches, where the weights are still those before the step.
    limit = settings.steps if settings.budget is None else settings.budget.amount
    together = steps_paid_at_once(algorithm, settings)
    done = spent()
    finished = ended()
    with termination.deferred(), Progress(f"training {job.name}", total=round(limit), done=round(done)) as progress:
        while not finished:
            began, before = time.monotonic(), dataclasses.replace(ledger)
            try:
                record = training_step(trainer, source.batches(step), step)
            except termination.TerminatedError:
                ledger.restore(before)
                checkpointer.save(step)
                raise
            step += 1
            policy.update_average(step)

            # What the step cost, and its line in the log.
            ledger.pairs += settings.global_batch_size
            ledger.seconds += (time.monotonic() - began) * accelerator.num_processes
            ledger.record_peak_memory(accelerator.device)
            if processes.main:
                line = {"step": step - 1, **record, "pairs": ledger.pairs, "seconds": ledger.seconds}
                append_lines(run.train_log, [json.dumps(line)])
            done = spent()
            progress.reach(round(done), **shown(record))
            finished = ended()
            checkpointer.save_if_due(step, last=finished)

    finish(job, run, policy, step, checkpointer.total_cost(), processes)
    accelerator.wait_for_everyone()


def policy_of(job: Job, ledger: Ledger, strategy: ParallelStrategy) -> Policy:
    """The model of a job as a policy, with a reference if its algorithm calls one."""
    return Policy(
        job.model,
        job.settings,
        ledger,
        with_reference=job.algorithm.calls_reference,
        image_precision=job.image_precision,
        strategy=strategy,
    )


def shown(record: Mapping[str, float]) -> dict[str, float]:
    """What progress shows of a step: the reward where there is one, since the loss of a first update is 0 whatever the rewards are."""
    name = "reward" if "reward" in record else "loss"
    return {name: record[name]}


def steps_paid_at_once(algorithm: Algorithm, settings: TrainingSettings) -> int:
    """How many optimizer steps a budget pays for before the first of them: those of a collection, where it is in samples or rewards."""
    in_collections = settings.budget is not None and settings.budget.unit in ONLINE_UNITS
    return algorithm.updates if in_collections and isinstance(algorithm, OnlineAlgorithm) else 1


def batch_source(job: Job, policy: Policy, accelerator: Accelerator) -> Source:
    """Where a job's global batches come from: its data, collections of the policy's own images, or captions to sample."""
    algorithm = job.algorithm
    pairs = PairSource(job.data, job.encoded, job.settings, job.seed, accelerator)
    if not isinstance(algorithm, SamplingAlgorithm):
        return pairs
    pairs = dataclasses.replace(pairs, among=trained_rows(job.data.captions, algorithm.held_out))
    if job.rewards is None:
        raise ValueError("an algorithm that samples needs rewards")
    if isinstance(algorithm, RewardGradientAlgorithm):
        return GradientSource(algorithm, pairs, policy, job.rewards)
    if isinstance(algorithm, StepPairAlgorithm):
        return StepPairSource(algorithm, pairs, policy, job.rewards)
    if not isinstance(algorithm, OnlineAlgorithm):
        raise TypeError(
            f"{type(algorithm).__name__} must be an OnlineAlgorithm, a RewardGradientAlgorithm or a StepPairAlgorithm"
        )
    size = collection_size(algorithm, job.settings)
    sampler = RolloutSampler(algorithm, job.data.captions, job.encoded, policy, job.seed, size, accelerator.device)
    return Collector(algorithm, sampler, job.rewards, policy, job.settings, job.seed, accelerator)


def finish(job: Job, run: RunFolder, policy: Policy, steps: int, total: Ledger, processes: Processes) -> None:
    """Write the weights after so many steps and their cost, and mark the run as done; collective, every process must call it.

    Raises:
        UserError: these are an average that never moved.
    """
    policy.end(steps)
    total.flops = round(total.total("forwards")) * policy.forward_flops(job.encoded.condition([""]))
    trained = policy.whole_network()
    if processes.main:
        replace_folder(run.weights, lambda partial: job.model.save_trained(trained, partial))
        write_json(run.folder / LEDGER, dataclasses.asdict(total))
        run.finish()
