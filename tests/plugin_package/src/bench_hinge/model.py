"""The tiny model, judged by its brightness alone."""

import dataclasses

from bench.tiny import TINY

TINY_BRIGHT = dataclasses.replace(TINY, title="Tiny, bright", metrics={"brightness": None})
