"""HPSv2: CLIP ViT-H/14 trained on the Human Preference Dataset v2.

Wu et al., Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image Synthesis,
2023, arXiv:2306.09341; code https://github.com/tgxs002/HPSv2.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from bench import MetricInfo, UserError
from metrics.checkpoints import (
    Source,
    build,
    checkpoint_digest,
    fill,
    find_weights,
    load_tokenizer,
    read_json,
    read_tensors,
    tokenizer_files,
)
from metrics.cosine import CosineScore, cleaned_ids
from metrics.preprocessing import LetterboxPreprocessing

CONFIGURATION = "open_clip_config.json"
VIT_H_14: dict[str, Any] = {
    "embed_dim": 1024,
    "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
}
"""The architecture of both published versions, as an open_clip configuration."""

_TOPS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
    "logit_scale": "logit_scale",
}
_PARTS = {
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "text_model.final_layer_norm.": "ln_final.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}


class HPSv2(CosineScore):
    """The cosine, version 2.1, registered as ``hpsv2``; scores of 2.0 and 2.1 are not comparable.

    A checkpoint is a weights file with the names of open_clip, a folder that holds one (``HPS_v2.1*.pt``), or a hub id.
    Optional files beside it: ``open_clip_config.json`` (tensors do not state head counts; the default is ViT-H-14) and the
    tokenizer's ``vocab.json`` and ``merges.txt`` (the default is OpenAI's CLIP).
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="HPSv2.1",
        raw_range="-1 to 1",
        unit="cosine",
        display_factor=100.0,
        published="14.5 to 31.3 on the authors' benchmark; SD1.4 25.35, SDXL-base-0.9 30.63",
        conventions="papers and the official evaluate() report it x 100, the official score() unscaled",
        source="arXiv:2306.09341, https://github.com/tgxs002/HPSv2",
        ties="agree",
    )
    version: ClassVar[str] = "v2.1"
    files: ClassVar[tuple[str, ...]] = ("HPS_v2.1*.pt",)
    published: ClassVar[str] = "xswu/HPSv2"
    published_tokenizer: ClassVar[str] = "openai/clip-vit-large-patch14"

    @classmethod
    def load(cls, checkpoint: str | None, *, device: torch.device, antialias: bool = False) -> Self:
        """See `Metric.load`.

        Args:
            checkpoint: see the class.
            device: see `Metric.load`.
            antialias: see `metrics.preprocessing.LetterboxPreprocessing`; True matches the official package with torchvision 0.17
                or later.
        """
        from transformers import CLIPModel, CLIPTokenizer

        companions = [CONFIGURATION, *tokenizer_files(CLIPTokenizer)]
        path = find_weights(checkpoint or cls.published, cls.files, companions)
        check_version(path, cls.version)
        configuration = path.parent / CONFIGURATION
        settings = read_json(configuration, {"model_cfg": VIT_H_14})
        model = build(lambda: CLIPModel(clip_config(settings["model_cfg"])), path)
        fill(model, read_tensors(path), path, open_clip_source)
        text = model.config.text_config
        tokenizer = load_tokenizer(CLIPTokenizer, path.parent, cls.published_tokenizer, vocabulary=text.vocab_size)
        tokenize = cleaned_ids(tokenizer, text.max_position_embeddings)
        preprocessing = LetterboxPreprocessing(model.config.vision_config.image_size, antialias)
        weights = checkpoint_digest(path, configuration, tokenizer=tokenizer)
        return cls(model, tokenize, preprocessing, device=device, weights=weights)


class HPSv20(HPSv2):
    """The cosine, version 2.0, registered as ``hpsv2.0``; the default of the official package's ``score``."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="HPSv2.0",
        raw_range="-1 to 1",
        unit="cosine",
        display_factor=100.0,
        published="23.6 to 27.9 on the authors' benchmark; SD1.4 26.95, SD2.0 27.17, SDXL-base-0.9 27.73",
        conventions="papers and the official evaluate() report it x 100, the official score() unscaled",
        source="arXiv:2306.09341, https://github.com/tgxs002/HPSv2",
        ties="agree",
    )
    version: ClassVar[str] = "v2.0"
    files: ClassVar[tuple[str, ...]] = ("HPS_v2_*.pt", "HPS_v2.pt", "HPS_v2.0*.pt")


def check_version(path: Path, wanted: str) -> None:
    """Refuse a file whose name states the other version: both have the same layout, so the wrong one would load silently.

    Raises:
        UserError: it is the authors' file name for another version.
    """
    named = re.match(r"HPS_v2(?:\.(\d))?(?!\d)", path.name)
    if named and (stated := f"v2.{named[1] or 0}") != wanted:
        other = "hpsv2.0" if stated == "v2.0" else "hpsv2"
        raise UserError(f"{path} holds HPS {stated}, not {wanted}; score it with the metric {other}")


def clip_config(model: dict[str, Any]) -> Any:
    """The `CLIPConfig` of an open_clip ``model_cfg``."""
    from transformers import CLIPConfig

    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return CLIPConfig(
        projection_dim=model["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": round(vision["width"] * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
        },
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": round(text["width"] * text.get("mlp_ratio", 4)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "hidden_act": activation,
            "bos_token_id": None,
            "eos_token_id": 2,  # pool at the highest id, as open_clip does
        },
    )


def open_clip_source(name: str) -> Source:
    """Where open_clip keeps the parameter that transformers calls ``name``."""
    if name in _TOPS:
        transposed = name in ("visual_projection.weight", "text_projection.weight")
        return _TOPS[name], (lambda tensor: tensor.T.contiguous()) if transposed else (lambda tensor: tensor)
    for part, official in _PARTS.items():
        name = name.replace(part, official)
    for place, letter in enumerate("qkv"):
        head, found, kind = name.partition(f".self_attn.{letter}_proj.")
        if found:
            return f"{head}.attn.in_proj_{kind}", lambda tensor, place=place: tensor.chunk(3)[place]
    return name, lambda tensor: tensor
