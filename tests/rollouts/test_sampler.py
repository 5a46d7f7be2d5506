"""Rollouts and their replay on small models: the same bits, the evaluation's pictures, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from bench.core.errors import UserError
from bench.experiments.contracts.small_models import PROCESSES
from bench.models.family import Condition, ModelFamily
from bench.models.forward_process import FLOW_SCHEDULER, FlowProcess
from bench.models.guidance import Networks
from bench.models.sampling import sample
from bench.records.protocol import GenerationSettings
from bench.rollouts.grid import Grid, evaluation_grid, strided_grid
from bench.rollouts.rules import ODE, RULES, Cps, Ddim, FlowSde, Rule, find_rule
from bench.rollouts.sampler import Predict, check_noise, deviation, guided, one_per_slot, replay, roll_out

STEPS, COUNT = 6, 3
KINDS = list(PROCESSES)
CASES = [(kind, "ddim") for kind in ("epsilon", "v_prediction")] + [("flow", name) for name in RULES if name != "ddim"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFamily]:
    loaded = {}
    for kind, small in PROCESSES.items():
        folder = tmp_path_factory.mktemp(kind) / "model"
        small.write(folder)
        loaded[kind] = small.family.load(str(folder), device=torch.device("cpu"))
    return loaded


def network_of(model: ModelFamily) -> Predict:
    return lambda latents, times, condition: model.predict(
        model.network, latents, model.process.network_times(times), condition
    )


def texts(model: ModelFamily) -> tuple[Condition, Condition]:
    prompts = ["a bee", "a cat on red", "two dogs"]
    return model.encode_text(prompts), model.encode_negative([""] * COUNT)


def noise_of(model: ModelFamily) -> Callable[[int], Tensor]:
    shape = model.latent_shape(model.resolution, model.resolution)
    return lambda number: torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(100 + number))


def full(level: int) -> Tensor:
    return torch.full((COUNT,), level)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize(("kind", "name"), CASES)
@torch.no_grad()
def test_a_replay_has_the_log_probabilities_of_sampling_to_the_last_bit(
    models: dict[str, ModelFamily], kind: str, name: str, scale: float
) -> None:
    model = models[kind]
    rule, grid, noise = find_rule(name, 0.7, model.process), evaluation_grid(model, STEPS), noise_of(model)
    denoise = guided(network_of(model), *texts(model), scale)
    kept = (0, 2, 4)
    rollout = roll_out(denoise, grid, [rule] * STEPS, noise(-1), full(STEPS), noise, kept)
    assert rollout.log_probs.shape == (COUNT, len(kept))
    assert torch.isfinite(rollout.log_probs).all()
    for which, _ in enumerate(kept):
        assert torch.equal(replay(denoise, grid, rule, rollout, which).log_prob, rollout.log_probs[:, which])
    # It is the density of the step that was taken: another denoiser has another.
    other = guided(network_of(model), *texts(model), scale + 1)
    assert not torch.equal(replay(other, grid, rule, rollout, 0).log_prob, rollout.log_probs[:, 0])


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_without_noise_a_rollout_is_the_evaluations_picture(
    models: dict[str, ModelFamily], kind: str, scale: float
) -> None:
    model, side = models[kind], models[kind].resolution
    scheduler = FLOW_SCHEDULER if kind == "flow" else "DDIMScheduler"
    settings = GenerationSettings(scheduler=scheduler, steps=STEPS, guidance_scale=scale, height=side, width=side)
    start, (condition, negative) = noise_of(model)(-1), texts(model)
    expected = sample(model, Networks.single(model.network), start, condition, negative, settings, lambda _: [])
    denoise = guided(network_of(model), condition, negative, scale)
    found = roll_out(denoise, evaluation_grid(model, STEPS), [ODE] * STEPS, start, full(STEPS)).final
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def linear(latents: Tensor, times: Tensor) -> Tensor:
    return 0.1 * latents


def test_only_the_steps_that_are_asked_for_have_noise_and_are_kept(models: dict[str, ModelFamily]) -> None:
    model, asked = models["flow"], []
    grid, noise = evaluation_grid(model, STEPS), noise_of(model)

    def asking(number: int) -> Tensor:
        asked.append(number)
        return noise(number)

    rules: list[Rule] = [ODE] * STEPS
    rules[1] = rules[2] = Cps(0.8)
    rollout = roll_out(linear, grid, rules, noise(-1), full(STEPS), asking, keep=(2, 1))
    assert asked == [1, 2]
    assert rollout.kept == (1, 2)
    assert rollout.levels.tolist() == [[5, 4]] * COUNT
    assert torch.equal(rollout.following[:, 0], rollout.latents[:, 1])
    assert rollout.means is None
    kept = roll_out(linear, grid, rules, noise(-1), full(STEPS), noise, keep=(1, 2), means=(1, 2)).rows([2, 0])
    assert kept.means is not None
    step = replay(linear, grid, rules[2], kept, 1)
    assert torch.equal(kept.means[:, 1], step.transition.mean)
    with pytest.raises(UserError, match="sampling step 0 \\(0 to 5\\) has no noise"):
        roll_out(linear, grid, rules, noise(-1), full(STEPS), noise, keep=(0,))


def test_the_last_step_of_cps_has_no_density(models: dict[str, ModelFamily]) -> None:
    grid, noise = evaluation_grid(models["flow"], STEPS), noise_of(models["flow"])
    with pytest.raises(UserError, match="sampling step 5 "):
        roll_out(linear, grid, [Cps(0.8)] * STEPS, noise(-1), full(STEPS), noise, keep=(5,))


def test_noise_must_be_given_where_a_rule_has_some(models: dict[str, ModelFamily]) -> None:
    grid = evaluation_grid(models["epsilon"], STEPS)
    with pytest.raises(ValueError, match="needs noise"):
        roll_out(linear, grid, [Ddim(1.0)], noise_of(models["epsilon"])(-1), full(STEPS))


@pytest.mark.parametrize("shift", [1.17, 1.18, 1.32, 1.43, 1.57, 2.07, 3.0])
def test_a_flow_starts_from_pure_noise_whatever_diffusers_rounds(tmp_path: Path, shift: float) -> None:
    """Its first level is 1 - 6e-8 for a shift of 1.43, and 1 + 1.2e-7 for 1.32."""
    small = PROCESSES["flow"]
    small.write(tmp_path / "model")
    file = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shift": shift}))
    grid = evaluation_grid(small.family.load(str(tmp_path / "model"), device=torch.device("cpu")), STEPS)
    check_noise({0: FlowSde(0.7)}, grid)
    # g^2 ds is noise^2 (1 - s_to) / (1 - s_to) where sampling starts
    assert deviation(FlowSde(0.7), 0, grid) == pytest.approx(0.7)
    assert grid.training_times(full(STEPS)).tolist() == [999] * COUNT


def test_noise_that_is_not_finite_is_not_called_none() -> None:
    sigma = torch.tensor([0.0, 0.5, 1.1], dtype=torch.float64)
    grid = Grid(FlowProcess(1 - sigma, sigma), torch.tensor([0.0, 500.0, 1100.0]))
    with pytest.raises(UserError, match="the noise of sampling step 0 \\(0 to 1\\) is not finite"):
        check_noise({0: FlowSde(0.7)}, grid)


def test_samples_start_at_their_own_levels_and_stay_where_they_arrive(models: dict[str, ModelFamily]) -> None:
    process, start = models["epsilon"].process, noise_of(models["epsilon"])(-1)
    grid = strided_grid(process, 10)
    assert grid.times.tolist() == [0, 99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    together = roll_out(linear, grid, [ODE] * 3, start, torch.tensor([1, 2, 9]))
    assert together.level.tolist() == [0, 0, 6]
    for row, (level, steps) in enumerate([(1, 1), (2, 2), (9, 3)]):
        alone = roll_out(linear, grid, [ODE] * steps, start[row : row + 1], torch.tensor([level]))
        assert torch.equal(alone.final[0], together.final[row])


def test_a_grid_keeps_the_levels_of_the_process(models: dict[str, ModelFamily]) -> None:
    process = models["epsilon"].process
    grid: Grid = strided_grid(process, 4)
    like = torch.zeros((), dtype=torch.float64)
    assert torch.equal(grid.process.alpha(torch.arange(5), like), process.alpha(grid.times, like))


@pytest.mark.parametrize("steps", [7, 20, 25, 30, 40, 48, 1000])
def test_a_strided_grid_has_diffusers_trailing_times(models: dict[str, ModelFamily], steps: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    times = strided_grid(models["epsilon"].process, steps).times
    assert times.tolist() == [0, *scheduler.timesteps.flip(0).tolist()]
    assert times[-1] == 999


def test_a_strided_grid_has_no_more_steps_than_there_are_times(models: dict[str, ModelFamily]) -> None:
    with pytest.raises(UserError, match="1001 sampling steps are more than the 1000 training times"):
        strided_grid(models["epsilon"].process, 1001)


@pytest.mark.parametrize(
    ("spacing", "steps", "fits"),
    [("leading", 30, True), ("trailing", 20, True), ("trailing", 30, False), ("linspace", 20, False)],
)
@torch.no_grad()
def test_a_grid_is_that_of_the_evaluation_or_refused(tmp_path: Path, spacing: str, steps: int, fits: bool) -> None:
    small = PROCESSES["epsilon"]
    small.write(tmp_path / "model")
    file = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "timestep_spacing": spacing}))
    model = small.family.load(str(tmp_path / "model"), device=torch.device("cpu"))
    if not fits:
        with pytest.raises(UserError, match=f"{steps} steps and timestep_spacing={spacing} does not step to the times"):
            evaluation_grid(model, steps)
        return
    side, start, (condition, negative) = model.resolution, noise_of(model)(-1), texts(model)
    settings = GenerationSettings(scheduler="DDIMScheduler", steps=steps, guidance_scale=1.0, height=side, width=side)
    expected = sample(model, Networks.single(model.network), start, condition, negative, settings, lambda _: [])
    denoise = guided(network_of(model), condition, negative, 1.0)
    found = roll_out(denoise, evaluation_grid(model, steps), [ODE] * steps, start, full(steps)).final
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_steps_without_noise_are_found_before_anything_is_sampled(models: dict[str, ModelFamily]) -> None:
    grid = evaluation_grid(models["flow"], STEPS)
    check_noise({number: Cps(0.8) for number in range(STEPS - 1)} | {5: FlowSde(0.7)}, grid)
    with pytest.raises(UserError, match="sampling step 5 \\(0 to 5\\) has no noise"):
        check_noise(dict.fromkeys(range(STEPS), Cps(0.8)), grid)


def test_gradient_reaches_the_last_steps_alone_where_they_alone_have_it(models: dict[str, ModelFamily]) -> None:
    grid, start = evaluation_grid(models["epsilon"], STEPS), noise_of(models["epsilon"])(-1)
    scale = torch.ones(STEPS + 1, requires_grad=True)

    def scaled(latents: Tensor, times: Tensor) -> Tensor:
        number = grid.times.tolist().index(int(times[0]))
        return scale[number] * 0.1 * latents

    with torch.no_grad():
        begun = roll_out(scaled, grid, [ODE] * 4, start, full(STEPS))
    roll_out(scaled, grid, [ODE] * 2, begun.final, begun.level).final.sum().backward()
    assert scale.grad is not None
    assert [bool(value) for value in scale.grad.tolist()] == [False, True, True, False, False, False, False]


def test_a_model_whose_scheduler_clips_is_refused(tmp_path: Path) -> None:
    small = PROCESSES["epsilon"]
    small.write(tmp_path / "model")
    config = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"clip_sample": false', '"clip_sample": true'))
    with pytest.raises(UserError, match="clip_sample"):
        evaluation_grid(small.family.load(str(tmp_path / "model"), device=torch.device("cpu")), STEPS)


def test_a_scheduler_without_such_a_setting_does_not_clip(tmp_path: Path) -> None:
    """Diffusers would let DDIM clip with the configuration of Euler's scheduler."""
    small = PROCESSES["epsilon"]
    small.write(tmp_path / "model")
    file = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    for name in ("clip_sample", "thresholding"):
        config.pop(name, None)
    file.write_text(json.dumps({**config, "_class_name": "EulerDiscreteScheduler"}))
    index = tmp_path / "model" / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "EulerDiscreteScheduler"))
    grid = evaluation_grid(small.family.load(str(tmp_path / "model"), device=torch.device("cpu")), STEPS)
    assert grid.steps == STEPS


def test_each_slot_of_guidance_can_have_a_network_of_its_own() -> None:
    weight = torch.tensor(0.5, requires_grad=True)
    networks = one_per_slot(lambda x, t, c: weight * x + c["text"], lambda x, t, c: x * t[:, None] + c["text"])
    latents, times = torch.tensor([[1.0], [2.0]]), torch.tensor([10.0, 20.0])
    prompts, empty = {"text": torch.tensor([[100.0], [200.0]])}, {"text": torch.zeros(2, 1)}
    made = guided(networks, prompts, empty, 3.0)(latents, times)
    # 3 * (x t + prompt) - 2 * (x / 2): more of the trained slot is less of the guided prediction.
    assert made.tolist() == [[3 * 110.0 - 2 * 0.5], [3 * 240.0 - 2 * 1.0]]
    (gradient,) = torch.autograd.grad(made.sum(), weight)
    assert gradient.item() == -2 * (1 + 2)
