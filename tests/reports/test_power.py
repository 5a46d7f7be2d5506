"""Predicted power against simulated tables, and the command on real folders."""

from __future__ import annotations

import dataclasses
import os

import forked
import numpy as np
import pytest
from lab import PROMPTS, Lab, fill
from scipy import stats

from bench.core.errors import UserError
from bench.records.protocol import prompts_digest
from reports.anova import Crossed
from reports.power import Components, designs, measure, power_lines, power_of, smallest_effect
from reports.records import collect
from reports.statistics import estimate_means


@pytest.mark.parametrize(("prompts", "seeds", "effect"), [(100, 3, 0.06), (400, 2, 0.05), (200, 5, 0.05)])
def test_predicted_power_is_the_simulated_one(prompts: int, seeds: int, effect: float) -> None:
    """Tables of 27 rows of differences with one true effect; the interval of `bench report` on each."""
    prompt, seed, rest, rows, tables = 0.1, 0.0004, 0.3, 27, 2000
    random = np.random.default_rng(5)
    shape = (tables, rows)
    own = seeds - 1
    crossed = Crossed(
        mean=effect + random.normal(size=shape) * (prompt / prompts + seed / seeds + rest / seeds / prompts) ** 0.5,
        prompt_square=(seeds * prompt + rest) * random.chisquare(prompts - 1, size=shape) / (prompts - 1),
        seed_square=(prompts * seed + rest) * random.chisquare(own, size=shape) / own,
        rest_square=rest * random.chisquare(own * (prompts - 1), size=shape) / (own * (prompts - 1)),
        seeds=np.full(rows, float(seeds)),
        prompts=prompts,
    )
    low, high = estimate_means(crossed).ends()
    simulated = float(((low > 0) | (high < 0)).mean())
    predicted = power_of(
        Components("gold", prompt, seed, 0.0, rest, 1, 1, own * (rows - 1), 0.0), effect, prompts, 1, seeds
    )
    assert 0.2 < simulated < 0.99
    assert predicted == pytest.approx(simulated, abs=0.05)


def test_power_is_a_tail_of_the_non_central_t_distribution_and_certain_for_large_effects() -> None:
    """scipy's tail is not a number beyond 37 standard errors."""
    for others in (0, 2, 50):
        measured = Components(
            "gold", 0.04, 0.01, interaction=0.0, image=0.27, images=1, pairs=3, others=others, seconds=1
        )
        total, prompts, seeds = 0.04 / 200 + 0.01 / 3 + 0.27 / 600, 200, 3
        degrees = total**2 / ((0.04 / 200) ** 2 / 199 + (total - 0.04 / 200) ** 2 / (2 + others))
        quantile = stats.t.ppf(0.975, degrees)
        for effect in (0.0, 0.05, 0.1, 0.3):
            tails = stats.nct(degrees, effect / total**0.5)
            expected = tails.sf(quantile) + tails.cdf(-quantile)
            assert power_of(measured, effect, prompts, 1, seeds) == pytest.approx(expected, abs=2e-3)
        assert power_of(measured, 10.0, prompts, 1, seeds) == pytest.approx(1, abs=2e-3)


def test_the_smallest_effect_has_the_wanted_power() -> None:
    measured = Components("gold", 0.203**2, 0.097**2, 0.0, image=0.519**2, images=4, pairs=3, others=6, seconds=1)
    found = smallest_effect(measured, 2000, 4, 20)
    # The standard error is 2.2 points; power 80 % takes about 2.9 of them with 25 degrees of freedom.
    assert found == pytest.approx(0.065, abs=0.002)
    assert power_of(measured, found, 2000, 4, 20) == pytest.approx(0.8, abs=1e-6)


def test_components_by_hand(lab: Lab) -> None:
    """A row that always wins and one that wins with its first seed only: seeds differ by 0 and 1, nothing else varies."""
    lab.identities = {"gold": {"version": 1}}
    shape = (len(PROMPTS), 2)
    lab.judge(lab.base_alone(), shift=0, scores={"gold": np.zeros(shape)})
    for number in range(2):
        lab.judge(lab.train("dpo", number), shift=0, scores={"gold": np.ones(shape)})
        lab.judge(lab.train("sft", number, title="SFT"), shift=0, scores={"gold": np.full(shape, 1.0 - 2 * number)})
    found = measure(collect(lab.runs))
    # the seeds' means of the difference are 0 and 1: variance 1/2
    assert (found.prompt, found.seed, found.interaction, found.image) == pytest.approx((0, 0.5, 0, 0))
    assert (found.pairs, found.others, found.seconds) == (1, 2, 10.5)


