from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filled import picture
from PIL import Image
from torch import Tensor

from bench.core.errors import UserError
from metrics.retrieval import RecallAt5, RPrecision, pool_members

official = pytest.importorskip(
    "clip_benchmark.metrics.zeroshot_retrieval", reason="pip install --no-deps clip-benchmark"
)

CPU = torch.device("cpu")
COLOURS = ("red", "blue", "green", "white", "black", "grey", "pink", "brown", "yellow", "purple", "orange", "teal")


@pytest.fixture(scope="module")
def first(checkpoints: Path) -> RPrecision:
    return RPrecision.load(str(checkpoints / "clip"), device=CPU)


@pytest.fixture(scope="module")
def fifth(checkpoints: Path) -> RecallAt5:
    return RecallAt5.load(str(checkpoints / "clip"), device=CPU)


def pairs(count: int) -> tuple[list[Image.Image], list[str]]:
    """Pictures of waves in different colours and sizes, and as many different prompts."""
    waves = np.asarray(picture("sq224")).astype(int)
    images = [
        Image.fromarray((np.roll(waves, 17 * number, axis=number % 2) * (1 + number % 7) % 256).astype(np.uint8))
        for number in range(count)
    ]
    prompts = [
        f"{'a cat' if number // 12 else 'a bee'} on a {COLOURS[number % 12]} background" for number in range(count)
    ]
    return images, prompts


class Adapter:
    """The scorer's CLIP as clip-benchmark calls one."""

    def __init__(self, scorer: RPrecision) -> None:
        self.scorer = scorer

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.scorer.model.get_image_features(pixel_values=pixels).pooler_output

    def encode_text(self, ids: Tensor) -> Tensor:
        return self.scorer.model.get_text_features(input_ids=ids).pooler_output


def test_the_mean_over_a_pool_is_what_clip_benchmark_reports(first: RPrecision, fifth: RecallAt5) -> None:
    images, prompts = pairs(24)
    # With weights at random few images find their prompt: half of them get the one that they do find.
    similarity = similarities(first, images, prompts)
    free = set(range(24))
    chosen = {}
    for image in range(0, 24, 2):
        chosen[image] = max(free, key=lambda text, image=image: similarity[image, text])
        free.discard(chosen[image])
    own = [prompts[chosen[image]] if image in chosen else prompts[free.pop()] for image in range(24)]
    batches = [
        (first.preprocessing.batch(images[piece]), [[p] for p in own[piece]]) for piece in (slice(8), slice(8, 24))
    ]
    expected = official.evaluate(Adapter(first), batches, first.tokenize, "cpu", amp=False, recall_k_list=[1, 5])
    for scorer, cutoff in ((first, 1), (fifth, 5)):
        hits = scorer.for_prompts(own).score(images, own)
        assert set(hits.tolist()) == {0.0, 1.0}
        assert hits.mean().item() == pytest.approx(expected[f"text_retrieval_recall@{cutoff}"], abs=1e-6)


def similarities(scorer: RPrecision, images: list[Image.Image], prompts: list[str]) -> Tensor:
    with torch.inference_mode():
        return scorer.image_embeddings(images) @ scorer.text_embeddings(prompts).T


def test_hits_by_hand(first: RPrecision, fifth: RecallAt5) -> None:
    images, prompts = pairs(12)
    order = similarities(first, images, prompts).argsort(dim=1, descending=True)
    for rank, expected in ((0, (1.0, 1.0)), (1, (0.0, 1.0)), (4, (0.0, 1.0)), (5, (0.0, 0.0)), (11, (0.0, 0.0))):
        own = [prompts[order[0, rank]]]
        found = tuple(scorer.for_prompts(prompts).score(images[:1], own).item() for scorer in (first, fifth))
        assert found == expected


def test_a_hit_depends_on_neither_the_other_images_nor_their_order(fifth: RecallAt5) -> None:
    images, prompts = pairs(24)
    bound = fifth.for_prompts(prompts)
    whole = bound.score(images, prompts)
    single = torch.cat([bound.score([image], [prompt]) for image, prompt in zip(images, prompts, strict=True)])
    assert torch.equal(single, whole)
    assert torch.equal(fifth.for_prompts(prompts[::-1]).score(images[::-1], prompts[::-1]).flip(0), whole)


def test_a_bound_metric_that_has_scored_can_be_bound_to_other_prompts(first: RPrecision) -> None:
    images, prompts = pairs(12)
    bound = first.for_prompts(prompts[:6])
    bound.score(images[:6], prompts[:6])
    for others in (prompts[6:], prompts):
        expected = first.for_prompts(others).score(images[: len(others)], others)
        assert torch.equal(bound.for_prompts(others).score(images[: len(others)], others), expected)


def test_pools_have_all_the_same_size_and_hold_the_own_prompt() -> None:
    pools = pool_members(torch.tensor([0, 99, 100, 249]), 250)
    assert pools.shape == (4, 100)
    assert pools[0].tolist() == pools[1].tolist() == list(range(100))
    assert pools[2].tolist() == list(range(100, 200))
    assert pools[3].tolist() == [*range(200, 250), *range(50)]
    assert pool_members(torch.tensor([2]), 7).tolist() == [list(range(7))]


def test_repeated_prompts_and_prompts_with_the_same_tokens_compete_once(first: RPrecision) -> None:
    images, prompts = pairs(6)
    whole = first.for_prompts(prompts).score(images, prompts)
    doubled = [*prompts, *prompts, *(prompt.upper() for prompt in prompts)]
    bound = first.for_prompts(doubled)
    assert torch.equal(bound.score(images * 3, doubled), whole.repeat(3))
    assert bound.identity()["pool"]["size"] == 6


def test_identity_names_the_prompts_and_the_cutoff(first: RPrecision, fifth: RecallAt5) -> None:
    prompts = pairs(12)[1]
    one = first.for_prompts(prompts).identity()
    assert one == first.for_prompts(prompts[::-1] + prompts).identity()
    assert one["pool"]["size"] == 12
    assert one != first.for_prompts(prompts[:11]).identity()
    assert one != fifth.for_prompts(prompts).identity()
    assert first.rows == {}


def test_too_few_prompts_and_unknown_prompts_are_refused(first: RPrecision, fifth: RecallAt5) -> None:
    images, prompts = pairs(6)
    with pytest.raises(UserError, match="recall@5 among 5 different prompts is always 1; use more than 5"):
        fifth.for_prompts(prompts[:5])
    with pytest.raises(UserError, match="R-precision among 1 different prompts"):
        first.for_prompts(["a bee", "A  Bee"])
    with pytest.raises(ValueError, match="for_prompts was not called with"):
        first.for_prompts(prompts[:5]).score(images[:1], prompts[5:])


def test_the_package_brings_neither_open_clip_nor_torchvision_with_it() -> None:
    code = (
        "import sys, clip_benchmark.metrics.zeroshot_retrieval as z; "
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'open_clip', 'torchvision', 'sklearn', 'webdataset'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
