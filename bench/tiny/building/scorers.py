"""The tiny scorers: the four published architectures, small, with towers pre-trained on scenes, trained on votes.

PickScore and HPSv2 begin, as the published ones do, from one contrastively trained CLIP, and so does the aesthetic
predictor; ImageReward begins from a BLIP that has learnt to tell a scene's caption from wrong ones.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer, CLIPVisionModelWithProjection

from bench.tiny.building import layouts
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.rewards import (
    Reward,
    aesthetic_reward,
    blip_reward,
    blip_tokenizer,
    clip_reward,
    linear_head,
)
from bench.tiny.building.tokenizer import write_bert_tokenizer, write_clip_tokenizer
from bench.tiny.building.towers import build_blip, build_clip, renormalised

VOTE_BATCH = 64
VOTE_EPOCHS = 6
VOTING = FitSettings(steps=0, learning_rate=3e-4, weight_decay=0.1, warmup=20, average=0.98)
HELD_OUT = 0.1
PIXEL_NOISE = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Votes:
    """Pairs of images of one caption, with one vote per pair.

    ``pictures`` is uint8 of shape (N, 2, 3, 64, 64); ``first_wins`` is bool of shape (N,).
    """

    captions: list[str]
    pictures: Tensor
    first_wins: Tensor

    def __len__(self) -> int:
        return len(self.captions)


def train_scorer(name: str, tower: Path, votes: Votes, out: Path, state: Path) -> float:
    """Train one scorer on its votes and write it in its published layout.

    Args:
        name: ``pickscore``, ``hpsv2``, ``imagereward`` or ``aesthetic``.
        tower: pre-trained weights, ``blip.pt`` for ImageReward and ``clip.pt`` for the others, as the stages ``clip`` and ``blip`` wrote them.
        votes: its share of votes.
        out: the folder written.
        state: where unfinished training is kept.

    Returns:
        The share of held-out votes (the last tenth) that it predicts.
    """
    weights = torch.load(tower, weights_only=True)
    if name == "imagereward":
        return _train_image_reward(weights, votes, out, state)
    write_clip_tokenizer(state / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(str(state / "tokenizer"))
    clip = build_clip(tokenizer)
    clip.load_state_dict(weights)
    if name == "aesthetic":
        return _train_aesthetic(clip, votes, out, state)
    write_clip_tokenizer(out)
    modules = nn.ModuleDict({"clip": clip})
    accuracy = train_on_votes(modules, clip_reward(clip, tokenizer), votes, state)
    if name == "pickscore":
        layouts.write_clip(out, clip)
    else:
        layouts.write_open_clip(out, "HPS_v2.1_tiny.pt", clip)
    return accuracy


def _train_aesthetic(clip: Any, votes: Votes, out: Path, state: Path) -> float:
    tower: Any = CLIPVisionModelWithProjection(clip.config.vision_config)
    tower.load_state_dict({name: value for name, value in clip.state_dict().items() if name in tower.state_dict()})
    torch.manual_seed(4)
    modules = nn.ModuleDict({"tower": tower, "head": linear_head(tower.config.projection_dim)})
    accuracy = train_on_votes(modules, aesthetic_reward(tower, modules["head"]), votes, state)
    layouts.write_aesthetic(out, tower=tower, head=modules["head"])
    return accuracy


def _train_image_reward(weights: dict[str, Tensor], votes: Votes, out: Path, state: Path) -> float:
    write_bert_tokenizer(out)
    tokenizer = blip_tokenizer(out)
    modules = build_blip(tokenizer)
    modules.load_state_dict(weights)
    accuracy = train_on_votes(modules, blip_reward(modules, tokenizer), votes, state)
    layouts.write_image_reward(out, vision=modules["vision"], text=modules["text"], head=modules["head"])
    return accuracy


def train_on_votes(modules: nn.ModuleDict, reward: Reward, votes: Votes, state: Path) -> float:
    """Fit the Bradley-Terry model to all but the last tenth of ``votes``, in place; the accuracy on that tenth.

    The weights are left as the half-precision files will hold them.
    """
    kept = len(votes) - max(1, round(HELD_OUT * len(votes)))
    settings = dataclasses.replace(VOTING, steps=math.ceil(VOTE_EPOCHS * kept / VOTE_BATCH))

    def margin(index: Tensor, noise_step: int | None) -> Tensor:
        captions = [votes.captions[i] for i in index.tolist()]
        pixels = normalised(votes.pictures[index].transpose(0, 1).flatten(0, 1))
        first, second = reward(pixels if noise_step is None else noisy(pixels, noise_step), captions * 2).chunk(2)
        return first - second

    def loss(step: int) -> Tensor:
        index = draws(step, kept, VOTE_BATCH, seed=23)
        return functional.binary_cross_entropy_with_logits(margin(index, step), votes.first_wins[index].float())

    fit("votes", modules, loss, settings, state)
    modules.half().float()
    with torch.no_grad():
        pieces = torch.arange(kept, len(votes)).split(VOTE_BATCH)
        right = [((margin(piece, None) > 0) == votes.first_wins[piece]).float() for piece in pieces]
    return torch.cat(right).mean().item()


def normalised(pictures: Tensor) -> Tensor:
    """Images, uint8 (B, 3, 64, 64), as the scorers see them: normalised with CLIP's mean and deviation, float32."""
    return renormalised(pictures.float() / 127.5 - 1)


def noisy(pixels: Tensor, step: int) -> Tensor:
    """Pixels with a little noise.  No flips and no shifts, since captions name left, right and places."""
    return pixels + PIXEL_NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(step))
