"""The methods of ``bench data rank``, and the options that name their metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.cli.options import split_names
from bench.core.errors import UserError
from bench.data.comparing import Chosen, pairwise, pareto
from bench.data.preferences import PreferenceData


@dataclasses.dataclass(frozen=True, slots=True)
class RankingMethod:
    """A way to choose pairs by metrics.

    Attributes:
        option: the command-line option that names its metrics.
        fewest: how many metrics it needs.
        most: how many it can use.
        choose: takes the data, one (N, K) array of scores per metric (higher is better), and the output's path.
    """

    option: str
    fewest: int
    most: int
    choose: Callable[[PreferenceData, Sequence[NDArray[np.float64]], Path], Chosen]

    def metrics(self, name: str, typed: Mapping[str, str | None]) -> list[str]:
        """The metrics that the user named.

        Args:
            name: the method's own name, for messages.
            typed: the value of each option that names metrics.

        Raises:
            UserError: another method's option was used, or too few or too many metrics were named, or none in a list.
        """
        for option, text in typed.items():
            if text is not None and option != self.option:
                raise UserError(f"--method {name} takes {self.option}, not {option}; leave {option} out")
        own = typed[self.option]
        names = [] if own is None else split_names(own, self.option)
        if not self.fewest <= len(names) <= self.most:
            wanted = f"{self.fewest} metric" if self.most == self.fewest else f"at least {self.fewest} metrics"
            raise UserError(f"--method {name} needs {wanted}, not {len(names)}; name them with {self.option}")
        return names


METHODS = {"pairwise": RankingMethod("--judge", 1, 1, pairwise), "pareto": RankingMethod("--metrics", 2, 16, pareto)}
