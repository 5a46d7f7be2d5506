"""The training settings in ``config.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from bench.records.bounds import Amount, Count

Labels = Literal["as given", "shuffled"]
"""Whether a run trained on the preferences as they are, or on shuffled ones: see `bench.data.shuffling`."""


class Budget(BaseModel):
    """What training may cost, instead of a number of steps.

    Attributes:
        unit: ``pairs``, ``forwards`` (a backward counts as two) or ``seconds``.
        amount: training stops after the step that reaches it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    amount: Amount


class RoundsRecord(BaseModel):
    """Training in rounds; settings that no reader uses are kept as they were written.

    Attributes:
        number: how many rounds there are.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    number: Count


class TrainingRecord(BaseModel):
    """Every training setting that changes the trained weights, by its name in `bench.training.settings.TrainingSettings`.

    Only those that readers use are fields here; the others are kept as they were written.

    Attributes:
        steps: optimizer steps, of each round if there are rounds, unless there is a budget.
        budget: None if there is none.
        rounds: None for a training that is not in rounds.
        labels: whether the preferences were shuffled.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    steps: Count
    budget: Budget | None = None
    rounds: RoundsRecord | None = None
    labels: Labels = "as given"

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return self.model_dump(mode="json")

    @property
    def all_steps(self) -> int:
        """Optimizer steps of all rounds, unless there is a budget."""
        return self.steps * (1 if self.rounds is None else self.rounds.number)

    @property
    def length(self) -> str:
        """When training ends, in words: ``100`` steps, or ``a budget of 20000 forwards``."""
        return str(self.all_steps) if self.budget is None else f"a budget of {self.budget.amount:g} {self.budget.unit}"
