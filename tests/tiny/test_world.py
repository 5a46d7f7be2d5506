from __future__ import annotations

import numpy as np
import pytest

from bench.tiny import world
from bench.tiny.voters import extras_right
from tests.tiny.exact import measured_exactly


@pytest.mark.parametrize("seed", range(50))
def test_a_caption_reads_back_as_its_request(seed: int) -> None:
    request = world.draw_request(np.random.default_rng(seed))
    assert world.parse_caption(request.caption) == request


@pytest.mark.parametrize("caption", ["", "a bee", "a bee on a mauve background", "the bee on a red background"])
def test_other_texts_are_no_captions(caption: str) -> None:
    assert world.parse_caption(caption) is None


def test_articles_fit_the_next_word() -> None:
    assert world.Request("owl", "orange").caption == "an owl on an orange background"
    assert world.Request("owl", "red", size="large").caption == "a large owl on a red background"


@pytest.mark.parametrize("seed", range(100))
def test_a_drawn_scene_fulfils_its_request(seed: int) -> None:
    rng = np.random.default_rng(seed)
    request = world.draw_request(rng)
    scene = world.draw_scene(rng, request)
    assert (scene.object, scene.colour) == (request.object, request.colour)
    assert extras_right(request, measured_exactly([scene]), 0) == 1


@pytest.mark.parametrize("seed", range(50))
def test_a_wrong_caption_is_wrong_in_object_or_colour_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    request = world.draw_request(rng)
    wrong = world.corrupt_request(rng, request)
    assert (wrong.object != request.object) + (wrong.colour != request.colour) == 1
    assert (wrong.size, wrong.place) == (request.size, request.place)


def test_grey_of_the_same_lightness_is_what_a_dull_ground_tends_to() -> None:
    grey = world.ground_colour("red", 0.0)
    assert grey == pytest.approx([0.299 * 222 + 0.587 * 40 + 0.114 * 44] * 3)
    assert world.ground_colour("red", 1.0) == pytest.approx([222, 40, 44])


def test_a_scene_is_drawn_where_and_as_it_says() -> None:
    scene = world.Scene("apple", "blue", size=0.5, x=0.7, y=0.3, tilt=0.0, vividness=1.0, texture="plain")
    picture = np.asarray(world.render(scene)).astype(int)
    assert tuple(picture[-1, 0]) == world.COLOURS["blue"]
    ink = np.abs(picture - picture[-1, 0]).sum(2) > 30
    rows, columns = np.nonzero(ink)
    assert (columns.min() + columns.max() + 1) / 128 == pytest.approx(0.7, abs=0.03)
    assert (rows.min() + rows.max() + 1) / 128 == pytest.approx(0.3, abs=0.03)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(32, abs=2)
