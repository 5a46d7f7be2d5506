"""Contracts bite: an algorithm or a metric that is wrong in one way breaks the contract about it, and the finding says how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
import torch
from PIL import Image
from pydantic import Field, PrivateAttr
from torch import Tensor

from algorithms.dpo import DPO
from algorithms.orpo import ORPO
from bench import Metric, MetricInfo, PairBatch, PairErrors, Policy, Recipe, StepOutput, UserError
from bench.experiments.contracts import description, metric, objective, stepping
from bench.experiments.contracts.algorithm_case import AlgorithmCase
from bench.experiments.contracts.contract import Contract, Finding, check_all, look_at
from bench.experiments.contracts.metric import METRIC_CONTRACTS
from bench.experiments.contracts.metric_case import MetricCase, pictures, tiny_prompts
from bench.experiments.contracts.small_setup import Brightness, SmallSetup


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> SmallSetup:
    return SmallSetup(tmp_path_factory.mktemp("setup"))


class Changed(DPO):
    """DPO whose losses are changed after its step."""

    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        raise NotImplementedError

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        output = super().step(batch, policy)
        return dataclasses.replace(output, losses=self.change(output.losses, batch))


class Reduced(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses.mean()


class NotFinite(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses * torch.nan


class Double(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses.double()


class Neighbourly(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses / losses.sum()


class Ordered(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses * torch.tensor([1.0 + place for place in batch.batch_positions])


class Random(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses + torch.rand(losses.shape)


class Shifted(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses + 1


class Remembering(Changed):
    """Its losses depend on how often it was called, which no checkpoint holds."""

    _calls: int = PrivateAttr(default=0)

    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        self._calls += 1
        return losses * self._calls


class Ascending(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return 2 * losses.detach() - losses


class Still(Changed):
    def change(self, losses: Tensor, batch: PairBatch) -> Tensor:
        return losses.detach().requires_grad_()


class Swapped(DPO):
    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        return -super().loss(errors, preference)


class Failing(DPO):
    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        raise ZeroDivisionError("a mistake of the author")


class Coupled(DPO):
    def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
        losses = super().loss(errors, preference)
        return losses * losses.mean()


class Loose(DPO):
    recipes: ClassVar[dict[str, Recipe]] = {"tiny": Recipe(source="nowhere", algorithm={"no_such": 1})}

    free: float = 1.0
    steps: int = Field(default=1, gt=0, description="a name of training")


class Unnamed(ORPO):
    info = dataclasses.replace(ORPO.info, paper="")


@pytest.mark.parametrize(
    ("kind", "contract", "found"),
    [
        (Reduced, stepping.returns_one_loss_per_pair, "expected losses of shape (5,) for 5 pairs, found ()"),
        (NotFinite, stepping.returns_one_loss_per_pair, "expected finite losses, found [nan, nan, nan, nan, nan]"),
        (Double, stepping.returns_one_loss_per_pair, "expected float32 losses, found torch.float64"),
        (Neighbourly, stepping.loss_is_the_same_in_any_batch, "for pairs one by one, found 1, 1, 1, 1, 1"),
        (Neighbourly, stepping.gradient_is_the_same_in_any_cut, "expected a gradient within 0.005 of its norm"),
        (Ordered, stepping.order_of_the_pairs_does_not_matter, "for the pairs in another order, found"),
        (Random, stepping.repeats_itself, " again, found ["),
        (Shifted, stepping.starts_at_the_reference, "expected a loss of 0.6931472 for each pair, found 1.69315, 1.69315"),
        (Remembering, stepping.resuming_equals_never_having_stopped, "expected the losses [0.693"),
        (Ascending, stepping.a_small_step_lowers_the_loss, "expected a mean loss below 0.6931472, found 0.693"),
        (Still, stepping.gradient_spares_the_reference, "expected a gradient, found none"),
        (Failing, stepping.repeats_itself, "ZeroDivisionError: a mistake of the author (" + __file__),
        (Swapped, objective.objective_prefers_the_winner, "expected winners drawn to their target, found slopes of [-"),
        (Swapped, objective.objective_starts_at_the_stated_loss, "expected 0.6931472 for each pair, found [-0.69"),
        (Coupled, objective.objective_counts_each_pair_alone, "of the others, found ["),
        (Loose, description.bounds_its_numbers, "expected a bound of free, as Field(gt=0), found none"),
        (Loose, description.describes_its_fields, "expected a description of every field, found none of free"),
        (Loose, description.shares_no_name_with_training, "expected other names, found steps"),
        (Loose, description.recipes_resolve, "UserError: it: there is no field 'no_such'"),
        (Unnamed, description.states_what_it_is, "expected words in each of them, found nothing in paper"),
    ],
)  # fmt: skip
def test_a_wrong_algorithm_breaks_the_contract_about_it(
    kind: type[DPO], contract: Contract[AlgorithmCase], found: str, setup: SmallSetup
) -> None:
    finding = look_at(contract, [("epsilon", AlgorithmCase("it", kind(), SmallSetup(setup.folder)))])
    assert (finding.outcome, finding.sentence) == ("broken", contract.sentence)
    assert finding.detail.startswith("epsilon: ")
    assert found in finding.detail


def test_what_an_algorithm_keeps_of_its_own_weights_is_resumed_bit_for_bit(setup: SmallSetup) -> None:
    finding = look_at(stepping.resuming_equals_never_having_stopped, [("", AlgorithmCase("dpo", DPO(), setup))])
    assert finding.outcome == "held"


class Level(Metric):
    """An honest metric: the mean level of an image."""

    info: ClassVar[MetricInfo] = MetricInfo(title="Level", raw_range="0 to 255", unit="level", source="here")
    reads_prompt: ClassVar[bool] = False

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        if checkpoint is not None and not Path(checkpoint).exists():
            raise UserError(f"{checkpoint} does not exist; name a file that does")
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"version": 1}

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return Brightness().score([image.convert("L") for image in images], prompts)


class Relative(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        scores = super().score(images, prompts)
        return scores - scores.mean()


class Numbered(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return super().score(images, prompts) + torch.arange(len(images))


class Mean(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return super().score(images, prompts).mean()


class Infinite(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return super().score(images, prompts) / 0


class Wide(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return super().score(images, prompts).double()


class Constant(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.full((len(images),), 4.0)


class Deaf(Level):
    reads_prompt: ClassVar[bool] = True


class Listening(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return super().score(images, prompts) + torch.tensor([float(len(prompt)) for prompt in prompts])


class Changing(Level):
    def identity(self) -> dict[str, Any]:
        return {"version": 1, "object": id(self)}


class Drawn(Level):
    """Every copy has another offset."""

    def __init__(self) -> None:
        self.offset = torch.rand(())

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return super().score(images, prompts) + self.offset


class Unwritable(Level):
    def identity(self) -> dict[str, Any]:
        return {"device": torch.device("cpu")}


class Careless(Level):
    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls() if checkpoint is None else cls().read(checkpoint)

    def read(self, checkpoint: str) -> Self:
        Path(checkpoint).read_bytes()
        return self


class Painting(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        scores = super().score(images, prompts)
        for image in images:
            image.putpixel((0, 0), 0)
        return scores


class Colourful(Level):
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return torch.tensor([float(image.getpixel((0, 0))[0]) for image in images])  # type: ignore[index,arg-type]


class Flat(Brightness):
    """Its pixels have another score than its images."""

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return 255 - super().score_pixels(pixels, prompts)


class Gentle(Brightness):
    """Its gradient is half of what it should be."""

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        scores = super().score_pixels(pixels, prompts)
        return (scores + scores.detach()) / 2


class Backwards(Level):
    info = dataclasses.replace(Level.info, display_factor=-1.0)


def metric_case(kind: type[Metric], *, given: bool = False) -> MetricCase:
    def load(checkpoint: str | None) -> Metric:
        return kind.load(checkpoint, device=torch.device("cpu"))

    return MetricCase(load(None), lambda: load(None), load, given, pictures(), tiny_prompts(8))


def outcomes(case: MetricCase) -> dict[str, str]:
    findings: list[Finding] = list(check_all(METRIC_CONTRACTS, lambda _: case))
    return {contract.name: found.outcome for contract, found in zip(METRIC_CONTRACTS, findings, strict=True)}


def test_an_honest_metric_keeps_every_contract_that_applies() -> None:
    found = outcomes(metric_case(Level))
    assert found.pop("embeddings_have_length_one") == "not applicable"
    assert found.pop("gradient_is_that_of_the_score") == "not applicable"
    assert set(found.values()) == {"held"}


def test_a_metric_with_embeddings_is_asked_for_them_and_one_without_checkpoints_for_none() -> None:
    found = outcomes(metric_case(Brightness))
    assert found.pop("refuses_a_missing_checkpoint") == "not applicable"
    assert set(found.values()) == {"held"}


@pytest.mark.parametrize(
    ("kind", "contract", "detail"),
    [
        (Mean, metric.returns_one_score_per_image, "expected scores of shape (8,) for 8 images, found ()"),
        (Infinite, metric.returns_one_score_per_image, "expected finite scores, found inf"),
        (Wide, metric.returns_one_score_per_image, "expected float32 scores, found torch.float64"),
        (Relative, metric.score_is_the_same_in_any_batch, "for images one by one, found 0, 0, 0, 0, 0, 0, 0, 0"),
        (Numbered, metric.order_of_the_images_does_not_matter, "for the images in another order, found"),
        (Constant, metric.tells_images_apart, "expected different scores, found 4 for all 8 images"),
        (Deaf, metric.reads_prompts_as_stated, "found the same; state reads_prompt = False"),
        (Listening, metric.reads_prompts_as_stated, "expected the same scores for other prompts"),
        (Changing, metric.identity_is_json, " again, found {"),
        (Drawn, metric.copies_agree, " for a second copy, found "),
        (Unwritable, metric.identity_is_json, "expected JSON values, found Object of type device"),
        (Careless, metric.refuses_a_missing_checkpoint, "FileNotFoundError: "),
        (Painting, metric.leaves_images_alone, "expected unchanged images, found changes in image 0, 1, 2"),
        (Colourful, metric.scores_images_of_any_mode, "TypeError: 'int' object is not subscriptable"),
        (Backwards, metric.keeps_its_direction, "expected a display_factor above 0, found -1.0"),
        (Flat, metric.gradient_is_that_of_the_score, " from pixels too, found "),
        (Gentle, metric.gradient_is_that_of_the_score, "steps that change the scores as the gradient says, found 2 times that"),
    ],
)  # fmt: skip
def test_a_wrong_metric_breaks_the_contract_about_it(
    kind: type[Metric], contract: Contract[MetricCase], detail: str
) -> None:
    finding = look_at(contract, [("", metric_case(kind))])
    assert (finding.outcome, finding.sentence) == ("broken", contract.sentence)
    assert detail in finding.detail


def test_a_metric_that_ignores_a_checkpoint_that_was_given_is_broken() -> None:
    ignoring = metric_case(Brightness, given=True)
    finding = look_at(metric.refuses_a_missing_checkpoint, [("", ignoring)])
    assert finding.outcome == "broken"
    assert finding.detail.endswith("found that it loads")


@pytest.mark.parametrize(
    "contracts", [description.CONTRACTS, objective.CONTRACTS, stepping.CONTRACTS, METRIC_CONTRACTS]
)
def test_every_contract_is_one_sentence(contracts: Sequence[Contract[Any]]) -> None:
    sentences = [contract.sentence for contract in contracts]
    assert len(set(sentences)) == len(sentences)
    assert all(sentence[0].isupper() and ". " not in sentence for sentence in sentences)


def every_contract_of(module: Any) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, Contract) and value.check.__module__ == module.__name__
    }


@pytest.mark.parametrize(
    ("module", "contracts"),
    [
        (description, description.CONTRACTS),
        (objective, objective.CONTRACTS),
        (stepping, stepping.CONTRACTS),
        (metric, METRIC_CONTRACTS),
    ],
    ids=["description", "objective", "stepping", "metric"],
)
def test_no_contract_is_left_out(module: Any, contracts: Sequence[Contract[Any]]) -> None:
    assert every_contract_of(module) == {contract.name for contract in contracts}
