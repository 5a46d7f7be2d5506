"""A metric that is loaded only when it is needed, and the record of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from bench.records.protocol import Protocol
from bench.records.scores import MetricInfo, MetricRecord
from bench.scoring.metric import Metric, recorded_identity


class Scorer:
    """A metric for some prompts, in memory only while it is needed: training next to all metrics may not fit on a GPU.

    Args:
        load: loads the metric.
        prompts: the evaluation prompts.
    """

    def __init__(self, load: Callable[[], Metric], prompts: Sequence[str]) -> None:
        self._load, self._prompts = load, prompts

    def load(self) -> Metric:
        """The metric."""
        return self._load().for_prompts(self._prompts)

    def record(self, name: str, protocol: Protocol) -> MetricRecord:
        """What is recorded about the metric, apart from its scores; the first call loads it.

        Args:
            name: its registered name.
            protocol: part of its signature.
        """
        identity, info = self._description
        return MetricRecord(name, protocol.metric_signature(name, identity), identity, info)

    @functools.cached_property
    def _description(self) -> tuple[dict[str, Any], MetricInfo]:
        metric = self.load()
        return recorded_identity(metric), metric.info
