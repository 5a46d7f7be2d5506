"""Pictures: damaged, in formats that start programs, too large, or left out."""

from __future__ import annotations

import os
import struct
import zlib

from tests.fuzz.place import Expect, Place, kind, picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def scored(place: Place, name: str, content: bytes, *says: str) -> Expect:
    """A folder with one good picture and this one, which is named as unreadable."""
    place.write("images/good.png", picture(1))
    place.write(f"images/{name}", content)
    return Expect(["score", "images", "--metrics", "aesthetic", "--model", "tiny"], (0, 2), says=(name, *says))


def checked(place: Place, name: str, content: bytes) -> Expect:
    """Pairs that name it, all of which are refused."""
    records = place.records(image_1=place.write(name, content))
    return Expect(["data", "check", place.lines(records)], (2,), refusal_says=("pairs.jsonl",), never=("labels none",))


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(min((width // 8 + 1) * height, 1 << 24)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@kind(3, 5)
def programs_in_pictures(place: Place) -> Expect:
    name = place.rng.choice(["x.png", "x.jpg", "x.webp"])
    content = place.rng.choice(
        [
            EPS,
            b"%PDF-1.4\n",
            b"#!/bin/sh\n",
            b"\xc5\xd0\xd3\xc6" + bytes(60) + EPS,
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        ]
    )
    return place.rng.choice([scored, checked])(place, name, content)


@kind(5, 3)
def pictures_that_are_too_large(place: Place) -> Expect:
    size = place.rng.choice([(16000, 16000), (20000, 20000), (8400, 8400), (65535, 65535), (2**31 - 1, 2**31 - 1)])
    return place.rng.choice([scored, checked])(place, "x.png", bomb(*size))


@kind(8, 6)
def damaged_pictures(place: Place) -> Expect:
    form = place.rng.choice(["png", "jpeg", "webp", "bmp", "gif", "tiff"])
    content = picture(0, kind=form)
    how = place.rng.choice(["empty", "cut", "noise", "text"])
    content = {
        "empty": b"",
        "cut": content[: place.rng.randrange(1, len(content) // 3)],
        "noise": place.rng.randbytes(300),
        "text": b"hello\n",
    }[how]
    return place.rng.choice([scored, checked])(place, "x.png", content)


@kind(8, 3)
def pictures_left_out(place: Place) -> Expect:
    place.write("images/good.png", picture(1))
    name = place.rng.choice(["x.jfif", "x.heic", "x.JPEGX", "link.png"])
    if name == "link.png":
        (place.folder / "images" / name).symlink_to("nowhere.png")
    else:
        place.write(f"images/{name}", picture(2, kind="jpeg"))
    return Expect(["score", "images", "--metrics", "aesthetic", "--model", "tiny"], (0, 2), says=(name,))


@kind(8, 2)
def no_pictures(place: Place) -> Expect:
    (place.folder / "images").mkdir()
    if place.rng.random() < 0.5:
        place.write("images/a.txt", "a bee")
    typed = place.rng.choice(["images", "nowhere", "images/a.txt", "x" * 3000, ""])
    return Expect(["score", typed, "--metrics", "aesthetic", "--model", "tiny"], (2,))


@kind(8, 2)
def digits_in_names(place: Place) -> Expect:
    names = place.rng.choice(
        [("\u00b2.png", "1.png"), ("\u0663.png", "2.png"), ("\u2460.png", "\u2461.png"), ("9" * 200 + ".png", "1.png")]
    )
    for number, name in enumerate(names):
        place.write(f"images/{name}", picture(number + 1))
    return Expect(["score", "images", "--metrics", "aesthetic", "--model", "tiny"], (0, 2))


@kind(5, 2)
def devices_as_files(place: Place) -> Expect:
    os.mkfifo(place.folder / "pipe")
    words = place.rng.choice([
        ["data", "check", "pipe"], ["score", "images", "--prompts", "pipe", "--metrics", "pickscore", "--model", "tiny"],
        ["eval", "--model", "tiny", "--prompts", "pipe"], ["data", "check", "pairs.jsonl"], ["score", "images", "--metrics", "aesthetic", "--model", "tiny"],
    ])  # fmt: skip
    place.lines(place.records(image_0="pipe"))
    place.write("images/good.png", picture(1))
    if words[:2] == ["score", "images"] and "--prompts" not in words:
        os.mkfifo(place.folder / "images" / "p.png")
        return Expect(words, (0, 2), says=("p.png",))
    return Expect(words, (2,))
