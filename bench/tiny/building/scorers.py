"""The tiny scorers: the four published architectures, small, pre-trained on scenes and then trained on votes.

PickScore and HPSv2 begin, as the published ones do, from one contrastively trained CLIP, and so does the aesthetic
predictor; ImageReward begins from a BLIP that has learnt to tell a scene's caption from wrong ones.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from bench.scoring.images import CLIP_MEAN, CLIP_STD
from bench.tiny import world
from bench.tiny.building import layouts
from bench.tiny.building.captions import captions_of
from bench.tiny.building.fitting import FitSettings, draws, fit
from bench.tiny.building.rewards import (
    Reward,
    aesthetic_reward,
    blip_reward,
    blip_tokenizer,
    clamped_scale,
    clip_reward,
    encoded,
    linear_head,
)
from bench.tiny.building.scenes import Pool
from bench.tiny.building.tokenizer import CONTEXT_LENGTH, write_bert_tokenizer, write_clip_tokenizer

PRETRAINING_BATCH = 128
CONTRASTIVE = FitSettings(steps=900, learning_rate=1.5e-3, weight_decay=0.05, average=0.99)
MATCHING = FitSettings(steps=900, learning_rate=1e-3, weight_decay=0.05, average=0.99)
WRONG_CAPTIONS = 7

VOTE_BATCH = 64
VOTE_EPOCHS = 6
VOTING = FitSettings(steps=0, learning_rate=3e-4, weight_decay=0.1, warmup=20, average=0.98)
HELD_OUT = 0.1

VISION: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 3,
    "image_size": world.RESOLUTION, "patch_size": 8, "hidden_act": "gelu",
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 3, "hidden_act": "gelu",
}  # fmt: skip

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


def train_scorers(pool: Pool, votes: Mapping[str, Votes], out: Path, work: Path) -> dict[str, float]:
    """Train the four scorers and write each in its published layout, in a folder named after it.

    Args:
        pool: drawn scenes, for pre-training.
        votes: each scorer's share, under ``pickscore``, ``hpsv2``, ``imagereward`` and ``aesthetic``.
        out: the parent of the folders written.
        work: where unfinished training is kept.

    Returns:
        The share of held-out votes (the last tenth) that each scorer predicts.
    """
    accuracies = {}
    write_clip_tokenizer(out / "pickscore")
    write_clip_tokenizer(out / "hpsv2")
    write_bert_tokenizer(out / "imagereward")
    clip_tokenizer = CLIPTokenizer.from_pretrained(str(out / "pickscore"))
    base = pretrained_clip(pool, clip_tokenizer, work)
    for name in ("pickscore", "hpsv2"):
        clip = copy.deepcopy(base)
        modules = nn.ModuleDict({"clip": clip})
        accuracies[name] = train_on_votes(name, modules, clip_reward(clip, clip_tokenizer), votes[name], work)
        if name == "pickscore":
            layouts.write_clip(out / name, clip)
        else:
            layouts.write_open_clip(out / name, "HPS_v2.1_tiny.pt", clip)

    tower: Any = CLIPVisionModelWithProjection(copy.deepcopy(base.config.vision_config))
    tower.load_state_dict({name: value for name, value in base.state_dict().items() if name in tower.state_dict()})
    modules = nn.ModuleDict({"tower": tower, "head": linear_head(tower.config.projection_dim)})
    reward = aesthetic_reward(tower, modules["head"])
    accuracies["aesthetic"] = train_on_votes("aesthetic", modules, reward, votes["aesthetic"], work)
    layouts.write_aesthetic(out / "aesthetic", tower=tower, head=modules["head"])

    bert_tokenizer = blip_tokenizer(out / "imagereward")
    modules = pretrained_blip(pool, bert_tokenizer, work)
    reward = blip_reward(modules, bert_tokenizer)
    accuracies["imagereward"] = train_on_votes("imagereward", modules, reward, votes["imagereward"], work)
    layouts.write_image_reward(
        out / "imagereward", vision=modules["vision"], text=modules["text"], head=modules["head"]
    )
    return accuracies


def pretrained_clip(pool: Pool, tokenizer: Any, work: Path) -> Any:
    """A CLIP model that matches scenes and captions; among a batch's captions is a wrong one for every scene."""
    torch.manual_seed(0)
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT_LENGTH}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
               "pad_token_id": tokenizer.pad_token_id}  # fmt: skip
    vision = VISION | {"projection_dim": 96}
    model: Any = CLIPModel(CLIPConfig(text_config=text | special, vision_config=vision, projection_dim=96))

    def loss(step: int) -> Tensor:
        index = draws(step, len(pool), PRETRAINING_BATCH, seed=21)
        right, wrong = captions_of(pool, index, step, count=1)
        captions = list(dict.fromkeys(right + wrong))
        row = {caption: place for place, caption in enumerate(captions)}
        target = torch.tensor([row[caption] for caption in right])
        texts = functional.normalize(
            model.get_text_features(**encoded(tokenizer, captions)).pooler_output.float(), dim=-1
        )
        pixels = noisy(normalised(pool.pictures[index]), step)
        scenes = functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output.float(), dim=-1)
        logits = clamped_scale(model) * scenes @ texts.T
        # Scenes of one caption are all right for it.
        same = functional.one_hot(target, len(captions)).float()[:, target].T
        return 0.5 * (
            functional.cross_entropy(logits, target)
            + functional.cross_entropy(logits[:, target].T, same / same.sum(-1, keepdim=True))
        )

    fit("scorers-contrastive", nn.ModuleDict({"clip": model}), loss, CONTRASTIVE, work)
    return model


