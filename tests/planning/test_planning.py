from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from accelerate import Accelerator
from pipelines import WRITERS
from torch.utils.flop_counter import FlopCounterMode

from algorithms.apo import APO
from algorithms.capo import CaPO
from algorithms.d3po import D3PO
from algorithms.ddpo import DDPO
from algorithms.dpo import DPO
from algorithms.draft import DRaFT
from algorithms.flow_grpo import FlowGRPO
from algorithms.inpo import InPO
from algorithms.kto import KTO
from algorithms.npo_joint import NPOJoint
from algorithms.rankdpo import RankDPO
from algorithms.refl import ReFL
from algorithms.self_npo import SelfNPO
from algorithms.smpo import SmPO
from algorithms.spo import SPO
from algorithms.tailorpo import TailorPO, TailorPOG
from bench.core.errors import UserError
from bench.models.find import FoundArchitecture, find_architecture
from bench.planning.counting import DRAWN_STEPS, count_calls
from bench.planning.dummy_data import prepared_data
from bench.planning.gpus import GpuSpec as Card
from bench.planning.memory_tracker import MemoryTracker, tensor_bytes
from bench.planning.plan import (
    Plan,
    encoding_cost,
    make_plan,
    planned_pairs,
    planned_pictures,
    planned_scores,
    smaller,
)
from bench.planning.profiling import measure
from bench.planning.shape_tensor import ShapeTensor
from bench.planning.show import about_placebo, plan_rows
from bench.planning.sizes import Sizes
from bench.planning.tracer import Tracer
from bench.records.reward_models import FitSchedule
from bench.training.algorithm import Algorithm
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings

CPU, META = torch.device("cpu"), torch.device("meta")


# diffusers' Euler with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FoundArchitecture]:
    """The architecture of a small pipeline."""
    made: dict[str, FoundArchitecture] = {}

    def find(kind: str) -> FoundArchitecture:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            WRITERS[kind](folder)
            made[kind] = find_architecture(str(folder))
        return made[kind]

    return find


def trained_with(**fields: Any) -> TrainingSettings:
    return TrainingSettings(**{"global_batch_size": 24, "micro_batch_size": 8, "warmup_steps": 0, **fields})


CASES: dict[str, tuple[str, Algorithm, dict[str, Any]]] = {
    "sd15, inversion": ("sd15", InPO(inversion_steps=4), {}),
    "sd15, lists": ("sd15", RankDPO(captions=50), {"trainable": "lora", "lora_rank": 4}),
    "sd15, remembered weights": ("sd15", SelfNPO(), {}),
    "sdxl, inversion, recomputing": ("sdxl", SmPO(inversion_steps=4), {"gradient_checkpointing": True}),
    "sdxl, bf16": ("sdxl", DPO(), {"precision": "bf16", "global_batch_size": 8}),
    "sd3": ("sd3", KTO(), {}),
    "flux, adapters": ("flux", DPO(), {"trainable": "lora", "lora_rank": 4}),
}


SLOW = (
    "sd15, inversion",
    "sd15, lists",
    "sd15, remembered weights",
    "sdxl, bf16",
    "sdxl, inversion, recomputing",
    "sd3",
)


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES])
def test_the_plan_is_near_what_is_measured(found: Callable[[str], FoundArchitecture], case: str) -> None:
    kind, algorithm, fields = CASES[case]
    settings = trained_with(**fields)
    plan = make_plan(found(kind), encoding_cost(found(kind)), algorithm, settings, CPU)
    measured = measure(found(kind), algorithm, settings, 3, Accelerator(cpu=True))
    assert measured.peak_memory_bytes == pytest.approx(plan.training.memory.peak, rel=0.15)
    assert measured.flops_per_pair == pytest.approx(plan.flops_per_pair, rel=0.15)
    assert measured.memory_of == "live tensors"
    assert {"encode", "policy forward", "backward", "optimizer"} <= measured.phases.keys()
    assert min(measured.phases.values()) > 0
    assert 0 < measured.share < 1


