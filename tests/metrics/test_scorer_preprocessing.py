"""The three routes from a picture to a tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from filled import GOLDEN, picture, points
from PIL import Image

from bench import CLIP_MEAN, CLIP_STD
from metrics.preprocessing import (
    HuggingFacePreprocessing,
    LetterboxPreprocessing,
    OpenAIPreprocessing,
    Preprocessing,
)

ROUTES = {
    "openai": OpenAIPreprocessing(224),
    "huggingface": HuggingFacePreprocessing(224),
    "letterbox": LetterboxPreprocessing(224),
    "letterbox_antialiased": LetterboxPreprocessing(224, antialias=True),
}
CASES = [(route, image) for route in ROUTES for image in GOLDEN["points"][route]]


@pytest.mark.parametrize(("route", "image"), CASES)
def test_pixels_equal_the_official_ones(route: str, image: str) -> None:
    pixels = ROUTES[route](picture(image))
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == torch.float32
    # The bicubic kernel for tensors changed in its last bits since torch 2.0; by 3.1e-6 at most between 2.9 and today's.
    np.testing.assert_allclose(points(pixels), GOLDEN["points"][route][image], rtol=0, atol=4e-6)


@pytest.mark.parametrize(("route", "image"), CASES)
def test_the_route_with_gradient_differs_by_less_than_half_a_level(route: str, image: str) -> None:
    shown = picture(image).convert("RGB")  # of other modes, Pillow resizes other values
    values = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255
    apart = (ROUTES[route].pixels(values)[0] - ROUTES[route](shown)).abs()
    # Pillow rounds to 256 levels and clips after each of two passes; the deviations by which both are divided are at least .26.
    assert apart.mean() < 0.5 / 255 / 0.26
    assert apart.max() < 0.15


def test_crops_of_p1_and_p2_are_one_pixel_apart_when_the_surplus_is_3_modulo_4() -> None:
    columns = np.arange(227, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(columns[None, :, None], (224, 227, 3)).copy())
    first = [
        (route(image)[0, 0, 0].item() * CLIP_STD[0] + CLIP_MEAN[0]) * 255
        for route in (OpenAIPreprocessing(224), HuggingFacePreprocessing(224))
    ]
    assert first == pytest.approx([2, 1], abs=1e-3)


@pytest.mark.parametrize("size", [(224, 224), (224, 229), (228, 224), (300, 300)])
def test_p1_and_p2_agree_otherwise(size: tuple[int, int]) -> None:
    image = picture("sq512").resize(size)
    assert torch.equal(OpenAIPreprocessing(224)(image), HuggingFacePreprocessing(224)(image))


def test_letterbox_pads_a_picture_whose_long_side_needs_no_resize() -> None:
    pixels = LetterboxPreprocessing(224)(picture("edge224x180"))
    black = torch.tensor([-mean / deviation for mean, deviation in zip(CLIP_MEAN, CLIP_STD, strict=True)])
    assert pixels.shape == (3, 224, 224)
    for edge in (pixels[:, :22], pixels[:, -22:]):
        torch.testing.assert_close(edge, black[:, None, None].expand_as(edge))
    inside = torch.from_numpy(np.array(picture("edge224x180"))).permute(2, 0, 1) / 255
    expected = (inside - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    torch.testing.assert_close(pixels[:, 22:202], expected)


def test_letterbox_puts_the_odd_pixel_right_and_below() -> None:
    white = LetterboxPreprocessing(8)(Image.new("RGB", (8, 5), "white"))[0]
    assert (white > 0).any(dim=1).tolist() == [False, *[True] * 5, False, False]
    white = LetterboxPreprocessing(8)(Image.new("RGB", (3, 8), "white"))[0]
    assert (white > 0).any(dim=0).tolist() == [False, False, *[True] * 3, False, False, False]


def test_letterbox_keeps_something_of_a_very_thin_picture() -> None:
    assert (LetterboxPreprocessing(8)(Image.new("RGB", (1000, 3), "white"))[0] > 0).any()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("route", [OpenAIPreprocessing(16), HuggingFacePreprocessing(16), LetterboxPreprocessing(16)])
def test_every_mode_becomes_rgb(mode: str, route: Preprocessing) -> None:
    pixels = route(Image.new("RGB", (40, 20), (200, 40, 90)).convert(mode))
    assert pixels.shape == (3, 16, 16)
    assert torch.isfinite(pixels).all()


def test_identity_says_what_decides_the_pixels() -> None:
    assert OpenAIPreprocessing(224).identity() == {"name": "openai", "size": 224, "antialias": True}
    assert HuggingFacePreprocessing(64).identity() == {"name": "huggingface", "size": 64, "antialias": True}
    assert LetterboxPreprocessing(224).identity() == {"name": "letterbox", "size": 224, "antialias": False}
    assert LetterboxPreprocessing(224, antialias=True).identity()["antialias"] is True
