"""One round of a run in rounds: what it is, and what its images cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from bench.core.randomness import permutation, uniform
from bench.core.values import digest
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method
from bench.models.family import ModelFamily
from bench.models.sampling import forwards_per_image
from bench.records.protocol import GenerationSettings
from bench.records.runs import ROUNDS, RunFolder
from bench.training.settings import Rounds


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """One round of a run.

    Attributes:
        experiment: the experiment.
        run: the run.
        method: what is trained.
        rounds: how pairs are made.
        seed: the training seed of the run.
        number: of the round, from 1.
    """

    experiment: Experiment
    run: RunFolder
    method: Method
    rounds: Rounds
    seed: int
    number: int

    @property
    def own_seed(self) -> int:
        """The seed of the round's images and training, so that no two rounds draw the same noise."""
        return int(digest({"seed": self.seed, "round": self.number})[:7], 16)

    @property
    def place(self) -> RunFolder:
        """The round's folder."""
        return RunFolder(self.run.folder / ROUNDS / str(self.number))

    @property
    def generation(self) -> GenerationSettings:
        """How it makes images."""
        return self.experiment.card.generation.model_copy(update={"seed": self.own_seed})

    @property
    def placebo(self) -> bool:
        """Whether preferences are shuffled."""
        return self.method.settings.labels == "shuffled"

    def captions(self, among: Sequence[str]) -> list[str]:
        """The captions whose images may become its pairs."""
        settings, most = self.method.settings, self.rounds.captions
        seen = settings.steps * settings.global_batch_size
        return captions_of_round(among, seen if most is None else min(seen, most), self.seed, self.number)

    def forwards(self, model: ModelFamily, samples: int) -> int:
        """Network evaluations that some images take."""
        return samples * forwards_per_image(model, self.generation)


def captions_of_round(captions: Sequence[str], wanted: int, seed: int, number: int) -> list[str]:
    """The captions of a round: as many as it can train on, drawn from the different ones of the data for each round anew.

    Args:
        wanted: how many; all if there are fewer.
        number: of the round, from 1.
    """
    different = sorted(set(captions))
    order = permutation(len(different), seed, "captions of round", number).tolist()
    return [different[place] for place in sorted(order[: min(wanted, len(different))])]


def halves(captions: Iterable[str], seed: int) -> tuple[list[str], list[str]]:
    """Two disjoint halves of the different captions, each sorted: those of a judge that is fitted, and those of the policy.

    A caption's place in the order that is cut is drawn at an address of its own, a function of seed and caption.
    """
    order = sorted(set(captions), key=lambda caption: (uniform(seed, "judge or policy", caption), caption))
    middle = len(order) // 2
    return sorted(order[:middle]), sorted(order[middle:])
