"""What every algorithm that samples while it trains promises, on small models that predict noise, v and a flow.

The algorithms are those of the registry: a new one is looked at without an edit here.  The harness itself takes the steps, by plain
gradient descent.  That a resumed run equals a straight one is tested in tests/training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from worked import assert_exact, double
from workshop import Brightness, Workshop

from algorithms.awm import AVERAGE, AWM, WEIGHTINGS
from algorithms.nft import NFT, OLD, normalised_error
from algorithms.spo import SPO
from algorithms.tailorpo import TailorPOG
from bench import (
    ForwardAlgorithm,
    GradientBatch,
    MetricInfo,
    Need,
    OnlineAlgorithm,
    Policy,
    Predict,
    RewardGradientAlgorithm,
    SamplingAlgorithm,
    StepPairAlgorithm,
    StepPairBatch,
    StepwiseAlgorithm,
    TrainingSettings,
    sample_errors,
)
from bench.core.progress import without_progress
from bench.core.randomness import Draws
from bench.core.registry import is_ours
from bench.experiments.contracts.small_models import PROCESSES
from bench.models.family import Condition
from bench.rollouts.rewards import Rewards
from bench.rollouts.rules import RULES
from bench.training.algorithm import ALGORITHMS
from bench.training.collecting import BEHAVIOUR
from bench.training.ledger import Ledger, uncounted
from bench.training.loop import Job, batch_source
from bench.training.step import Trainer, training_step

SAMPLES, STEPS, TRAINED = 4, 4, 2
"""Samples or captions of an optimizer step; sampling steps; and how many of them are trained, or losses per sample."""
SMALL: dict[str, Any] = {
    "rewards": ("clip",), "sampling_steps": STEPS, "trained": TRAINED, "within": 3, "group": 2, "first": 2, "threshold": 0.0,
}  # fmt: skip
"""Fields of the algorithms that have them; others keep their defaults."""
OF_ONE: Mapping[str, dict[str, Any]] = {"refl": {"first": 3, "ceiling": 255.0, "scale": 100.0}}
"""Samples of refl are judged after three of four steps, no reward is above its ceiling, and its two losses are of a size."""
SCALES = {"epsilon": 3.0, "v_prediction": 1.0, "flow": 1.0}
"""The guidance that each model samples with; an algorithm that needs some always has it."""
LENGTH = 1e-2
"""Of an update: the distance between the weights before and after."""
ALIKE = 5e-3
"""Relative to an update: kernels round differently at another batch size, and a pixel may round to another level."""
KINDS = (StepwiseAlgorithm, ForwardAlgorithm, StepPairAlgorithm, RewardGradientAlgorithm)


def ours(kind: type[Any]) -> list[str]:
    """The registered algorithms of this distribution that derive from a base class."""
    names = [name for name in ALGORITHMS if is_ours(ALGORITHMS.point(name))]
    return [name for name in names if issubclass(ALGORITHMS.get(name), kind)]


def on_every_model(kind: type[Any]) -> list[Any]:
    """Names of algorithms with each model; v differs from epsilon in its target alone, and guidance is looked at on epsilon."""
    slow = {"v_prediction": [pytest.mark.slow]}
    return [
        pytest.param(process, name, id=f"{name}-{process}", marks=slow.get(process, []))
        for name in ours(
            kind
        )  # outermost: a process of pytest-xdist gets whole algorithms, whose first step is taken once
        for process in PROCESSES
    ]


def small(name: str, scale: float = 1.0, **changes: Any) -> Any:
    """A registered algorithm with few steps and samples."""
    kind: Any = ALGORITHMS.get(name)
    fields = {field: value for field, value in SMALL.items() if field in kind.model_fields}
    if "clip" in kind.model_fields:
        fields["clip"] = max(kind.model_fields["clip"].default, 1e-3)  # above the noise of replay
    fields["guidance_scale"] = 3.0 if Need.GUIDANCE in kind.needs else scale
    return kind(**{**fields, **OF_ONE.get(name, {}), **changes})


class Corner(Brightness):
    """The mean level of one corner: the means of whole pictures by random weights differ by less than levels are rounded."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.tensor([float(np.asarray(image)[:2, :2].mean()) for image in images])

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().score_pixels(pixels[..., :2, :2], prompts)


