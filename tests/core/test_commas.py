from __future__ import annotations

import pytest

from bench.core.commas import join_commas, split_commas


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["a", "b"], "a,b"),
        (["caption=caption, en", "jpg_0=x"], r"caption=caption\, en,jpg_0=x"),
        (["a\\", "b"], r"a\\,b"),
        (["a\\,b"], r"a\\\,b"),
        ([""], ""),
    ],
)
def test_names_with_commas_are_found_again(names: list[str], word: str) -> None:
    assert join_commas(names) == word
    assert split_commas(word) == names


def test_a_backslash_before_another_character_stays() -> None:
    assert split_commas(r"a\b,,c") == [r"a\b", "", "c"]
