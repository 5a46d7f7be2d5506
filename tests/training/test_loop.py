from __future__ import annotations

import dataclasses
import json
import math
import resource
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pydantic import PrivateAttr
from safetensors.torch import load_file
from torch import Tensor
from workshop import Workshop, batch_of, state

from algorithms.dpo import DPO
from algorithms.inpo import InPO
from algorithms.sft import SFT
from bench import PairBatch, StepOutput, TrainingSettings
from bench.core.errors import UserError
from bench.records.runs import RunFolder
from bench.training.diagnostics import DivergedError
from bench.training.ledger import Ledger
from bench.training.policy import Policy


class Watched(DPO):
    """DPO that keeps the policy it trained, and can be poisoned."""

    poison: str = "nothing"
    at: int = -1
    _policies: list[Policy] = PrivateAttr(default_factory=list)

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        self._policies[:] = [policy]
        now = batch.draws.step == self.at
        if now and self.poison == "reference":
            with torch.no_grad():
                policy.parameters()[0][1].add_(0.01)
        output = super().step(batch, policy)
        if now and self.poison == "loss":
            return dataclasses.replace(
                output, losses=output.losses * torch.tensor([math.nan, *[1.0] * (len(batch.row_ids) - 1)])
            )
        if now and self.poison == "gradient":  # 0 with an infinite slope
            return dataclasses.replace(output, losses=output.losses + (output.losses * 0).sqrt())
        if now and self.poison == "shape":
            return dataclasses.replace(output, losses=output.losses.mean())
        return output

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._policies[0].parameters()}


def gradient(run: RunFolder) -> Tensor:
    """The gradient of the first step after clipping, from the first moment of AdamW."""
    parts = [value.flatten() for name, value in sorted(state(run).items()) if name.startswith("optimizer/exp_avg/")]
    return torch.cat(parts) / (1 - 0.9)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


QUICK_CUTS = ("1-dpo", "6-sft")
"""The cuts of a batch that the default suite runs: each algorithm once, and each size once."""


class TestAccumulation:
    """However a batch of 12 is cut into micro-batches, the update is the same: gradients to 1e-4 of their norm, weights to a hundredth of a step.

    float32 sums in another order differ in the last digits; AdamW's first step divides a gradient by its own size.
    """

    @pytest.mark.parametrize(
        ("micro_batch_size", "algorithm"),
        [
            pytest.param(
                size, algorithm, id=f"{size}-{name}", marks=() if f"{size}-{name}" in QUICK_CUTS else pytest.mark.slow
            )
            for size in (6, 1, 5)
            for name, algorithm in (("dpo", DPO()), ("sft", SFT()), ("inpo", InPO(inversion_steps=4)))
        ],
    )
    def test_any_cut_of_the_batch_gives_the_same_update(
        self, workshop: Workshop, tmp_path: Path, algorithm: DPO | SFT | InPO, micro_batch_size: int
    ) -> None:
        whole = workshop.train(tmp_path / "whole", algorithm, steps=1, global_batch_size=12, micro_batch_size=12)
        cut = workshop.train(
            tmp_path / "cut", algorithm, steps=1, global_batch_size=12, micro_batch_size=micro_batch_size
        )
        expected, made = gradient(whole), gradient(cut)
        assert expected.norm() > 0.01
        assert (made - expected).norm() < 1e-4 * expected.norm()
        before = state(whole)
        moved = [(value - before[name]).abs() for name, value in state(cut).items() if name.startswith("weights/")]
        assert torch.cat([value.flatten() for value in moved]).quantile(0.99) < 0.01 * 1e-4
        assert whole.steps()[0]["loss"] == pytest.approx(cut.steps()[0]["loss"], rel=1e-5)
        assert whole.steps()[0]["gradient_norm"] == pytest.approx(cut.steps()[0]["gradient_norm"], rel=1e-4)
        buckets = [[value or 0 for value in run.steps()[0]["by_timestep"]["loss"]] for run in (whole, cut)]
        assert buckets[0] == pytest.approx(buckets[1], rel=1e-4)

    def test_the_update_is_that_of_the_mean_loss_over_the_batch(self, workshop: Workshop, tmp_path: Path) -> None:
        run = workshop.train(tmp_path, SFT(), steps=1, global_batch_size=8, micro_batch_size=3, max_grad_norm=1e9)
        policy = workshop.policy()
        from bench.core.randomness import batch_rows

        SFT().step(workshop.batch(batch_rows(40, 8, 0, 0)), policy).losses.mean().backward()
        by_hand = dict(policy.parameters())
        for name, value in state(run).items():
            kind, _, rest = name.partition("exp_avg/")
            if kind == "optimizer/":
                expected = by_hand[rest].grad
                assert expected is not None
                torch.testing.assert_close(value / 0.1, expected, rtol=1e-3, atol=1e-5)

    def test_gradient_checkpointing_gives_the_same_update(self, workshop: Workshop, tmp_path: Path) -> None:
        plain = workshop.train(tmp_path / "plain", DPO(), steps=1)
        saving = workshop.train(tmp_path / "saving", DPO(), steps=1, gradient_checkpointing=True)
        assert (gradient(saving) - gradient(plain)).norm() < 1e-5 * gradient(plain).norm()

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
    @pytest.mark.parametrize("trainable", ["full", "lora"])
    def test_a_compiled_network_gives_the_same_update(self, workshop: Workshop, tmp_path: Path, trainable: str) -> None:
        plain = workshop.train(tmp_path / "plain", DPO(), steps=1, trainable=trainable)
        compiled = workshop.train(tmp_path / "compiled", DPO(), steps=1, trainable=trainable, compile=True)
        assert (gradient(compiled) - gradient(plain)).norm() < 1e-4 * gradient(plain).norm()
        (file,) = compiled.weights.glob("*.safetensors")
        assert load_file(file).keys() == load_file(plain.weights / file.name).keys()