class Darkness(Corner):
    """The same scores, of which the lower one is better."""

    info: ClassVar[MetricInfo] = dataclasses.replace(Corner.info, higher_is_better=False)


class Strides(torch.optim.SGD):
    """Plain gradient descent by updates of one length, since the gradients of algorithms differ by orders of magnitude."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            group["lr"] = LENGTH / torch.nn.utils.get_total_norm(gradients).item()
        super().step()


class Kept:
    """The batches of a step, which keep what was trained on: candidates are sampled anew whenever they are iterated over."""

    def __init__(self, batches: Any) -> None:
        self._batches, self.seen = batches, list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            self.seen.append(batch)
            yield batch


class Costs(NamedTuple):
    """What the ledger counts."""

    policy_forwards: int
    policy_backwards: int
    reference_forwards: int
    samples: int
    reward_calls: int


class Session:
    """A run of the harness on a small model, one optimizer step at a time.

    Attributes:
        lines: what is logged about each step.
        seen: the micro-batches of the last one.
        before: the trained weights before it, (W,).
        gradient: its gradient, (W,).
    """

    def __init__(
        self, where: Workshop, algorithm: SamplingAlgorithm, *, metric: type[Brightness] = Corner, **settings: Any
    ) -> None:
        sizes: dict[str, Any] = {
            "trainable": "full",
            "global_batch_size": SAMPLES,
            "micro_batch_size": SAMPLES,
            "warmup_steps": 0,
            "max_grad_norm": 1e9,
        }
        chosen = TrainingSettings(**{**algorithm.training_defaults, **sizes, **settings})
        model, self.ledger, self.algorithm = where.model(), Ledger(), algorithm
        self.policy = Policy(model, chosen, self.ledger, with_reference=algorithm.calls_reference)
        self.parameters = [parameter for _, parameter in self.policy.parameters()]
        encoded = where.encoded if algorithm.reads_pictures else where.captions_of(where.data)
        rewards = Rewards(dict.fromkeys(algorithm.trained_on, metric))
        job = Job(algorithm, chosen, model, where.data, encoded, 0, "a small model", "small", rewards=rewards)
        accelerator = Accelerator(cpu=True)
        self._source: Any = batch_source(job, self.policy, accelerator)
        self._trainer = Trainer(algorithm, chosen, self.policy, Strides(self.parameters, lr=1.0), accelerator)
        algorithm.begin(self.policy)
        self.lines, self.seen = list[dict[str, Any]](), list[Any]()
        self.before = self.gradient = torch.empty(0)

    def step(self) -> None:
        """Take the next optimizer step."""
        self.before, number = self.weights, len(self.lines)
        batches: Any = Kept(self._source.batches(number))
        self.lines.append(training_step(self._trainer, batches, number))
        self.seen, self.gradient = batches.seen, self._gradient()

    @property
    def weights(self) -> Tensor:
        """The trained weights, (W,)."""
        return flat(parameter.detach() for parameter in self.parameters)

    @property
    def costs(self) -> Costs:
        """What has been counted."""
        return Costs(*(getattr(self.ledger, name) for name in Costs._fields))

    @contextlib.contextmanager
    def under(self, weights: Tensor) -> Iterator[None]:
        """The policy has other weights for the duration of the block, in which nothing is counted."""
        kept = self.weights
        self._put(weights)
        with uncounted(self.ledger):
            yield
        self._put(kept)

    def slope(self, measure: Callable[[Any], Tensor]) -> float:
        """The length of the gradient of `mean` at the weights before the last step."""
        with self.under(self.before):
            for parameter in self.parameters:
                parameter.grad = None
            for batch in self.seen:
                (measure(batch).mean() / len(self.seen)).backward()
        return self._gradient().norm().item()

    def mean(self, measure: Callable[[Any], Tensor], weights: Tensor) -> float:
        """The mean of what ``measure`` says of the samples of the last step under some weights."""
        with self.under(weights), torch.no_grad():
            return torch.stack([measure(batch).double().mean() for batch in self.seen]).mean().item()

    @torch.no_grad()
    def _put(self, weights: Tensor) -> None:
        """In place, so that a copy that shares memory with the weights still does."""
        parts = weights.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def _gradient(self) -> Tensor:
        return flat(torch.zeros_like(each) if each.grad is None else each.grad for each in self.parameters)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


Places = Mapping[str, Workshop]
Stepped = Callable[..., Session]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Models and data, by what the network predicts."""
    folder = tmp_path_factory.mktemp("online")
    with without_progress():
        yield {process: Workshop(folder / process, model) for process, model in PROCESSES.items()}