def test_images_and_how_prompts_react_to_seeds_are_told_apart(lab: Lab) -> None:
    """A row that wins with one image of each prompt, and one whose wins alternate over prompts and seeds with both images."""
    lab.identities = {"gold": {"version": 1}}
    shape = (len(PROMPTS), 2)
    lab.judge(lab.base_alone(), shift=0, scores={"gold": np.zeros(shape)})
    one_image = np.stack([np.ones(len(PROMPTS)), -np.ones(len(PROMPTS))], axis=1)
    alternating = np.where(np.arange(len(PROMPTS)) % 2, 1.0, -1.0)[:, None] * np.ones(2)
    for seed in range(2):
        lab.judge(lab.train("dpo", seed), shift=0, scores={"gold": one_image})
        lab.judge(lab.train("sft", seed, title="SFT"), shift=0, scores={"gold": (-1) ** seed * alternating})
    found = measure(collect(lab.runs))
    # images differ by 1 in wins: variance 1/2; of prompts and seeds together, wins of 1 and 0: P/(4 (P - 1)) for each of 2 seeds, over 1 degree
    count = len(PROMPTS)
    assert (found.prompt, found.seed) == pytest.approx((0, 0))
    assert found.image == pytest.approx(0.5)
    assert found.interaction == pytest.approx(2 * count / 4 / (count - 1) - 0.25)
    more, fewer = (power_of(found, 0.2, 50, images, 5) for images in (4, 1))
    assert fewer < more < power_of(dataclasses.replace(found, interaction=0.0), 0.2, 50, 4, 5)


def test_with_one_image_no_design_has_more() -> None:
    measured = Components("gold", 0.04, 0.001, 0.0, image=0.27, images=1, pairs=3, others=6, seconds=1)
    assert {each.images for each in designs(measured, 0.2)} == {1}
    assert {each.images for each in designs(dataclasses.replace(measured, images=2), 0.2)} == {1, 2, 4}


def test_the_command(full_lab: Lab) -> None:
    words = ("power", "--runs", str(full_lab.runs), "--model", "tiny", "--effect", "30")
    done = forked.run(words, full_lab.runs, os.environ)
    assert done.returncode == 0, done.stderr
    assert "measured on 1 pair of rows that are not placebos" in done.stdout
    assert "prompts  images per prompt  seeds per method  power" in done.stdout


def test_placebos_are_no_methods(lab: Lab) -> None:
    lab.base()
    twin = {"placebo_of": "default", "placebo": "shuffled labels"}
    for seed in range(2):
        lab.run("dpo", seed)
        lab.run("dpo", seed, name="p", config=twin, seconds=1000)
    with pytest.raises(UserError, match="fewer than two trained methods can be compared by Gold, the primary endpoint"):
        measure(collect(lab.runs))
    for seed in range(2):
        lab.run("sft", seed, title="SFT")
    found = measure(collect(lab.runs))
    assert (found.pairs, found.others, found.seconds) == (1, 2, 10.5)


def test_what_is_missing_is_named(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", trained_on=["pickscore"])
    lab.run("sft", title="SFT")
    records = collect(lab.runs)
    with pytest.raises(UserError, match="fewer than two trained methods can be compared by PickScore"):
        power_lines(records, 5, "pickscore")
    with pytest.raises(UserError, match="no two rows have two training seeds in common; run two algorithms"):
        power_lines(records, 5)


def test_methods_of_which_nothing_varies_say_nothing_about_power(lab: Lab) -> None:
    lab.identities = {"gold": {"version": 1}}
    shape = (len(PROMPTS), 2)
    lab.judge(lab.base_alone(), shift=0, scores={"gold": np.zeros(shape)})
    for seed in range(2):
        for algorithm in ("dpo", "sft"):
            lab.judge(lab.train(algorithm, seed, title=algorithm), shift=0, scores={"gold": np.ones(shape)})
    with pytest.raises(UserError, match="differ in the same way for every prompt, seed and image"):
        power_lines(collect(lab.runs), 5)


def test_a_single_prompt_says_nothing_about_power(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.PROMPTS", PROMPTS[:1])
    lab.protocol = lab.protocol.model_copy(update={"prompts": prompts_digest(PROMPTS[:1]), "prompt_count": 1})
    fill(lab)
    done = forked.run(("power", "--runs", str(lab.runs), "--effect", "5"), lab.runs, os.environ)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the protocol has a single prompt; an interval needs at least two")


@pytest.mark.parametrize("effect", [float("nan"), 0.0, 101.0])
def test_an_effect_that_is_no_difference_of_win_rates_is_refused(full_lab: Lab, effect: float) -> None:
    with pytest.raises(UserError, match=f"--effect must be above 0 and at most 100 points of win rate, not {effect:g}"):
        power_lines(collect(full_lab.runs), effect)