def pretrained_blip(pool: Pool, tokenizer: Any, work: Path) -> nn.ModuleDict:
    """A BLIP (``vision``, ``text``, ``head``) that rewards a scene's caption above captions wrong in one thing."""
    torch.manual_seed(1)
    vision = BlipVisionModel(BlipVisionConfig(**VISION, layer_norm_eps=1e-6, initializer_range=0.02))
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "max_position_embeddings": 64, "encoder_hidden_size": VISION["hidden_size"],
        "bos_token_id": None, "eos_token_id": None, "sep_token_id": None,
    }  # fmt: skip
    text = BlipTextModel(BlipTextConfig(**TEXT, **settings, is_decoder=True), add_pooling_layer=False)
    modules = nn.ModuleDict({"vision": vision, "text": text, "head": linear_head(TEXT["hidden_size"])})
    reward = blip_reward(modules, tokenizer)

    def loss(step: int) -> Tensor:
        index = draws(step, len(pool), PRETRAINING_BATCH // 2, seed=22)
        right, wrong = captions_of(pool, index, step, count=WRONG_CAPTIONS)
        rewards = reward(noisy(normalised(pool.pictures[index]), step), right + wrong).view(1 + WRONG_CAPTIONS, -1)
        return functional.cross_entropy(rewards.T, torch.zeros(len(index), dtype=torch.long))

    fit("scorers-matching", modules, loss, MATCHING, work)
    return modules


def train_on_votes(name: str, modules: nn.ModuleDict, reward: Reward, votes: Votes, work: Path) -> float:
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

    fit(f"scorers-{name}", modules, loss, settings, work)
    modules.half().float()
    with torch.no_grad():
        pieces = torch.arange(kept, len(votes)).split(VOTE_BATCH)
        right = [((margin(piece, None) > 0) == votes.first_wins[piece]).float() for piece in pieces]
    return torch.cat(right).mean().item()


def normalised(pictures: Tensor) -> Tensor:
    """Images, uint8 (B, 3, 64, 64), as the scorers see them: normalised with CLIP's mean and deviation, float32."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pictures.float() / 255 - mean) / std


def noisy(pixels: Tensor, step: int) -> Tensor:
    """Pixels with a little noise.  No flips and no shifts, since captions name left, right and places."""
    return pixels + PIXEL_NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(step))
