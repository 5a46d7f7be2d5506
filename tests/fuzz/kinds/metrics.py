"""Metric plug-ins that return something else than a tensor of scores."""

from __future__ import annotations

from tests.fuzz.place import Expect, Place, kind, picture

PLUG = '''
import torch
import numpy
from importlib.metadata import entry_points
from bench import Metric

class Odd(Metric):
    """A metric that returns something odd."""

    info = next(iter(entry_points(group="bench.metrics", name="aesthetic"))).load().info

    @classmethod
    def load(cls, checkpoint, *, device):
        return cls()

    def identity(self):
        return {identity}

    def score(self, images, prompts):
        return {value}
'''
VALUES = (
    "[0.1 * i for i, _ in enumerate(images)]", "None", "'high'", "torch.full((len(images),), float('nan'))", "torch.zeros(len(images) + 1)",
    "torch.zeros(len(images), 1)", "torch.tensor(0.5)", "torch.zeros(len(images), dtype=torch.int64)", "torch.zeros(len(images), dtype=torch.complex64)",
    "torch.ones(len(images), dtype=torch.bool)", "numpy.zeros(len(images))", "{}", "0.5", "(torch.zeros(len(images)),)", "object()",
    "torch.full((len(images),), float('inf'))", "iter([])", "torch.zeros(0)", "b'x'", "torch.zeros(len(images)).to('meta')",
    "torch.zeros(len(images)).to_sparse()", "[None] * len(images)", "['a'] * len(images)", "torch.full((len(images),), 1e300, dtype=torch.float64)",
)  # fmt: skip


def install(place: Place, value: str, identity: str = "{'version': 1}") -> None:
    place.write("oddplug.py", PLUG.replace("{identity}", identity).replace("{value}", value))  # fmt: skip
    place.write("oddplug-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: oddplug\nVersion: 1.0\n")
    place.write("oddplug-1.0.dist-info/entry_points.txt", "[bench.metrics]\nodd = oddplug:Odd\n")


def scored(place: Place, *says: str, outcomes: tuple[int, ...] = (2,)) -> Expect:
    for number in range(3):
        place.write(f"images/{number}.png", picture(number))
    place.write("p.txt", "a red bee\na cat\na dog\n")
    place.parquet()
    words = place.rng.choice([
        ["score", "images", "--prompts", "p.txt", "--metrics", "odd"], ["score", "images", "--prompts", "p.txt", "--metrics", "odd"],
        ["data", "score", "pairs.parquet", "--metrics", "odd", "--output", "o.parquet"],
        ["data", "rank", "pairs.parquet", "--judge", "odd", "--output", "o.parquet"],
    ])  # fmt: skip
    return Expect(words, outcomes, refusal_says=says)


@kind(9, 22)
def metrics_that_return_something_else(place: Place) -> Expect:
    install(place, place.rng.choice(VALUES))
    return scored(place, "metric 'odd'")


@kind(9, 4)
def metrics_with_odd_identities(place: Place) -> Expect:
    identity = place.rng.choice(
        ["None", "[]", "{'a': torch.zeros(3)}", "{'a': object()}", "{1: 2}", "'x'", "{'a': float('nan')}"]
    )
    install(place, "torch.arange(len(images), dtype=torch.float32)", identity)
    return scored(place, "metric")


@kind(10, 2)
def runs_that_vanish(place: Place) -> Expect:
    """The folder of runs is removed while images are scored."""
    install(
        place,
        "(__import__('shutil').rmtree('runs', ignore_errors=True), torch.arange(len(images), dtype=torch.float32))[1]",
    )
    place.parquet()
    place.write("p.txt", "a red bee\na cat\n")
    words = place.rng.choice([
        ["eval", "--model", "tiny", "--prompts", "p.txt", "--metrics", "odd", "--sampling-steps", "1"],
        ["data", "rank", "pairs.parquet", "--judge", "odd", "--output", "o.parquet"],
    ])  # fmt: skip
    return Expect(words, (0, 2))
