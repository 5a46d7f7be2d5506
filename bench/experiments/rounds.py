"""Rounds of generate, judge and train: the pairs of a round are pictures by the weights of the round before.

A round has a folder of its own, ``rounds/<n>`` in the run's, with its pairs and everything that a run's training leaves; it is done
when that says so.  The run's weights are those of the last round; its log and its ledger are those of all rounds.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core import launched
from bench.core.errors import UserError
from bench.core.files import keep_lines, read_json, replace_folder, write_json
from bench.core.processes import Processes
from bench.core.progress import part_of, say
from bench.core.randomness import permutation
from bench.core.signs import Stage
from bench.core.values import digest
from bench.data.cache import EncodedData
from bench.data.candidates import generate_candidates
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.data.reading import read_preferences
from bench.data.scores import score_data, turned
from bench.data.writing import already_made, pair_tables, write_data
from bench.experiments.experiment import Experiment
from bench.experiments.identity import cache_folder
from bench.experiments.method import Method
from bench.models.family import ModelFamily
from bench.models.sampling import uses_classifier_free_guidance
from bench.records.runs import RunFolder, surveys_folder
from bench.scoring.metric import METRICS, recorded_identity, with_origins
from bench.training.algorithm import Need
from bench.training.loop import Job, train
from bench.training.online import SamplingAlgorithm
from bench.training.settings import Rounds

PAIRS = "pairs.parquet"
"""The pairs of a round, in its folder."""


def check_rounds(method: Method) -> None:
    """Raise a `UserError` where a method cannot be trained in rounds."""
    settings, name = method.settings, method.name
    rounds = settings.rounds
    if rounds is None:
        return
    METRICS.point(rounds.judge)
    if Need.PAIRS not in method.algorithm.needs or isinstance(method.algorithm, SamplingAlgorithm):
        raise UserError(f"{name} does not train on pairs, which --rounds makes; leave --rounds out")
    if method.algorithm.negative:
        raise UserError(
            f"{name} trains weights for the unconditional branch of guidance, which cannot make the pictures of a second round; "
            "leave --rounds out"
        )
    if settings.budget is not None:
        raise UserError("each of the --rounds takes the same number of steps; leave --budget out, and set steps")
    if settings.stop_when is not None or settings.evaluate_every:
        raise UserError("--evaluate-every and --stop-when follow a single training; leave them or --rounds out")
    if settings.trainable == "lora" and rounds.number > 1:
        raise UserError(
            f"{name}: adapters on top of an earlier round's cannot be saved on their own; train all weights (--set trainable=full), "
            "or take --rounds 1"
        )


def captions_of_round(captions: Sequence[str], wanted: int, seed: int, number: int) -> list[str]:
    """The captions of a round: as many as it can train on, drawn from the different ones of the data for each round anew.

    Args:
        wanted: pairs that the round's steps see.
        number: of the round, from 1.
    """
    different = sorted(set(captions))
    order = permutation(len(different), seed, "captions of round", number).tolist()
    return [different[place] for place in sorted(order[: min(wanted, len(different))])]


def train_rounds(experiment: Experiment, run: RunFolder, method: Method, seed: int) -> None:
    """Train what is left of a run in rounds; see the module.

    Raises:
        UserError: the judge cannot tell the pictures of any caption apart.
    """
    rounds = method.settings.rounds
    if rounds is None:
        raise ValueError("the method has no rounds")
    places, start = [], experiment.init.folder
    for number in range(1, rounds.number + 1):
        place = RunFolder(run.folder / "rounds" / str(number))
        if place.done:
            place.check_complete()
        else:
            with part_of(f"round {number} of {rounds.number}"):
                _Round(experiment, run, method, rounds, seed, number).train(place, start)
        shutil.rmtree(place.checkpoints, ignore_errors=True)  # one per round would stay
        places.append(place)
        start = place.trained_weights()
    if experiment.accelerator.is_main_process:
        _join(run, places)
    experiment.accelerator.wait_for_everyone()


@dataclasses.dataclass(frozen=True, slots=True)
class _Round:
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
        """The seed of the round's pictures and training, so that no two rounds draw the same noise."""
        return int(digest({"seed": self.seed, "round": self.number})[:7], 16)

    def train(self, place: RunFolder, start: Path | None) -> None:
        """Make the pairs with the weights in a folder, None for the base model's, and train on them."""
        experiment, settings, algorithm = self.experiment, self.method.settings, self.method.algorithm
        model = experiment.load_model()
        if start is not None:
            model.start_from(start)
        with launched.working(Stage.PREPARATION), Processes(experiment.accelerator).main_first():
            pairs, made = self._pairs(place, model)
            given = pairs.shuffled(self.own_seed) if settings.labels == "shuffled" else pairs
            context = PrepareContext(
                experiment.load_metric, model, experiment.card.generation, cache_folder(experiment, given, model)
            )
            data = algorithm.prepare(given, context)
            cache = cache_folder(experiment, data, model)
            encoded = EncodedData(data, model, cache, settings.aspect_ratios, settings.horizontal_flip)
        model.release_encoders()
        if experiment.accelerator.is_main_process:
            write_json(place.folder / "prepared.json", {**context.notes, **made})
        run_id = digest([self.run.config().run_id, self.number])
        forwards = context.forwards + made["forwards"]
        job = Job(algorithm, settings, model, data, encoded, self.own_seed, run_id, forwards)
        with launched.working(Stage.TRAINING):
            train(job, place, experiment.accelerator)

    def _pairs(self, place: RunFolder, model: ModelFamily) -> tuple[PreferenceData, dict[str, int]]:
        """The best and the worst picture of each caption by the judge, and what they cost: ``samples`` and ``forwards``."""
        experiment, rounds, settings = self.experiment, self.rounds, self.method.settings
        generation = experiment.card.generation.model_copy(update={"seed": self.own_seed})
        wanted = settings.steps * settings.global_batch_size
        captions = captions_of_round(experiment.data.captions, wanted, self.seed, self.number)
        samples = len(captions) * rounds.candidates
        branches = 2 if uses_classifier_free_guidance(model, generation) else 1
        scorer = experiment.load_metric(rounds.judge)
        step: dict[str, Any] = {
            "command": "rounds",
            "round": self.number,
            "model": model.digest,
            "candidates": rounds.candidates,
            "generation": generation.model_dump(mode="json"),
            "captions": digest(captions),
            "metrics": {rounds.judge: recorded_identity(scorer)},
            "judges": list(with_origins([rounds.judge])),
        }
        path, work = place.folder / PAIRS, place.folder / "candidates"
        if not already_made(path, step):
            lists = generate_candidates(model, captions, rounds.candidates, generation, work)
            scores = turned(scorer.info, score_data(rounds.judge, scorer, lists, work))
            rows = np.flatnonzero(scores.max(1) > scores.min(1))
            if not len(rows):
                raise UserError(
                    f"{rounds.judge} scores all pictures of every caption alike, so there are no pairs to train on; choose another "
                    "judge"
                )
            if len(rows) < len(captions):
                say(
                    f"round {self.number}: {len(captions) - len(rows)} of {len(captions)} captions have equal scores only"
                )
            tables = pair_tables(lists, rows, scores[rows].argmax(1), scores[rows].argmin(1))
            write_data(path, tables, [step])
        shutil.rmtree(work, ignore_errors=True)
        pairs = read_preferences(str(path), None, surveys_folder(experiment.runs))
        return pairs, {"samples": samples, "forwards": samples * generation.steps * branches}


def _join(run: RunFolder, places: Sequence[RunFolder]) -> None:
    """Make the run of its finished rounds."""
    lines: list[dict[str, Any]] = []
    total: dict[str, Any] = {}
    for number, place in enumerate(places, start=1):
        ledger = place.ledger()
        if ledger is None:
            raise ValueError(f"{place.folder} has no ledger")
        before = {name: total.get(name, 0) for name in ("pairs", "seconds")}
        for line in place.steps():
            sums = {name: line[name] + before[name] for name in before}  # type: ignore[literal-required]
            lines.append({**line, "step": len(lines), **sums, "round": number})
        made = read_json(place.folder / "prepared.json")["samples"]
        cost = {**ledger, "samples": made, "reward_calls": made}
        peak = max(total.get("peak_memory_bytes", 0), ledger["peak_memory_bytes"])
        total = {name: total.get(name, 0) + value for name, value in cost.items()} | {"peak_memory_bytes": peak}
    replace_folder(run.weights, lambda partial: shutil.copytree(places[-1].weights, partial, dirs_exist_ok=True))
    keep_lines(run.train_log, lines)
    write_json(run.folder / "ledger.json", total)
    run.finish()
