"""What the scores along a training say; expected values by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bench.records.curve import CurveLine, CurveRecord, find

RECORD = CurveRecord(
    prompts=("a", "b", "c", "d"),
    images_per_prompt=2,
    generation={},
    signatures={"pickscore": "1", "gold": "2", "distance": "3", "looks": "4"},
    titles={"pickscore": "PickScore", "gold": "Gold", "distance": "Distance"},
    lower_is_better=("distance",),
    trained_on=("pickscore",),
)


def line(step: int, pickscore: float, gold: float, distance: float, diversity: float = 0.5) -> CurveLine:
    """A line whose prompts differ by 0, 1, 2 and 3 thousandths, the same in every line, except that gold also shakes by step."""
    shake = [0.01, -0.01, 0.01, -0.01] if step % 2 else [0.0] * 4
    by_prompt = {
        "pickscore": [pickscore + p / 1000 for p in range(4)],
        "gold": [gold + p / 1000 + shake[p] for p in range(4)],
        "distance": [distance + p / 1000 for p in range(4)],
        "diversity": [diversity + p / 1000 for p in range(4)],
    }
    scores = {name: [value for value in values for _ in range(2)] for name, values in by_prompt.items()}
    return CurveLine(step=step, pairs=32 * step, signal=None if step == 0 else float(step), scores=scores)


def test_reward_up_and_both_judges_down_is_overoptimised() -> None:
    lines = [line(0, 0.2, 0.5, 0.5), line(20, 0.3, 0.6, 0.4), line(40, 0.4, 0.5, 0.45)]
    finding = find(RECORD, lines)
    assert finding.overoptimised
    assert finding.sentence() == (
        "Over-optimised: training reward up, 2 of 2 held-out judges down since step 20 (Gold, Distance)"
    )


def test_one_of_two_judges_is_not_most() -> None:
    finding = find(RECORD, [line(0, 0.2, 0.5, 0.5), line(20, 0.3, 0.6, 0.4), line(40, 0.4, 0.5, 0.4)])
    assert (finding.down, finding.since, finding.overoptimised) == (("Gold",), 20, False)


def test_a_reward_that_falls_too_is_not_overoptimised() -> None:
    finding = find(RECORD, [line(0, 0.2, 0.5, 0.5), line(20, 0.3, 0.6, 0.4), line(40, 0.29, 0.5, 0.45)])
    assert finding.training_up is False
    assert not finding.overoptimised


def test_a_fall_within_noise_is_none() -> None:
    # Gold falls by 0.005 and shakes by 0.01 either way: standard error 0.0115 / 2, so 0.005 is less than one.
    finding = find(RECORD, [line(0, 0.2, 0.505, 0.5), line(1, 0.3, 0.5, 0.5)])
    assert finding.down == ()
    assert finding.sentence() == "training reward up, none of 2 held-out judges down beyond noise"
    assert dataclasses.replace(finding, judges=0).sentence() == "training reward up, no held-out judge"


def test_without_a_measured_reward_the_margin_is_the_signal() -> None:
    record = dataclasses.replace(RECORD, trained_on=())
    finding = find(record, [line(0, 0.2, 0.5, 0.5), line(20, 0.3, 0.6, 0.4), line(40, 0.25, 0.5, 0.45)])
    assert finding.training_up is True  # margins 20, then 40
    assert (finding.judges, len(finding.down)) == (3, 3)


@pytest.mark.parametrize(("last", "words"), [(0.25, "diversity down by 50%"), (0.75, "diversity up by 50%")])
def test_diversity_is_told_as_a_share_of_the_first(last: float, words: str) -> None:
    finding = find(RECORD, [line(0, 0.2, 0.5, 0.5), line(20, 0.3, 0.5, 0.5, diversity=last)])
    assert finding.sentence().endswith(words)


@pytest.mark.parametrize("captions", [4, 16])
def test_noise_alone_is_found_as_often_as_the_level_says(captions: int) -> None:
    random = np.random.default_rng(0)
    record = dataclasses.replace(
        RECORD,
        prompts=tuple(map(str, range(captions))),
        images_per_prompt=1,
        titles={"gold": "Gold"},
        lower_is_better=(),
        trained_on=(),
    )
    found = []
    for _ in range(1000):
        values = random.normal(loc=10, size=(5, 2, captions)).tolist()
        lines = [
            CurveLine(step=step, pairs=step, signal=None, scores={"gold": gold, "diversity": diversity})
            for step, (gold, diversity) in enumerate(values)
        ]
        found.append(find(record, lines))
    # 5 % and two standard errors of 1,000: the judge's highest of five is less often below, diversity as often in either direction
    assert sum(bool(each.down) for each in found) <= 64
    assert 36 <= sum(each.diversity is not None for each in found) <= 64


def test_a_single_line_says_nothing() -> None:
    finding = find(RECORD, [line(0, 0.2, 0.5, 0.5)])
    assert (finding.overoptimised, finding.down, finding.diversity) == (False, (), None)
