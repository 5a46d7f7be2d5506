"""Worked numbers and invariants of the objectives that rank lists or make their own data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from worked import F1, FIXTURE, assert_exact, double
from workshop import SIDE, Brightness, Workshop

from algorithms.capo import CaPO, capo_loss, time_weights
from algorithms.rankdpo import RankDPO, rankdpo_loss
from algorithms.self_npo import SelfNPO, noise_further, pseudo_huber
from algorithms.seppo import SePPO, seppo_loss
from algorithms.smpo import SmPO
from bench import MetricInfo, UserError
from bench.data.prepare import PrepareContext
from bench.models.forward_process import EpsilonProcess
from bench.records.protocol import GenerationSettings


class TestRankDPO:
    SHARES, GAPS = double([[0.9, 0.5, 0.1]]), double([[-0.02, 0.01, 0.0]])

    # the paper has no factor 1/2: its beta of 10 is 20 here
    def test_worked_number(self) -> None:
        assert_exact(rankdpo_loss(self.GAPS, self.SHARES, beta=20), [0.5242339643])

    @pytest.mark.parametrize(
        ("pair", "weight"), [((0, 1), 0.2405914486), ((0, 2), 0.5729609402), ((1, 2), 0.0646840947)]
    )
    def test_worked_weights(self, pair: tuple[int, int], weight: float) -> None:
        """At zero gaps every pair costs its weight times log 2; the derivative by one gap tells the weights apart."""
        gaps = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        hessian = torch.autograd.functional.hessian(lambda g: rankdpo_loss(g, self.SHARES, beta=2).sum(), gaps)
        assert -4 * hessian[0, pair[0], 0, pair[1]].item() == pytest.approx(weight, abs=1e-9)

    def test_the_order_of_a_list_does_not_matter(self) -> None:
        order = [2, 0, 1]
        shuffled = rankdpo_loss(self.GAPS[:, order], self.SHARES[:, order], beta=20)
        torch.testing.assert_close(shuffled, rankdpo_loss(self.GAPS, self.SHARES, beta=20), rtol=0, atol=1e-9)

    def test_equal_shares_make_no_pair(self) -> None:
        assert rankdpo_loss(self.GAPS, torch.full((1, 3), 0.5, dtype=torch.float64), beta=20).tolist() == [0]

    def test_lists_are_ranked_and_their_images_share_a_time(self, workshop: Workshop) -> None:
        algorithm = RankDPO(captions=5, candidates=3)
        context = workshop.context()
        data = algorithm.prepare(workshop.data, context)
        assert (len(data), data.width, data.labelled) == (5, 3, False)
        assert sorted(data.scores["win_share"][0].tolist()) == [0, 0.5, 1]
        assert context.notes["candidates"]["captions"] == 5


class Darkness(Brightness):
    """What `Brightness` likes, it dislikes."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return -super().score(images, prompts)


class Shade(Darkness):
    """The same as `Brightness` in effect: it dislikes bright pictures, and lower is better."""

    info: ClassVar[MetricInfo] = dataclasses.replace(Brightness.info, title="Shade", higher_is_better=False)


class TestLowerIsBetter:
    """Rewards in both directions, one of them the other with the opposite sign, agree on every image."""

    @pytest.fixture
    def context(self, workshop: Workshop, tmp_path: Path) -> PrepareContext:
        model = workshop.model()
        settings = model.generation.model_copy(
            update={"steps": 2, "height": SIDE, "width": SIDE, "guidance_scale": 2, "precision": "fp32"}
        )
        scorers = {"pickscore": Brightness(), "imagereward": Shade()}
        return PrepareContext(scorers.__getitem__, model, settings, tmp_path)

    def test_smpo_prefers_the_lower_score(self, workshop: Workshop, context: PrepareContext) -> None:
        bright = SmPO(reward="pickscore").prepare(workshop.data, context)
        assert context.notes["reward_range"][0] > 0
        shade = SmPO(reward="imagereward").prepare(workshop.data, context)
        assert context.notes["reward_range"][0] > 0
        assert shade.preference_0.tolist() == bright.preference_0.tolist()

    def test_rankdpo_ranks_the_lowest_score_first(self, workshop: Workshop, context: PrepareContext) -> None:
        data = RankDPO(rewards="imagereward", captions=2, candidates=3).prepare(workshop.data, context)  # type: ignore[arg-type]
        levels = [[np.asarray(data.image(row, side)).mean() for side in range(3)] for row in range(2)]
        assert data.scores["win_share"].argmax(1).tolist() == np.argmax(levels, 1).tolist()

    def test_capo_finds_pairs_that_both_prefer(self, workshop: Workshop, context: PrepareContext) -> None:
        data = CaPO(captions=2, candidates=3).prepare(workshop.data, context)
        levels = [[np.asarray(data.image(row, side)).mean() for side in range(2)] for row in range(len(data))]
        assert all(winner > loser for winner, loser in levels)


