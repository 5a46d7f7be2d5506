"""Two slots of guidance: worked numbers of Diffusion-NPO (arXiv 2505.11245) and what must hold for any weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from workshop import Workshop

from bench.core.randomness import step_generators
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.guidance import Networks, fused, guide, merge, pair
from bench.models.sampling import sample
from bench.records.protocol import GenerationSettings
from bench.training.policy import add_adapters
from bench.training.settings import TrainingSettings

PROMPTS = ["a bee on a red background", "a cat on a blue background", "a key"]


def one(value: float) -> dict[str, Tensor]:
    return {"weight": torch.tensor([value], dtype=torch.float64)}


def moved(network: nn.Module, seed: int) -> nn.Module:
    """A copy with other weights."""
    other, random = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return other


def latents(model: StableDiffusion, networks: Networks, **settings: Any) -> Tensor:
    noise = torch.randn(len(PROMPTS), 4, 4, 4, generator=torch.Generator().manual_seed(3))
    made = GenerationSettings(**{"steps": 3, "guidance_scale": 4, "height": 8, "width": 8, **settings})
    empty, draws = (
        model.encode_text([""] * len(PROMPTS)),
        step_generators([("test", row) for row in range(len(PROMPTS))]),
    )
    return sample(model, networks, noise, model.encode_text(PROMPTS), empty, made, draws)


@pytest.fixture(scope="module")
def model(workshop: Workshop) -> StableDiffusion:
    return workshop.model()


def test_guidance_of_the_papers_numbers() -> None:
    positive, negative = (torch.tensor(value, dtype=torch.float64) for value in ([1.0, -0.5], [0.4, 0.1]))
    assert guide(negative, positive, 7.5).tolist() == pytest.approx([4.9, -4.4], rel=1e-9)
    assert (7.5 * positive - 6.5 * negative).tolist() == pytest.approx([4.9, -4.4], rel=1e-9)  # the paper's form


@pytest.mark.parametrize(
    ("alpha", "beta", "expected"), [(1, 1, 1.2), (0.5, 1, 0.95), (0, 1, 0.7), (1, 0.5, 1.35), (1, 0, 1.5), (0, 0, 1.0)]
)
def test_merged_weights(alpha: float, beta: float, expected: float) -> None:
    merged = merge(one(1.0), one(1.5), one(0.7), alpha=alpha, beta=beta)
    assert merged["weight"].item() == pytest.approx(expected, rel=1e-9)


def test_a_merge_of_one_offset_alone_is_exact(model: StableDiffusion) -> None:
    base = model.network.state_dict()
    positive, negative = (moved(model.network, seed).state_dict() for seed in (1, 2))
    for alpha, beta, expected in ((1, 0, positive), (0, 1, negative), (0, 0, base)):
        merged = merge(base, positive, negative, alpha=alpha, beta=beta)
        assert all(torch.equal(merged[name], expected[name]) for name in expected)
    of_base = merge(base, base, negative, alpha=1, beta=1)
    assert all(torch.equal(of_base[name], negative[name]) for name in negative)


def test_a_merge_keeps_what_is_no_number_with_fractions() -> None:
    states = [{"position": torch.arange(3)} for _ in range(3)]
    assert torch.equal(merge(*states, alpha=0.5, beta=0.5)["position"], torch.arange(3))


def test_without_guidance_the_negative_does_not_matter(model: StableDiffusion) -> None:
    positive = model.network
    first, second = (latents(model, Networks(positive, moved(positive, seed)), guidance_scale=1) for seed in (1, 2))
    assert torch.equal(first, second)
    assert torch.equal(first, latents(model, Networks.single(positive), guidance_scale=1))


def test_alpha_1_and_beta_0_is_plain_guidance_of_the_positive_bit_for_bit(model: StableDiffusion) -> None:
    positive, negative = moved(model.network, 1), moved(model.network, 2)
    plain = latents(model, Networks.single(positive))
    assert torch.equal(latents(model, pair(model.network, positive, negative, alpha=1, beta=0)), plain)
    other = latents(model, pair(model.network, positive, negative, alpha=1, beta=1))
    assert (other - plain).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler with numpy 2
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_two_passes_equal_one_when_both_slots_hold_the_same_weights(model: StableDiffusion, scheduler: str) -> None:
    """Euler's inputs must be scaled in both slots, or the two passes would differ from the one."""
    network = model.network
    one_pass = latents(model, Networks.single(network), scheduler=scheduler)
    two_passes = latents(model, Networks(network, copy.deepcopy(network)), scheduler=scheduler)
    torch.testing.assert_close(two_passes, one_pass, rtol=1e-4, atol=1e-4)


def test_the_negative_network_sees_the_negative_prompt_and_the_positive_one_the_prompt(model: StableDiffusion) -> None:
    """One DDIM step by hand, from the definition."""
    positive, negative = moved(model.network, 1), moved(model.network, 2)
    sampled = latents(model, Networks(positive, negative), steps=1)
    noise = torch.randn(len(PROMPTS), 4, 4, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        t = torch.full((len(PROMPTS),), 1)  # one step of "leading" spacing starts at 0 + steps_offset
        with_prompt = model.predict(positive, noise, t, model.encode_text(PROMPTS))
        without = model.predict(negative, noise, t, model.encode_text([""] * len(PROMPTS)))
    prediction = without + 4 * (with_prompt - without)
    signal = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    at, last = (1 - signal).cumprod(0)[[1, 0]].float()
    clean = (noise - (1 - at).sqrt() * prediction) / at.sqrt()
    torch.testing.assert_close(sampled, last.sqrt() * clean + (1 - last).sqrt() * prediction, rtol=1e-4, atol=1e-4)


def test_adapters_are_fused_before_weights_are_merged(workshop: Workshop) -> None:
    model, other = workshop.model(), workshop.model()
    tuned: Any = add_adapters(other.network, other.lora_targets, TrainingSettings(lora_rank=4))
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    with_adapters, base = latents(model, Networks.single(tuned)), latents(model, Networks.single(model.network))
    assert (with_adapters - base).abs().max() > 0.01
    full = fused(tuned)
    assert full.state_dict().keys() == model.network.state_dict().keys()
    torch.testing.assert_close(latents(model, Networks.single(full)), with_adapters, rtol=1e-3, atol=1e-3)
    networks = pair(model.network, model.network, full, alpha=1, beta=1)  # eta is 0: the merge is the negative itself
    assert all(torch.equal(value, full.state_dict()[name]) for name, value in networks.negative.state_dict().items())


def test_the_base_in_the_negative_slot_stays_as_it_is(workshop: Workshop) -> None:
    model = workshop.model()
    before = copy.deepcopy(model.network.state_dict())
    networks = pair(model.network, moved(model.network, 1), model.network, alpha=0.5, beta=1)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert networks.negative is not model.network
