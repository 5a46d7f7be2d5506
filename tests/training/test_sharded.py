"""Weights split over processes (FSDP), on two CPU processes; the default suite has tests/cli/test_processes.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import TWO, launch, made, weights
from workshop import Workshop

from bench.core.errors import UserError
from bench.records.runs import RunFolder
from bench.training.algorithm import ALGORITHMS
from bench.training.distributed.launch import Split, asked_split, check_precision

FSDP = {"ACCELERATE_USE_FSDP": "true"}  # what `accelerate launch --use_fsdp` sets
COUNTS = ("pairs", "policy_forwards", "policy_backwards", "flops")
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "average": {"ema_decay": 0.5},
    "lora": {"trainable": "lora", "learning_rate": 1e-3},
    "bf16": {"precision": "bf16", "gradient_checkpointing": True},
    "memory": {"algorithm": "self-npo", "fields": {"truncation": 1, "decay": 0.5}},
    "survey": {"algorithm": "kto"},
    "versions": {"algorithm": "seppo"},
    "lora in bf16": {"trainable": "lora", "precision": "bf16", "learning_rate": 1e-3},
    "inversion": {"algorithm": "inpo", "fields": {"inversion_steps": 4}},
    "candidates": {
        "algorithm": "npo-joint",
        "fields": {
            "rewards": "clip",
            "sampling_steps": 4,
            "first": 1,
            "trained": 2,
            "threshold": 0,
            "guidance_scale": 2,
        },
        "trainable": "lora",
        "learning_rate": 1e-3,
        "gradients_by_step": True,
    },
}
STAGE_2 = ("full", "average", "lora", "memory", "inversion", "versions", "lora in bf16")
"""Which of them run with split gradients and whole weights too."""
NAMES = [*SETTINGS, "handed", *(f"{name}, stage 2" for name in STAGE_2)]
EVERY = {"steps": 2, "global_batch_size": 6, "micro_batch_size": 2, "learning_rate": 1e-4}

Both = Callable[[str], tuple[RunFolder, RunFolder]]


def alone(workshop: Workshop, folder: Path, settings: dict[str, Any]) -> None:
    """What `launch` does with one run, here."""
    settings = dict(settings)
    algorithm = ALGORITHMS.get(settings.pop("algorithm", "dpo"))(**settings.pop("fields", {}))
    workshop.train(folder, algorithm, data=algorithm.prepare(workshop.data, workshop.context()), **settings)


@pytest.fixture(scope="module")
def both(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Each run by one process and by two with sharded weights; ``handed`` goes from one to two and back to one."""
    folder = tmp_path_factory.mktemp("sharded")
    train = functools.cache(lambda: train_both(workshop, folder))

    def find(name: str) -> tuple[RunFolder, RunFolder]:
        train()
        return made(folder / "one" / name.partition(",")[0]), made(folder / "split" / name)

    return find


