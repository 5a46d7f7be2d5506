"""How the figures of plans are written."""

from __future__ import annotations

import pytest

from bench.planning.show import duration, operations, rounded, size_on_disk


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.012345, "0.0123"),
        (9.996, "10"),
        (99.96, "100"),
        (999.4, "999"),
        (999.7, "1,000"),
        (1000.0, "1,000"),
        (54321.0, "54,321"),
    ],
)
def test_large_numbers_have_no_exponent(value: float, text: str) -> None:
    assert rounded(value, 3) == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (size_on_disk(0), "0 MB"),
        (size_on_disk(35_100_000), "35.1 MB"),
        (size_on_disk(999_700_000), "1,000 MB"),
        (size_on_disk(1_000_000_000), "1 GB"),
        (size_on_disk(999_700_000_000), "1,000 GB"),
        (duration(0.4), "under 1 second"),
        (duration(119), "119 seconds"),
        (duration(120), "2 minutes"),
        (duration(999.7 * 86400), "1,000 days"),
        (operations(9999.7e18), "10,000 EFLOP"),
        (operations(8.988e12), "8.988 TFLOP"),
    ],
)
def test_units(shown: str, text: str) -> None:
    assert shown == text