class TestCalls:
    """Counted by hand: images a pair."""

    def calls(self, found: Callable[[str], FoundArchitecture], algorithm: Algorithm) -> list[float]:
        model = found("sd15").build(META)
        data, _ = prepared_data(algorithm, model)
        return list(count_calls(model, algorithm, trained_with(), data).values())

    def test_a_pair_is_two_images(self, found: Callable[[str], FoundArchitecture]) -> None:
        assert self.calls(found, DPO()) == [2, 2, 2]

    def test_a_survey_asks_both_networks_once_more(self, found: Callable[[str], FoundArchitecture]) -> None:
        assert self.calls(found, KTO()) == [4, 2, 4]

    def test_a_list_is_as_many_images_as_its_candidates(self, found: Callable[[str], FoundArchitecture]) -> None:
        assert self.calls(found, RankDPO(candidates=3)) == [3, 3, 3]

    def test_a_sample_is_its_sampling_steps_and_those_that_are_trained(
        self, found: Callable[[str], FoundArchitecture]
    ) -> None:
        steps: dict[str, Any] = {"sampling_steps": 6, "trained": 2, "group": 4, "updates": 2}
        assert self.calls(found, DDPO(**steps)) == [6 + 2, 2, 0]
        assert self.calls(found, FlowGRPO(**steps, guidance_scale=3.0)) == [2 * (6 + 2), 2 * 2, 2 * 2]
        assert self.calls(found, D3PO(**{**steps, "group": 3})) == [6 + 2, 2, 2]

    def test_how_far_a_sample_is_followed_is_averaged_over_the_steps(
        self, found: Callable[[str], FoundArchitecture]
    ) -> None:
        algorithm = ReFL(sampling_steps=12, first=0, pretraining=0)
        forwards, backwards, _ = self.calls(found, algorithm)
        stops = [algorithm.stop(0, step) for step in range(DRAWN_STEPS)]
        assert len(set(stops)) > 1
        assert (forwards, backwards) == pytest.approx((sum(stops) / len(stops) + 1, 1))

    def test_candidates_of_a_step_are_looked_at(self, found: Callable[[str], FoundArchitecture]) -> None:
        steps: dict[str, Any] = {"sampling_steps": 6, "trained": 2, "candidates": 3}
        assert self.calls(found, TailorPO(**steps)) == [
            4 + 2 * 3 + 2,
            2,
            2,
        ]  # the fourth of six steps is the last that is trained
        assert self.calls(found, SPO(**steps, first=1)) == [4 + 2 * 3 + 2, 2, 2]  # steps 1 and 3 of 0 to 5
        # One slot of guidance is the policy's, the other the reference's, which has both slots in its own prediction.
        looked = 4 + 2 * 3
        assert self.calls(found, NPOJoint(**steps, first=1)) == [looked + 2, 2, looked + 2 + 2 * 2]
        assert self.calls(found, TailorPOG(**steps)) == [4 + 2 * (3 + 2) + 2, 2 + 2, 2]

    def test_an_inversion_takes_half_of_its_grid_on_average(self, found: Callable[[str], FoundArchitecture]) -> None:
        forwards, backwards, references = self.calls(found, InPO(inversion_steps=10))
        assert (backwards, references) == (2, 2)
        # a time goes up to the next of ten grid times, at the k-th after k calls; the tenth takes those above it too, the first none
        assert forwards == pytest.approx(
            2 * (1 + (sum(range(2, 11)) + 10) / 10), rel=0.03
        )  # and one call with gradient


def test_candidates_count_as_forwards_of_the_base(found: Callable[[str], FoundArchitecture]) -> None:
    model = found("sd15").build(META)
    data, forwards = prepared_data(CaPO(captions=20, candidates=3), model)
    assert forwards == 20 * 3 * 50 * 2
    assert data.width == 2


@pytest.mark.slow
def test_each_change_makes_training_smaller(found: Callable[[str], FoundArchitecture]) -> None:
    sdxl = found("sdxl")
    plan = make_plan(sdxl, encoding_cost(sdxl), DPO(), trained_with())
    changed = list(smaller(sdxl, DPO(), plan))
    assert [list(changes)[-1] for changes, _ in changed] == [
        "precision", "gradient_checkpointing", "micro_batch_size", "optimizer", "optimizer", "trainable",
    ]  # fmt: skip
    peaks = [plan.training.memory.peak, *(training.memory.peak for _, training in changed)]
    assert peaks == sorted(peaks, reverse=True)


@pytest.mark.slow
def test_no_optimizer_that_remembers_more_is_proposed(found: Callable[[str], FoundArchitecture]) -> None:
    sd15 = found("sd15")
    plan = make_plan(sd15, encoding_cost(sd15), DPO(), trained_with(optimizer="adafactor"))
    changed = list(smaller(sd15, DPO(), plan))
    assert "optimizer" not in [field for changes, _ in changed for field in changes]
    assert all(training.memory.peak < plan.training.memory.peak for _, training in changed)


