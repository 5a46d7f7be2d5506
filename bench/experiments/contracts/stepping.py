"""Contracts about one step of an algorithm on a small model, as the harness calls it, and about a short training."""

from __future__ import annotations

import math

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.experiments.contracts.algorithm_case import (
    EPSILON,
    EVERY_PROCESS,
    ROWS,
    AlgorithmCase,
    contract,
    gradients,
)
from bench.experiments.contracts.contract import NotApplicableError, expect
from bench.experiments.contracts.objective import steps_by_objective
from bench.experiments.contracts.small_setup import state
from bench.training.algorithm import StepOutput
from bench.training.policy import Policy

COUNT = len(ROWS)
ALIKE = 5e-3
"""Relative to the largest loss: kernels round differently at another batch size, and beta amplifies a margin's last digits."""


@contract(*EVERY_PROCESS)
def returns_one_loss_per_pair(case: AlgorithmCase) -> None:
    """A step returns one finite float32 loss per pair with gradient, a time per pair, and logs per pair without gradient."""
    output = case.step(case.setup.reset_policy())
    losses = output.losses
    expect(losses.shape == (COUNT,), f"losses of shape ({COUNT},) for {COUNT} pairs", tuple(losses.shape))
    expect(losses.dtype == torch.float32, "float32 losses", losses.dtype)
    expect(bool(torch.isfinite(losses).all()), "finite losses", losses.tolist())
    expect(losses.requires_grad, "losses with gradient", "losses without")
    expect(output.timesteps.shape == (COUNT,), f"timesteps of shape ({COUNT},)", tuple(output.timesteps.shape))
    for name, log in output.logs.items():
        expect(log.shape == (COUNT,), f"a log {name!r} of shape ({COUNT},)", tuple(log.shape))
        expect(not log.requires_grad, f"a log {name!r} without gradient", "one with gradient")


@contract(*EVERY_PROCESS)
def repeats_itself(case: AlgorithmCase) -> None:
    """The same pairs with the same draws have the same losses to the last bit."""
    policy = case.moved_policy()
    with torch.no_grad():
        first, second = (case.step(policy) for _ in range(2))
    expect(torch.equal(first.losses, second.losses), f"{first.losses.tolist()} again", second.losses.tolist())


@contract(*EVERY_PROCESS)
def loss_is_the_same_in_any_batch(case: AlgorithmCase) -> str:
    """A pair's loss does not depend on which pairs share its micro-batch."""
    policy = case.moved_policy()
    with torch.no_grad():
        whole = case.step(policy)
        alone = [case.step(policy, places=[place]) for place in range(COUNT)]
    times = torch.cat([output.timesteps for output in alone])
    expect(torch.equal(times, whole.timesteps), f"the times {whole.timesteps.tolist()}", times.tolist())
    return _alike(torch.cat([output.losses for output in alone]), whole.losses, "pairs one by one")


@contract(*EPSILON)
def gradient_is_the_same_in_any_cut(case: AlgorithmCase) -> str:
    """Cutting the batch into micro-batches changes the gradient only by rounding."""
    made = []
    for cut in ([range(COUNT)], [[0, 1, 2], [3, 4]]):
        policy = case.moved_policy()
        for places in cut:
            case.step(policy, places=places).losses.sum().backward()
        made.append(gradients(policy.parameters()))
    expected, received = made
    difference = ((received - expected).norm() / expected.norm()).item()
    expect(difference < ALIKE, f"a gradient within {ALIKE:g} of its norm", f"one that is {difference:.2g} of it away")
    return f"relative difference {difference:.1g}"


@contract(*EVERY_PROCESS)
def order_of_the_pairs_does_not_matter(case: AlgorithmCase) -> str:
    """Permuting the pairs of a batch permutes their losses."""
    policy, order = case.moved_policy(), [3, 0, 4, 2, 1]
    with torch.no_grad():
        whole = case.step(policy)
        permuted = case.step(policy, rows=[ROWS[place] for place in order])
    expected = whole.timesteps[order]
    expect(torch.equal(permuted.timesteps, expected), f"the times {expected.tolist()}", permuted.timesteps.tolist())
    return _alike(permuted.losses, whole.losses[order], "the pairs in another order")