def train_both(workshop: Workshop, folder: Path) -> None:
    """Train under each of `NAMES` with one process and with two; each kind of splitting is launched once for all."""
    every = {name: {**EVERY, **settings} for name, settings in SETTINGS.items()}
    every["handed"] = every["full"]
    for name in dict.fromkeys(name.partition(",")[0] for name in NAMES):
        if not (folder / "one" / name).exists():
            alone(workshop, folder / "one" / name, {**every[name], "steps": 3 if name == "handed" else 2})
    alone(workshop, folder / "split" / "handed", {**every["handed"], "steps": 1})
    runs = {folder / "split" / name: every[name] for name in NAMES if "," not in name}
    done = launch(TWO, workshop, runs, **FSDP)
    assert done.returncode == 0, done.stderr
    runs = {folder / "split" / name: every[name.partition(",")[0]] for name in NAMES if "," in name}
    done = launch(TWO, workshop, runs, ACCELERATE_USE_DEEPSPEED="true", ACCELERATE_DEEPSPEED_ZERO_STAGE="2")
    assert done.returncode == 0, done.stderr

    alone(workshop, folder / "split" / "handed", {**every["handed"], "steps": 3})


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_split_weights_train_as_whole_ones(both: Both, name: str) -> None:
    """Losses to a thousandth: float32 sums in another order.

    In half precision, where AdamW's first step follows the signs of rounded gradients, only the first step is comparable: any cut into
    micro-batches moves the second.
    """
    one, split = both(name)
    assert split.done
    assert [line["step"] for line in split.steps()] == [line["step"] for line in one.steps()]
    first, as_first = one.steps()[0], split.steps()[0]
    assert as_first["loss"] == pytest.approx(first["loss"], rel=1e-6)
    assert as_first["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=5e-3 if "bf16" in name else 1e-4)
    if "gradient_norm_by_step" in first:
        assert as_first["gradient_norm_by_step"] == pytest.approx(first["gradient_norm_by_step"], rel=1e-4)
    for lonely, joint in zip(one.steps(), split.steps(), strict=True):
        assert "bf16" in name or joint["loss"] == pytest.approx(lonely["loss"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora", "handed", "full, stage 2", "memory, stage 2"])
def test_whole_weights_are_saved_and_load_as_ever(workshop: Workshop, both: Both, name: str) -> None:
    """To a twentieth of what the steps moved, as for two processes with whole weights."""
    one, split = both(name)
    base = dict(workshop.model().network.named_parameters())
    expected, saved = weights(one), weights(split)
    assert saved.keys() == expected.keys()
    start = {key: base.get(key, torch.zeros(())) for key in expected}
    moved = torch.cat([(value - start[key]).flatten() for key, value in expected.items()])
    apart = torch.cat([(value - saved[key]).flatten() for key, value in expected.items()])
    assert moved.norm() > 0
    assert apart.norm() < 0.05 * moved.norm()
    loaded = workshop.model().load_trained(split.weights)
    assert type(loaded).__name__ == "UNet2DConditionModel"


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_split_weights_cost_what_whole_ones_cost(both: Both, name: str) -> None:
    """Of an inversion too, where a process that is done asks in vain until all are."""
    one, split = (run.ledger() for run in both(name))
    assert {key: split[key] for key in COUNTS} == {key: one[key] for key in COUNTS}


@pytest.mark.parametrize(
    ("environment", "split"),
    [
        ({}, Split.NOTHING),
        ({"ACCELERATE_USE_FSDP": "true"}, Split.WEIGHTS),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_RESHARD_AFTER_FORWARD": "false"}, Split.GRADIENTS),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP"}, Split.GRADIENTS),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, Split.GRADIENTS),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, Split.WEIGHTS),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, Split.NOTHING),
    ],
)
def test_what_the_launcher_asks_for(environment: dict[str, str], split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert asked_split() is split


def test_a_file_of_deepspeed_says_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 3}}')
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "ds.json"))
    assert asked_split() is Split.WEIGHTS
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}')
    with pytest.raises(UserError, match="offload to CPU or disk is not supported"):
        asked_split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        pytest.param(
            {"global_batch_size": 5},
            "global_batch_size=5 cannot be shared evenly by 2 processes with sharded weights",
            id="batch",
        ),
        pytest.param(
            {"algorithm": "uneven"}, "ranks called the network in different orders (this rank: the ", id="algorithm"
        ),
    ],
)
def test_what_would_wait_forever_is_refused(
    workshop: Workshop, tmp_path: Path, settings: dict[str, Any], complaint: str
) -> None:
    done = launch(TWO, workshop, {tmp_path: {**EVERY, **settings}}, **FSDP)
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize(("asked", "precision"), [("bf16", "bf16"), ("no", "bf16"), ("no", "fp32")])
def test_a_precision_that_agrees_is_accepted(asked: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    check_precision(precision)


@pytest.mark.parametrize(
    ("asked", "precision"), [("bf16", "fp32"), ("fp16", "fp32"), ("fp16", "bf16"), ("fp8", "bf16")]
)
def test_another_precision_of_the_launcher_is_refused(
    asked: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    with pytest.raises(UserError, match=f"mixed precision {asked}, but training uses {precision}"):
        check_precision(precision)