@pytest.fixture(scope="module")
def stepped(places: Places) -> Stepped:
    """``stepped("flow", "ddpo", micro_batch_size=2)``: a session after its first step, which is taken once."""

    @functools.cache
    def made(process: str, name: str, pretraining: float | None = None, **settings: Any) -> Session:
        changes = {} if pretraining is None else {"pretraining": pretraining}
        session = Session(places[process], small(name, SCALES[process], **changes), **settings)
        session.step()
        return session

    return made


def test_each_algorithm_is_of_one_kind_and_each_kind_has_one() -> None:
    assert all(ours(kind) for kind in KINDS)
    assert sorted(name for kind in KINDS for name in ours(kind)) == sorted(ours(SamplingAlgorithm))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("flow-grpo", {"beta": 0}), ("flow-grpo", {"distance": "behaviour", "updates": 2}), ("dpok", {"kl": 0}), ("nft", {"kl": 0}), ("awm", {"kl": 0})],
)  # fmt: skip
def test_without_a_distance_from_the_reference_none_is_kept(places: Places, name: str, changes: dict[str, Any]) -> None:
    assert small(name).calls_reference
    session = Session(places["flow"], small(name, **changes))
    assert session.policy.network is session.policy.model.network  # with a reference, a copy is trained
    session.step()


class TestRatio:
    @pytest.mark.parametrize(("process", "name"), on_every_model(StepwiseAlgorithm))
    def test_it_is_one_before_the_first_update_from_every_collection(
        self, places: Places, process: str, name: str
    ) -> None:
        """Each of two collections is made of twice as many samples as an update takes."""
        session = Session(places[process], small(name, SCALES[process], updates=2))
        starts, sampled_by = [], []
        for _ in range(3):
            session.step()
            starts.append(session.before)
            sampled_by.append(flat(session.policy.snapshots[BEHAVIOUR].values()))
        one, again, other = session.lines
        for line in (one, other):
            assert line["ratio_error"] <= line["replay_floor"]
        assert again["ratio_error"] > 3 * again["replay_floor"]  # samples of the same collection, after an update
        assert one["reward"] == again["reward"] != other["reward"]
        assert all(torch.equal(sampled_by[step], starts[made]) for step, made in enumerate((0, 0, 2)))
        if Need.REFERENCE in session.algorithm.needs:
            assert one["kl_nats"] == pytest.approx(0, abs=1e-6)
            assert again["kl_nats"] > 1e-4
        slots = slots_of(session.algorithm)
        trained = slots * 3 * SAMPLES * TRAINED
        assert session.costs == Costs(
            policy_forwards=slots * 2 * 2 * SAMPLES * STEPS + trained,
            policy_backwards=trained,
            reference_forwards=trained if Need.REFERENCE in session.algorithm.needs else 0,
            samples=2 * 2 * SAMPLES,
            reward_calls=2 * 2 * SAMPLES + 2,
        )

    @pytest.mark.parametrize("rule", [name for name in RULES if name not in ("ddim", "flow-sde")])
    @pytest.mark.parametrize("name", ours(StepwiseAlgorithm))
    def test_it_is_one_by_the_other_rules_of_flows(self, places: Places, name: str, rule: str) -> None:
        try:
            algorithm = small(name, rule=rule)
        except ValueError as error:
            pytest.skip(f"{name} refuses rule={rule}: {error}")
        session = Session(places["flow"], algorithm)
        session.step()
        (line,) = session.lines
        assert line["ratio_error"] <= line["replay_floor"]
        assert session.gradient.norm() > 0

    @pytest.mark.parametrize(("process", "name"), on_every_model(StepPairAlgorithm))
    def test_candidates_are_compared_by_equal_networks_at_first(
        self, stepped: Stepped, process: str, name: str
    ) -> None:
        (line,) = stepped(process, name).lines
        assert line["margin"] == line["kl_nats"] == line["clipped"] == 0
        assert line["loss"] == pytest.approx(math.log(2), abs=1e-7)

    @pytest.mark.parametrize("name", ours(StepPairAlgorithm))
    def test_how_far_the_policy_has_moved_is_logged(self, places: Places, name: str) -> None:
        session = Session(places["epsilon"], small(name, SCALES["epsilon"]))
        for _ in range(2):
            session.step()
        first, second = session.lines
        assert first["kl_nats"] == 0
        assert second["kl_nats"] > 1e-6


