"""The gradient of the reward: through which steps it flows, whether it is right, what it costs, and kill and resume."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ALONE, TWO, train
from torch import Tensor, nn
from worked import assert_exact, double
from workshop import CPU, Brightness, Workshop, batch_of, state

from algorithms.draft import DRaFT
from algorithms.refl import ReFL, pretraining_errors
from bench import Condition, GradientBatch, Policy, RewardGradientAlgorithm
from bench.core.errors import UserError
from bench.core.randomness import Draws
from bench.experiments.contracts.small_models import PROCESSES
from bench.records.runs import RunFolder
from bench.rollouts.grid import evaluation_grid
from bench.rollouts.rewards import Rewards
from bench.training.batches import Captioned
from bench.training.ledger import Ledger
from bench.training.reward_gradients import Unfinished
from bench.training.settings import TrainingSettings

ROWS = (3, 17, 4)
STEPS = 4
TRAINING: dict[str, Any] = {
    "global_batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 1e-3,
    "caption_dropout": 0.0,
}
COSTS = ("pairs", "policy_forwards", "policy_backwards", "reference_forwards", "samples", "reward_calls")


def draft(**changes: Any) -> DRaFT:
    return DRaFT(**{"rewards": "clip", "sampling_steps": STEPS, **changes})


def refl(**changes: Any) -> ReFL:
    return ReFL(**{"rewards": "clip", "sampling_steps": STEPS, "first": 2, "ceiling": 255, **changes})


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("flow"), PROCESSES["flow"])


def costs(run: RunFolder) -> dict[str, Any]:
    return {name: run.ledger()[name] for name in COSTS}


def same(one: RunFolder, other: RunFolder) -> bool:
    left, right = state(one), state(other)
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


class GainPolicy(Policy):
    """A policy in float64 whose prediction at each noise level is multiplied by a number of that level's own.

    Attributes:
        gains: the numbers, the level where sampling starts first.
    """

    def __init__(self, workshop: Workshop) -> None:
        super().__init__(workshop.model(), TrainingSettings(), Ledger())
        self.network.double()
        self.model.encoders["vae"].double()
        self.grid = evaluation_grid(self.model, STEPS)
        self.gains = torch.ones(STEPS, dtype=torch.float64, requires_grad=True)

    def run_network(self, network: nn.Module, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        place = STEPS - int((self.grid.times == timesteps[0]).nonzero()[-1])
        return super().run_network(network, latents, timesteps, condition) * self.gains[place]

    def batch(self, workshop: Workshop) -> GradientBatch:
        """Three captions, whose reward is a smooth function of the decoded picture."""
        pairs = batch_of(workshop.data, workshop.encoded, ROWS)
        shape = self.model.latent_shape(self.model.resolution, self.model.resolution)
        start = pairs.draws.normal("rollout", shape).double()
        condition = {name: value.double() for name, value in pairs.condition.items()}

        def reward(latents: Tensor) -> Tensor:
            return self.model.encoders["vae"].decode(latents).sample.square().flatten(1).mean(1)  # type: ignore[operator,union-attr,no-any-return]

        return GradientBatch(
            Captioned(pairs.row_ids, pairs.batch_positions, pairs.draws),
            lambda: pairs,
            Unfinished(start, torch.full((len(ROWS),), STEPS)),
            self.grid,
            lambda predict: lambda latents, times: predict(latents, times, condition),
            reward,
        )


@pytest.fixture(scope="module")
def policy(workshop: Workshop) -> GainPolicy:
    return GainPolicy(workshop)


class TestTruncation:
    @pytest.mark.parametrize("last", [1, 3, 4])
    def test_steps_before_the_last_have_exactly_no_gradient(
        self, workshop: Workshop, policy: GainPolicy, last: int
    ) -> None:
        losses = draft(last=last).step(policy.batch(workshop), policy).losses
        (gradient,) = torch.autograd.grad(losses.sum(), policy.gains)
        assert (gradient != 0).tolist() == [False] * (STEPS - last) + [True] * last

    def test_the_gradient_through_all_steps_equals_finite_differences(
        self, workshop: Workshop, policy: GainPolicy
    ) -> None:
        whole, batch = draft(last=STEPS), policy.batch(workshop)
        (gradient,) = torch.autograd.grad(whole.step(batch, policy).losses.sum(), policy.gains)
        for place in range(STEPS):
            with torch.no_grad():
                ends = []
                for way in (1e-5, -1e-5):
                    policy.gains[place] += way
                    ends.append(whole.step(batch, policy).losses.sum().item())
                    policy.gains[place] -= way
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(gradient[place].item(), rel=1e-6)

    def test_refl_has_a_gradient_at_the_step_where_it_stops_alone(self, workshop: Workshop, policy: GainPolicy) -> None:
        algorithm, batch = refl(pretraining=0), policy.batch(workshop)
        place = algorithm.stop(batch.draws.seed, batch.draws.step)
        (gradient,) = torch.autograd.grad(algorithm.step(batch, policy).losses.sum(), policy.gains)
        assert gradient.nonzero().flatten().tolist() == [place]

    def test_low_variance_gradients_are_added(self, workshop: Workshop, policy: GainPolicy) -> None:
        """The second term is the reward of the first sample, noised to the last level and denoised again."""
        batch = policy.batch(workshop)
        one, two = (draft(extra=extra).step(batch, policy).losses.detach() for extra in (0, 1))
        with torch.no_grad():
            clean = batch.sample(policy.predict, batch.start, STEPS).latents
            noise = batch.draws.normal("again 0", clean.shape[1:]).double()
            last = torch.ones(len(ROWS), dtype=torch.int64)
            alpha, sigma = batch.grid.process.alpha(last, clean), batch.grid.process.sigma(last, clean)
            again = batch.sample(policy.predict, Unfinished(alpha * clean + sigma * noise, last), 1)
            assert_exact(two - one + batch.reward(again.latents), [0, 0, 0])


class TestNumbers:
    def test_refl(self) -> None:
        """Rewards .5 and 2.5, of which the second is above the ceiling."""
        assert_exact(ReFL().objective(double([0.5, 2.5])).mean(), 7.5e-4)

    def test_the_denoising_loss_of_refl_is_that_of_the_first_images(self, workshop: Workshop) -> None:
        """How far the predicted noise is from that which was added, at the timestep that was drawn for the row."""
        pairs, policy = batch_of(workshop.data, workshop.encoded, ROWS), workshop.policy()
        found = pretraining_errors(pairs, policy)
        first, second = pairs.candidates.unbind(1)
        noise, process = pairs.draws.normal_like("noise", first), policy.process
        t = process.timesteps(pairs.draws.uniform("timestep"))
        condition = {name: value[:, 0] for name, value in pairs.candidate_condition.items()}
        errors = [
            (policy.predict(process.alpha(t, clean) * clean + process.sigma(t, clean) * noise, t, condition) - noise)
            .square()
            .flatten(1)
            .mean(1)
            for clean in (first, second)
        ]
        torch.testing.assert_close(found, errors[0], rtol=1e-6, atol=0)
        assert (errors[0] - errors[1]).abs().min() > 0
        (gradient,) = torch.autograd.grad(found.sum(), [policy.parameters()[0][1]])
        assert gradient.norm() > 0

    def test_where_refl_stops(self) -> None:
        stops = [ReFL().stop(0, step) for step in range(500)]
        assert {*stops} == {*range(30, 40)}


@pytest.mark.parametrize(
    ("kind", "algorithm", "forwards", "backwards", "judged"),
    [
        ("epsilon", draft(last=2), STEPS, 2, 1),
        ("epsilon", draft(extra=2), STEPS + 2, 3, 3),
        ("flow", draft(guidance_scale=3.0), 2 * STEPS, 2, 1),
        ("flow", refl(first=3), STEPS + 1, 2, 1),
    ],
)
def test_a_run_costs_what_it_calls(
    workshop: Workshop,
    flow: Workshop,
    tmp_path: Path,
    kind: str,
    algorithm: RewardGradientAlgorithm,
    forwards: int,
    backwards: int,
    judged: int,
) -> None:
    where = {"epsilon": workshop, "flow": flow}[kind]
    run = where.train(tmp_path, algorithm, steps=2, **TRAINING)
    assert costs(run) == {
        "pairs": 16,
        "policy_forwards": 16 * forwards,
        "policy_backwards": 16 * backwards,
        "reference_forwards": 0,
        "samples": 16,
        "reward_calls": 16 * judged
        + 2,  # the first picture is scored twice more, to see whether the reward repeats itself
    }
    assert all(0 < line["reward"] < 255 for line in run.steps())


@pytest.mark.parametrize(("kind", "trainable"), [("epsilon", "full"), ("flow", "full"), ("flow", "lora")])
def test_checkpointing_changes_no_bit(
    workshop: Workshop, flow: Workshop, tmp_path: Path, kind: str, trainable: str
) -> None:
    where = {"epsilon": workshop, "flow": flow}[kind]
    changes = {**TRAINING, "trainable": trainable}
    runs = [
        where.train(tmp_path / str(saved), draft(last=3), gradient_checkpointing=saved, **changes)
        for saved in (False, True)
    ]
    assert same(*runs)
    assert runs[0].steps()[1]["gradient_norm"] == runs[1].steps()[1]["gradient_norm"] > 0


@pytest.mark.parametrize("algorithm", [draft(extra=1), refl()])
def test_a_run_that_is_stopped_equals_a_straight_one(
    workshop: Workshop, tmp_path: Path, algorithm: RewardGradientAlgorithm
) -> None:
    straight = workshop.train(tmp_path / "straight", algorithm, steps=3, **TRAINING)
    workshop.train(tmp_path / "stopped", algorithm, steps=1, **TRAINING)
    (tmp_path / "stopped/micro/algorithm/name/seed-0/DONE").unlink()
    resumed = workshop.train(tmp_path / "stopped", algorithm, steps=3, **TRAINING)
    assert same(straight, resumed)
    assert costs(straight) == costs(resumed)


def test_the_update_does_not_depend_on_how_a_batch_is_cut(workshop: Workshop, tmp_path: Path) -> None:
    one, cut = (
        workshop.train(tmp_path / str(size), draft(), steps=1, **{**TRAINING, "micro_batch_size": size})
        for size in (8, 3)
    )
    for name in ("reward", "gradient_norm"):
        assert cut.steps()[0][name] == pytest.approx(one.steps()[0][name], rel=1e-4)
    assert costs(cut) == costs(one)


@pytest.mark.slow
def test_two_processes_equal_one(workshop: Workshop, tmp_path: Path) -> None:
    settings = {"algorithm": "draft", "fields": {"rewards": "clip", "sampling_steps": STEPS, "last": 2}, "steps": 2,
                "global_batch_size": 8, "micro_batch_size": 3, "learning_rate": 1e-4}  # fmt: skip
    one, two = (train(how, workshop, tmp_path / str(len(how)), **settings) for how in (ALONE, TWO))
    for lonely, joint in zip(one.steps(), two.steps(), strict=True):
        for name in ("reward", "gradient_norm"):
            assert joint[name] == pytest.approx(lonely[name], rel=1e-3)
    assert costs(one) == costs(two)


@pytest.mark.parametrize("algorithm", [draft(last=STEPS), refl(pretraining=0)])
def test_a_step_raises_the_reward_of_its_own_captions(
    workshop: Workshop, policy: GainPolicy, algorithm: RewardGradientAlgorithm
) -> None:
    batch = policy.batch(workshop)
    before = algorithm.step(batch, policy)
    (gradient,) = torch.autograd.grad(before.losses.mean(), policy.gains)
    with torch.no_grad():
        policy.gains -= 1e-3 * gradient / gradient.norm()
        after = algorithm.step(batch, policy)
        policy.gains.fill_(1)
    assert after.logs["reward"].mean() > before.logs["reward"].mean()


class Level(Brightness):
    """Brightness that changes its mind, or has no gradient."""

    def __init__(self, change: float, slope: float) -> None:
        self.change, self.slope, self.calls = change, slope, 0

    def score_pixels(self, pixels: Tensor, prompts: Any) -> Tensor:
        self.calls += 1
        return self.slope * super().score_pixels(pixels, prompts) + self.change * self.calls


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "slope", "message"),
        [(1.0, 1.0, "is not deterministic"), (0.0, 0.0, "gradient of reward 'clip' has length 0"), (0.0, 1.0, "")],
    )
    def test_a_reward_from_which_nothing_can_be_learnt(self, change: float, slope: float, message: str) -> None:
        rewards = Rewards({"clip": functools.partial(Level, change, slope)})
        pixels = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        if not message:
            rewards.check_gradient(pixels, ["a"])
            assert rewards.calls == 2
            return
        with pytest.raises(UserError, match=message):
            rewards.check_gradient(pixels, ["a"])

    def test_a_score_that_is_not_finite(self) -> None:
        rewards = Rewards({"clip": functools.partial(Level, 0.0, float("nan"))})
        with pytest.raises(UserError, match="'clip' returned the score nan, which is not finite"):
            rewards.score_pixels(torch.zeros(1, 3, 4, 4), ["a"])

    def test_rewards_that_are_all_above_the_ceiling(self, workshop: Workshop, tmp_path: Path) -> None:
        """Without a gradient of the reward ReFL would be supervised training, whatever the reward."""
        with pytest.raises(
            UserError, match=r"every reward of the first step is above ceiling=-255 .* set ceiling higher"
        ):
            workshop.train(tmp_path, refl(ceiling=-255), steps=1, global_batch_size=4, micro_batch_size=4)

    def test_steps_that_do_not_exist(self) -> None:
        with pytest.raises(ValueError, match="last=5 is more than the 4 sampling_steps"):
            draft(last=5)
        with pytest.raises(ValueError, match="extra=2 denoises the last step again, so it needs last=1"):
            draft(last=2, extra=2)
        with pytest.raises(ValueError, match="first=4 must be less than the 4 sampling_steps"):
            refl(first=4)


def test_pixels_with_gradient_are_those_of_the_picture(workshop: Workshop, flow: Workshop) -> None:
    for where in (workshop, flow):
        model = where.model()
        shape = model.latent_shape(model.resolution, model.resolution)
        latents = 3 * Draws(0, 0, [0, 1]).normal("latents", shape).to(CPU)
        pixels = model.decode_pixels(latents)
        assert pixels.shape == (2, 3, model.resolution, model.resolution)
        levels = torch.from_numpy(model.decode(latents)).permute(0, 3, 1, 2)
        assert (255 * pixels - levels).abs().max() < 0.501
        assert not any(weight.requires_grad for weight in model.encoders["vae"].parameters())
