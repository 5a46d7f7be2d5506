"""Shuffled preferences: labels and scores move together, by address, and nothing that is cached knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from workshop import Brightness, Workshop, batch_of, preference_columns, write_parquet

from bench.core.randomness import permutation
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.data.reading import read_preferences

COUNT = 40


class Counting(Brightness):
    """Counts the images that it scores."""

    def __init__(self) -> None:
        self.scored = 0

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        self.scored += len(images)
        return super().score(images, prompts)


@pytest.fixture
def certain(tmp_path: Path) -> PreferenceData:
    """Pairs whose first image is preferred in every row: permuting their labels would change nothing."""
    columns = preference_columns(COUNT)
    columns["label_0"] = [1.0] * COUNT
    columns["score_level_0"], columns["score_level_1"] = [2.0] * COUNT, [-1.0] * COUNT
    return read_preferences(write_parquet(tmp_path / "certain.parquet", columns))


def swaps(seed: int, count: int = COUNT) -> list[bool]:
    """Which pairs are swapped, drawn at their addresses one by one."""
    return [permutation(2, seed, "shuffled labels", row).tolist() == [1, 0] for row in range(count)]


def test_the_images_of_a_pair_are_swapped_in_the_labels_and_the_scores_or_in_neither(certain: PreferenceData) -> None:
    shuffled, swapped = certain.shuffled(3), swaps(3)
    assert 10 < sum(swapped) < 30
    assert shuffled.preference_0.tolist() == [0.0 if swap else 1.0 for swap in swapped]
    assert shuffled.scores["level"].tolist() == [[-1.0, 2.0] if swap else [2.0, -1.0] for swap in swapped]
    assert (shuffled.digest, shuffled.labels_digest == certain.labels_digest) == (certain.digest, False)
    assert list(shuffled.encoded) == list(certain.encoded)
    assert certain.preference_0.tolist() == [1.0] * COUNT


def test_half_of_many_pairs_are_swapped() -> None:
    """20,000 pairs: 200 are 2.8 standard deviations of a binomial share of 1/2."""
    from bench.data.shuffling import Shuffle

    certain = np.ones(20_000)
    one, other = Shuffle(1).preference(certain), Shuffle(2).preference(certain)
    assert abs(one.sum() - 10_000) < 200
    assert abs((one == other).sum() - 10_000) < 200
    assert Shuffle(1).preference(certain[:7]).tolist() == one[:7].tolist()  # a pair's draw knows of no other pair


def test_soft_labels_keep_their_confidence(certain: PreferenceData) -> None:
    soft = certain.with_preference(np.full(COUNT, 0.75)).shuffled(0)
    assert soft.preference_0.tolist() == [0.25 if swap else 0.75 for swap in swaps(0)]


def test_shuffling_twice_is_a_mistake(certain: PreferenceData) -> None:
    with pytest.raises(ValueError, match="shuffled already"):
        certain.shuffled(0).shuffled(0)


def test_the_winner_of_a_batch_is_the_other_image_and_has_its_own_conditioning(workshop: Workshop) -> None:
    data = workshop.data.with_preference(np.ones(len(workshop.data)))
    rows = list(range(8))
    given, shuffled = (
        batch_of(each, workshop.encoding(data), rows, caption_dropout=0.0, seed=0, step=0)
        for each in (data, data.shuffled(0))
    )
    swapped = torch.tensor(swaps(0, 8))
    assert 0 < int(swapped.sum()) < 8
    assert shuffled.winner_index.tolist() == swapped.long().tolist()
    assert torch.equal(shuffled.winner[swapped], given.loser[swapped])
    assert torch.equal(shuffled.loser[swapped], given.winner[swapped])
    assert torch.equal(shuffled.winner[~swapped], given.winner[~swapped])
    assert torch.equal(shuffled.candidates, given.candidates)
    assert shuffled.preference.tolist() == [1.0] * 8


def test_scores_are_shuffled_after_the_cache_which_serves_both(workshop: Workshop, tmp_path: Path) -> None:
    scorer = Counting()
    context = PrepareContext(lambda _: scorer, workshop.model(), workshop.model().generation, tmp_path / "cache")
    data = workshop.data
    shuffled = data.shuffled(5)
    turned = context.scores("brightness", shuffled)  # the placebo comes first and must not poison the cache
    given = context.scores("brightness", data)
    swapped = swaps(5, len(data))
    assert turned.tolist() == [row[::-1] if swap else row for row, swap in zip(given.tolist(), swapped, strict=True)]
    assert context.rewards("brightness", shuffled).tolist() == turned.tolist()  # the factor of this scorer is 1
    levels = [[np.asarray(data.image(row, side)).mean() for side in (0, 1)] for row in range(len(data))]
    np.testing.assert_allclose(given, levels, rtol=1e-6)
    assert scorer.scored == 2 * len(data)
    # an image's embedding says nothing about preferences
    assert np.array_equal(context.features("brightness", shuffled), context.features("brightness", data))


def test_scores_of_lists_are_permuted_within_a_caption_alike_for_all_metrics(workshop: Workshop) -> None:
    context = workshop.context()
    data, shuffled = (context.lists(each, 6, 4) for each in (workshop.data, workshop.data.shuffled(1)))
    assert (len(shuffled), shuffled.width, shuffled.digest) == (6, 4, data.digest)
    given, permuted = context.rewards("one", data), context.rewards("one", shuffled)
    orders = [permutation(4, 1, "shuffled labels", row).tolist() for row in range(6)]
    assert permuted.tolist() == [
        [row[image] for image in order] for row, order in zip(given.tolist(), orders, strict=True)
    ]
    assert any(order != [0, 1, 2, 3] for order in orders)
    assert context.rewards("other", shuffled).tolist() == permuted.tolist()


def test_images_that_an_algorithm_picks_stay_shuffled(workshop: Workshop) -> None:
    context = workshop.context()
    rows, images = np.arange(20), np.tile([1, 0], (20, 1))
    given, shuffled = (each.pick(rows, images) for each in (workshop.data, workshop.data.shuffled(1)))
    assert not np.array_equal(context.scores("level", given), context.scores("level", shuffled))