def lighter(session: Session, batch: Any) -> Tensor:
    """By how many levels what is preferred is brighter than the others of its prompt, as the policy that sampled saw it."""
    model, policy, algorithm = session.policy.model, session.policy, session.algorithm

    def levels(latents: Tensor) -> Tensor:
        return torch.from_numpy(model.decode(latents))[:, :2, :2].double().flatten(1).mean(1)

    if isinstance(batch, StepPairBatch):
        denoise, level = batch.guide(algorithm.networks(policy)[0]), batch.comparison.level - 1  # type: ignore[attr-defined]
        better, worse = (
            batch.grid.process.to_x0(each, denoise(each, batch.grid.at(level)), level) if level.any() else each
            for each in (batch.winner, batch.loser)
        )
        return levels(better) - levels(worse)
    light, found = levels(batch.clean), batch.advantages.tolist()
    pairs = [(one, other) for one in range(len(found)) for other in range(len(found)) if found[one] > found[other]]
    alike = [(one, other) for one, other in pairs if batch.row_ids[one] == batch.row_ids[other]]
    return torch.stack([light[one] - light[other] for one, other in alike])


def promoted(session: Session, batch: Any) -> Tensor:
    """What an update should raise, (B,); without gradient where the reward itself has one."""
    algorithm, policy = session.algorithm, session.policy
    if isinstance(batch, GradientBatch):
        return algorithm.step(batch, policy).logs["reward"]
    if isinstance(batch, StepPairBatch):
        transition = batch.transition(algorithm.networks(policy)[0])  # type: ignore[attr-defined]
        return transition.log_prob(batch.winner) - transition.log_prob(batch.loser)
    better = batch.advantages
    if isinstance(algorithm, OnlineAlgorithm) and algorithm.together == algorithm.group:
        groups = better.reshape(-1, algorithm.group)
        better = (groups - groups.mean(1, keepdim=True)).flatten()
    if isinstance(algorithm, StepwiseAlgorithm):
        return better * batch.replay(policy.predict).log_prob
    noised = batch.noised(policy.process)
    predicted = batch.guide(policy.predict)(noised.latents, noised.timesteps)
    return -better * sample_errors(predicted, noised.targets)


def once_per_kind(*values: Any, called: str) -> list[Any]:
    """Every algorithm with some values, of which only the first of each kind is not slow."""
    return [
        pytest.param(values[0], name, *values[1:], id=f"{name}-{called}", marks=[pytest.mark.slow] if place else [])
        for kind in KINDS
        for place, name in enumerate(sorted(ours(kind)))
    ]


def with_value(cases: Iterable[Any], value: object) -> list[Any]:
    """Cases with another value at the end."""
    return [pytest.param(*each.values, value, id=each.id, marks=each.marks) for each in cases]


