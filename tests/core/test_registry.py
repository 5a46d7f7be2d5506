from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import UserError, did_you_mean
from bench.core.registry import ClassOf, InstanceOf, Registry, origin
from bench.models.registry import FAMILIES, MODELS
from bench.prompts.sets import PROMPT_SETS
from bench.scoring.metric import METRICS
from bench.training.algorithm import ALGORITHMS

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    def make(distribution: str, entries: dict[str, str], modules: dict[str, str] | None = None) -> None:
        site = tmp_path / distribution
        facts = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (facts / "entry_points.txt").write_text("\n".join(["[bench.algorithms]", *lines]) + "\n")
        for name, source in (modules or {}).items():
            (site / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    return make


def fresh() -> Registry[object]:
    return Registry("bench.algorithms", "algorithm", InstanceOf(object))


def test_our_own_parts_come_through_entry_points_of_our_own_distribution() -> None:
    assert {"sft", "dpo", "smpo", "inpo"} <= set(ALGORITHMS)
    assert {"pickscore", "hpsv2", "imagereward", "aesthetic", "clip", "gold"} <= set(METRICS)
    assert {"tiny", "sd15"} <= set(MODELS)
    assert origin(ALGORITHMS.point("dpo")).startswith("diffusion-alignment-bench ")


@pytest.mark.parametrize(
    "entries", [ALGORITHMS, METRICS, MODELS, FAMILIES, PROMPT_SETS], ids=lambda entries: entries.group
)
def test_every_entry_of_ours_can_be_imported(entries: Registry[object]) -> None:
    problems = {name: entries.problem(name) for name in entries}
    assert list(problems.values()) == [None] * len(problems)


def test_a_third_party_entry_is_found_and_imported_only_when_asked_for(install: Install) -> None:
    install("third-party", {"outsider": "third_party_hinge:HINGE"}, {"third_party_hinge": "HINGE = 'the hinge'\n"})
    found = fresh()
    assert "outsider" in found
    assert "dpo" in found
    assert "third_party_hinge" not in sys.modules
    assert found.get("outsider") == "the hinge"
    assert origin(found.point("outsider")) == "third-party 1.5"
    del sys.modules["third_party_hinge"]


def test_a_broken_entry_stays_listed_with_the_exception_of_its_import(install: Install) -> None:
    install("broken", {"broken": "broken_part:X"}, {"broken_part": "raise RuntimeError('no CUDA 99 here')\n"})
    found = fresh()
    assert "broken" in list(found)
    problem = found.problem("broken")
    assert isinstance(problem, RuntimeError)
    assert str(problem) == "no CUDA 99 here"
    assert found.problem("dpo") is None
    with pytest.raises(RuntimeError, match="no CUDA 99 here"):
        found.get("broken")


SHAPES = """
import abc

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Square(Shape):
    corners = 4
    def area(self): return 1

class Unstated(Shape):
    def area(self): return 1

class Misstated(Square):
    corners = "four"

class Vague(Shape):
    corners = 0

class Plain:
    corners = 4

SQUARE = Square()
"""


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("Unstated", "Unstated states no corners"),
        ("Misstated", "Misstated states corners as 'four', not as int"),
        ("Vague", "Vague does not define area"),
        ("Plain", "Plain is not a subclass of shapes.Shape"),
        ("SQUARE", "SQUARE is not a subclass of shapes.Shape"),
    ],
)
def test_a_class_that_is_not_what_its_kind_must_be_says_what_is_wrong(
    install: Install, part: str, sentence: str
) -> None:
    install("shapely", {"good": "shapes:Square", "bad": f"shapes:{part}"}, {"shapes": SHAPES})
    shape = importlib.import_module("shapes").Shape
    found: Registry[object] = Registry("bench.algorithms", "shape", ClassOf(shape, corners=int))
    with pytest.raises(UserError, match=f"^shape 'bad' of shapely 1.5 is malformed: {sentence}$"):
        found.get("bad")
    assert isinstance(found.problem("bad"), UserError)
    assert found.problem("good") is None
    del sys.modules["shapes"]


def test_an_object_that_is_not_what_its_kind_must_be_says_so(install: Install) -> None:
    install("shapely", {"good": "shapes:SQUARE", "bad": "shapes:Square"}, {"shapes": SHAPES})
    shape = importlib.import_module("shapes").Shape
    found: Registry[object] = Registry("bench.algorithms", "shape", InstanceOf(shape))
    assert found.problem("good") is None
    with pytest.raises(UserError, match=r"^shape 'bad' of shapely 1.5 is malformed: Square is not a shapes.Shape$"):
        found.get("bad")
    del sys.modules["shapes"]


def test_a_missing_dependency_of_a_plugin_is_named_by_its_own_exception(install: Install) -> None:
    install("needy", {"needy": "needy_part:X"}, {"needy_part": "import flux_capacitor\n"})
    with pytest.raises(ModuleNotFoundError, match="flux_capacitor"):
        fresh().get("needy")


def test_two_entries_of_one_name_are_refused_with_both_distributions(install: Install) -> None:
    install("first-one", {"same": "a:X"})
    install("second-one", {"same": "b:X"})
    found = fresh()
    with pytest.raises(UserError, match="two entries are called algorithm 'same'") as refusal:
        found.get("same")
    assert "first-one 1.5 (a:X)" in str(refusal.value)
    assert "second-one 1.5 (b:X)" in str(refusal.value)
    assert isinstance(found.problem("same"), UserError)
    assert found.problem("dpo") is None


def test_a_third_party_cannot_silently_replace_one_of_ours(install: Install) -> None:
    install("usurper", {"dpo": "usurper:DPO"})
    with pytest.raises(UserError, match="two entries are called algorithm 'dpo'.*diffusion-alignment-bench"):
        fresh().get("dpo")


def test_an_unknown_name_answers_with_the_nearest_and_the_full_list() -> None:
    with pytest.raises(UserError, match="unknown algorithm 'dpoo': did you mean 'dpo'") as refusal:
        ALGORITHMS.get("dpoo")
    assert all(name in str(refusal.value) for name in ("dpo", "inpo", "sft", "smpo"))


def test_a_name_like_no_other_gets_the_list_alone() -> None:
    with pytest.raises(UserError, match="unknown metric 'xyzzyqqq': there are .*pickscore"):
        METRICS.get("xyzzyqqq")


def test_an_empty_group_says_that_there_is_none() -> None:
    with pytest.raises(UserError, match="unknown thing 'x': there are none"):
        Registry[object]("bench.nothing", "thing", InstanceOf(object)).get("x")


def test_nearest_names_are_quoted_best_first() -> None:
    assert did_you_mean("pikscore", ["hpsv2", "pickscore", "clip"]) == "did you mean 'pickscore'? "
    assert did_you_mean("qqqq", ["hpsv2"]) == ""
