from __future__ import annotations

import threading

import pytest

from bench.core.prefetch import prefetched

SECONDS = 30.0
"""Longer than any machine takes; a test that waits for so long has failed."""


def test_items_come_in_order_with_what_was_loaded() -> None:
    assert list(prefetched(str, range(5))) == [(0, "0"), (1, "1"), (2, "2"), (3, "3"), (4, "4")]
    assert list(prefetched(str, [])) == []


def test_the_next_item_and_no_more_is_loaded_while_the_caller_works() -> None:
    loaded: list[int] = []
    came = {item: threading.Event() for item in range(4)}

    def load(item: int) -> int:
        loaded.append(item)
        came[item].set()
        return item

    for item, _ in prefetched(load, range(4)):
        following = min(item + 1, 3)
        assert came[following].wait(SECONDS)
        assert loaded == list(range(following + 1))


def test_an_error_comes_in_its_turn() -> None:
    seen = []

    def load(item: int) -> float:
        return 1 / (2 - item)

    with pytest.raises(ZeroDivisionError):  # noqa: PT012 (which ones came before it is the point)
        for item, _ in prefetched(load, range(4)):
            seen.append(item)
    assert seen == [0, 1]


def test_a_caller_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    items = prefetched(str, range(100))
    assert next(items) == (0, "0")
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
