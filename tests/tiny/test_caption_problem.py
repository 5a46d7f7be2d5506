from __future__ import annotations

import pytest

from bench import UserError
from bench.tiny import ASSETS
from bench.tiny.checker import Checker
from bench.tiny.world import caption_problem
from metrics.gold import Gold


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a bee on a red background", None),
        ("an owl on an orange background at the top", None),
        ("a bees on a red background", "the word 'bees', unknown in the tiny world (did you mean 'bee'"),
        ("a bee on a crimson background", "the word 'crimson', unknown in the tiny world"),
        ("a red bee on a background", "only known words, but not in the form of a caption"),
        ("", "only known words, but not in the form of a caption"),
    ],
)
def test_a_caption_that_cannot_be_parsed_names_its_first_unknown_word(caption: str, said: str | None) -> None:
    problem = caption_problem(caption)
    assert problem is said is None or (problem is not None and said is not None and said in problem)


def test_gold_names_the_word() -> None:
    gold = Gold(Checker.load(str(ASSETS / "checker")), "digest")
    sentence = (
        "'a larg bee on a red background', which has the word 'larg', .*did you mean 'large'.*bench list prompts tiny"
    )
    with pytest.raises(UserError, match=sentence):
        gold.for_prompts(["a large bee on a red background", "a larg bee on a red background"])
