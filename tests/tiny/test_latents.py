from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from bench.tiny import ASSETS, world
from bench.tiny.building import latents
from bench.tiny.building.captions import true_places
from bench.tiny.building.latents import WRONG_CAPTIONS, Shards, shard_scenes, web_captions
from bench.tiny.building.layout_heads import layout
from bench.tiny.building.tokenizer import write_clip_tokenizer


def is_true(scene: world.Scene, caption: str) -> bool:
    request = world.parse_caption(caption)
    assert request is not None, caption
    if request.size:
        low, high = world.SIZES[request.size]
        if not low <= scene.size <= high:
            return False
    return (
        (request.object, request.colour) == (scene.object, scene.colour)
        and (request.place is None or request.place in true_places(scene))
        and request.texture in (None, scene.texture)
    )


def test_a_stated_share_of_scenes_has_one_wrong_caption_and_the_others_right_ones() -> None:
    scenes = shard_scenes(0)[:2000]
    captions = [web_captions(scene, np.random.default_rng((1, row))) for row, scene in enumerate(scenes)]
    wrong = [not is_true(scene, texts[0]) for scene, texts in zip(scenes, captions, strict=True)]
    assert np.mean(wrong) == pytest.approx(WRONG_CAPTIONS, abs=0.03)
    for scene, texts, mistaken in zip(scenes, captions, wrong, strict=True):
        assert len(set(texts)) == 1 if mistaken else all(is_true(scene, text) for text in texts)


def test_captions_name_extras_often_and_leave_them_open_often() -> None:
    scenes = shard_scenes(1)[:1000]
    requests = [
        world.parse_caption(text)
        for row, scene in enumerate(scenes)
        for text in web_captions(scene, np.random.default_rng((2, row)))
    ]
    for extra in ("size", "place", "texture"):
        assert 0.15 < np.mean([getattr(request, extra) is not None for request in requests]) < 0.5


def test_shards_are_made_when_needed_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD", 6)
    vae = AutoencoderKL.from_pretrained(ASSETS / "model" / "vae", local_files_only=True)
    write_clip_tokenizer(tmp_path / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    rows, variants = torch.tensor([0, 7, 5]), torch.tensor([0, 3, 1])
    made = Shards(vae, tokenizer, tmp_path / "latents").take(rows, variants)
    assert sorted(path.name for path in (tmp_path / "latents").glob("*.npy")) == ["000.npy", "001.npy"]
    read = Shards(vae, tokenizer, tmp_path / "latents").take(rows, variants)
    assert all(torch.equal(one, other) for one, other in zip(made, read, strict=True))
    assert made[0].shape == (3, 4, 16, 16)
    scene = shard_scenes(1)[1]
    with torch.no_grad():
        pixels = torch.from_numpy(np.asarray(world.render(scene)).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        expected = vae.encode(pixels).latent_dist.mean[0] * vae.config.scaling_factor
    torch.testing.assert_close(made[0][1], expected, atol=0.01, rtol=0.01)
    caption = web_captions(scene, np.random.default_rng((17, 1, 1)))[3]
    assert tokenizer.decode(made[1][1], skip_special_tokens=True) == caption
    assert made[2][1].tolist() == pytest.approx(layout(scene))