def test_a_plan_names_what_a_card_has_no_place_for(found: Callable[[str], FoundArchitecture]) -> None:
    plan = plan_of(found)
    needed = {"encoding": plan.encoding.memory, "training": plan.training.memory.peak, "evaluating": plan.evaluating}
    for size in needed.values():
        assert plan.lacking(Card(size + 2**30, 1.0, 1.0)) == [part for part in needed if needed[part] > size]
        assert plan.lacking(Card(size - 1 + 2**30, 1.0, 1.0)) == [part for part in needed if needed[part] >= size]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_an_optimizer_on_cuda_adds_what_it_remembers_and_no_copy_of_the_weights(
    found: Callable[[str], FoundArchitecture], optimizer: str
) -> None:
    """350,388 numbers in 292 weights; AdamW on CUDA is one kernel, which makes nothing between."""
    sdxl = found("sdxl")
    settings = trained_with(micro_batch_size=1, precision="bf16", gradient_checkpointing=True, optimizer=optimizer)
    memory = make_plan(sdxl, encoding_cost(sdxl), DPO(), settings).training.memory
    assert memory.weights == memory.gradients == 4 * 350_388
    assert memory.moments == {"adamw": 8 * 350_388 + 4 * 292, "adafactor": 469_504}[optimizer]
    assert memory.peak == memory.weights + memory.reference + memory.gradients + memory.moments + memory.activations
    # one pair through this network, recomputed in backward, takes less than a copy of the weights, whatever the optimizer
    assert memory.activations == pytest.approx(887_000, rel=0.02)


def test_published_architectures_have_their_published_sizes() -> None:
    sizes = {
        name: sum(weight.numel() for weight in find_architecture(name).build(META).network.parameters())
        for name in ("sd15", "sdxl", "sd3", "sd35", "flux")
    }
    assert sizes == {
        "sd15": 859_520_964,
        "sdxl": 2_567_463_684,
        "sd3": 2_028_328_000,
        "sd35": 2_243_171_520,
        "flux": 11_901_408_320,
    }


