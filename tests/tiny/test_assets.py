from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from bench.data.reading import read_preferences
from bench.models.families.stable_diffusion import StableDiffusion
from bench.prompts.reading import read_prompts
from bench.tiny import ASSETS, TINY, TINY_FLOW, world
from bench.tiny.building.pairs import protocol_pictures
from bench.tiny.checker import Checker, to_unit_pixels


def combination(caption: str) -> tuple[str, str]:
    request = world.parse_caption(caption)
    assert request is not None, caption
    return request.object, request.colour


def test_evaluation_prompts_share_no_combination_with_the_pairs() -> None:
    assert TINY.data
    trained = {combination(caption) for caption in read_preferences(TINY.data).captions}
    judged = {combination(prompt) for prompt in read_prompts(ASSETS / "prompts.txt")}
    assert len(judged) > 50
    assert trained.isdisjoint(judged)
    tuned = {combination(prompt) for prompt in read_prompts(ASSETS / "tuning-prompts.txt")}
    assert len(tuned) > 50
    assert tuned.isdisjoint(judged)


def test_assets_are_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 64_000_000


def test_votes_follow_the_true_preference() -> None:
    table = pq.read_table(ASSETS / "preferences.parquet")
    p, label = table["p_0"].to_numpy(), table["label_0"].to_numpy()
    error = np.sqrt((p * (1 - p)).sum())
    assert abs((label - p).sum()) < 4 * error
    sure = p > 0.8
    assert label[sure].mean() == pytest.approx(p[sure].mean(), abs=0.06)


def test_the_checker_is_right_on_scenes_it_never_saw() -> None:
    scenes, pictures = [], []
    for index in range(200):
        rng = np.random.default_rng((991, index))
        scenes.append(world.draw_scene(rng, world.draw_request(rng)))
        pictures.append(world.render(scenes[-1]))
    measured = Checker.load(ASSETS / "checker").measure(to_unit_pixels(pictures))
    assert np.mean([a == scene.object for a, scene in zip(measured.objects, scenes, strict=True)]) > 0.95
    assert np.mean([a == scene.colour for a, scene in zip(measured.colours, scenes, strict=True)]) > 0.97
    assert np.abs(measured.size - [scene.size for scene in scenes]).mean() < 0.04
    assert np.abs(measured.x - [scene.x for scene in scenes]).mean() < 0.04


def test_the_base_draws_what_it_is_asked_for_most_of_the_time_and_can_improve() -> None:
    rates = json.loads((ASSETS / "quality.json").read_text())["preferences"]["base, evaluation prompts"]
    assert 0.9 <= rates["right object"] < 1
    assert rates["right colour"] >= 0.9
    assert 0.8 <= rates["right size"] < 1
    assert 0.8 <= rates["right place"] < 1


def test_the_flow_model_draws_what_it_is_asked_for() -> None:
    rates = json.loads((ASSETS / "quality.json").read_text())["flow"]["evaluation prompts"]
    assert min(rates["right object"], rates["right colour"]) >= 0.95
    assert min(rates["right size"], rates["right place"]) >= 0.8
    model = StableDiffusion.load(TINY_FLOW.source, device=torch.device("cpu"))
    prompts = (ASSETS / "prompts.txt").read_text().splitlines()[:16]
    pictures = protocol_pictures(model, prompts, TINY_FLOW.generation)
    requests = [request for request in map(world.parse_caption, prompts) if request]
    measured = Checker.load(ASSETS / "checker").measure(pictures.float() / 127.5 - 1)
    assert np.mean([found == asked.object for found, asked in zip(measured.objects, requests, strict=True)]) >= 0.8


@pytest.mark.parametrize("name", sorted(TINY.metrics))
def test_every_scorer_of_the_tiny_world_tells_right_from_wrong(name: str) -> None:
    from bench.scoring.metric import METRICS

    rng = np.random.default_rng(5)
    drawn = [world.draw_request(rng) for _ in range(120)]
    requests = [world.Request(each.object, each.colour) for each in drawn]
    right = [world.render(world.draw_scene(rng, request)) for request in requests]
    wrong = [world.render(world.draw_scene(rng, world.corrupt_request(rng, request))) for request in requests]
    scorer = METRICS.get(name).load(TINY.metrics[name], device=torch.device("cpu"))
    captions = [request.caption for request in requests]
    wins = (scorer.score(right, captions) > scorer.score(wrong, captions)).float().mean().item()
    if name == "aesthetic":
        assert 0.3 < wins < 0.7  # it does not read the prompt
    else:
        assert wins > 0.7
