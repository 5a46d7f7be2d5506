from __future__ import annotations

import numpy as np
import pytest

from bench.tiny.building.off_policy import RIGHT, draw_sides
from bench.tiny.building.pairs import combinations, draw_requests
from bench.tiny.voters import extras_right
from tests.tiny.exact import measured_exactly


def test_most_scenes_show_what_is_asked_and_the_others_are_wrong_in_one_thing() -> None:
    requests = draw_requests(combinations()[0], 400, seed=46)
    scenes = draw_sides(requests, seed=47)
    measured = measured_exactly(scenes)
    wrong = np.array(
        [
            (scene.object != request.object)
            + (scene.colour != request.colour)
            + (extras_right(request, measured, row) < 1)
            for row, (scene, request) in enumerate(zip(scenes, np.repeat(np.array(requests), 2), strict=True))
        ]
    )
    assert set(wrong) == {0, 1}
    assert np.mean(wrong == 0) == pytest.approx(RIGHT, abs=0.06)
    assert draw_sides(requests[:3], seed=47) == scenes[:6]
