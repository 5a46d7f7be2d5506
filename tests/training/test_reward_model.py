"""Reward models: the loss by hand, what is held out, the fit, kill and resume, and the metric that comes of it."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from worked import double

from bench.core import termination
from bench.core.errors import UserError
from bench.core.termination import TerminatedError
from bench.data.preferences import PreferenceData, data_of
from bench.records.reward_models import FitSettings, read_reward_model
from bench.records.scores import MetricInfo
from bench.scoring.fitted import describe, fitted, simplest
from bench.scoring.metric import FittableMetric
from bench.training.reward_fit import Fit, Opponents, Request, agreement, pairwise_loss, split_rows
from bench.training.reward_model import fit_reward_model

PAIRS = 60


class Colour(FittableMetric):
    """The mean green of a picture, by a network of two layers that could as well read red."""

    info: ClassVar[MetricInfo] = MetricInfo(title="Green", raw_range="0 to 1", unit="share", source="here")
    head_parameters: ClassVar[tuple[str, ...]] = ("1.",)

    def __init__(self) -> None:
        self._network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False))
        with torch.no_grad():
            self._network[0].weight.copy_(torch.eye(3))  # type: ignore[operator]
            self._network[1].weight.copy_(torch.tensor([[0.0, 1.0, 0.0]]))  # type: ignore[operator]
        self._network.requires_grad_(False)
        self.calls, self.fatal, self.pictures = 0, -1, 0

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device) -> Self:
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"version": 1}

    @property
    def network(self) -> nn.Module:
        return self._network

    def inputs(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([torch.from_numpy(np.asarray(image) / 255).mean((0, 1)).float() for image in images])

    def rate(self, inputs: Tensor, prompts: Sequence[str]) -> Tensor:
        self.calls, self.pictures = self.calls + 1, self.pictures + len(inputs)
        if self.calls == self.fatal:
            os.kill(os.getpid(), signal.SIGTERM)
        rates: Tensor = self._network(inputs)[:, 0]
        return rates

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return self.rate(self.inputs(images), prompts).detach()

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.rate(pixels.mean((2, 3)), prompts)


def flat(colour: Sequence[int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), tuple(colour)).save(stream, format="png")
    return stream.getvalue()


@pytest.fixture(scope="module")
def data() -> PreferenceData:
    """Pairs of flat colours of which people like the redder one, two for each of thirty captions."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (PAIRS, 2, 3))
    made = data_of(
        [f"caption {row // 2:02}" for row in range(PAIRS)],
        [(flat(one.tolist()), flat(two.tolist())) for one, two in colours],
        "here",
    )
    return made.with_preference((colours[:, 0, 0] > colours[:, 1, 0]).astype(float))


@pytest.fixture
def listening() -> Iterator[None]:
    """Signals are handled as in a command, until the test is over."""
    before = signal.getsignal(signal.SIGTERM)
    termination.listen()
    yield
    signal.signal(signal.SIGTERM, before)
    termination._STATE.received = None


def request(data: PreferenceData, folder: Path, **settings: Any) -> Request:
    chosen = FitSettings(**{"steps": 40, "batch": 16, "learning_rate": 0.1, **settings})
    return Request("colour", None, chosen, data, folder)


def test_weights_that_were_damaged_are_fitted_again(data: PreferenceData, tmp_path: Path) -> None:
    record = fit_reward_model(Colour(), request(data, tmp_path, steps=3))
    weights = tmp_path / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert fit_reward_model(Colour(), request(data, tmp_path, steps=3)) == record
    assert weights.read_bytes() == whole


