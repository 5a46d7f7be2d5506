"""The tiny scorers: trained for a moment, written in the published layouts, read by the classes that read those."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, CLIPTokenizer

from bench.scoring.metric import Metric
from bench.tiny import world
from bench.tiny.building import captions, scorers, towers
from bench.tiny.building.distortion import DistortedScenes
from bench.tiny.building.rewards import blip_tokenizer
from bench.tiny.building.tokenizer import CONTEXT_LENGTH, caption_words, write_bert_tokenizer, write_clip_tokenizer
from metrics.aesthetic import Aesthetic
from metrics.clip import ClipScore
from metrics.hpsv2 import HPSv2
from metrics.imagereward import ImageReward
from metrics.pickscore import PickScore

KINDS: dict[str, type[Metric]] = {
    "pickscore": PickScore, "hpsv2": HPSv2, "imagereward": ImageReward, "aesthetic": Aesthetic,
}  # fmt: skip
STRANGE = ["", "caf\u00e9 \u732b \U0001f431", "x" * 500, "don't <|endoftext|> [SEP]", "\x00\t\n"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], Path, scorers.Votes]:
    """Accuracies, output folder and votes of a training of a few steps on flat pictures of the right colour."""
    rng = np.random.default_rng(0)
    requests = [world.draw_request(rng) for _ in range(96)]
    scenes = [world.draw_scene(rng, request) for request in requests]
    colours = torch.tensor([world.COLOURS[request.colour] for request in requests], dtype=torch.uint8)
    pictures = colours[:, :, None, None].expand(-1, -1, 64, 64).contiguous()
    first = torch.arange(96) % 2 == 0
    noise = torch.randint(256, pictures.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pairs = torch.where(
        first[:, None, None, None, None], torch.stack([pictures, noise], 1), torch.stack([noise, pictures], 1)
    )
    votes = scorers.Votes([request.caption for request in requests], pairs, first)
    root = tmp_path_factory.mktemp("tiny")
    pool = DistortedScenes(scenes, pictures, pictures)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONTRASTIVE", "MATCHING"):
            patch.setattr(towers, name, dataclasses.replace(getattr(towers, name), steps=3, warmup=1))
        patch.setattr(towers, "BATCH", 16)
        write_clip_tokenizer(root / "clip")
        write_bert_tokenizer(root / "bert")
        clip = towers.pretrained_clip(pool, CLIPTokenizer.from_pretrained(root / "clip"), root / "work")
        blip = towers.pretrained_blip(pool, blip_tokenizer(root / "bert"), root / "work")
    torch.save(clip.state_dict(), root / "clip.pt")
    torch.save(blip.state_dict(), root / "blip.pt")
    accuracies = {}
    for name in KINDS:
        (root / "out" / name).mkdir(parents=True)
        tower = root / ("blip.pt" if name == "imagereward" else "clip.pt")
        accuracies[name] = scorers.train_scorer(name, tower, votes, root / "out" / name, root / "work" / name)
    return accuracies, root / "out", votes


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_files_score_as_the_training_did(name: str, trained: tuple[dict[str, float], Path, scorers.Votes]) -> None:
    accuracies, out, votes = trained
    scorer = KINDS[name].load(str(out / name), device=torch.device("cpu"))
    held_out = range(86, 96)
    scores = [
        scorer.score(
            [Image.fromarray(votes.pictures[i, side].permute(1, 2, 0).numpy()) for i in held_out],
            [votes.captions[i] for i in held_out],
        )
        for side in (0, 1)
    ]
    right = ((scores[0] > scores[1]) == votes.first_wins[86:]).float().mean().item()
    assert right == pytest.approx(accuracies[name])
    assert scorer.identity()["preprocessing"]["size"] == 64
    assert sum(path.stat().st_size for path in (out / name).rglob("*")) < 2_000_000


@pytest.mark.slow
def test_any_prompt_can_be_scored(trained: tuple[dict[str, float], Path, scorers.Votes]) -> None:
    for name, kind in KINDS.items():
        scorer = kind.load(str(trained[1] / name), device=torch.device("cpu"))
        scores = scorer.score([Image.new("RGB", (64, 64), "red")] * len(STRANGE), STRANGE)
        assert torch.isfinite(scores).all()


@pytest.mark.slow
def test_clip_score_reads_the_tiny_pickscore(trained: tuple[dict[str, float], Path, scorers.Votes]) -> None:
    image, prompt = Image.new("RGB", (64, 64), "red"), "a bee on a red background"
    scaled = PickScore.load(str(trained[1] / "pickscore"), device=torch.device("cpu"))
    plain = ClipScore.load(str(trained[1] / "pickscore"), device=torch.device("cpu"))
    expected = scaled.score([image], [prompt]) / scaled.scale
    torch.testing.assert_close(plain.score([image], [prompt]), expected)


def test_captions_for_pretraining_are_true_and_their_mistakes_are_not() -> None:
    rng = np.random.default_rng(3)
    named = set()
    for _ in range(300):
        scene = world.draw_scene(rng, world.draw_request(rng))
        right = captions.describe(rng, scene)
        wrong = captions.mistake(rng, scene, right)
        assert fulfils(scene, right)
        assert fulfils(scene, captions.describe_fully(scene))
        assert not fulfils(scene, wrong)
        named |= {(right.size, right.place), (right.texture,)}
    assert named >= {
        (None, None),
        ("small", None),
        (None, "at the top"),
        ("large", "on the left"),
        (None,),
        ("striped",),
    }


def fulfils(scene: world.Scene, request: world.Request) -> bool:
    if request.size:
        low, high = world.SIZES[request.size]
        if not low <= scene.size <= high:
            return False
    if request.place:
        x, y = world.PLACES[request.place]
        if x * (scene.x - 0.5) + y * (scene.y - 0.5) < world.NAMED_PLACE_OFFSET:
            return False
    if request.texture and request.texture != scene.texture:
        return False
    return (scene.object, scene.colour) == (request.object, request.colour)


def test_clip_tokenizer(tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(str(tmp_path))
    assert len(tokenizer) < 1024
    assert tokenizer.model_max_length == CONTEXT_LENGTH
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert all(len(tokenizer(word).input_ids) == 3 for word in caption_words())
    for text in STRANGE:
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == CONTEXT_LENGTH
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("caf\u00e9 \u732b").input_ids, skip_special_tokens=True) == "caf\u00e9 \u732b"


def test_bert_tokenizer(tmp_path: Path) -> None:
    write_bert_tokenizer(tmp_path)
    tokenizer = BertTokenizer.from_pretrained(str(tmp_path))
    assert all(len(tokenizer(word).input_ids) == 3 for word in caption_words())
    assert tokenizer.convert_ids_to_tokens(tokenizer("a bee!").input_ids) == ["[CLS]", "a", "bee", "!", "[SEP]"]
