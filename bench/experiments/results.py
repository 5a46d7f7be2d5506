"""What runs and evaluations return to Python: their folders, and their scores as tables."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from bench.records.evaluations import Evaluation
from bench.records.runs import RunFolder

if TYPE_CHECKING:  # pandas is loaded when a table is asked for
    import pandas as pd

R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationResult:
    """One evaluation, next to the base model's under the same protocol.

    Attributes:
        evaluation: the evaluation's records on disk.
        base: those of the base model's evaluation.
    """

    evaluation: Evaluation
    base: Evaluation

    @property
    def folder(self) -> Path:
        """Where images and scores are."""
        return self.evaluation.folder

    def to_pandas(self) -> pd.DataFrame:
        """One row per metric and image: ``metric``, ``prompt``, ``image_index``, ``score``, ``base_score``.

        Scores are in the unit that tables show.  Both scores of a row belong to the same prompt and noise, so they are paired.
        """
        import pandas as pd

        prompts, metrics = self.evaluation.prompts(), self.evaluation.metrics()
        key = ["metric", "prompt_index", "image_index"]
        own, base = (pd.DataFrame(each.score_records()) for each in (self.evaluation, self.base))
        table = own.merge(
            base[[*key, "score", "signature"]].rename(columns={"score": "base_score"}), on=[*key, "signature"]
        )
        factor = table["metric"].map({name: record.info.display_factor for name, record in metrics.items()})
        table["score"] *= factor
        table["base_score"] *= factor
        table["prompt"] = table["prompt_index"].map(dict(enumerate(prompts)))
        return table[["metric", "prompt", "image_index", "score", "base_score"]]


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """One finished run.

    Attributes:
        folder: the run's folder.
        algorithm: the algorithm's registered name.
        name: the configuration's name.
        seed: the training seed.
        result: the run's evaluation under the experiment's protocol.
    """

    folder: Path
    algorithm: str
    name: str
    seed: int
    result: EvaluationResult

    def to_pandas(self) -> pd.DataFrame:
        """As `EvaluationResult.to_pandas`, with the columns ``algorithm``, ``name`` and ``seed`` in front."""
        table = self.result.to_pandas()
        for place, (column, value) in enumerate(
            {"algorithm": self.algorithm, "name": self.name, "seed": self.seed}.items()
        ):
            table.insert(place, column, value)
        return table

    def training_log(self) -> pd.DataFrame:
        """One row per optimizer step: loss, diagnostics, gradient norm, learning rate, cost so far."""
        import pandas as pd

        return pd.DataFrame(RunFolder(self.folder).steps())


class _Results(Sequence[R], Generic[R]):
    """Results in order."""

    def __init__(self, results: Sequence[R]) -> None:
        self._results = list(results)

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...

    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[R]:
        return iter(self._results)

    @abc.abstractmethod
    def _folders(self) -> list[Path]:
        """Where each result is."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._folders()))})"


class RunResults(_Results[RunResult]):
    """Finished runs: all seeds of the first algorithm, then those of the next.

    Attributes:
        notes: sentences worth reading before the results are used, which ``bench run`` prints at the start.
    """

    def __init__(self, results: Sequence[RunResult], notes: Sequence[str] = ()) -> None:
        super().__init__(results)
        self.notes = tuple(notes)

    def _folders(self) -> list[Path]:
        return [each.folder for each in self]

    def to_pandas(self) -> pd.DataFrame:
        """The tables of all runs, concatenated; see `RunResult.to_pandas`."""
        import pandas as pd

        return pd.concat([each.to_pandas() for each in self], ignore_index=True)


class EvaluationResults(_Results[EvaluationResult]):
    """Evaluations, one per guidance scale."""

    def _folders(self) -> list[Path]:
        return [each.folder for each in self]

    def to_pandas(self) -> pd.DataFrame:
        """The tables of all evaluations, concatenated; the column ``evaluation`` holds the name of each one's folder."""
        import pandas as pd

        tables = {each.folder.name: each.to_pandas() for each in self}
        return pd.concat(tables, names=["evaluation"]).reset_index(level=0).reset_index(drop=True)