def test_a_fit_that_diverges_is_one_sentence(data: PreferenceData, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the loss of the fit is not finite; give a lower --learning-rate"):
        fit_reward_model(Colour(), request(data, tmp_path, part="whole", steps=50, learning_rate=1e30))
    assert read_reward_model(tmp_path) is None


def test_the_loss_by_hand() -> None:
    # Scores of the preferred [.4, -.2] and of the other [.1, .3], as in the specification of APO.
    losses = pairwise_loss(double([0.3, -0.5]), double([1.0, 1.0]))
    torch.testing.assert_close(losses.mean(), double(0.7642161143), rtol=0, atol=6e-11)
    # A soft label of 1/4: log(1 + exp(-.3)) / 4 + 3 log(1 + exp(.3)) / 4.
    torch.testing.assert_close(
        pairwise_loss(double([0.3]), double([0.25])), double([0.7793552444685]), rtol=0, atol=1e-9
    )


def test_agreement_by_hand() -> None:
    # right, wrong, equal scores, and a tie
    found = agreement(double([0.3, 0.3, 0.0, 1.0]), double([0.9, 0.0, 1.0, 0.5]))
    assert found.tolist() == [1, 0, 0.5, 0.5]


def test_pairs_to_fit_and_held_out_pairs_share_no_caption(data: PreferenceData) -> None:
    fitted_rows, held_out = split_rows(data.captions)
    assert sorted(fitted_rows + held_out) == list(range(PAIRS))
    assert {data.captions[row] for row in held_out} == {"caption 00", "caption 14", "caption 29"}
    assert len(held_out) == 6
    with pytest.raises(UserError, match="9 different captions"):
        split_rows([f"{row % 9}" for row in range(90)])


@pytest.mark.parametrize("part", ["head", "whole"])
def test_a_fit_learns_what_people_prefer(data: PreferenceData, tmp_path: Path, part: str) -> None:
    scorer = Colour()
    first = scorer.network.state_dict()["0.weight"].clone()
    record = fit_reward_model(scorer, request(data, tmp_path / "model", part=part))
    assert record.held_out.pairs == 6
    assert record.held_out.before < 1 == record.held_out.after
    assert torch.equal(scorer.network.state_dict()["0.weight"], first) == (part == "head")
    weight = scorer.network.state_dict()["1.weight"][0]
    assert weight[0] > weight[1:].abs().max()  # it reads red
    assert read_reward_model(tmp_path / "model") == record
    assert fit_reward_model(Colour(), request(data, tmp_path / "model", part=part)) == record  # nothing is left to do
    with pytest.raises(UserError, match=r"differs in settings.steps \(40 and 41\); choose another --output"):
        fit_reward_model(Colour(), request(data, tmp_path / "model", part=part, steps=41))


@pytest.mark.usefixtures("listening")
def test_a_fit_that_was_stopped_continues_to_the_same_last_bit(data: PreferenceData, tmp_path: Path) -> None:
    whole = fit_reward_model(Colour(), request(data, tmp_path / "whole"))
    scorer = Colour()
    scorer.fatal = 30  # in the middle of a step
    with pytest.raises(TerminatedError):
        fit_reward_model(scorer, request(data, tmp_path / "stopped"))
    assert read_reward_model(tmp_path / "stopped") is None
    assert len(list((tmp_path / "stopped/checkpoints").iterdir())) == 1
    termination._STATE.received = None
    resumed = fit_reward_model(Colour(), request(data, tmp_path / "stopped"))
    assert resumed == whole  # the digest of the weights among them
    assert not (tmp_path / "stopped/checkpoints").exists()


def opponents(data: PreferenceData, weight: float) -> Opponents:
    """Pairs of the data's first and last rows, as if image 0 were gold, whose loss has a weight."""
    pairs = data.pick(np.array([0, 1, 2, 57, 58]), np.array([[0, 1]] * 5)).with_preference(np.ones(5))
    return Opponents(pairs, lambda difference: -weight * torch.nn.functional.logsigmoid(difference))


def test_the_gradient_of_people_s_pairs_and_of_opponents_by_hand(data: PreferenceData, tmp_path: Path) -> None:
    """With d = s w.x of a pair whose winner is image 0: -weight s(-d) s x, s the scale, means over either kind."""
    scorer = Colour()
    made = request(data, tmp_path, batch=3)
    fit = Fit(scorer, dataclasses.replace(made, opponents=opponents(data, 0.025)))
    rows, against = [5, 17, 40], [0, 4, 1]
    loss = fit.accumulate(rows, against)
    weight = np.array([0.0, 1.0, 0.0])  # green, at a scale of 1

    def terms(pairs: PreferenceData, places: list[int], factor: float) -> tuple[float, Any]:
        colours = [[np.asarray(pairs.image(row, side))[0, 0] / 255 for side in (0, 1)] for row in places]
        signs = np.array([1.0 if pairs.preference_0[row] > 0.5 else -1.0 for row in places])
        x = signs[:, None] * np.array([one - two for one, two in colours])
        d = x @ weight
        return factor * np.log1p(np.exp(-d)).mean(), -factor * (x / (1 + np.exp(d))[:, None]).mean(0)

    parts = [terms(data, rows, 1.0), terms(opponents(data, 1).pairs, against, 0.025)]
    assert loss == pytest.approx(sum(each for each, _ in parts), rel=1e-6)
    ((_, head),) = fit.parameters
    assert head.grad is not None
    np.testing.assert_allclose(head.grad[0].numpy(), sum(each for _, each in parts), rtol=1e-5, atol=1e-8)


def test_a_fit_starts_from_another_reward_model(data: PreferenceData, tmp_path: Path) -> None:
    first = fit_reward_model(Colour(), request(data, tmp_path / "first"))
    further = dataclasses.replace(
        request(data, tmp_path / "second", steps=1, learning_rate=1e-12), start=tmp_path / "first"
    )
    second = fit_reward_model(Colour(), further)
    assert (second.start, second.held_out.before) == (first.weights, first.held_out.after)
    assert "; the reward model that it continues agreed with" in describe(second)
    assert f"; {first.scorer} agreed with" in describe(first)
    assert second.scale == pytest.approx(first.scale, rel=1e-6)
    assert fit_reward_model(Colour(), further) == second
    with pytest.raises(UserError, match="differs in start"):
        fit_reward_model(Colour(), dataclasses.replace(further, start=None))
    agreements = np.load(tmp_path / "second/held_out.npy")
    assert (len(agreements), agreements.mean()) == (second.held_out.pairs, second.held_out.after)


@pytest.mark.usefixtures("listening")
def test_a_fit_against_opponents_that_was_stopped_continues_to_the_same_last_bit(
    data: PreferenceData, tmp_path: Path
) -> None:
    fit_reward_model(Colour(), request(data, tmp_path / "first", steps=3))
    made = {
        name: dataclasses.replace(
            request(data, tmp_path / name), start=tmp_path / "first", opponents=opponents(data, 0.5)
        )
        for name in ("whole", "stopped")
    }
    whole = fit_reward_model(Colour(), made["whole"])
    scorer = Colour()
    scorer.fatal = 30
    with pytest.raises(TerminatedError):
        fit_reward_model(scorer, made["stopped"])
    termination._STATE.received = None
    assert fit_reward_model(Colour(), made["stopped"]) == whole
    assert whole.opponents is not None
    assert whole.opponents.pairs == 5
    without = fit_reward_model(
        Colour(), dataclasses.replace(made["whole"], folder=tmp_path / "without", opponents=None)
    )
    assert without.weights != whole.weights


@pytest.mark.parametrize("others", [False, True])
def test_the_pictures_that_a_fit_scores_are_counted(data: PreferenceData, tmp_path: Path, others: bool) -> None:
    made = request(data, tmp_path / "model", steps=3, batch=16)
    made = dataclasses.replace(made, opponents=opponents(data, 0.5)) if others else made
    scorer = Colour()
    fit_reward_model(scorer, made)
    assert made.reward_calls == scorer.pictures


def test_unlabelled_data_are_refused(data: PreferenceData, tmp_path: Path) -> None:
    unlabelled = data.with_preference(np.full(PAIRS, np.nan))
    with pytest.raises(UserError, match="has no labelled pairs"):
        fit_reward_model(Colour(), request(unlabelled, tmp_path / "model"))


def test_a_scorer_that_cannot_tell_pictures_apart_is_refused(data: PreferenceData, tmp_path: Path) -> None:
    scorer = Colour()
    with torch.no_grad():
        scorer.network.get_parameter("1.weight").zero_()
    with pytest.raises(UserError, match="scores both images of every pair alike"):
        fit_reward_model(scorer, request(data, tmp_path / "model"))


def test_a_folder_without_a_reward_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished reward model; make one with: bench reward"):
        fitted(str(tmp_path))


def test_a_reward_model_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for other in ("./a", "b/../a", "a/", str(tmp_path / "a")):
        with pytest.raises(UserError, match=f"fitted:{other} is called fitted:a; write it so everywhere"):
            fitted(other)
    assert simplest("../a") == str(tmp_path.parent / "a")
    with pytest.raises(UserError, match="a holds no finished reward model"):
        fitted("a")


def test_the_metric_of_a_folder_scores_with_the_fitted_weights(
    data: PreferenceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.scoring import fitted as module

    monkeypatch.setattr(module, "METRICS", {"colour": Colour})  # a registry with the toy scorer alone
    labelled = dataclasses.replace(data, judges=("gold",))
    record = fit_reward_model(Colour(), request(labelled, tmp_path / "model"))
    kind = fitted(str(tmp_path / "model"))
    assert kind.info.title == "Green fitted (model)"
    assert kind.made_from == ("colour", "gold")
    metric = kind.load(None, device=torch.device("cpu"))
    images = [data.image(0, 0), data.image(0, 1)]
    path = tmp_path / "model/weights.safetensors"
    weight = load_file(path)["1.weight"][0]
    means = torch.stack([torch.from_numpy(np.asarray(image)[0, 0] / 255).float() for image in images])
    torch.testing.assert_close(metric.score(images, ["", ""]), record.scale * (means @ weight))
    assert metric.identity()["weights"] == record.weights
    # The scorer's code counts as the metric's own, beside the identity, so that --same-code can declare a change of it.
    assert metric.code == (kind, Colour)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="was changed since it was written"):
        kind.load(None, device=torch.device("cpu"))
