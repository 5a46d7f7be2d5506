"""What is refused before anything is computed, of algorithms that sample while they train."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pipelines import write_flux
from workshop import png, write_parquet

from algorithms.flow_grpo import FlowGRPO
from bench.core.errors import UserError
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method
from bench.experiments.recipes import resolve
from bench.experiments.requirements import check_requirements, check_settings
from bench.models.families.flux import Flux
from bench.training.algorithm import ALGORITHMS
from bench.training.distributed.sharded import Sharded
from bench.training.online import check_sampling
from bench.training.settings import TrainingSettings


def method(name: str, **changed: str) -> Method:
    algorithm, settings = resolve(name, ALGORITHMS.get(name), "tiny", changed)
    return Method(name, algorithm, settings, "mine", changed)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("requirements")
    (folder / "prompts.txt").write_text("a cat nobody has seen\na bee nobody has seen\n")
    return Experiment("tiny", runs=folder / "runs", prompts=str(folder / "prompts.txt"), limit=20)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("ddpo", {"group": "7"}, "48 samples of a collection .* are not whole groups of 7"),
        (
            "d3po",
            {"micro_batch_size": "3"},
            "D3PO compares the 2 samples of a prompt; make micro_batch_size a multiple",
        ),
        ("ddpo", {"caption_dropout": "0.5"}, "ddpo samples images of its own .* so caption_dropout has no effect"),
        ("nft", {"latents": "mean"}, "so latents has no effect"),
        ("draft", {"horizontal_flip": "pair"}, "so horizontal_flip has no effect"),
        ("tailorpo", {"aspect_ratios": "buckets"}, "so aspect_ratios has no effect"),
        (
            "snpo",
            {"caption_dropout": "0.1"},
            "an empty caption in its own way, which those of caption_dropout=0.1 would",
        ),
        ("dpo", {"lora_rank": "64"}, "dpo trains all weights .* so lora_rank has no effect; add --set trainable=lora"),
        ("ddpo", {"trainable": "full", "lora_init": "gaussian"}, "so lora_init has no effect"),
    ],
)
def test_settings_that_cannot_be_whatever_the_model_is(name: str, changed: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_settings(method(name, **changed))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("ddpo", {}),
        ("ddpo", {"lora_rank": "4"}),
        ("ddpo", {"trainable": "full"}),
        ("ddpo", {"caption_dropout": "0"}),
        ("refl", {"caption_dropout": "0.5", "horizontal_flip": "pair"}),
        ("snpo", {}),
        ("snpo", {"caption_dropout": "0.1", "empty_share": "0"}),
    ],
)
def test_settings_that_may_be(name: str, changed: dict[str, str]) -> None:
    check_settings(method(name, **changed))


@pytest.mark.parametrize("name", ["ddpo", "tailorpo"])
def test_a_rule_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match="rule='dimm' is not allowed: .*'ddim', 'flow-sde', 'dance-sde' or 'cps'"):
        method(name, rule="dimm")


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("ddpo", {"noise": "2"}, "noise=2 is too much for rule=ddim; use at most 1"),
        ("flow-grpo", {"rule": "dance-sde"}, "flow rules are for flow models"),
        ("tailorpo", {"rule": "flow-sde"}, "flow rules are for flow models"),
        (
            "nft",
            {"gradients_by_step": "true"},
            "nft does not train single sampling steps, so gradients_by_step has no effect",
        ),
        ("draft", {"sampling_steps": "1000"}, "steps=1000 is not possible"),
        (
            "sft",
            {"size_conditioning": "nominal"},
            "'tiny' is not conditioned on the size of images, so size_conditioning has no effect",
        ),
        ("draft", {"labels": "shuffled"}, "draft has no placebo: it follows the gradient of its reward"),
        ("tailorpo-g", {"labels": "shuffled"}, "tailorpo-g has no placebo: it follows the gradient of its reward"),
    ],
)
def test_a_way_of_sampling_that_the_model_does_not_have(
    experiment: Experiment, name: str, changed: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_requirements(experiment, method(name, **changed))


@pytest.mark.parametrize(
    "name", ["ddpo", "dpok", "d3po", "flow-grpo", "nft", "awm", "draft", "refl", "tailorpo", "spo", "npo-joint"]
)
def test_twenty_rows_are_enough_for_the_recipes_of_the_tiny_world(experiment: Experiment, name: str) -> None:
    check_requirements(experiment, method(name))


def test_guidance_is_refused_by_a_model_that_was_distilled_without(tmp_path: Path) -> None:
    write_flux(tmp_path, guidance_embeds=False)
    model = Flux.load(str(tmp_path), device=torch.device("cpu"))
    check_sampling(FlowGRPO(rewards=("clip",), guidance_scale=1), model)
    with pytest.raises(UserError, match="guidance_scale=3.5 has no effect on .* or --set guidance_scale=1"):
        check_sampling(FlowGRPO(rewards=("clip",), guidance_scale=3.5), model)


def test_captions_alone_are_enough_for_who_makes_pictures(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "captions.parquet", {"caption": [f"a bee on a {colour} background" for colour in "abcdef"]}
    )
    (tmp_path / "prompts.txt").write_text("a cat nobody has seen\na bee nobody has seen\n")
    made = Experiment(
        "tiny", runs=tmp_path / "runs", data=str(tmp_path / "captions.parquet"), prompts=str(tmp_path / "prompts.txt")
    )
    for name in ("ddpo", "nft", "draft", "spo"):
        check_requirements(made, method(name))
    check_requirements(made, method("dpo", **{"rounds.number": "1"}))
    check_requirements(made, method("refl", pretraining="0"))
    for name in ("dpo", "sft", "self-npo", "refl", "rankdpo"):
        with pytest.raises(UserError, match=f"{name} reads images, but .* has captions alone"):
            check_requirements(made, method(name))


@pytest.mark.parametrize("name", ["rankdpo", "capo"])
@pytest.mark.parametrize("field", ["captions", "candidates"])
def test_lists_are_not_generated_where_the_data_has_some(tmp_path: Path, name: str, field: str) -> None:
    columns = {"caption": [f"a bee on a {colour} background" for colour in ("red", "blue", "green", "pink")]}
    columns |= {f"jpg_{image}": [png(4 * row + image) for row in range(4)] for image in range(4)}
    write_parquet(tmp_path / "lists.parquet", columns)
    (tmp_path / "prompts.txt").write_text("a cat nobody has seen\na bee nobody has seen\n")
    lists = Experiment(
        "tiny", runs=tmp_path / "runs", data=str(tmp_path / "lists.parquet"), prompts=str(tmp_path / "prompts.txt")
    )
    check_requirements(lists, method(name))  # its recipe states both, for the tiny world's pairs
    with pytest.raises(UserError, match=f"{field} has no effect on {name}, since the data has 4 images per caption"):
        check_requirements(lists, method(name, **{field: "3"}))


def test_features_are_not_read_where_the_data_names_one_source(experiment: Experiment) -> None:
    for changed in ({}, {"golden": "tiny"}, {"golden": "tiny", "features": "clip"}):
        check_requirements(experiment, method("dro", **changed))
    with pytest.raises(UserError, match="features has no effect on dro, since the data names . sources"):
        check_requirements(experiment, method("dro", features="clip"))


def test_processes_that_share_weights_share_whole_groups_evenly() -> None:
    two: Any = SimpleNamespace(num_processes=2)  # of accelerate, only their number matters
    strategy, settings = Sharded(two, reshard_after_forward=True), TrainingSettings(global_batch_size=6)
    strategy.check(settings)
    with pytest.raises(
        UserError, match="global_batch_size=6 cannot be shared evenly by 2 processes .* a multiple of 4"
    ):
        strategy.check(settings, together=2)
