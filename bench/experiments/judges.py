"""Who judges the images of a round: a registered metric, or a reward model that every round fits.

A reward model that is fitted before the first round, to people's pairs of the judge's captions, is in ``reward`` in the run's folder,
and that of each round in ``reward`` in the round's.  People's pairs of the policy's captions are held out from all fits.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.files import read_json, write_json
from bench.core.progress import say
from bench.core.values import digest
from bench.data.cache import to_pixels
from bench.data.candidates import generate_candidates, reconstructed
from bench.data.preferences import PreferenceData
from bench.data.reading import read_preferences
from bench.data.shuffling import Shuffle
from bench.data.writing import already_made, tables_against, write_data
from bench.experiments.round import Round, captions_of_round, halves
from bench.models.family import ModelFamily
from bench.records.reward_models import FitSettings
from bench.records.runs import CANDIDATES, REWARD, ROUNDS, surveys_folder
from bench.scoring.fitted import fittable, fitted, simplest
from bench.scoring.metric import Metric, with_origins
from bench.training.held_out import spread_captions
from bench.training.judge_fitting import JudgeFittingAlgorithm
from bench.training.reward_fit import Opponents, Request, Rows
from bench.training.reward_model import HELD_OUT_PAIRS, fit_reward_model

JUDGE, OPPONENTS = "judge.json", "opponents.parquet"
"""In the folder of a round: which reward model judges and what it cost, and what it was fitted against."""
HELD_OUT_CAPTIONS = 500
"""Captions at most whose pairs are held out: enough for an interval of a few per cent."""
CONFIDENCE = 0.95
COST = ("samples", "reward_calls", "forwards", "seconds")
"""What making a judge costs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Judge:
    """Who chooses the pairs of a round.

    Attributes:
        scorer: the metric.
        captions: captions whose images it may judge, repeats included.
        origins: names of the metrics that it is made from, see `bench.scoring.metric.with_origins`.
        shuffle: how the scores of a caption's images are permuted before the choice, in a placebo; None if they are not.
        cost: what making it cost, by `COST`.
        notes: facts for ``prepared.json``.
    """

    scorer: Metric
    captions: Sequence[str]
    origins: tuple[str, ...]
    shuffle: Shuffle | None = None
    cost: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(COST, 0))
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def judge_of(round_: Round, model: ModelFamily) -> Judge:
    """The judge of a round; one that every round fits is fitted now, or was by an earlier call.

    Args:
        model: with the weights that the round starts from.

    Raises:
        UserError: the reward model cannot be fitted.
        TerminatedError: SIGTERM or Ctrl-C arrived; a fit so far is saved.
    """
    experiment, algorithm, name = round_.experiment, round_.method.algorithm, round_.rounds.judge
    if not isinstance(algorithm, JudgeFittingAlgorithm):
        return Judge(experiment.load_metric(name), experiment.data.captions, with_origins([name]))
    fitting = _Fitting(round_, algorithm, experiment.data.shuffled(round_.seed) if round_.placebo else experiment.data)
    record = fitting.record(model)
    folder = round_.run.folder / record[REWARD]
    scorer = fitted(simplest(folder)).load(None, device=experiment.accelerator.device)
    return Judge(
        scorer,
        fitting.halves[1],
        tuple(dict.fromkeys((*with_origins([name]), *experiment.data.judges))),
        Shuffle(round_.own_seed) if round_.placebo else None,
        record["cost"],
        {"judge": {key: value for key, value in record.items() if key != "cost"}},
    )


def fitted_names(run: Path, number: int) -> tuple[str, ...]:
    """What the reward models of a run of so many rounds are called where metrics are named."""
    places = [run, *(run / ROUNDS / str(each) for each in range(1, number + 1))]
    return tuple(f"fitted:{simplest(place / REWARD)}" for place in places)


def fell(before: NDArray[np.float64], after: NDArray[np.float64], captions: Sequence[str]) -> bool:
    """Whether agreement with people's pairs is lower, beyond the 95 % interval of the difference, captions being independent.

    Args:
        before: agreement on each pair, 0, 1/2 or 1, (H,).
        after: the same of another reward model, (H,).
        captions: of the pairs, H, at least two of them different.
    """
    change = after - before
    _, groups = np.unique(np.asarray(captions), return_inverse=True)
    count = int(groups.max()) + 1
    sums = np.bincount(groups, change - change.mean())
    error = np.sqrt((sums**2).sum() * count / (count - 1)) / len(change)
    return bool(change.mean() + stdtrit(count - 1, 0.5 + CONFIDENCE / 2) * error < 0)


