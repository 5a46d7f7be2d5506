"""The block about a whole study, with figures computed by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from bench.planning.dry_run import DryRun, Memory
from bench.planning.gpus import GpuSpec
from bench.planning.plan import Encoding, Plan
from bench.planning.show import about_cpus
from bench.planning.sizes import Sizes
from bench.planning.total import PlannedModel, PlannedRuns, total_gpus_table, total_rows
from bench.tiny import TINY
from bench.training.settings import TrainingSettings

GPU = GpuSpec(memory=2 << 30, bf16=1e9, fp32=1e6)


def planned(**changes: Any) -> Plan:
    """800 pairs of 100 operations each, 10 trained weights, images of 20 bytes in 3 forwards of 10 operations."""
    memory = Memory(weights=40, reference=0, gradients=40, moments=80, snapshots=0, activations=0)
    forwards = {"policy_forwards": 10.0, "policy_backwards": 20.0, "reference_forwards": 0.0}
    plan = Plan(
        settings=TrainingSettings(),
        processes=1,
        encoding=Encoding({}, 0, 0.0, 0.0, {}),
        encoding_flops=500.0,
        training=DryRun(memory, 10, [torch.Size([10])], forwards),
        evaluating=0,
        calls={"policy_forwards": 4, "policy_backwards": 3, "reference_forwards": 0},
        pairs=800,
        reward_calls=0,
        prepared=0,
        pictures=0,
        opponents=0,
        judged=0,
        latent_bytes=1000,
        text_bytes=100,
        image_bytes=20,
        image_forwards=3,
        image_precision="bf16",
        checkpoint_bytes=120,
    )
    return dataclasses.replace(plan, **changes)


def rows(*models: PlannedModel) -> dict[str, tuple[str, str]]:
    return {label: (figure, remark) for label, figure, remark in filter(None, total_rows(models))}


def test_runs_placebos_evaluations_pairs_and_images_are_added_up() -> None:
    model = PlannedModel(Sizes(images=32), [PlannedRuns(planned(), 2, placebos=2), PlannedRuns(planned(pairs=400), 2)])
    assert rows(model) == {
        "runs": ("6", "2 configurations x 2 seeds, and 2 placebos"),
        "evaluations": ("7", "6 of runs, 1 of base models"),
        "evaluation images": ("224", "of all evaluations"),
        "pairs": ("4,000", "of all runs"),
        "disk": rows(model)["disk"],
    }
    assert rows(model, model)["evaluations"] == ("14", "12 of runs, 2 of base models")


def test_disk_is_one_cache_and_what_every_run_and_evaluation_keeps() -> None:
    model = PlannedModel(Sizes(rows=50, captions=5, images=8), [PlannedRuns(planned(), 3)])
    # rows and captions; of three runs the checkpoint and ten weights of 4 bytes; images of three runs and the base model
    assert model.disk == 50 * 1000 + 5 * 100 + 3 * (120 + 40) + 4 * 8 * 20


def test_samples_are_no_pairs_and_a_budget_in_seconds_has_neither() -> None:
    timed = planned(pairs=None, settings=TrainingSettings(budget={"unit": "seconds", "amount": 60}))
    online = planned(reward_calls=1, pairs=24)
    shown = rows(PlannedModel(Sizes(), [PlannedRuns(each, 1) for each in (planned(), timed, online)]))
    assert shown["pairs"] == ("800", "of runs without a budget in seconds")
    assert shown["samples"] == ("24", "of all runs")


def test_hours_are_those_of_all_runs_one_after_another() -> None:
    model = PlannedModel(Sizes(rows=100, images=8), [PlannedRuns(planned(), 2, placebos=2)])
    assert model.seconds(GPU, 0.5) == pytest.approx(
        {
            "encoding": 100 * 500 / 0.5e6,
            "training": 4 * 800 * (4 * 10 + 3 * 20) / 0.5e6,
            "evaluating": 5 * 8 * 3 * 10 / 0.5e9,
        }
    )
    large = planned(training=dataclasses.replace(planned().training, memory=Memory(2 << 30, 0, 0, 0, 0, 0)))
    mixed = PlannedModel(Sizes(), [PlannedRuns(planned(), 1), PlannedRuns(large, 1)])
    fits = [list(total_gpus_table(models, {"x": GPU}, 0.5).columns[1].cells) for models in ([model], [mixed])]
    assert fits == [["yes"], ["1 of 2"]]


def test_no_hours_are_invented_for_cpus() -> None:
    assert about_cpus(None) == "There is no estimate for CPUs."
    assert about_cpus(TINY) == (
        "There is no estimate for CPUs; the README's figures say how long runs of this model take there."
    )