@contract(*EPSILON)
def asks_for_the_statistics_it_has(case: AlgorithmCase) -> str:
    """It states needs_batch_stats exactly when it has statistics of the global batch, one row per pair."""
    policy, stated = case.setup.reset_policy(), case.algorithm.needs_batch_stats
    case.algorithm.begin(policy)
    with torch.no_grad():
        found = case.algorithm.global_batch_stats(case.setup.batch(ROWS, data=case.data), policy)
    expect((found is not None) == stated, f"statistics: {stated}, as it states", f"statistics: {found is not None}")
    if found is not None:
        expect(len(found) == COUNT, f"{COUNT} rows", len(found))
    return "some" if stated else "none"


@contract(*EVERY_PROCESS)
def times_cover_the_process(case: AlgorithmCase) -> str:
    """Training times are spread over the whole process."""
    with torch.no_grad():
        times = case.step(case.setup.reset_policy(), rows=range(40)).timesteps
    low, high = times.min().item(), times.max().item()
    expect(
        0 <= low < 250 and 750 < high < 1000, "40 times from below 250 to above 750, in 0 to 999", f"{low} to {high}"
    )
    return f"{low:g} to {high:g}"


@contract(*EVERY_PROCESS)
def starts_at_the_reference(case: AlgorithmCase) -> None:
    """With policy and reference alike the margin is exactly 0 and the loss is the stated initial_loss."""
    _at_the_reference(case, case.step(case.setup.reset_policy()))


@contract(*EVERY_PROCESS)
def starts_at_the_reference_in_bf16(case: AlgorithmCase) -> None:
    """In bfloat16, too, policy and reference alike have finite losses and a margin of exactly 0."""
    _no_margin(case.step(case.setup.reset_policy(precision="bf16")))


@contract(*EPSILON)
def fresh_adapters_start_at_the_reference(case: AlgorithmCase) -> None:
    """With fresh adapters (LoRA) the margin is exactly 0 and the loss is the stated initial_loss."""
    _at_the_reference(case, case.step(case.setup.reset_policy(trainable="lora")))


@contract(*EPSILON)
def fresh_adapters_start_at_the_reference_in_bf16(case: AlgorithmCase) -> None:
    """In bfloat16, too, fresh adapters have finite losses and a margin of exactly 0."""
    _no_margin(case.step(case.setup.reset_policy(trainable="lora", precision="bf16")))


@contract(*EVERY_PROCESS)
def gradient_spares_the_reference(case: AlgorithmCase) -> None:
    """The gradient reaches what is trained and nothing of the reference."""
    policy = case.setup.reset_policy()
    strangers = _receivers(case, policy) - dict(policy.parameters()).keys()
    expect(not strangers, "gradients of trained parameters alone", f"one for {', '.join(sorted(strangers)[:3])}")


@contract(*EPSILON)
def gradient_of_adapters_spares_the_reference(case: AlgorithmCase) -> None:
    """With adapters the gradient reaches them and nothing else."""
    strangers = [name for name in _receivers(case, case.setup.reset_policy(trainable="lora")) if "lora_" not in name]
    expect(not strangers, "gradients of adapters alone", f"one for {', '.join(sorted(strangers)[:3])}")


@contract(*EVERY_PROCESS)
def a_small_step_lowers_the_loss(case: AlgorithmCase) -> str:
    """A small step against the gradient, with the same draws, lowers the loss and widens the margin."""
    if steps_by_objective(type(case.algorithm)):
        raise NotApplicableError("the direction of the gradient is checked on the objective")
    policy = case.setup.reset_policy()
    before = case.step(policy)
    before.losses.mean().backward()
    _descend(policy, expected=1e-3 * before.losses.detach().abs().mean().item())
    with torch.no_grad():
        after = case.step(policy)
    first, second = before.losses.mean().item(), after.losses.mean().item()
    expect(second < first, f"a mean loss below {first:.7g}", f"{second:.7g}")
    if "margin" in after.logs:
        margin = after.logs["margin"].mean().item()
        expect(margin > 0, "a mean margin above 0", f"{margin:.2g}")
    return f"{first:.7g} to {second:.7g}"


@contract(*EVERY_PROCESS)
def training_changes_the_weights(case: AlgorithmCase) -> str:
    """Two steps of the harness's own training change the weights, which stay finite."""
    model = case.setup.model()
    after = model.load_trained(case.trained.weights)
    changed, count = 0, 0
    for one, other in zip(model.network.parameters(), after.parameters(), strict=True):
        expect(bool(torch.isfinite(other).all()), "finite weights", "weights that are not finite")
        changed, count = changed + (not torch.equal(one, other)), count + 1
    expect(changed > 0.9 * count, f"more than 90 % of {count} tensors to change", f"{changed}")
    return f"{changed} of {count} tensors"