@dataclasses.dataclass(frozen=True)
class _Fitting:
    """The fit of a round's judge.

    Attributes:
        round: the round.
        algorithm: its algorithm.
        people: the data, with the labels that the run may see.
    """

    round: Round
    algorithm: JudgeFittingAlgorithm
    people: PreferenceData

    @functools.cached_property
    def halves(self) -> tuple[list[str], list[str]]:
        """The judge's captions and the policy's."""
        return halves(self.people.captions, self.round.seed)

    @functools.cached_property
    def rows(self) -> Rows:
        """People's pairs of the judge's captions, and those that are held out."""
        of_judge, of_policy = map(set, self.halves)
        held_out = set(spread_captions(of_policy, HELD_OUT_CAPTIONS))
        captions = list(self.people.captions)
        chosen = ([row for row, caption in enumerate(captions) if caption in among] for among in (of_judge, held_out))
        return next(chosen), next(chosen)

    def record(self, model: ModelFamily) -> dict[str, Any]:
        """What ``judge.json`` says: which reward model judges, how the new one agrees with held-out pairs, and the cost."""
        path = self.round.place.folder / JUDGE
        if not path.exists():
            write_json(path, self._fitted(model))
        found: dict[str, Any] = read_json(path)
        return found

    def _fitted(self, model: ModelFamily) -> dict[str, Any]:
        """Fit the round's reward model, and the first one before the first round."""
        run, began = self.round.run.folder, time.monotonic()
        first = self._request(run / REWARD, self.round.seed)
        known = run / ROUNDS / str(self.round.number - 1) / JUDGE
        previous = read_json(known)[REWARD] if self.round.number > 1 else REWARD
        earlier = [] if self.round.number > 1 else [first]
        for request in earlier:
            self._fit(request)
        opponents, samples = self._opponents(model)
        new = dataclasses.replace(
            self._request(self.round.place.folder / REWARD, self.round.own_seed),
            start=run / previous,
            opponents=Opponents(opponents, self.algorithm.opponent_losses),
        )
        self._fit(new)
        captions = [self.people.captions[row] for row in first.split[1]]
        before, after = (np.load(each.folder / HELD_OUT_PAIRS) for each in (first, new))
        worse = fell(before, after, captions)
        accuracy = (
            f"agrees with {after.mean():.1%} of {len(after)} held-out pairs, the first one with {before.mean():.1%}"
        )
        say(
            f"the reward model {accuracy}{': significantly fewer, so that the one before judges instead' if worse else ''}"
        )
        return {
            REWARD: previous if worse else new.folder.relative_to(run).as_posix(),
            "held_out": {"pairs": len(after), "first": before.mean(), "fitted": after.mean(), "fell": worse},
            "cost": {
                "samples": samples,
                "reward_calls": sum(each.reward_calls for each in (*earlier, new)),
                "forwards": self.round.forwards(model, samples),
                "seconds": (time.monotonic() - began) * self.round.experiment.accelerator.num_processes,
            },
        }

    def _request(self, folder: Path, seed: int) -> Request:
        name = self.round.rounds.judge
        settings = FitSettings(**self.algorithm.fit.model_dump(), seed=seed)
        return Request(name, self.round.experiment.card.metrics.get(name), settings, self.people, folder, self.rows)

    def _fit(self, request: Request) -> None:
        scorer = fittable(request.scorer).load(request.checkpoint, device=self.round.experiment.accelerator.device)
        fit_reward_model(scorer, request)

    def _opponents(self, model: ModelFamily) -> tuple[PreferenceData, int]:
        """Pairs of gold and a sample, for captions of the judge, and how many samples there are."""
        count, generation = self.algorithm.judge_samples, self.round.generation
        captions = captions_of_round(self.halves[0], self.algorithm.judge_captions, self.round.seed, self.round.number)
        step: dict[str, Any] = {
            "command": "opponents",
            "round": self.round.number,
            "model": model.digest,
            "samples": count,
            "generation": generation.model_dump(mode="json"),
            "captions": digest(captions),
        }
        place = self.round.place.folder
        path = place / OPPONENTS
        if not already_made(path, step, f"delete {place} to make the round again"):
            samples = generate_candidates(model, captions, count, generation, place / CANDIDATES)
            gold = self._gold(model, captions)
            write_data(path, tables_against(samples, gold), [step])
        data = read_preferences(path, None, surveys_folder(self.round.experiment.runs))
        return data, len(captions) * count

    def _gold(self, model: ModelFamily, captions: Sequence[str]) -> list[bytes]:
        """For each caption the image that people prefer in its first pair, encoded and decoded as samples are."""
        first = {caption: row for row, caption in reversed(list(enumerate(self.people.captions)))}
        size = (self.round.generation.height, self.round.generation.width)
        made: list[bytes] = []
        for piece in batch_slices(len(captions), images_per_chunk(*size)):
            rows = [first[caption] for caption in captions[piece]]
            images = [self.people.image(row, int(self.people.preference_0[row] < 0.5)) for row in rows]
            made += reconstructed(model, torch.stack([to_pixels(image, size) for image in images]))
        return made
