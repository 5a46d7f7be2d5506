"""The memory of an evaluation: planned without values, and measured with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import SIDE, WRITERS

from algorithms.dpo import DPO
from algorithms.self_npo import SelfNPO
from bench.core.chunks import images_per_chunk
from bench.evaluation.noise import evaluation_generators
from bench.models.family import ModelFamily
from bench.models.find import FoundArchitecture, find_architecture, find_model
from bench.models.frozen import stored_for
from bench.models.guidance import Networks, pair
from bench.models.sampling import encode_prompts, sample
from bench.planning.evaluating import evaluating_in_bf16, evaluation_memory
from bench.planning.gpus import GpuSpec
from bench.planning.memory_tracker import MemoryTracker, network_tensors
from bench.planning.plan import Plan, encoding_cost, make_plan
from bench.planning.show import evaluating_advice
from bench.planning.tracer import Tracer
from bench.records.protocol import GenerationSettings
from bench.training.ledger import Ledger
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings

CPU, META = torch.device("cpu"), torch.device("meta")
RESERVED = 2**30
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers' Euler with numpy 2
    pytest.mark.filterwarnings(
        "ignore:Mismatch dtype between input and weight"
    ),  # of Flux's RMS norm, under any autocast
]


def found_in(folder: Path, kind: str, **images: Any) -> FoundArchitecture:
    WRITERS[kind](folder)
    found = find_architecture(str(folder))
    changes = {"steps": 3, "height": SIDE, "width": SIDE, **images}
    generation = found.build(META).generation.model_copy(update=changes)
    return dataclasses.replace(found, generation=generation)


def plan_of(found: FoundArchitecture, **fields: Any) -> Plan:
    settings = TrainingSettings(global_batch_size=4, micro_batch_size=2, warmup_steps=0, **fields)
    return make_plan(found, encoding_cost(found), DPO(), settings, CPU)


def measured(model: ModelFamily, networks: Networks, generation: GenerationSettings) -> int:
    """Bytes of live tensors while a chunk of images is made."""
    count = images_per_chunk(generation.height, generation.width)
    condition, negative = encode_prompts(model, ["a bee"] * count, generation)
    noise = torch.zeros(count, *model.latent_shape(generation.height, generation.width))
    draws = evaluation_generators(generation, [("a bee", image) for image in range(count)])
    meter = MemoryTracker()
    for network in (networks.positive, networks.negative, model.encoders["vae"]):
        meter.keep(network_tensors(network))
    with meter:
        model.decode(sample(model, networks, noise, condition, negative, generation, draws))
    return meter.peak


def load(folder: Path) -> ModelFamily:
    return find_model(str(folder)).card.family.load(str(folder), device=CPU)


def save_weights(folder: Path, settings: TrainingSettings, saved: Path) -> None:
    model = load(folder)
    model.save_trained(Policy(model, settings, Ledger()).network, saved)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
def test_an_evaluation_with_adapters_holds_what_was_planned(tmp_path: Path, kind: str, precision: str) -> None:
    found = found_in(tmp_path / "model", kind, precision=precision)
    settings = TrainingSettings(trainable="lora", lora_rank=4)
    save_weights(tmp_path / "model", settings, tmp_path / "adapters")
    assert found.generation is not None
    texts = encoding_cost(found).texts
    planned = evaluation_memory(found.build(META), texts, CPU, DPO(), settings, found.generation)
    model = load(tmp_path / "model")
    networks = Networks.single(model.load_changed(tmp_path / "adapters", stored_for(precision)))
    assert measured(model, networks, found.generation) == pytest.approx(planned, rel=0.1)


def test_weights_of_the_negative_slot_count_as_a_second_network(tmp_path: Path) -> None:
    found = found_in(tmp_path / "model", "sd15")
    save_weights(tmp_path / "model", TrainingSettings(), tmp_path / "negative")
    assert found.generation is not None
    texts = encoding_cost(found).texts
    planned = evaluation_memory(found.build(META), texts, CPU, SelfNPO(), TrainingSettings(), found.generation)
    model = load(tmp_path / "model")
    networks = pair(model.network, model.network, model.load_trained(tmp_path / "negative"), alpha=1, beta=1)
    assert measured(model, networks, found.generation) == pytest.approx(planned, rel=0.1)


def test_a_large_image_is_decoded_alone(tmp_path: Path) -> None:
    WRITERS["sd15"](tmp_path)
    peaks = []
    for count in (1, 4):
        model, tracer = find_architecture(str(tmp_path)).build(META), Tracer(CPU, "fp32")
        tracer.place(model.encoders["vae"])
        with tracer.meter:
            images = model.decode(torch.zeros(count, 4, 512, 512))
        assert images.shape == (count, 1024, 1024, 3)
        peaks.append(tracer.meter.peak)
    assert peaks[1] < 1.1 * peaks[0]


def test_a_card_that_is_too_small_for_the_images_is_named_with_what_to_change(tmp_path: Path) -> None:
    found = found_in(tmp_path, "sd15")
    plan = plan_of(found)
    in_bf16 = evaluating_in_bf16(found, plan.encoding.texts, DPO(), plan.settings)
    assert in_bf16 < plan.evaluating
    large, small = (GpuSpec(size + RESERVED, 1.0, 1.0) for size in (plan.evaluating, plan.evaluating - 1))
    assert "evaluating" not in plan.lacking(large)
    assert "evaluating" in plan.lacking(small)
    assert "--image precision=bf16, which is another protocol" in evaluating_advice("card", small, plan, in_bf16)
    tiny = GpuSpec(in_bf16 + RESERVED - 1, 1.0, 1.0)
    assert evaluating_advice("card", tiny, plan, in_bf16).endswith("use a larger GPU.")
