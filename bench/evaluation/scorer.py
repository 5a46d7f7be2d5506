"""A metric that is loaded when it is needed, and what is recorded of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from bench.records.protocol import Protocol
from bench.records.scores import MetricInfo, MetricRecord
from bench.scoring.metric import Metric


class Scorer:
    """A metric for some prompts that is in memory only while it is needed: training beside all of them may not fit a GPU.

    Args:
        load: loads the metric.
        prompts: those of the images, one for each.
    """

    def __init__(self, load: Callable[[], Metric], prompts: Sequence[str]) -> None:
        self._load, self._prompts = load, prompts

    def load(self) -> Metric:
        """The metric."""
        return self._load().for_prompts(self._prompts)

    def record(self, name: str, protocol: Protocol) -> MetricRecord:
        """What is recorded of the metric beside its scores under a protocol; it is loaded for this once.

        Args:
            name: its registered name.
            protocol: part of its signature.
        """
        identity, info = self._description
        return MetricRecord(name, protocol.metric_signature(name, identity), identity, info)

    @functools.cached_property
    def _description(self) -> tuple[dict[str, Any], MetricInfo]:
        metric = self.load()
        return metric.identity(), metric.info
