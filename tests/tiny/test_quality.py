from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from bench import UserError
from bench.tiny import ASSETS, world
from bench.tiny.checker import Checker
from bench.tiny.quality import (
    agreement,
    agreement_on,
    correlation,
    gain_figures,
    gain_of_best,
    gold_figures,
    judge_figures,
    main,
    measure,
    pair_values,
    read_requests,
    sides,
    vote_figures,
)
from bench.tiny.voters import PROPERTIES, TASTE, population_preference

GOLD = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 7.0]])


def test_agreement_counts_pairs_within_a_prompt_that_differ_in_gold() -> None:
    # Prompt 1: of its pairs (1,2) (1,3) (2,3) the judge has the first wrong.  Prompt 2: (1,2) does not count, one of two is a tie.
    scores = np.array([[2.0, 1.0, 3.0], [0.0, 9.0, 9.0]])
    assert agreement(scores, GOLD) == pytest.approx((0 + 1 + 1 + 1 + 0.5) / 5)
    assert agreement(GOLD, GOLD) == 1
    assert agreement(-GOLD, GOLD) == 0


def test_agreement_where_exactly_one_picture_is_right() -> None:
    right = np.array([[1.0, 0.0, 1.0], [np.nan, np.nan, np.nan]])
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert agreement_on(scores, right) == (0.5, 2)
    share, count = agreement_on(scores, np.ones((2, 3)))
    assert np.isnan(share)
    assert count == 0


def test_gain_of_the_best_is_over_a_random_picture() -> None:
    assert gain_of_best(GOLD, GOLD) == pytest.approx(((3 - 2) + (7 - 17 / 3)) / 2)
    assert gain_of_best(-GOLD, GOLD) == pytest.approx(((1 - 2) + (5 - 17 / 3)) / 2)


def test_correlation_leaves_out_prompts_without_variation() -> None:
    assert correlation(np.array([[3.0, 2.0, 1.0], [4.0, 4.0, 4.0]]), GOLD) == pytest.approx(-1)


def test_a_judge_that_is_gold_is_perfect() -> None:
    figures = judge_figures(GOLD, GOLD, {"object": np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])})
    assert list(figures.values()) == pytest.approx([1, 1, 1, 1])
    assert "prefers the right object (2 pairs)" in figures


def test_voters_of_pictures_that_differ_in_the_object_alone() -> None:
    values = np.zeros((1, 2, len(PROPERTIES)))
    values[0, 0, PROPERTIES.index("right_object")] = 1
    votes, gold = vote_figures(*sides(values)), gold_figures(values)
    assert votes["mean max(p, 1 - p)"] == pytest.approx(0.815056, abs=1e-6)  # see test_voters
    assert sum(share for name, share in votes.items() if name.startswith("share")) == pytest.approx(1)
    assert gold["gained by the best of 2"] == pytest.approx(TASTE["right_object"] / 2)
    assert gold["deviation within a prompt"] == pytest.approx(TASTE["right_object"] / np.sqrt(2))
    assert gold["share of the variance: right object"] == pytest.approx(1)
    assert gold["share of the variance: large"] == 0


def test_shares_of_the_variance_are_covariances_with_gold() -> None:
    # Large and plain vary together; in utility large moves by 3.6 and textured by -1.8.
    values = np.zeros((2, 2, len(PROPERTIES)))
    values[:, 0, PROPERTIES.index("large")] = 1
    values[:, 1, PROPERTIES.index("textured")] = 1
    gold = gold_figures(values)
    assert gold["share of the variance: large"] == pytest.approx(3.6 / 5.4)
    assert gold["share of the variance: textured"] == pytest.approx(1.8 / 5.4)


def test_what_gold_gained_has_an_interval_over_prompts() -> None:
    base = np.zeros((3, 2, len(PROPERTIES)))
    values = base.copy()
    values[:, :, PROPERTIES.index("vivid")] = [[1, 1], [0.5, 0.5], [0, 0]]
    figures = gain_figures(values, base)
    assert figures["gained over the base"] == pytest.approx(1.8)
    assert figures["half of its 95 % interval over prompts"] == pytest.approx(4.302653 * 1.8 / np.sqrt(3), rel=1e-6)


@pytest.fixture
def small_assets(tmp_path: Path) -> Path:
    """The shipped assets, with a hundred pairs of each set of preferences."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for path in ASSETS.iterdir():
        if path.suffix == ".parquet":
            pq.write_table(pq.read_table(path).slice(0, 100), folder / path.name)
        else:
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize("name", ["preferences", "off-policy"])
def test_shipped_pairs_are_measured_as_their_true_preferences_say(small_assets: Path, name: str) -> None:
    path = small_assets / f"{name}.parquet"
    values = pair_values(path, Checker.load(ASSETS / "checker"))
    assert values.shape == (100, 2, len(PROPERTIES))
    # the pictures are measured after JPEG here, and were before it when they were voted on
    assert np.abs(population_preference(*sides(values)) - pq.read_table(path)["p_0"].to_numpy()).mean() < 0.01


def test_the_command_prints_figures_of_trained_weights_too(small_assets: Path, tmp_path: Path) -> None:
    places = {"--assets": small_assets, "--work": tmp_path / "work", "--output": tmp_path / "figures.json"}
    words = [*(word for option, place in places.items() for word in (option, str(place))), "--count", "2"]
    command = typer.Typer()
    command.command()(main)
    ended = CliRunner().invoke(command, [*words, "--weights", str(ASSETS / "model" / "unet")])
    assert ended.exit_code == 0, ended.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert "pickscore: accuracy on held-out votes 0.691\n" in ended.stdout
    assert figures["gold"]["gained over the base"] == 0  # these weights are the base's own
    assert "nan" not in ended.stdout


def test_a_prompt_from_elsewhere_is_named() -> None:
    with pytest.raises(UserError, match="'a bee on a mauve background' has the word 'mauve'"):
        read_requests(["a bee on a red background", "a bee on a mauve background"])


def test_properties_and_named_attributes_of_drawn_scenes() -> None:
    scene = world.Scene("apple", "blue", size=0.6, x=0.5, y=0.5, tilt=0.0, vividness=1.0, texture="plain")
    picture = np.asarray(world.render(scene))
    prompts = ["an apple on a blue background", "a cat on a striped red background on the left"]
    values, right = measure(np.stack([[picture], [picture]]), prompts, Checker.load(ASSETS / "checker"))
    assert values.shape == (2, 1, len(PROPERTIES))
    assert [right[name][0, 0] for name in ("object", "colour")] == [1, 1]
    assert np.isnan([right[name][0, 0] for name in ("size", "place", "texture")]).all()
    assert [right[name][1, 0] for name in ("object", "colour", "place", "texture")] == [0, 0, 0, 0]
    assert np.isnan(right["size"][1, 0])
