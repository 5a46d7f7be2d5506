"""What trackers learn about a run besides its training log: which one it is, and its result."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.core.images import open_image
from bench.core.paths import unlinked
from bench.experiments.experiment import Experiment
from bench.records.evaluations import Evaluation
from bench.records.runs import RunFolder
from bench.training.trackers import LITTLE_PATIENCE, PATIENCE, Outcome, Tracked, start_trackers

TRACKING = ".tracking"
"""Folder beside the models' folders where trackers keep files."""
IMAGES = 8
"""Evaluation images that a tracker gets."""


@contextlib.contextmanager
def tracked(run: RunFolder, names: Sequence[str], experiment: Experiment) -> Iterator[Callable[[Evaluation], None]]:
    """Start trackers for the block, and let them finish at its end; a finished run is not tracked again.

    Args:
        run: a run that has its configuration.
        names: names of the trackers.
        experiment: the experiment that it belongs to.

    Yields:
        What takes the run's evaluation, when there is one.
    """
    outcomes: list[Evaluation] = []
    if run.done or not names:
        yield outcomes.append
        return
    config, folder = run.config(), experiment.runs / TRACKING
    name = run.folder.relative_to(experiment.runs).as_posix()
    facts: Mapping[str, Any] = config.to_json()
    run_facts = Tracked(name, config.run_id, facts, unlinked(experiment.runs, folder).absolute())
    threads = start_trackers(names, run_facts, run.train_log)
    try:
        yield outcomes.append
    finally:
        for thread in threads:
            if outcomes:
                thread.close(functools.partial(_outcome, run, outcomes[0]), PATIENCE)
            else:
                thread.close(None, LITTLE_PATIENCE)


def _outcome(run: RunFolder, evaluation: Evaluation) -> Outcome:
    lines = evaluation.score_records()
    scores = {
        name: float(np.mean([line["score"] for line in lines if line["metric"] == name]))
        for name in evaluation.metrics()
    }
    images = np.stack([np.asarray(open_image(evaluation.image(*item))) for item in evaluation.items[:IMAGES]])
    return Outcome(scores, images, len(run.steps()))
