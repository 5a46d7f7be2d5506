"""What libraries do to fixed inputs, as one digest: equal digests mean equal behaviour, whatever the versions are called.

Only what reaches results is probed: Pillow's JPEG decoder and its filters, torch's random numbers and its resizing, and the text
cleaning of `tokenizers` and `ftfy`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from bench.core.images import open_image, resize_image
from bench.core.randomness import normal
from bench.core.values import digest

JPEG = Path(__file__).with_name("probe.jpg")
TEXTS = ("Café déjà vu — “smart” ﬁne…", "一只猫 🐱, 東京", "  two\tdogs &amp;\n1st 3.5x ", "it's İstanbul's ẞ")
DECIMALS = 4
"""Floats are compared to so many digits after the point: processors differ in the last bits of a sum."""


@functools.cache
def libraries_digest() -> str:
    """Digest of what the installed libraries do to the probes, 12 hex digits; takes milliseconds, once per process."""
    return digest({"images": _images(), "tensors": rounded_tensors(), "texts": _texts()})


def _images() -> list[str]:
    decoded = open_image(JPEG)
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
    return [image.tobytes().hex() for image in (decoded, *(resize_image(decoded, (13, 31), each) for each in filters))]


def rounded_tensors() -> list[list[float]]:
    """Random numbers and resized images, rounded to `DECIMALS`."""
    noise = normal((8,), "probe")
    image = torch.linspace(0, 1, 35).square().reshape(1, 1, 5, 7)
    resized = [
        functional.interpolate(image, size=(3, 9), mode="bicubic", align_corners=False, antialias=antialias)
        for antialias in (False, True)
    ]
    return [np.round(values.double().flatten().numpy(), DECIMALS).tolist() for values in (noise, *resized)]


def _texts() -> list[object]:
    import ftfy
    from tokenizers import normalizers, pre_tokenizers

    cleaning = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bert = normalizers.BertNormalizer()
    words, parts = pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.BertPreTokenizer()
    return [
        [
            ftfy.fix_text(text),
            cleaning.normalize_str(text),
            bert.normalize_str(text),
            words.pre_tokenize_str(text),
            parts.pre_tokenize_str(text),
        ]
        for text in TEXTS
    ]
