"""Native scores against those of the official packages, with the same weights, pictures and token ids."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from filled import GOLDEN, PAIRS, PICTURES, PROMPTS, picture, stored_ids
from transformers import BertTokenizer, CLIPTokenizer

from bench.scoring.metric import Metric
from metrics.aesthetic import Aesthetic
from metrics.clip import ClipScore
from metrics.cosine import cleaned_ids, padded_ids
from metrics.imagereward import masked_ids

SCORERS = ("hpsv2", "pickscore", "imagereward", "clip")
TOLERANCE = {"hpsv2": 1e-5, "pickscore": 1e-4, "imagereward": 1e-5, "clip": 1e-5, "hpsv2_antialiased": 1e-5}
cached_picture = functools.cache(picture)


def golden_pairs() -> tuple[list[object], list[str]]:
    return (
        [cached_picture(name) for name, _ in PAIRS],
        [PROMPTS[place] for _, place in PAIRS],
    )


@pytest.mark.parametrize("name", SCORERS)
def test_scores_equal_the_official_ones(name: str, request: pytest.FixtureRequest) -> None:
    scorer: Metric = request.getfixturevalue(name)
    scores = scorer.score(*golden_pairs())  # type: ignore[arg-type]
    assert scores.shape == (len(PAIRS),)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, GOLDEN[name]["scores"], rtol=0, atol=TOLERANCE[name])


def test_antialiased_hpsv2_equals_the_official_package_beside_new_torchvision(hpsv2_antialiased: Metric) -> None:
    scores = hpsv2_antialiased.score(*golden_pairs())  # type: ignore[arg-type]
    np.testing.assert_allclose(scores, GOLDEN["hpsv2"]["scores_antialiased"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["pickscore", "imagereward"])
@pytest.mark.parametrize("image", ["rgba320", "edge224x180"])
def test_odd_pictures_equal_the_official_scores(name: str, image: str, request: pytest.FixtureRequest) -> None:
    scorer: Metric = request.getfixturevalue(name)
    score = scorer.score([picture(image)], [PROMPTS[0]]).item()
    assert score == pytest.approx(GOLDEN[name]["extra"][image], abs=TOLERANCE[name])


@pytest.mark.parametrize("name", ["hpsv2", "clip"])
def test_opacity_is_dropped(name: str, request: pytest.FixtureRequest) -> None:
    scorer: Metric = request.getfixturevalue(name)
    image = picture("rgba320").resize((224, 224))
    both = scorer.score([image, image.convert("RGB")], PROMPTS[:1] * 2)
    assert both[0].item() == pytest.approx(both[1].item(), abs=1e-6)


def test_the_aesthetic_head_is_one_affine_map_of_the_embedding_of_length_one(
    aesthetic: Aesthetic, clip: ClipScore, checkpoints: Path
) -> None:
    head = torch.load(checkpoints / "aesthetic" / "head.pth", weights_only=True)
    matrix, offset = torch.eye(768, dtype=torch.float64), torch.zeros(768, dtype=torch.float64)
    for place in (0, 2, 4, 6, 7):
        layer = head[f"layers.{place}.weight"].double()
        matrix, offset = layer @ matrix, layer @ offset + head[f"layers.{place}.bias"].double()
    images = [cached_picture(name) for name in PICTURES]
    # The golden CLIPScore vouches for these embeddings.
    expected = clip.image_embeddings(images).double() @ matrix[0] + offset[0]
    scores = aesthetic.score(images, ["ignored"] * len(images))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_aesthetic_scores_equal_the_official_ones(aesthetic: Aesthetic) -> None:
    golden = GOLDEN["aesthetic"]["scores"]
    scores = aesthetic.score([cached_picture(name) for name in golden], [""] * len(golden))
    np.testing.assert_allclose(scores, list(golden.values()), rtol=0, atol=1e-5)


def test_golden_values_are_those_of_the_pictures_and_prompts_here() -> None:
    assert GOLDEN["pairs"] == [list(pair) for pair in PAIRS]
    assert GOLDEN["prompts"] == PROMPTS
    assert len(PROMPTS[-1].split()) == 300
    assert {PICTURES[name][2] for name, _ in PAIRS} == {"RGB", "L", "P", "I;16"}


@pytest.mark.skipif(
    "ORACLE_TOKENIZERS" not in os.environ, reason="set ORACLE_TOKENIZERS to what tox run -e oracle wrote"
)
def test_tokens_equal_the_official_ones() -> None:
    folder = Path(os.environ.get("ORACLE_TOKENIZERS", ""))
    words = CLIPTokenizer.from_pretrained(folder / "clip")
    bert = masked_ids(BertTokenizer.from_pretrained(folder / "bert"))
    for kind, tokenize in (("clip_cleaned", cleaned_ids(words, 77)), ("clip", padded_ids(words, 77))):
        assert torch.equal(tokenize(PROMPTS), stored_ids(kind, 77, 49407)(PROMPTS))
    ids, mask = bert(PROMPTS)
    assert torch.equal(ids, stored_ids("bert", 35, 0)(PROMPTS))
    assert torch.equal(mask, (ids != 0).long())


@pytest.mark.skipif("AESTHETIC_HEAD" not in os.environ, reason="set AESTHETIC_HEAD to sac+logos+ava1-l14-linearMSE.pth")
def test_aesthetic_scores_of_the_published_head_equal_the_official_ones(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "head.pth").write_bytes(Path(os.environ["AESTHETIC_HEAD"]).read_bytes())
    (tmp_path / "clip").symlink_to(checkpoints / "clip")
    golden = GOLDEN["aesthetic"]["published_head"]
    scores = Aesthetic.load(str(tmp_path), device=torch.device("cpu")).score(
        [picture(name) for name in golden], [""] * len(golden)
    )
    np.testing.assert_allclose(scores, list(golden.values()), rtol=0, atol=1e-5)
