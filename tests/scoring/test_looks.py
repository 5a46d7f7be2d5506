"""How images look; expected values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.scoring.looks import looks, looks_by_prompt


def flat(*colour: int, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), colour, dtype=np.uint8)


def test_black_white_and_red() -> None:
    found = looks(np.stack([flat(0, 0, 0), flat(255, 255, 255), flat(255, 0, 0)]))
    assert found["dark"] == [1, 0, 0]
    assert found["saturation"] == [0, 0, 1]
    assert found["edges"] == [0, 0, 0]
    # Black to white 1, black to red sqrt(1/3), white to red sqrt(2/3); each image's mean over the two others.
    assert found["diversity"] == pytest.approx(
        [(1 + 0.57735) / 2, (1 + 0.81650) / 2, (0.57735 + 0.81650) / 2], abs=1e-5
    )


def test_the_mean_over_images_is_the_mean_pairwise_distance() -> None:
    found = looks(np.stack([flat(0, 0, 0), flat(51, 51, 51), flat(153, 153, 153)]))
    assert np.mean(found["diversity"]) == pytest.approx((0.2 + 0.6 + 0.4) / 3)


def test_stripes_are_edges() -> None:
    stripes = flat(0, 0, 0)
    stripes[:, ::2] = 255
    # All 64 x 63 horizontal steps are edges, none of the 63 x 64 vertical ones.
    assert looks(np.stack([stripes, stripes]))["edges"] == [0.5, 0.5]
    assert looks(np.stack([stripes, stripes]))["diversity"] == [0, 0]


def test_noise_that_no_one_sees_is_not_diversity() -> None:
    """A checkerboard and its inverse have the same means over blocks of 2 x 2 pixels."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    one = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    assert looks(np.stack([one, 255 - one]))["diversity"] == pytest.approx([0, 0])


def test_sizes_that_are_no_multiple_of_the_grid() -> None:
    assert looks(np.stack([flat(0, 0, 0, side=70), flat(255, 255, 255, side=70)]))["diversity"] == pytest.approx([1, 1])


def test_one_image_has_no_diversity() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        looks(np.stack([flat(0, 0, 0)]))


def test_prompts_are_kept_apart() -> None:
    black, white = flat(0, 0, 0), flat(255, 255, 255)
    found = looks_by_prompt([np.stack([black, black]), np.stack([white, white])])
    assert found["diversity"] == [0, 0, 0, 0]
    assert found["dark"] == [1, 1, 0, 0]
