from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.core.errors import UserError
from bench.core.files import file_digest
from bench.core.images import UnreadableImageError, open_image
from bench.scoring.images import find_images


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds no pixels."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks.items()
    )


def noise(side: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_images_are_found_in_all_folders_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in (
        "10.png",
        "2.png",
        "1.PNG",
        "b/x1.jpg",
        "b/x02.webp",
        ".hidden.png",
        ".cache/3.png",
        "notes.txt",
        "a.npy",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == ["1.PNG", "2.png", "10.png", "b/x1.jpg", "b/x02.webp"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images; their names must end in"):
        find_images(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        find_images(tmp_path / "nowhere")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_an_image_keeps_its_mode(tmp_path: Path, mode: str) -> None:
    image = noise().convert(mode)
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == mode
    assert np.array_equal(np.asarray(opened), np.asarray(image))


# Each passes another of the limits: ours, the one at which Pillow warns, the one at which it refuses.
@pytest.mark.parametrize("side", [9000, 10_000, 60_000])
def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(UnreadableImageError, match="more than the limit of 67108864"):
        open_image(tmp_path / "bomb.png")


def test_a_real_bomb_of_a_few_kilobytes_is_refused(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 20_000
    with pytest.raises(UnreadableImageError, match="9000 x 9000 pixels"):
        open_image(tmp_path / "bomb.png")


def test_the_largest_allowed_size_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "edge.png").write_bytes(png_header(8192, 8192))
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        open_image(tmp_path / "edge.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff"])
def test_truncated_images_are_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise(64).save(path)
    assert open_image(path).size == (64, 64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImageError):
        open_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"a bee on a red background\n", "not an image in one of the formats"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "not an image in one of the formats",
        ),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "cannot be decoded|not an image"),
    ],
)
def test_what_is_no_image_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        open_image(tmp_path / "a.png")


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea"