@contract(*EPSILON)
def resuming_equals_never_having_stopped(case: AlgorithmCase) -> None:
    """Training that stops after a step and goes on has the weights and losses of one that never stopped, to the last bit."""
    straight = case.trained
    case.train("resumed", steps=1)
    resumed = case.train("resumed", steps=2)
    kept, made = state(straight), state(resumed)
    kept |= {file.name: value for file in straight.weights.glob("*.safetensors") for value in load_file(file).values()}
    made |= {file.name: value for file in resumed.weights.glob("*.safetensors") for value in load_file(file).values()}
    other = [name for name in kept if name not in made or not torch.equal(kept[name], made[name])]
    expect(kept.keys() == made.keys() and not other, "the same tensors", f"others in {', '.join(other[:3])}")
    losses = [[step["loss"] for step in run.steps()] for run in (straight, resumed)]
    expect(losses[0] == losses[1], f"the losses {losses[0]}", losses[1])


def _alike(losses: Tensor, others: Tensor, what: str) -> str:
    """Expect losses to be equal up to rounding; returns the largest difference in words."""
    difference, size = (losses - others).abs().max().item(), others.abs().max().item()
    close = torch.allclose(losses, others, rtol=1e-3, atol=ALIKE * size)
    expect(close, f"{_short(others)} for {what}", _short(losses))
    return f"largest difference {difference:.1g}"


def _short(values: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in values.tolist())


def _at_the_reference(case: AlgorithmCase, output: StepOutput) -> None:
    _no_margin(output)
    stated = case.algorithm.initial_loss
    if stated is not None:
        close = all(math.isclose(loss, stated, rel_tol=1e-6) for loss in output.losses.tolist())
        expect(close, f"a loss of {stated:.7g} for each pair", _short(output.losses))


def _no_margin(output: StepOutput) -> None:
    expect(bool(torch.isfinite(output.losses).all()), "finite losses", output.losses.tolist())
    margin = output.logs.get("margin", torch.zeros(COUNT))
    expect(not margin.any(), "a margin of 0 for each pair", _short(margin))


def _receivers(case: AlgorithmCase, policy: Policy) -> set[str]:
    """Names of the parameters that get a gradient in a step; those of the reference start with ``reference``."""
    case.step(policy).losses.mean().backward()
    everything = {**dict(policy.model.network.named_parameters(prefix="reference")), **dict(policy.parameters())}
    received = {name for name, parameter in everything.items() if parameter.grad is not None}
    expect(bool(received), "a gradient", "none")
    return received


def _descend(policy: Policy, *, expected: float) -> None:
    """Step against the gradient by the length at which a linear loss would fall by ``expected``."""
    received = [(parameter, parameter.grad) for _, parameter in policy.parameters() if parameter.grad is not None]
    rate = expected / sum(gradient.square().sum().item() for _, gradient in received)
    with torch.no_grad():
        for parameter, gradient in received:
            parameter.sub_(gradient, alpha=rate)


@contract(*EPSILON)
def preferences_are_what_it_states(case: AlgorithmCase) -> None:
    """Its gradient depends on labels or scores exactly if it states what its placebo is."""
    case.refuse_online()
    made = []
    for data in (case.setup.data, case.setup.data.shuffled(0)):
        policy, prepared = case.moved_policy(), case.algorithm.prepare(data, case.setup.context())
        case.setup.step(case.algorithm, ROWS, policy, prepared).losses.mean().backward()
        made.append(gradients(policy.parameters()))
    stated = case.algorithm.placebo is not None
    found = "the same" if torch.equal(*made) else "another"
    expect(
        found == ("another" if stated else "the same"),
        f"{'another' if stated else 'the same'} gradient with shuffled preferences, as its placebo is {case.algorithm.placebo!r}",
        found,
    )


CONTRACTS = (
    returns_one_loss_per_pair,
    repeats_itself,
    loss_is_the_same_in_any_batch,
    gradient_is_the_same_in_any_cut,
    order_of_the_pairs_does_not_matter,
    asks_for_the_statistics_it_has,
    times_cover_the_process,
    starts_at_the_reference,
    starts_at_the_reference_in_bf16,
    fresh_adapters_start_at_the_reference,
    fresh_adapters_start_at_the_reference_in_bf16,
    gradient_spares_the_reference,
    gradient_of_adapters_spares_the_reference,
    a_small_step_lowers_the_loss,
    training_changes_the_weights,
    preferences_are_what_it_states,
    resuming_equals_never_having_stopped,
)
