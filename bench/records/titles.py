"""Titles of metrics, which are what tables and sentences call them."""

from __future__ import annotations

import collections
from collections.abc import Mapping


def distinct_titles(titles: Mapping[str, str]) -> dict[str, str]:
    """Titles by name of the metric, of which no two are the same: where several metrics have one, each adds its name."""
    shared = collections.Counter(titles.values())
    return {name: title if shared[title] == 1 else f"{title} [{name}]" for name, title in titles.items()}
