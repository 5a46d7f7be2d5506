"""What every registered algorithm promises, ours and anybody's: `bench.Algorithm`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_origin

import annotated_types
import pytest
import torch
from pipelines import write_sd3
from pydantic import ValidationError
from torch import Tensor
from workshop import Workshop, write_micro_model, write_v_model

from bench import (
    Algorithm,
    Need,
    PairPredictions,
    PairwiseAlgorithm,
    PolicyErrors,
    Recipe,
    ReferenceFreeAlgorithm,
    StepOutput,
    TrainingSettings,
    sample_errors,
)
from bench.core.registry import origin
from bench.data.preferences import PreferenceData
from bench.experiments.recipes import resolve
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.families.stable_diffusion_3 import StableDiffusion3
from bench.training.algorithm import ALGORITHMS
from bench.training.policy import Policy

NAMES = [name for name in ALGORITHMS if ALGORITHMS.problem(name) is None]
ROWS = [3, 17, 4, 8, 25]
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
BEYOND = {annotated_types.Gt: "gt", annotated_types.Ge: "ge", annotated_types.Lt: "lt", annotated_types.Le: "le"}


MODELS = {
    "epsilon": (write_micro_model, StableDiffusion),
    "v_prediction": (write_v_model, StableDiffusion),
    "flow": (write_sd3, StableDiffusion3),
}


@pytest.fixture(scope="module", params=MODELS)
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One workshop for each kind of process."""
    made = Workshop(tmp_path_factory.mktemp("workshop"), *MODELS[request.param])
    assert made.model().process.prediction_type == request.param
    return made


@pytest.fixture(params=NAMES)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    made: Algorithm = ALGORITHMS.get(request.param)()
    return made


@pytest.fixture
def data(algorithm: Algorithm, workshop: Workshop) -> PreferenceData:
    return algorithm.prepare(workshop.data, workshop.context())


def test_every_algorithm_of_this_distribution_is_looked_at_here() -> None:
    ours = {name for name in ALGORITHMS if "diffusion-alignment-bench" in origin(ALGORITHMS.point(name))}
    assert ours == tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["bench.algorithms"].keys()
    assert ours <= set(NAMES)


class TestDescription:
    def test_title_paper_formula_and_status_are_stated(self, algorithm: Algorithm) -> None:
        info = algorithm.info
        assert all([info.title, info.paper, info.formula, info.status])
        assert "20" in info.paper

    def test_every_field_is_described(self, algorithm: Algorithm) -> None:
        undescribed = [name for name, field in type(algorithm).model_fields.items() if not field.description]
        assert undescribed == []

    def test_every_recipe_names_its_source_and_can_be_resolved(self, algorithm: Algorithm) -> None:
        for model, recipe in algorithm.recipes.items():
            assert isinstance(recipe, Recipe)
            assert recipe.source
            resolved, settings = resolve("it", type(algorithm), model, {})
            assert isinstance(settings, TrainingSettings)
            assert recipe.algorithm.items() <= resolved.model_dump().items()
            assert recipe.training.items() <= settings.model_dump().items()

    def test_a_need_for_a_reward_names_the_metric(self, algorithm: Algorithm) -> None:
        assert (Need.REWARD in algorithm.needs) == bool(algorithm.trained_on)


class TestConfiguration:
    def test_it_comes_back_from_json_as_it_was(self, algorithm: Algorithm) -> None:
        for made in (algorithm, *(type(algorithm)(**recipe.algorithm) for recipe in algorithm.recipes.values())):
            again = type(made).model_validate_json(made.model_dump_json())
            assert again == made
            assert again.model_dump() == made.model_dump()

    def test_no_field_has_the_name_of_a_field_of_training(self, algorithm: Algorithm) -> None:
        assert set(type(algorithm).model_fields).isdisjoint(TrainingSettings.model_fields)

    def test_an_unknown_field_is_refused_by_name(self, algorithm: Algorithm) -> None:
        with pytest.raises(ValidationError, match="no_such_field"):
            type(algorithm)(no_such_field=1)

    def test_every_number_has_a_bound_and_is_refused_by_name_beyond_it(self, algorithm: Algorithm) -> None:
        for name, field in type(algorithm).model_fields.items():
            if field.annotation in (int, float):
                values = beyond(field.metadata)
                assert values, f"{name} has no bound"
                for value in values:
                    with pytest.raises(ValidationError, match=name):
                        type(algorithm).model_validate({name: value})

    def test_a_word_that_is_not_one_of_the_choices_is_refused_by_name(self, algorithm: Algorithm) -> None:
        choices = [
            name for name, field in type(algorithm).model_fields.items() if get_origin(field.annotation) is Literal
        ]
        for name in choices:
            with pytest.raises(ValidationError, match=name):
                type(algorithm).model_validate({name: "no such choice"})

    def test_it_is_frozen(self, algorithm: Algorithm) -> None:
        for name in type(algorithm).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(algorithm, name, getattr(algorithm, name))

    def test_numbers_that_are_not_finite_are_refused(self, algorithm: Algorithm) -> None:
        numbers = [name for name, value in algorithm.model_dump().items() if isinstance(value, float)]
        for name in numbers:
            for value in (math.nan, math.inf):
                with pytest.raises(ValidationError, match=name):
                    type(algorithm).model_validate({name: value})