class TestCaPO:
    DIFFERENCE = double([0.65, 0.20])

    # the paper has no factor 1/2: its beta of 20 is 40 here
    @pytest.mark.parametrize(("beta", "expected"), [(2, 0.11092499999999998), (40, 18.696250000000003)])
    def test_worked_numbers(self, beta: float, expected: float) -> None:
        ones = torch.ones(2, dtype=torch.float64)
        assert_exact(capo_loss(FIXTURE, self.DIFFERENCE, ones, beta=beta, placement="inner").mean(), expected)
        assert_exact(capo_loss(FIXTURE, self.DIFFERENCE, ones, beta=beta, placement="outer").mean(), expected)

    @pytest.mark.parametrize(("placement", "expected"), [("inner", 12.199700471901153), ("outer", 14.735607897349011)])
    def test_worked_numbers_with_time_weights(self, placement: str, expected: float) -> None:
        abar = torch.sigmoid(double([2, -1]))
        weights = time_weights(abar.sqrt(), (1 - abar).sqrt(), bias=1.5)
        assert_exact(weights, [0.377540668798, 0.924141819979])
        assert_exact(capo_loss(FIXTURE, self.DIFFERENCE, weights, beta=40, placement=placement).mean(), expected)

    def test_winners_dominate_and_their_calibrated_rewards_are_kept(self, workshop: Workshop) -> None:
        context = workshop.context()
        data = CaPO(captions=6, candidates=4).prepare(workshop.data, context)
        assert data.width == 2
        assert data.labelled
        assert (data.scores["calibrated"][:, 0] > data.scores["calibrated"][:, 1]).all()
        assert context.notes["pareto"]["pairs"] == len(data)

    def test_rewards_that_never_agree_are_refused(self, workshop: Workshop) -> None:
        generation = GenerationSettings(steps=2, guidance_scale=2, height=SIDE, width=SIDE)
        opposed = {"pickscore": Brightness(), "imagereward": Darkness()}
        context = PrepareContext(opposed.__getitem__, workshop.model(), generation, workshop.folder / "opposed")
        with pytest.raises(UserError, match="capo found no image .* under every reward; use more candidates"):
            CaPO(captions=6, candidates=4).prepare(workshop.data, context)

    def test_one_reward_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="at least 2 items"):
            CaPO(rewards="pickscore")  # type: ignore[arg-type]


class TestSelfNPO:
    def test_worked_numbers(self) -> None:
        process = EpsilonProcess(double([0.8, 0.6]), double([0.6, 0.8]))
        t, s = torch.tensor([0]), torch.tensor([1])
        latents, noise = double([[0.5, -0.2]]), double([[1.0, -1.0]])
        with_caption, without = double([[0.3, 0.1]]), double([[0.5, -0.1]])
        targets = {w: process.to_x0(latents, with_caption + w * (with_caption - without), t) for w in (-1, 0, -5)}
        assert_exact(targets[-1], [[0.25, -0.175]])
        assert_exact(targets[0], [[0.4, -0.325]])
        assert_exact(targets[-5], [[-0.35, 0.425]])
        noised = noise_further(process, latents, noise, t, s)
        assert_exact(noised, [[1.0364378278, -0.8114378278]])
        student = process.to_x0(noised, double([[0.9, -0.6]]), s)
        assert_exact(student, [[0.5273963796, -0.5523963796]])
        assert_exact(pseudo_huber(student - targets[-1], width=1e-3), [0.3263979433])
        assert_exact((student - targets[-1]).square().mean(1), [0.1096883894])

    def test_labels_do_not_matter(self, workshop: Workshop) -> None:
        other = workshop.data.with_preference(1 - np.asarray(workshop.data.preference_0))
        one = workshop.step(SelfNPO(), [1, 2, 3], workshop.policy(), workshop.data)
        assert torch.equal(one.losses, workshop.step(SelfNPO(), [1, 2, 3], workshop.policy(), other).losses)

    def test_the_average_generates_and_follows_slowly(self, workshop: Workshop) -> None:
        policy, algorithm = workshop.policy(), SelfNPO(decay=0.75)
        algorithm.begin(policy)
        name, parameter = policy.parameters()[0]
        start = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(1)
        algorithm.end_step(0, policy)
        torch.testing.assert_close(policy.snapshots["average"][name], start + 0.25)


class TestSePPO:
    def test_worked_numbers(self) -> None:
        losses = seppo_loss(F1, beta=10)
        assert_exact(losses, [math.log1p(math.exp(-0.2)), math.log1p(math.exp(0.05))])
        assert_exact(losses.mean(), 0.6582992587)

    def test_the_pool_keeps_the_latest_versions(self, workshop: Workshop) -> None:
        policy, algorithm = workshop.policy(), SePPO(pool=2, interval=3)
        algorithm.begin(policy)
        for step in range(9):
            algorithm.end_step(step, policy)
        assert sorted(policy.snapshots) == ["snapshot-0", "snapshot-1"]
