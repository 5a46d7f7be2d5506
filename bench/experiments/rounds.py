"""Rounds of generate, judge and train: the pairs of a round are images by the weights of the round before.

A round has a folder of its own, ``rounds/<n>`` in the run's, with its pairs, what its judge was fitted to if it is fitted, and everything that
a run's training leaves; it is done when that says so.  The run's weights are those of the last round, or the adapters of all rounds joined; its log and
its ledger are those of all rounds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core import launched
from bench.core.errors import UserError
from bench.core.files import keep_lines, replace_folder, write_json
from bench.core.processes import Processes
from bench.core.progress import part_of, say
from bench.core.signs import Stage
from bench.core.values import digest
from bench.data.cache import EncodedData
from bench.data.candidates import generate_candidates
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.data.reading import read_preferences
from bench.data.scores import score_data, turned
from bench.data.sources import open_source
from bench.data.writing import FOUND, already_made, pair_tables, write_data
from bench.experiments.experiment import Experiment
from bench.experiments.identity import cache_folder
from bench.experiments.judges import COST, Judge, judge_of
from bench.experiments.method import Method
from bench.experiments.round import Round
from bench.experiments.round_log import FollowingLog, RoundsLog
from bench.models.family import ModelFamily
from bench.records.runs import CANDIDATES, LEDGER, PREPARED, RunFolder, surveys_folder
from bench.scoring.metric import METRICS
from bench.training.algorithm import Need
from bench.training.loop import Job, train
from bench.training.online import SamplingAlgorithm
from bench.training.watching import Watcher

PAIRS = "pairs.parquet"
"""The pairs of a round, in its folder."""


def check_rounds(method: Method) -> None:
    """Raise a `UserError` where a method cannot be trained in rounds."""
    settings, name = method.settings, method.name
    rounds = settings.rounds
    if rounds is None:
        return
    METRICS.point(rounds.judge)
    sampling = isinstance(method.algorithm, SamplingAlgorithm)
    if Need.PAIRS not in method.algorithm.needs or sampling:
        throughout = ", and samples images of its own throughout" if sampling else ""
        raise UserError(f"{name} does not train on pairs, which --rounds makes{throughout}; leave --rounds out")
    if method.algorithm.negative:
        raise UserError(
            f"{name} trains weights for the unconditional branch of guidance, which cannot make the images of a second round; "
            "leave --rounds out"
        )
    if settings.budget is not None:
        raise UserError(
            f"{name} would train in rounds, each of which takes the same number of steps; leave --budget out, and set steps"
        )
    if settings.watched:
        raise UserError(
            f"--evaluate-every and --stop-when follow a single training, and {name} would train in rounds; leave them or the rounds out"
        )


def best_and_worst(scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Captions whose images do not all have the same score, and the best and the worst image of each, int64, (M,) each.

    Args:
        scores: of images by caption, (N, K); of images with equal scores the first is taken.
    """
    rows = np.flatnonzero(scores.max(1) > scores.min(1))
    return rows, scores[rows].argmax(1), scores[rows].argmin(1)


def train_rounds(experiment: Experiment, run: RunFolder, method: Method, seed: int) -> None:
    """Train what is left of a run in rounds; see the module.

    Raises:
        UserError: the judge cannot tell the images of any caption apart.
    """
    rounds = method.settings.rounds
    if rounds is None:
        raise ValueError("the method has no rounds")
    log, main = RoundsLog(), experiment.accelerator.is_main_process
    adapters = method.settings.trainable == "lora"
    init = [] if experiment.init.folder is None else [experiment.init.folder]
    trained: list[Path] = []
    for number in range(1, rounds.number + 1):
        each = Round(experiment, run, method, rounds, seed, number)
        if each.place.done:
            each.place.check_complete()
        else:
            follow = FollowingLog(run, each.place, log, main=main)
            with part_of(f"round {number} of {rounds.number}"):
                _train_round(each, trained or init, follow)
        if main and each.place.checkpoints.exists():
            shutil.rmtree(each.place.checkpoints)  # one per round would stay
        log, weights = log.then(each.place), each.place.trained_weights()
        trained = [*trained, weights] if adapters else [weights]
    if main:
        _finish(run, experiment.load_model(), trained, log)
    experiment.accelerator.wait_for_everyone()