@pytest.mark.parametrize(
    ("process", "name", "metric"),
    with_value(on_every_model(SamplingAlgorithm), Corner) + once_per_kind("flow", Darkness, called="lower-is-better"),
)
def test_an_update_promotes_what_is_better(stepped: Stepped, process: str, name: str, metric: type[Brightness]) -> None:
    """The more probable become the better samples or candidates; their denoising error falls against that of others; or rewards rise.

    The update does at least 70 % of what the best one of its length would do.  The loss of refl on other images is left out.
    """
    changes = ({} if metric is Corner else {"metric": metric}) | ({"pretraining": 0.0} if name == "refl" else {})
    session = stepped(process, name, **changes)
    sign = 1 if metric.info.higher_is_better else -1
    measure = functools.partial(promoted, session)
    rise = session.mean(measure, session.weights) - session.mean(measure, session.before)
    if isinstance(session.algorithm, RewardGradientAlgorithm):
        assert rise > 0
        assert sign * session.lines[0]["reward"] > 0  # levels are above 0
        return
    with session.under(session.before), torch.no_grad():
        apart = sign * torch.cat([lighter(session, batch) for batch in session.seen])
    # What was moved up the gradient was compared before levels were rounded.
    assert apart.min() >= (-0.5 if Need.REWARD_GRADIENT in session.algorithm.needs else 0)
    assert apart.max() > 0
    assert rise > 0.7 * LENGTH * session.slope(measure)