class TestStep:
    def test_losses_times_and_logs_are_one_a_pair(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        output = workshop.step(algorithm, ROWS, workshop.policy(), data)
        assert output.losses.shape == (5,)
        assert output.losses.requires_grad
        assert output.losses.dtype == torch.float32
        assert output.timesteps.shape == (5,)
        assert {name: (log.shape, log.requires_grad) for name, log in output.logs.items()} == dict.fromkeys(
            output.logs, ((5,), False)
        )

    def test_a_pair_has_the_same_loss_in_any_batch(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        policy = workshop.policy()
        nudge(policy.parameters())
        whole = workshop.step(algorithm, ROWS, policy, data)
        for place in range(len(ROWS)):
            single = workshop.step(algorithm, ROWS, policy, data, places=[place])
            assert single.timesteps[0] == whole.timesteps[place]
            assert_alike(single.losses[0], whole.losses[place])

    def test_statistics_of_the_batch_are_asked_for_where_there_are_some(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        policy = workshop.policy()
        algorithm.begin(policy)
        found = algorithm.global_batch_stats(workshop.batch(ROWS, data=data), policy)
        assert (found is not None) == algorithm.needs_batch_stats
        assert found is None or len(found) == len(ROWS)

    def test_permuting_the_pairs_permutes_the_losses(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        policy, order = workshop.policy(), [3, 0, 4, 2, 1]
        nudge(policy.parameters())
        whole = workshop.step(algorithm, ROWS, policy, data)
        shuffled = workshop.step(algorithm, [ROWS[place] for place in order], policy, data)
        assert torch.equal(shuffled.timesteps, whole.timesteps[order])
        assert_alike(shuffled.losses, whole.losses[order])

    def test_training_times_are_spread_over_the_whole_process(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        with torch.no_grad():
            times = workshop.step(algorithm, range(40), workshop.policy(), data).timesteps
        assert times.min() >= 0
        assert times.max() < 1000
        assert times.min() < 250
        assert times.max() > 750

    def test_identical_weights_give_a_margin_of_exactly_zero_and_the_stated_loss(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        assert_at_the_reference(algorithm, workshop.step(algorithm, ROWS, workshop.policy(), data))

    def test_identical_weights_in_half_precision_give_a_margin_of_exactly_zero_too(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        output = workshop.step(algorithm, ROWS, workshop.policy(precision="bf16"), data)
        assert torch.isfinite(output.losses).all()
        assert output.logs.get("margin", torch.zeros(5)).tolist() == [0, 0, 0, 0, 0]

    def test_the_gradient_reaches_what_is_trained_and_not_the_reference(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        policy = workshop.policy()
        trained = dict(policy.parameters())
        received = receivers(algorithm, workshop, policy, data)
        assert received
        assert received <= trained.keys()

    def test_training_changes_the_weights_and_not_the_reference(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData, tmp_path: Path
    ) -> None:
        run = workshop.train(tmp_path, algorithm, data=data, steps=2, learning_rate=1e-3)
        before, after = workshop.model(), workshop.model().load_trained(run.weights)
        changed = [
            not torch.equal(one, other)
            for one, other in zip(before.network.parameters(), after.parameters(), strict=True)
        ]
        assert sum(changed) > 0.9 * len(changed)
        assert all(torch.isfinite(parameter).all() for parameter in after.parameters())


@pytest.mark.parametrize("workshop", ["epsilon"], indirect=True)
class TestAdapters:
    """Adapters are the policy's affair, so one kind of process is enough."""

    def test_fresh_adapters_give_a_margin_of_exactly_zero_and_the_stated_loss(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        assert_at_the_reference(algorithm, workshop.step(algorithm, ROWS, workshop.policy(trainable="lora"), data))

    def test_fresh_adapters_in_half_precision_give_a_margin_of_exactly_zero_too(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        output = workshop.step(algorithm, ROWS, workshop.policy(trainable="lora", precision="bf16"), data)
        assert torch.isfinite(output.losses).all()
        assert output.logs.get("margin", torch.zeros(5)).tolist() == [0, 0, 0, 0, 0]

    def test_the_gradient_reaches_the_adapters_and_not_the_reference(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        received = receivers(algorithm, workshop, workshop.policy(trainable="lora"), data)
        assert received
        assert all("lora_" in name for name in received)


def assert_alike(losses: Tensor, others: Tensor) -> None:
    """Equal up to rounding: kernels of another batch size round differently, and beta makes a margin's last digits larger."""
    torch.testing.assert_close(losses, others, rtol=1e-3, atol=5e-3 * others.abs().max().item())


def assert_at_the_reference(algorithm: Algorithm, output: StepOutput) -> None:
    """Five pairs have no margin and the stated loss."""
    assert ("margin" in output.logs) == (Need.REFERENCE in algorithm.needs)
    if "margin" in output.logs:
        assert output.logs["margin"].tolist() == [0, 0, 0, 0, 0]
    if algorithm.initial_loss is not None:
        assert output.losses.tolist() == pytest.approx([algorithm.initial_loss] * 5, rel=1e-6)


def receivers(algorithm: Algorithm, workshop: Workshop, policy: Policy, data: PreferenceData) -> set[str]:
    """Names of what a step gives a gradient; those of the reference start with ``reference``, which has none."""
    trained = dict(policy.parameters())
    workshop.step(algorithm, ROWS, policy, data).losses.mean().backward()
    everything = {**dict(policy.model.network.named_parameters(prefix="reference")), **trained}
    latents = torch.zeros_like(workshop.batch([0]).winner)
    assert not policy.reference(latents, torch.tensor([5]), workshop.encoded.condition([""])).requires_grad
    return {name for name, parameter in everything.items() if parameter.grad is not None}


def descend(parameters: list[tuple[str, torch.nn.Parameter]], *, expected: float) -> None:
    """Step against the gradient as far as a linear loss would have to go to fall by ``expected``."""
    gradients = [(parameter, parameter.grad) for _, parameter in parameters if parameter.grad is not None]
    rate = expected / sum(gradient.square().sum().item() for _, gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in gradients:
            parameter.sub_(gradient, alpha=rate)


def nudge(parameters: list[tuple[str, torch.nn.Parameter]]) -> None:
    """Move the policy a little away from the reference."""
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=1e-4)


def beyond(metadata: Sequence[Any]) -> list[float]:
    """The nearest whole steps outside the bounds of a field."""
    outside = {"gt": 0, "lt": 0, "ge": -1, "le": 1}
    return [
        getattr(limit, side) + outside[side]
        for limit in metadata
        for kind, side in BEYOND.items()
        if type(limit) is kind
    ]


Objective = Callable[[Tensor, Tensor], Tensor]
"""Predictions of the policy for winner and loser in, losses out."""

PAIRS = 6


def reference(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What the reference predicts for winner and loser; the targets are 0."""
    source = torch.Generator().manual_seed(0)
    return tuple(0.2 * torch.randn(PAIRS, 4, 2, 2, generator=source).to(dtype) for _ in range(2))  # type: ignore[return-value]


def objective(algorithm: Algorithm, dtype: torch.dtype = torch.float32) -> Objective:
    """The objective of an algorithm on pairs, whatever network predicts."""
    targets = torch.zeros(PAIRS, 4, 2, 2, dtype=dtype)
    preference = torch.full((PAIRS,), 0.9)
    if isinstance(algorithm, PairwiseAlgorithm):
        return lambda winner, loser: algorithm.prediction_loss(
            PairPredictions(winner, loser, *reference(dtype), targets, targets), preference
        )
    assert isinstance(algorithm, ReferenceFreeAlgorithm)
    return lambda winner, loser: algorithm.loss(
        PolicyErrors(sample_errors(winner, targets), sample_errors(loser, targets)), preference
    )


ON_PAIRS = [name for name in NAMES if issubclass(ALGORITHMS.get(name), (PairwiseAlgorithm, ReferenceFreeAlgorithm))]


class TestObjective:
    """Algorithms with an objective on pairs of predictions; the steps of all others are looked at in `TestDescent`."""

    @pytest.fixture(params=ON_PAIRS)
    def algorithm(self, request: pytest.FixtureRequest) -> Algorithm:
        made: Algorithm = ALGORITHMS.get(request.param)()
        return made

    def test_at_the_reference_the_loss_is_the_stated_one(self, algorithm: Algorithm) -> None:
        losses = objective(algorithm)(*reference(torch.float32))
        assert losses.shape == (PAIRS,)
        if algorithm.initial_loss is not None:
            assert losses.tolist() == pytest.approx([algorithm.initial_loss] * PAIRS, rel=1e-6)

    def test_training_starts_towards_the_winner_and_never_towards_the_loser(self, algorithm: Algorithm) -> None:
        winner, loser = (prediction.requires_grad_() for prediction in reference(torch.float32))
        objective(algorithm)(winner, loser).sum().backward()
        assert winner.grad is not None
        towards_winner = (winner.grad * winner).flatten(1).sum(1)  # the targets are 0
        assert (towards_winner > 0).all()
        if loser.grad is not None:
            assert ((loser.grad * loser).flatten(1).sum(1) <= 0).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("size", [0.0, 1e-15, 1.0, 1e4])
    @pytest.mark.parametrize("side", ["winner", "loser", "both"])
    def test_losses_and_gradients_are_finite_far_out(
        self, algorithm: Algorithm, dtype: torch.dtype, size: float, side: str
    ) -> None:
        far = torch.full((PAIRS, 4, 2, 2), size, dtype=dtype)
        near = torch.zeros(PAIRS, 4, 2, 2, dtype=dtype)
        winner, loser = ((far if side in (name, "both") else near).clone() for name in ("winner", "loser"))
        losses = objective(algorithm, dtype)(winner.requires_grad_(), loser.requires_grad_())
        losses.sum().backward()
        assert losses.dtype == torch.float32
        assert torch.isfinite(losses).all()
        for prediction in (winner, loser):
            assert prediction.grad is None or torch.isfinite(prediction.grad).all()

    def test_each_pair_counts_for_itself(self, algorithm: Algorithm) -> None:
        source = torch.Generator().manual_seed(1)
        winner, loser = (0.2 * torch.randn(PAIRS, 4, 2, 2, generator=source) for _ in range(2))
        before = objective(algorithm)(winner, loser)
        winner[0] += 1
        after = objective(algorithm)(winner, loser)
        assert after[0] != before[0]
        assert torch.equal(after[1:], before[1:])


def test_a_wrapper_needs_the_statistics_that_its_objective_needs() -> None:
    npo = ALGORITHMS.get("npo")
    assert not npo(objective="dpo").needs_batch_stats
    assert npo(objective="kto").needs_batch_stats


class TestDescent:
    """Algorithms without such an objective: what `step` returns has a gradient of the right sign."""

    @pytest.fixture(params=sorted(set(NAMES) - set(ON_PAIRS)))
    def algorithm(self, request: pytest.FixtureRequest) -> Algorithm:
        made: Algorithm = ALGORITHMS.get(request.param)()
        return made

    def test_a_small_step_against_the_gradient_lowers_the_loss(
        self, algorithm: Algorithm, workshop: Workshop, data: PreferenceData
    ) -> None:
        """The same draws before and after; the margin has to grow too."""
        policy = workshop.policy()
        before = workshop.step(algorithm, ROWS, policy, data)
        before.losses.mean().backward()
        descend(policy.parameters(), expected=1e-3 * before.losses.abs().mean().item())
        with torch.no_grad():
            after = workshop.step(algorithm, ROWS, policy, data)
        assert after.losses.mean() < before.losses.mean()
        if "margin" in after.logs:
            assert after.logs["margin"].mean() > 0