def _train_round(this: Round, starts: Sequence[Path], watcher: Watcher) -> None:
    """Make a round's pairs with the base model's weights, changed by those in some folders in turn, and train on them."""
    experiment, settings, algorithm = this.experiment, this.method.settings, this.method.algorithm
    model = experiment.load_model()
    for start in starts:
        model.start_from(start)
    processes = Processes(experiment.accelerator)
    with launched.working(Stage.PREPARATION):
        with processes.main_first():
            pairs, made = _make_pairs(this, model, judge_of(this, model))
            given = pairs.shuffled(this.own_seed) if this.placebo else pairs
            context = PrepareContext(
                experiment.load_metric, model, experiment.card.generation, cache_folder(experiment, given, model)
            )
            data = algorithm.prepare(given, context)
            cache = cache_folder(experiment, data, model)
        encoded = EncodedData(data, model, cache, settings.aspect_ratios, settings.horizontal_flip, processes)
    model.release_encoders()
    if experiment.accelerator.is_main_process:
        write_json(this.place.folder / PREPARED, {**context.notes, **made})
    run_id = digest([this.run.config().run_id, this.number])
    forwards = context.forwards + made["forwards"]
    job = Job(algorithm, settings, model, data, encoded, this.own_seed, this.method.name, run_id, forwards, watcher)
    with launched.working(Stage.TRAINING):
        train(job, this.place, experiment.accelerator)


def _make_pairs(this: Round, model: ModelFamily, judge: Judge) -> tuple[PreferenceData, dict[str, Any]]:
    """The best and the worst image of each caption by the judge, and what they and the judge cost.

    The cost has the names of `bench.experiments.judges.COST`; the seconds are of the command that finished them, times the number of
    processes.
    """
    experiment, rounds, name = this.experiment, this.rounds, this.rounds.judge
    captions, generation = this.captions(judge.captions), this.generation
    samples = len(captions) * rounds.candidates
    step: dict[str, Any] = {
        "command": "rounds",
        "round": this.number,
        "model": model.digest,
        "candidates": rounds.candidates,
        "generation": generation.model_dump(mode="json"),
        "captions": digest(captions),
        "metrics": {name: judge.scorer.identity()},
        "judges": list(judge.origins),
    }
    path, work = this.place.folder / PAIRS, this.place.folder / CANDIDATES
    # Code does not count here: whether the run may go on with other code was decided when it began.
    if not already_made(path, step, f"delete {this.place.folder} to make the round again"):
        began = time.monotonic()
        lists = generate_candidates(model, captions, rounds.candidates, generation, work)
        scores = turned(judge.scorer.info, score_data(name, judge.scorer, lists, work))
        rows, best, worst = best_and_worst(scores if judge.shuffle is None else judge.shuffle.scores(scores))
        if not len(rows):
            raise UserError(
                f"{name} scores all images of every caption alike, so there are no pairs to train on; choose another judge"
            )
        if len(rows) < len(captions):
            say(f"round {this.number}: {len(captions) - len(rows)} of {len(captions)} captions have equal scores only")
        tables = pair_tables(lists, rows, best, worst)
        seconds = (time.monotonic() - began) * experiment.accelerator.num_processes
        write_data(path, tables, [{**step, FOUND: {"seconds": seconds}}])
    if experiment.accelerator.is_main_process and work.exists():
        shutil.rmtree(work)
    found = open_source(str(path), {}).provenance[-1][FOUND]
    pairs = read_preferences(str(path), None, surveys_folder(experiment.runs))
    own = {"samples": samples, "reward_calls": samples, "forwards": this.forwards(model, samples), **found}
    return pairs, {**judge.notes, **{each: judge.cost[each] + own[each] for each in COST}}


def _finish(run: RunFolder, model: ModelFamily, trained: Sequence[Path], log: RoundsLog) -> None:
    """Make the run of its finished rounds; ``trained`` are the folders whose weights are the run's: one, or adapters that are joined."""
    if len(trained) > 1:
        replace_folder(run.weights, lambda partial: model.join_trained(trained, partial))
    else:
        replace_folder(run.weights, lambda partial: shutil.copytree(trained[0], partial, dirs_exist_ok=True))
    keep_lines(run.train_log, log.lines)
    write_json(run.folder / LEDGER, log.total)
    run.finish()