@pytest.mark.slow
def test_the_full_sdxl_is_planned_with_torchs_own_count() -> None:
    model = find_architecture("sdxl").build(META)
    latents, times = torch.zeros(1, 4, 128, 128, device="meta"), torch.zeros(1, device="meta")
    told = {"prompt_embeds": (1, 77, 2048), "pooled": (1, 1280), "time_ids": (1, 6)}
    condition = {name: torch.zeros(shape, device="meta") for name, shape in told.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.predict(model.network, latents, times, condition)

    settings = trained_with(micro_batch_size=1, global_batch_size=2048, precision="bf16")
    sdxl = find_architecture("sdxl")
    plan = make_plan(sdxl, encoding_cost(sdxl), DPO(), settings)
    assert plan.training.flops["policy_forwards"] == counter.get_total_flops()
    assert plan.training.flops["reference_forwards"] == counter.get_total_flops()
    assert plan.training.flops["policy_backwards"] == pytest.approx(2 * counter.get_total_flops(), rel=0.05)
    weights = 4 * 2_567_463_684
    memory = plan.training.memory
    assert (memory.weights, memory.gradients) == (weights, weights)
    assert memory.reference == 2 * 2_566_875_524 + 4 * 588_160  # bf16, but for its layers that normalise
    assert memory.moments == pytest.approx(2 * weights, rel=1e-5)
    assert plan.pairs == 100 * 2048
    assert plan.latent_bytes == 2 * (2 * 4 * 128 * 128 * 4)  # mean and deviation
    mirrored = make_plan(sdxl, encoding_cost(sdxl), DPO(), settings.model_copy(update={"horizontal_flip": "image"}))
    assert mirrored.latent_bytes == 2 * plan.latent_bytes
    assert mirrored.encoding_flops > 1.5 * plan.encoding_flops


def test_adapters_whose_images_are_made_in_fp32_along_the_training_keep_their_network_in_fp32(
    found: Callable[[str], FoundArchitecture],
) -> None:
    settings = {"trainable": "lora", "precision": "bf16"}  # the small model's own images are in fp32
    alone, watched = plan_of(found, **settings), plan_of(found, **settings, evaluate_every=5)
    full = plan_of(found, precision="bf16")
    adapters = 4 * alone.training.trainable
    assert watched.training.memory.weights == full.training.memory.weights + adapters
    assert alone.training.memory.weights < 0.6 * watched.training.memory.weights
    assert plan_of(found, precision="bf16", evaluate_every=5).training.memory == full.training.memory


def plan_of(found: Callable[[str], FoundArchitecture], **fields: Any) -> Plan:
    sd15 = found("sd15")
    return make_plan(sd15, encoding_cost(sd15), DPO(), trained_with(**fields), CPU)


def test_a_budget_of_forwards_is_pairs_of_whole_steps(found: Callable[[str], FoundArchitecture]) -> None:
    # dpo: 2 + 2 forwards and 2 backwards that count twice are 8 a pair; 24 pairs a step are 192
    plan = plan_of(found, budget={"unit": "forwards", "amount": 200})
    assert plan.pairs == 48


def test_a_budget_of_forwards_also_pays_for_what_is_prepared(found: Callable[[str], FoundArchitecture]) -> None:
    # 20 captions of 3 images of 50 steps, with guidance: 6,000 forwards; then 3 + 3 and 2 * 3 for each list, 24 lists a step
    sd15 = found("sd15")

    def plan(amount: int) -> Plan:
        settings = trained_with(budget={"unit": "forwards", "amount": amount})
        return make_plan(sd15, encoding_cost(sd15), RankDPO(captions=20, candidates=3), settings, CPU)

    assert plan(6000 + 2 * 288).pairs == 48
    assert plan(6000 + 2 * 288 + 1).pairs == 72
    with pytest.raises(
        UserError,
        match="preparing the data alone costs 6,000 forwards, which uses up the budget of 5,000; raise",
    ):
        plan(5000)


def test_a_run_in_rounds_counts_the_steps_and_the_pictures_of_all_rounds() -> None:
    settings = trained_with(steps=3, global_batch_size=8, rounds={"number": 2, "candidates": 4})
    assert planned_pairs(DPO(), settings, {}, 0) == 2 * 3 * 8
    assert planned_pictures(DPO(), settings) == planned_scores(DPO(), settings) == 2 * 3 * 8 * 4
    fewer = trained_with(steps=3, global_batch_size=8, rounds={"number": 2, "candidates": 4, "captions": 10})
    assert planned_pictures(DPO(), fewer) == 2 * 10 * 4
    assert planned_pictures(DPO(), trained_with(steps=3)) == 0


def test_a_judge_that_every_round_fits_has_pictures_and_scores_of_its_own() -> None:
    settings = trained_with(steps=3, global_batch_size=8, rounds={"number": 2, "candidates": 4})
    algorithm = APO(judge_captions=5, judge_samples=3, fit=FitSchedule(steps=7, batch=10))
    assert planned_pictures(algorithm, settings) == 2 * (3 * 8 * 4 + 5 * 3)
    # the first fit sees people's pairs, those of the rounds as many opponents too; a pair is two pictures
    assert planned_scores(algorithm, settings) == 2 * 3 * 8 * 4 + 2 * 70 * (1 + 2 + 2)


def test_a_plan_says_why_there_is_no_placebo() -> None:
    assert about_placebo("draft", DRaFT()).endswith(
        "draft has no placebo: it follows the gradient of its reward, which shuffled scores do not change"
    )


def test_a_budget_of_pairs_is_rounded_up_to_whole_steps(found: Callable[[str], FoundArchitecture]) -> None:
    assert plan_of(found, budget={"unit": "pairs", "amount": 25}).pairs == 48


@pytest.mark.parametrize(
    ("budget", "samples"),
    [
        ({"unit": "samples", "amount": 100}, 3 * 48),
        ({"unit": "rewards", "amount": 100}, 48),
        ({"unit": "rewards", "amount": 101}, 2 * 48),
        (None, 2 * 48),
    ],
)
def test_an_online_run_makes_whole_collections(budget: dict[str, Any] | None, samples: int) -> None:
    algorithm = DDPO(rewards=("pickscore", "clip"), updates=2)
    assert planned_pairs(algorithm, trained_with(steps=3, budget=budget), {}, 0) == samples


def test_an_online_run_is_not_measured(found: Callable[[str], FoundArchitecture]) -> None:
    with pytest.raises(
        UserError, match="DDPO samples and judges while it trains, which bench profile does not measure"
    ):
        measure(found("sd15"), DDPO(), trained_with(), 1, Accelerator(cpu=True))


class Watched(DPO):
    """DPO that keeps the weights after each step."""

    weights: ClassVar[list[torch.Tensor]] = []

    def end_step(self, step: int, policy: Policy) -> None:
        self.weights.append(torch.cat([each.detach().flatten() for _, each in policy.parameters()]))


def test_measured_steps_leave_the_weights_as_they_are(found: Callable[[str], FoundArchitecture]) -> None:
    # each of the three passes begins with a step that is checked as the first of a run, where the margin must be 0
    measure(found("sd15"), Watched(), trained_with(), 2, Accelerator(cpu=True))
    first, *others = Watched.weights
    assert len(others) == 5
    assert all(torch.equal(first, each) for each in others)


def test_an_average_of_the_weights_takes_their_memory_once_more(found: Callable[[str], FoundArchitecture]) -> None:
    sd15 = found("sd15")
    encoding = encoding_cost(sd15)
    plain, averaged = (make_plan(sd15, encoding, DPO(), trained_with(ema_decay=decay), CPU) for decay in (0.0, 0.9))
    more = 4 * averaged.training.trainable
    assert averaged.training.memory.snapshots == plain.training.memory.snapshots + more == more
    assert averaged.training.memory.activations == plain.training.memory.activations
    assert averaged.checkpoint_bytes == plain.checkpoint_bytes + more


def test_the_plan_of_an_online_run(found: Callable[[str], FoundArchitecture]) -> None:
    sd15, settings = found("sd15"), trained_with(micro_batch_size=1, trainable="lora", lora_rank=4, steps=2)
    plan = make_plan(sd15, encoding_cost(sd15), DDPO(sampling_steps=4, updates=2), settings, CPU)
    assert plan.calls == {"policy_forwards": 4 + 3, "policy_backwards": 3, "reference_forwards": 0}
    assert plan.flops == 48 * (7 * plan.training.flops["policy_forwards"] + 3 * plan.training.flops["policy_backwards"])
    one_set = 4 * sum(shape.numel() for shape in plan.training.trained)
    assert plan.training.memory.snapshots == one_set  # the weights that sampled, until the second update
    assert plan.training.memory.gradients == one_set
    # A forward costs what it does in other training, with a graph and without.
    other = make_plan(sd15, encoding_cost(sd15), DPO(), settings, CPU).training.flops["policy_forwards"]
    assert plan.training.flops["policy_forwards"] == pytest.approx(other, rel=0.01)
    # Sampling steps that are trained one after another take no more memory than two of them.
    more = make_plan(sd15, encoding_cost(sd15), DDPO(sampling_steps=4, updates=2, trained=4, within=4), settings, CPU)
    assert more.training.memory.peak == pytest.approx(plan.training.memory.peak, rel=0.01)
    assert more.training.flops == pytest.approx(plan.training.flops)
    settings = trained_with(micro_batch_size=1, trainable="lora", lora_rank=4, steps=2, gradients_by_step=True)
    separate = make_plan(sd15, encoding_cost(sd15), DDPO(sampling_steps=4, updates=2), settings, CPU)
    assert separate.training.memory.gradients == 3 * one_set
    shown = {label: figure for label, figure, _ in filter(None, plan_rows(plan, Sizes(images=10)))}
    assert (shown["samples"], shown["reward calls"]) == ("48", "1")


@pytest.mark.slow
def test_the_plan_of_a_run_on_the_gradient_of_the_reward(found: Callable[[str], FoundArchitecture]) -> None:
    sd15, settings = found("sd15"), trained_with(micro_batch_size=1, trainable="lora", lora_rank=4, steps=2)
    plan = make_plan(sd15, encoding_cost(sd15), DRaFT(sampling_steps=4, extra=2), settings, CPU)
    assert plan.calls == {"policy_forwards": 4 + 2, "policy_backwards": 1 + 2, "reference_forwards": 0}
    shown = {label: figure for label, figure, _ in filter(None, plan_rows(plan, Sizes(images=10)))}
    assert (shown["samples"], shown["reward calls"]) == ("48", "3")
    tailored = make_plan(sd15, encoding_cost(sd15), TailorPOG(sampling_steps=4, trained=2), settings, CPU)
    assert tailored.reward_calls == 2 * (2 + 2)
    for unit, amount, samples in (("samples", 30, 48), ("rewards", 75, 48), ("rewards", 2 + 3 * 24, 24)):
        budget = {"unit": unit, "amount": amount}
        assert planned_pairs(DRaFT(extra=2), trained_with(steps=2, budget=budget), {}, 0) == samples
    once = trained_with(steps=2, budget={"unit": "rewards", "amount": 4 + 24 * tailored.reward_calls})
    assert (
        planned_pairs(TailorPOG(sampling_steps=4, trained=2), once, {}, 0) == 24
    )  # scores and their gradient are tried first


def test_a_budget_of_seconds_takes_as_long_on_every_card(found: Callable[[str], FoundArchitecture]) -> None:
    plan = plan_of(found, budget={"unit": "seconds", "amount": 7200})
    assert plan.pairs is None
    assert plan.seconds(1e12, 0.5) == plan.seconds(1e15, 0.1) == 7200


def test_processes_share_the_pairs_and_not_the_weights(found: Callable[[str], FoundArchitecture]) -> None:
    sd15 = found("sd15")
    encoding = encoding_cost(sd15)
    one, three = (make_plan(sd15, encoding, DPO(), trained_with(), CPU, processes=count) for count in (1, 3))
    assert three.pairs == one.pairs
    assert three.seconds(1e12, 0.5) == pytest.approx(one.seconds(1e12, 0.5) / 3)
    # a third of 24 pairs is one micro-batch, which begins without the gradients of an earlier one
    assert three.training.memory.weights == one.training.memory.weights
    assert three.training.memory.peak < one.training.memory.peak
    with pytest.raises(UserError, match="global_batch_size=24 is too small for 25 processes; start fewer"):
        make_plan(sd15, encoding, DPO(), trained_with(), CPU, processes=25)


def test_a_card_keeps_a_gibibyte_for_the_driver() -> None:
    card = Card(24 * 2**30, 1.0, 1.0)
    assert card.fits(23 * 2**30)
    assert not card.fits(23 * 2**30 + 1)


class TestShapeTensor:
    def test_it_is_shaped_as_the_real_result_and_holds_as_much(self) -> None:
        real = torch.ones(6, 4, requires_grad=True)
        shaped = ShapeTensor(torch.empty(6, 4, device="meta")).requires_grad_()
        for tensor in (real, shaped):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                product = (tensor.t() @ tensor)[:2]
            product.float().sum().backward()
            assert (product.shape, product.dtype, product.device) == ((2, 4), torch.bfloat16, CPU)
            assert product.untyped_storage().nbytes() == 2 * 16
            assert tensor.grad is not None
            assert tensor.grad.shape == (6, 4)

    def test_an_operation_in_place_gives_the_same_tensor_and_views_share_a_storage(self) -> None:
        shaped = ShapeTensor(torch.empty(6, 4, device="meta"))
        assert shaped.add_(torch.ones(4)) is shaped
        view, other = shaped.view(24)[3:], shaped + 1
        assert tensor_bytes([shaped, view]) == 96
        assert tensor_bytes([shaped, view, other]) == 192


class TestMeter:
    def test_views_share_a_storage_and_the_dead_do_not_count(self) -> None:
        meter = MemoryTracker()
        with meter:
            one = torch.zeros(1000)
            view = one.view(10, 100)
            other = one + 1
        assert (meter.now, meter.peak) == (8000, 8000)
        del one, other
        assert meter.now == 4000
        del view
        assert (meter.now, meter.peak) == (0, 8000)

    def test_what_it_keeps_counts_once(self) -> None:
        meter, weight = MemoryTracker(), torch.zeros(1000)
        with meter:
            made = torch.zeros(500)
            meter.keep([weight, weight[:10], made])
            doubled = made.mul_(2)
        assert (meter.now, meter.peak) == (6000, 6000)
        del made, doubled
        assert meter.now == 6000

    def test_what_backward_needs_lives_until_backward(self) -> None:
        meter = MemoryTracker()
        inputs = torch.ones(100, requires_grad=True)
        with meter:
            total = (inputs.exp() * 2).sum()
            assert meter.now == 400 + 4  # the exponential, and the sum
            total.backward()
        del total
        assert meter.now == 400  # the gradient


def test_a_stage_gives_zeros_and_gradients_to_weights_without_values() -> None:
    tracer, network = Tracer(CPU, "fp32"), torch.nn.Linear(4, 3, device="meta")
    tracer.place(network)
    anchor = torch.zeros((), requires_grad=True)
    with tracer.meter:
        answer = tracer.graph("forward", "backward", lambda: network(torch.ones(2, 4)), anchor)
        assert torch.equal(answer, torch.zeros(2, 3))
        (answer - 1).square().sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.shape == (3, 4)
    # weights and their gradient, without one for the inputs: 2 * 2 * 4 * 3 each
    assert tracer.flops == {"forward": 48, "backward": 48}
    gc.collect()
