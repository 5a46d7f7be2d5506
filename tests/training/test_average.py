"""The moving average of the weights, which is saved and evaluated instead of the last ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from workshop import Workshop

from algorithms.dpo import DPO
from algorithms.self_npo import SelfNPO
from algorithms.seppo import SePPO
from bench import Algorithm, TrainingSettings
from bench.core.errors import UserError
from bench.records.runs import RunFolder
from bench.training.loop import Job, train

TRAINING: dict[str, Any] = {"learning_rate": 1e-3, "trainable": "lora", "lora_rank": 4}


def saved(run: RunFolder) -> dict[str, Tensor]:
    (file,) = run.weights.glob("*.safetensors")
    return load_file(file)


def test_it_moves_by_the_decay_of_its_warm_up_and_only_every_so_many_steps(workshop: Workshop) -> None:
    policy = workshop.policy(**TRAINING, ema_decay=0.3, ema_every=2)
    name, parameter = next(iter(policy.parameters()))
    start = parameter.detach().clone()
    with torch.no_grad():
        parameter.add_(1.0)
    policy.update_average(1)
    torch.testing.assert_close(policy.average[name], start, rtol=0, atol=0)
    policy.update_average(2)  # the decay is 3 / 12
    torch.testing.assert_close(policy.average[name], start + 0.75)
    policy.update_average(4)  # 5 / 14 is above 0.3
    torch.testing.assert_close(policy.average[name], start + 0.75 * 0.3 + 0.7)


def test_the_saved_weights_are_the_average_of_those_after_each_step(workshop: Workshop, tmp_path: Path) -> None:
    one, two, three = (saved(workshop.train(tmp_path / str(n), DPO(), steps=n, **TRAINING)) for n in (1, 2, 3))
    averaged = workshop.train(tmp_path / "averaged", DPO(), steps=3, **TRAINING, ema_decay=0.25)
    start = saved(workshop.train(tmp_path / "start", DPO(), steps=1, **{**TRAINING, "learning_rate": 1e-30}))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    for name, value in saved(averaged).items():
        first = (2 * start[name] + 9 * one[name]) / 11
        expected = 0.25 * (0.25 * first + 0.75 * two[name]) + 0.75 * three[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    plain = [{**line, "seconds": 0} for line in RunFolder(tmp_path / "3/micro/algorithm/name/seed-0").steps()]
    assert [{**line, "seconds": 0} for line in averaged.steps()] == plain  # training itself does not see it


@pytest.mark.parametrize(
    "algorithm", [SePPO(sampling_steps=2, interval=1), SelfNPO(grid=4, truncation=2)], ids=["seppo", "self-npo"]
)
def test_an_algorithm_with_copies_of_its_own_does_not_see_it(
    workshop: Workshop, tmp_path: Path, algorithm: Algorithm
) -> None:
    plain = workshop.train(tmp_path / "plain", algorithm, steps=4, **TRAINING)
    averaged = workshop.train(tmp_path / "averaged", algorithm, steps=4, **TRAINING, ema_decay=0.5)
    losses, others = ([line["loss"] for line in run.steps()] for run in (plain, averaged))
    assert losses == others
    assert saved(plain).keys() == saved(averaged).keys()
    assert not all(torch.equal(value, saved(averaged)[name]) for name, value in saved(plain).items())


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_a_stopped_run_goes_on_with_its_average(workshop: Workshop, tmp_path: Path, trainable: str) -> None:
    settings = {**TRAINING, "trainable": trainable, "ema_decay": 0.5, "checkpoint_seconds": 0}
    straight = workshop.train(tmp_path / "straight", DPO(), steps=4, **settings)
    stopped = workshop.train(tmp_path / "stopped", DPO(), steps=2, **settings)
    (stopped.folder / "DONE").unlink()
    resumed = workshop.train(tmp_path / "stopped", DPO(), steps=4, **settings)
    assert saved(resumed).keys() == saved(straight).keys()
    assert all(torch.equal(value, saved(resumed)[name]) for name, value in saved(straight).items())


def test_what_is_watched_is_what_is_saved(workshop: Workshop, tmp_path: Path) -> None:
    settings = TrainingSettings(
        steps=2, global_batch_size=8, micro_batch_size=8, warmup_steps=0, **TRAINING, ema_decay=0.5
    )
    run, model, seen = RunFolder(tmp_path / "micro/algorithm/name/seed-0"), workshop.model(), []
    run.folder.mkdir(parents=True)
    noise = torch.randn(2, *model.latent_shape(model.resolution, model.resolution), generator=torch.manual_seed(0))
    condition = workshop.encoded.condition(workshop.captions[:2])

    @torch.no_grad()
    def predict(network: nn.Module) -> Tensor:
        return model.predict(network, noise, torch.tensor([500.0, 500.0]), condition)

    def watch(step: int, pairs: int, network: nn.Module, *, last: bool) -> bool:
        seen.append(predict(network))
        return False

    job = Job(DPO(), settings, model, workshop.data, workshop.encoded, 0, "a small model", "small", watcher=watch)
    train(job, run, Accelerator(cpu=True))
    torch.testing.assert_close(predict(workshop.model().load_trained(run.weights)), seen[-1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(seen[0], seen[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ema_every": 8}, "ema_every=8 has no effect without an ema_decay above 0; set ema_every=1"),
        (
            {"ema_every": 8, "ema_decay": 0.9, "steps": 7},
            "the average would never be updated in 7 steps; lower ema_every",
        ),
    ],
)
def test_an_average_that_is_never_updated_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TrainingSettings(**settings)


def test_a_budget_that_ends_before_the_first_update_saves_nothing(workshop: Workshop, tmp_path: Path) -> None:
    budget = {"unit": "pairs", "amount": 16}
    with pytest.raises(UserError, match="training ended after 2 steps, before .* set ema_every to at most 2"):
        workshop.train(tmp_path, DPO(), budget=budget, **TRAINING, ema_decay=0.9, ema_every=3)
    assert not list(tmp_path.rglob("DONE"))
