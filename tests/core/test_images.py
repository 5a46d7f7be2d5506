"""Opening and resizing: the same pixels whatever the file's mode, orientation and Pillow's version."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from bench.core.images import FORMATS, UnreadableImageError, open_image, resize_image
from tests.metrics import golden_sizes

GOLDEN = json.loads(golden_sizes.FILE.read_text())["digests"]
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "png", **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **how)
    return stream.getvalue()


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", golden_sizes.SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_pixels_of_every_size_are_those_of_older_versions(size: tuple[int, int], resample: str) -> None:
    image, target = golden_sizes.picture(*size), golden_sizes.covering(*size, 224)
    made = resize_image(image, target, Image.Resampling[resample.upper()])
    assert golden_sizes.digest(made) == GOLDEN[f"{size[0]}x{size[1]}"][resample]


def test_transparent_pixels_do_not_bleed_when_resized() -> None:
    half = np.zeros((8, 8, 4), dtype=np.uint8)
    half[:, :4] = (255, 0, 0, 255)
    half[:, 4:] = (0, 255, 0, 0)
    small = np.asarray(resize_image(Image.fromarray(half), (4, 4), Image.Resampling.BILINEAR))
    assert small[0, 1].tolist()[:3] == [255, 0, 0]


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (0, 5)), (3, (3, 5)), (4, (3, 0)), (5, (0, 0)), (6, (0, 3)), (8, (5, 0))],
)
def test_the_orientation_of_a_camera_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    """The white pixel is stored first; the standard's table says where it is shown."""
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    opened = open_image(encoded(Image.fromarray(pixels), exif=exif))
    assert opened.size == ((6, 4) if orientation < 5 else (4, 6))
    (found,) = np.argwhere(np.asarray(opened).sum(-1) > 0).tolist()
    assert tuple(found) == corner


def test_grey_of_16_bits_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257, 25_700, 65_535]], dtype=np.uint16)
    for kind in ("png", "tiff"):
        opened = open_image(encoded(Image.fromarray(values), kind))
        assert opened.mode == "L"
        assert np.asarray(opened).tolist() == [[0, 1, 100, 255]]


def test_floats_from_0_to_1_are_scaled() -> None:
    opened = open_image(encoded(Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32)), "tiff"))
    assert np.asarray(opened).tolist() == [[0, 51, 255]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.0, 200.0]], dtype=np.float32), "floats outside the range 0 to 1"),
        (np.array([[0.0, np.nan]], dtype=np.float32), "floats outside the range 0 to 1"),
        (np.array([[0, 70_000]], dtype=np.int32), "32-bit integers, whose range is unknown"),
    ],
)
def test_values_of_unknown_range_are_refused(values: np.ndarray[Any, Any], reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        open_image(encoded(Image.fromarray(values), "tiff"))


def test_what_is_transparent_is_seen_on_white() -> None:
    magenta = np.zeros((1, 3, 4), dtype=np.uint8)
    magenta[0] = [(255, 0, 255, 0), (255, 0, 255, 255), (0, 0, 0, 51)]
    opened = open_image(encoded(Image.fromarray(magenta)))
    assert opened.mode == "RGB"
    assert np.asarray(opened)[0].tolist() == [[255, 255, 255], [255, 0, 255], [204, 204, 204]]
    palette = Image.frombytes("P", (2, 1), bytes([0, 1]))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    opened = open_image(encoded(palette, transparency=0)).convert("RGB")
    assert np.asarray(opened)[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_other_modes_stay_as_they_are() -> None:
    for mode in ("L", "RGB", "P"):
        image = Image.new("RGB", (3, 2), (200, 40, 90)).convert(mode)
        assert open_image(encoded(image)).mode == mode


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_of_the_list_is_opened_whatever_the_files_name(tmp_path: Path, kind: str) -> None:
    if kind not in Image.registered_extensions().values() or (kind == "AVIF" and not features.check("avif")):
        pytest.skip(f"this Pillow has no {kind}")
    Image.new("RGB", (16, 8), (90, 40, 10)).save(tmp_path / "image.dat", format=kind)
    assert open_image(tmp_path / "image.dat").size == (16, 8)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX", "ICO", "SGI", "EPS", "PDF", "DIB", "ICNS"])
def test_no_other_format_is_opened(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png", format=kind)
    with pytest.raises(UnreadableImageError, match="not an image in one of the formats"):
        open_image(tmp_path / "image.png")


def test_of_an_animation_only_the_first_frame_is_decoded() -> None:
    stream = io.BytesIO()
    frames = [Image.effect_noise((64, 64), 90) for _ in range(3)]
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:])
    content = stream.getvalue()
    cut = content[: len(content) // 2]  # in the second frame
    assert open_image(content).tobytes() == open_image(cut).tobytes()


def test_a_file_that_is_too_large_for_an_image_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "image.png").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(UnreadableImageError, match="more than the limit of 536870912 bytes"):
        open_image(tmp_path / "image.png")


@pytest.mark.parametrize("size", [(1, 101), (5000, 49)])
def test_an_image_that_is_far_longer_than_wide_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(UnreadableImageError, match="one side more than 100 times the other"):
        open_image(tmp_path / "thin.png")


def test_an_image_of_one_to_a_hundred_is_opened(tmp_path: Path) -> None:
    Image.new("RGB", (100, 1)).save(tmp_path / "thin.png")
    assert open_image(tmp_path / "thin.png").size == (100, 1)
