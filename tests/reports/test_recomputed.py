"""Stored reports against those that their runs make."""

from __future__ import annotations

from typing import Any

from reports.recomputed import first_difference


def report(**training: Any) -> dict[str, Any]:
    return {"citation": "bench 0.2.0 | protocol 0", "rows": [{"settings": {"training": {"steps": 5, **training}}}]}


def test_a_setting_that_came_later_may_be_missing_where_it_changes_nothing() -> None:
    assert first_difference(report(), report(ema_decay=0.0, ema_every=1)) is None
    found = first_difference(report(), report(ema_decay=0.5, ema_every=1))
    assert found == "rows.0.settings.training.ema_decay (it is missing)"
    assert first_difference(report(ema_decay=0.0), report()) is not None