class TestStop:
    @pytest.mark.parametrize(
        ("poison", "message"),
        [("loss", r"the loss is nan at step 2 \(pair \d+, t = \d+\); the last checkpoint is good"),
         ("gradient", "the gradient is not finite at step 2; lower the learning rate")],
    )  # fmt: skip
    def test_what_is_not_finite_stops_training_before_the_step(
        self, workshop: Workshop, tmp_path: Path, poison: str, message: str
    ) -> None:
        good, bad = Watched(), Watched(poison=poison, at=2)
        workshop.train(tmp_path / "good", good, steps=2)
        with pytest.raises(DivergedError, match=message):
            workshop.train(tmp_path / "bad", bad, steps=5)
        assert_same(bad.weights, good.weights)
        assert all(torch.isfinite(value).all() for value in bad.weights.values())

    def test_at_step_0_there_is_no_checkpoint_to_speak_of(self, workshop: Workshop, tmp_path: Path) -> None:
        with pytest.raises(
            DivergedError, match=r"the loss is nan at step 0 \(.*\); no weights have changed yet"
        ) as stop:
            workshop.train(tmp_path, Watched(poison="loss", at=0), steps=2)
        assert "checkpoint" not in str(stop.value)

    def test_after_a_stop_the_run_is_not_finished_and_its_log_ends_before_the_step(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        with pytest.raises(DivergedError):
            workshop.train(tmp_path, Watched(poison="loss", at=2), steps=5, checkpoint_seconds=0)
        run = RunFolder(tmp_path / "micro" / "algorithm" / "name" / "seed-0")
        assert not run.done
        assert not run.weights.exists()
        assert [line["step"] for line in run.steps()] == [0, 1]
        assert [folder.name for folder in run.checkpoints.iterdir()] == ["step-00000002"]

    def test_a_stop_is_a_sentence_for_the_user(self) -> None:
        assert issubclass(DivergedError, UserError)

    def test_a_reference_that_differs_at_step_0_stops_training(self, workshop: Workshop, tmp_path: Path) -> None:
        with pytest.raises(
            DivergedError,
            match=r"before any update the policy must equal the reference \(margin 0\), but the margin is",
        ):
            workshop.train(tmp_path, Watched(poison="reference", at=0), steps=2)

    def test_a_policy_that_moved_later_on_does_not(self, workshop: Workshop, tmp_path: Path) -> None:
        assert workshop.train(tmp_path, Watched(poison="reference", at=1), steps=2).done

    def test_a_loss_at_step_0_that_is_not_the_stated_one_stops_training(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        class Wrong(DPO):
            initial_loss: ClassVar[float | None] = 1.0

        with pytest.raises(DivergedError, match=r"the loss must be 1.0, but it is 0.693"):
            workshop.train(tmp_path, Wrong(), steps=2)

    def test_a_reduced_loss_is_refused(self, workshop: Workshop, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="one loss per pair"):
            workshop.train(tmp_path, Watched(poison="shape", at=0), steps=2)


class TestResume:
    @pytest.mark.parametrize("trainable", ["full", "lora"])
    @pytest.mark.parametrize("stop", [1, 3])
    def test_going_on_equals_never_having_stopped_bit_for_bit(
        self, workshop: Workshop, tmp_path: Path, trainable: str, stop: int
    ) -> None:
        straight = workshop.train(tmp_path / "straight", DPO(), steps=4, trainable=trainable, warmup_steps=3)
        workshop.train(tmp_path / "resumed", DPO(), steps=stop, trainable=trainable, warmup_steps=3)
        resumed = workshop.train(tmp_path / "resumed", DPO(), steps=4, trainable=trainable, warmup_steps=3)
        assert_same(state(resumed), state(straight))
        (file,) = straight.weights.glob("*.safetensors")
        assert_same(load_file(resumed.weights / file.name), load_file(file))
        timeless = [[{**line, "seconds": 0} for line in run.steps()] for run in (straight, resumed)]
        assert timeless[0] == timeless[1]
        assert [line["step"] for line in resumed.steps()] == [0, 1, 2, 3]

    def test_after_an_interruption_it_goes_on_from_the_newest_checkpoint(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        straight = workshop.train(tmp_path / "straight", DPO(), steps=4)

        class Interrupted(DPO):
            def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
                if batch.draws.step == 2:
                    raise KeyboardInterrupt
                return super().step(batch, policy)

        with pytest.raises(KeyboardInterrupt):
            workshop.train(tmp_path / "stopped", Interrupted(), steps=4, checkpoint_seconds=0)
        resumed = workshop.train(tmp_path / "stopped", DPO(), steps=4)
        assert_same(state(resumed), state(straight))
        assert resumed.ledger()["pairs"] == 32
        assert resumed.ledger()["policy_forwards"] == straight.ledger()["policy_forwards"]

    def test_steps_that_were_logged_after_the_checkpoint_are_logged_once(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        run = workshop.train(tmp_path, DPO(), steps=2)
        with run.train_log.open("a") as stream:
            stream.write(json.dumps({"step": 2, "loss": 5.0}) + '\n{"step": 3, "lo')
        run = workshop.train(tmp_path, DPO(), steps=4)
        assert [line["step"] for line in run.steps()] == [0, 1, 2, 3]
        assert run.steps()[2]["loss"] != 5.0


class TestWeights:
    @pytest.mark.parametrize("trainable", ["full", "lora"])
    def test_what_was_trained_is_saved_and_loads_for_sampling(
        self, workshop: Workshop, tmp_path: Path, trainable: str
    ) -> None:
        algorithm = Watched()
        run = workshop.train(tmp_path, algorithm, steps=3, trainable=trainable, learning_rate=1e-3)
        model = workshop.model()
        loaded = model.load_trained(run.weights)
        latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        inputs = (latents, torch.tensor([10, 700]), workshop.encoded.condition(["", workshop.data.captions[0]]))
        with torch.no_grad():
            expected = algorithm._policies[0].predict(*inputs)
            torch.testing.assert_close(model.predict(loaded, *inputs), expected, rtol=0, atol=1e-6)
            assert (model.predict(model.network, *inputs) - expected).abs().max() > 1e-4
        assert not any(parameter.requires_grad for parameter in loaded.parameters())

    def test_adapters_are_far_smaller_than_the_network_and_hold_nothing_else(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        run = workshop.train(tmp_path, DPO(), steps=1, trainable="lora", lora_rank=2)
        (file,) = run.weights.glob("*.safetensors")
        saved = load_file(file)
        assert saved
        assert all("lora_" in name for name in saved)
        assert sum(value.numel() for value in saved.values()) < 0.05 * sum(
            parameter.numel() for parameter in workshop.model().network.parameters()
        )

    def test_the_base_model_is_not_touched_by_training(self, workshop: Workshop, tmp_path: Path) -> None:
        algorithm = Watched()
        workshop.train(tmp_path, algorithm, steps=2)
        base = dict(workshop.model().network.named_parameters())
        for name, parameter in algorithm._policies[0].model.network.named_parameters():
            assert torch.equal(parameter, base[name])

    def test_half_precision_keeps_the_weights_in_float32(self, workshop: Workshop, tmp_path: Path) -> None:
        run = workshop.train(tmp_path, DPO(), steps=2, precision="bf16")
        assert {value.dtype for value in state(run).values()} == {torch.float32}
        assert all(math.isfinite(line["loss"]) for line in run.steps())

    def test_two_seeds_see_other_noise(self, workshop: Workshop, tmp_path: Path) -> None:
        one = workshop.train(tmp_path / "one", SFT(), steps=1, seed=0)
        other = workshop.train(tmp_path / "other", SFT(), steps=1, seed=1)
        assert one.steps()[0]["loss"] != other.steps()[0]["loss"]


class TestRecord:
    def test_every_step_logs_loss_margin_accuracy_gaps_and_gradient_in_all_and_by_time(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        run = workshop.train(tmp_path, DPO(), steps=2)
        first, second = run.steps()
        assert first.keys() == {
            "step", "loss", "margin", "accuracy", "winner_gap", "loser_gap", "by_timestep", "gradient_norm",
            "learning_rate", "pairs", "seconds",
        }  # fmt: skip
        assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)
        assert (first["margin"], first["accuracy"], first["winner_gap"], first["loser_gap"]) == (0, 0, 0, 0)
        assert second["margin"] != 0
        assert second["margin"] == pytest.approx(second["loser_gap"] - second["winner_gap"], abs=1e-6)
        assert first["by_timestep"].keys() == {"loss", "margin", "accuracy", "winner_gap", "loser_gap"}
        assert all(len(values) == 10 for values in first["by_timestep"].values())
        assert [value for value in first["by_timestep"]["loss"] if value is not None] == pytest.approx(
            [math.log(2)] * sum(value is not None for value in first["by_timestep"]["loss"]), rel=1e-6
        )

    def test_the_rate_warms_up_in_even_steps_and_stays(self, workshop: Workshop, tmp_path: Path) -> None:
        run = workshop.train(tmp_path, SFT(), steps=5, warmup_steps=4, learning_rate=1e-3)
        assert [line["learning_rate"] for line in run.steps()] == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3])

    def test_the_ledger_counts_pairs_and_every_image_that_went_through_a_network(
        self, workshop: Workshop, tmp_path: Path
    ) -> None:
        dpo = workshop.train(tmp_path / "dpo", DPO(), steps=2, global_batch_size=6, micro_batch_size=4).ledger()
        assert (dpo["pairs"], dpo["policy_forwards"], dpo["policy_backwards"], dpo["reference_forwards"]) == (
            12,
            24,
            24,
            24,
        )
        sft = workshop.train(tmp_path / "sft", SFT(), steps=2, global_batch_size=6, micro_batch_size=4).ledger()
        assert (sft["pairs"], sft["policy_forwards"], sft["policy_backwards"], sft["reference_forwards"]) == (
            12,
            12,
            12,
            0,
        )
        assert dpo["seconds"] > 0
        assert dpo["peak_memory_bytes"] > 10_000_000

    def test_inversion_costs_forwards_but_no_backwards(self, workshop: Workshop, tmp_path: Path) -> None:
        inpo = workshop.train(tmp_path, InPO(inversion_steps=4), steps=2, global_batch_size=6).ledger()
        assert inpo["policy_backwards"] == 24
        assert inpo["reference_forwards"] == 24
        assert 24 + 24 <= inpo["policy_forwards"] <= 24 + 24 * 4

    def test_floating_point_operations_are_counted(self, workshop: Workshop, tmp_path: Path) -> None:
        ledger = workshop.train(tmp_path, DPO(), steps=1).ledger()
        assert ledger["flops"] > 0


class TestRepeats:
    def test_a_row_that_comes_twice_in_a_batch_has_other_noise_the_second_time(self, workshop: Workshop) -> None:
        batch = batch_of(workshop.data, workshop.encoded, [7, 3, 7])
        noise = batch.draws.normal("noise", (4,))
        assert not torch.equal(noise[0], noise[2])
        alone = batch_of(workshop.data, workshop.encoded, [7, 3, 7], [2])
        assert torch.equal(alone.draws.normal("noise", (4,))[0], noise[2])
        once = batch_of(workshop.data, workshop.encoded, [7, 3])
        assert torch.equal(once.draws.normal("noise", (4,)), noise[:2])


class TestReference:
    def test_without_one_the_model_itself_is_trained_and_gives_the_same_weights(self, workshop: Workshop) -> None:
        model = workshop.model()
        assert Policy(model, TrainingSettings(), Ledger(), with_reference=False).network is model.network
        assert Policy(model, TrainingSettings(), Ledger()).network is not model.network

    def test_asking_for_one_that_was_not_announced_is_an_error(self, workshop: Workshop) -> None:
        policy = Policy(workshop.model(), TrainingSettings(), Ledger(), with_reference=False)
        with pytest.raises(ValueError, match="must state Need.REFERENCE"):
            policy.reference(torch.zeros(1, 4, 4, 4), torch.tensor([5]), workshop.encoded.condition([""]))


def test_what_preparing_cost_counts_as_forwards_of_the_reference(workshop: Workshop, tmp_path: Path) -> None:
    run = workshop.train(tmp_path, DPO(), global_batch_size=4, steps=1, prepared_forwards=1000)
    assert run.ledger()["reference_forwards"] == 1008


def test_peak_memory_is_that_of_the_run_and_not_of_the_process_before_it(workshop: Workshop, tmp_path: Path) -> None:
    before = torch.ones(400_000_000, dtype=torch.uint8)
    del before
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    run = workshop.train(tmp_path, DPO(), global_batch_size=4, steps=1)
    assert run.ledger()["peak_memory_bytes"] < high - 200_000_000