@pytest.mark.parametrize(
    ("process", "name", "trainable"),
    with_value(on_every_model(SamplingAlgorithm), "full") + once_per_kind("epsilon", "lora", called="lora"),
)
def test_copies_of_the_weights_have_no_gradient_and_the_reference_stays(
    places: Places, stepped: Stepped, process: str, name: str, trainable: str
) -> None:
    session = stepped(process, name, **({} if trainable == "full" else {"trainable": trainable}))
    policy, fresh = session.policy, places[process].model()
    trained = {id(parameter) for parameter in session.parameters}
    modules = [policy.network, policy.model.network, *policy.model.encoders.values()]
    others = [each for module in modules for each in module.parameters() if id(each) not in trained]
    copies = [each for snapshot in policy.snapshots.values() for each in snapshot.values()]
    assert not any(each.requires_grad or each.grad is not None for each in [*others, *copies])
    assert {each.data_ptr() for each in copies}.isdisjoint(parameter.data_ptr() for parameter in session.parameters)
    assert not torch.equal(session.weights, session.before)
    if Need.REFERENCE not in session.algorithm.needs:
        return
    assert others
    names = [key for key in fresh.network.state_dict() if trainable == "full"]
    assert all(torch.equal(policy.model.network.state_dict()[key], fresh.network.state_dict()[key]) for key in names)

    def untrained(latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return fresh.predict(fresh.network, latents, fresh.process.network_times(times), condition)

    batch = session.seen[0]
    latents = batch.winner if isinstance(batch, StepPairBatch) else batch.clean
    times = torch.full((len(latents),), 500)
    with torch.no_grad(), uncounted(session.ledger):
        expected, found, moved = (
            batch.guide(each)(latents, times) for each in (untrained, policy.reference, policy.predict)
        )
    assert torch.equal(found, expected)
    assert not torch.equal(found, moved)


NEGATIVE = [name for name in ours(StepPairAlgorithm) if ALGORITHMS.get(name).negative]


@pytest.mark.parametrize("name", NEGATIVE)
def test_weights_for_the_branch_without_a_prompt_are_trained_in_it(stepped: Stepped, name: str) -> None:
    session = stepped("epsilon", name)
    algorithm: Any = session.algorithm
    made: list[Tensor] = []

    def kept(network: Predict) -> Predict:
        def predict(latents: Tensor, times: Tensor, condition: Condition) -> Tensor:
            made.append(network(latents, times, condition))
            return made[-1]

        return predict

    (batch,) = session.seen[:1]
    with torch.no_grad(), uncounted(session.ledger):
        for network in algorithm.networks(session.policy):
            batch.transition(kept(network))
    (without, with_prompt), (without_before, with_prompt_before) = (each.chunk(2) for each in made)
    assert torch.equal(with_prompt, with_prompt_before)
    assert not torch.equal(without, without_before)


@pytest.mark.parametrize(("process", "name"), on_every_model(SamplingAlgorithm))
def test_the_update_does_not_depend_on_the_cut(stepped: Stepped, process: str, name: str) -> None:
    whole, cut = stepped(process, name), stepped(process, name, micro_batch_size=SAMPLES // 2)
    assert len(cut.seen) == 2 * len(whole.seen)
    assert cut.costs == whole.costs
    assert (cut.gradient - whole.gradient).norm() < ALIKE * whole.gradient.norm()
    assert (cut.weights - whole.weights).norm() < ALIKE * LENGTH


def slots_of(algorithm: SamplingAlgorithm) -> int:
    """How often a sample is in one call of the network: with its prompt, and under guidance without it, too."""
    return 2 if algorithm.guidance_scale > 1 else 1


def calls_of(name: str, algorithm: SamplingAlgorithm) -> tuple[int, int, int, int]:
    """Forwards of the policy, its backwards, forwards of copies and scores, for one sample or caption of a step; counted by hand.

    Four sampling steps, of which two are trained, or two losses.
    """
    slots, referring = slots_of(algorithm), 2 if Need.REFERENCE in algorithm.needs else 0
    unusual = {
        # also an average of the weights
        "awm": (slots * (4 + 2), slots * 2, slots * (2 + 2), 1),
        # the old weights sample, and predict beside the reference
        "nft": (slots * 2, slots * 2, slots * (4 + 2 + 2), 1),
        # each winner is seen once with gradient, and once where it was moved
        "tailorpo-g": (slots * (3 + 2 * 2 + 2 * 2 + 2), slots * (2 + 2), slots * 2, 2 * (2 + 2)),
        # steps 2 and 3 with four candidates each, which are pictures after the last step
        "spo": (slots * (4 + 4 + 2), slots * 2, slots * 2, 2 * 4),
        # the same with two candidates; the policy in one slot, the reference in the other, and in both where it is compared
        "npo-joint": (4 + 2 + 2, 2, (4 + 2 + 2) + 2 * 2, 2 * 2),
        # three sampling steps and one with gradient, and a picture of the data without guidance
        "refl": (slots * (3 + 1) + 1, slots + 1, 0, 1),
    }
    if name in unusual:
        return unusual[name]
    if isinstance(algorithm, RewardGradientAlgorithm):
        return slots * 4, slots, 0, 1
    if isinstance(algorithm, StepPairAlgorithm):  # steps 0 and 2 with two candidates each; step 3 is not taken
        return slots * (3 + 2 * 2 + 2), slots * 2, slots * referring, 2 * 2
    return slots * (4 + 2), slots * 2, slots * referring, 1


@pytest.mark.parametrize(("process", "name"), on_every_model(SamplingAlgorithm))
def test_a_step_costs_what_it_calls(stepped: Stepped, process: str, name: str) -> None:
    session = stepped(process, name)
    forwards, backwards, referring, scores = calls_of(name, session.algorithm)
    # The first picture of a run is scored twice more, to see whether the reward repeats itself; where both are needed, with gradient and without.
    with_both = isinstance(session.algorithm, StepPairAlgorithm) and Need.REWARD_GRADIENT in session.algorithm.needs
    twice = 4 if with_both else 2
    assert session.costs == Costs(
        SAMPLES * forwards, SAMPLES * backwards, SAMPLES * referring, SAMPLES, SAMPLES * scores + twice
    )


class Prescribed(Brightness):
    """Scores of four candidates for two captions each, one candidate after the other; a single picture always has the same."""

    def __init__(self) -> None:
        self.scores = iter(([1.2, 0.1], [0.3, 0.2], [-0.4, 0.0], [0.9, 0.3]))

    def score(self, images: Any, prompts: Any) -> Tensor:
        return double([0.5] if len(images) == 1 else next(self.scores))


class TestNumbers:
    """Numbers worked by hand that no other test has.

    x0 [.2, -.1] and noise [1, -.5] at t = .6 of a flow, so that x_t is [.68, -.34] and the true velocity v [.8, -.4]; predictions are
    v + [.1, 0] by the old weights and v + [.05, -.1] by the new ones.
    """

    def test_the_ratio_of_awm(self) -> None:
        target, old, new = (double([row]) for row in ([0.8, -0.4], [0.9, -0.4], [0.85, -0.5]))
        errors = [sample_errors(each, target) for each in (old, new)]
        assert_exact(torch.cat(errors), [0.005, 0.00625])
        before, after = (WEIGHTINGS["ghuber"](error, double([0.6])) for error in errors)
        assert_exact((before - after).exp(), [0.9640481070])

    def test_nft_weighs_good_and_bad_alike_where_nothing_has_moved(self) -> None:
        error = normalised_error(double([[0.68, -0.34]]) - 0.6 * double([[0.9, -0.4]]), double([[0.2, -0.1]]))
        assert_exact(error, [0.06])  # x0 is off by [-.06, 0]: .0018 / .03
        losses = NFT().objective(error.expand(3), error.expand(3), double([2.0, -5.0, 9.0]))
        assert_exact(losses, [5 * 0.06] * 3)

    def test_guidance_raises_the_reward_from_minus_1_to_minus_36_hundredths(self) -> None:
        def reward(latents: Tensor) -> Tensor:
            return -((latents - 2) ** 2).flatten()

        start = double([[1.0]])
        moved = TailorPOG().refine(start, reward, double([0.0]))
        assert_exact(moved, [[1.4]])
        assert_exact(torch.cat([reward(start), reward(moved)]), [-1, -0.36])

    def test_spo_compares_the_best_and_the_worst_of_four(self, places: Places) -> None:
        algorithm = SPO(rewards=("clip",), sampling_steps=STEPS, first=1, trained=1)
        session = Session(places["epsilon"], algorithm, metric=Prescribed, global_batch_size=2, micro_batch_size=2)
        session.step()
        (batch,) = session.seen
        draws = Draws(0, 0, batch.row_ids)
        with session.under(session.before), torch.no_grad():
            transition = batch.transition(session.policy.predict)
        drawn = [transition.sample(draws.normal_like(f"rollout 1 {each}", batch.winner)) for each in range(4)]
        for chosen, places_ in ((batch.winner, [0, 3]), (batch.loser, [2, 2])):
            expected = torch.stack([drawn[place][row] for row, place in enumerate(places_)])
            torch.testing.assert_close(chosen, expected, rtol=0, atol=1e-5)
        assert_exact(2 * double([1.6, 0.3]).sigmoid() - 1, [0.664036770268, 0.148885033623])
        torch.testing.assert_close(batch.logs["gap"], torch.tensor([1.6, 0.3]))
        assert batch.compared.tolist() == [True, False]

    @pytest.mark.parametrize(
        ("algorithm", "name", "step", "share"),
        [
            (AWM(), AVERAGE, 99, 0.1),
            (AWM(), AVERAGE, 499, 0.3),
            (NFT(updates=2), OLD, 98, 1.0),  # within a collection they stay
            (NFT(updates=2), OLD, 99, 0.1),
            (NFT(updates=2), OLD, 399, 0.4),
        ],
    )
    def test_how_much_of_the_average_and_of_the_old_weights_stays(
        self, places: Places, algorithm: OnlineAlgorithm, name: str, step: int, share: float
    ) -> None:
        policy = places["epsilon"].reset_policy()
        algorithm.begin(policy)
        key, parameter = policy.parameters()[0]
        start = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(1)
        algorithm.end_step(step, policy)
        torch.testing.assert_close(policy.snapshots[name][key], start + 1 - share)
