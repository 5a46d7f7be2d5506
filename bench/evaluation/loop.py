"""The evaluation loop: images under the protocol, then scores, each written as soon as it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bench.core import launched
from bench.core.files import make_folder, write_json
from bench.core.processes import ALONE, Processes
from bench.core.signs import Stage
from bench.evaluation.images import make_missing_images
from bench.evaluation.job import EvaluationJob
from bench.evaluation.scorer import Scorer
from bench.records.evaluations import PROMPTS, PROTOCOL, VARIANT, Evaluation
from bench.records.scores import MetricRecord, PromptedImage
from bench.scoring.loop import refuse_constant, score_images


def evaluate(job: EvaluationJob, scorers: Mapping[str, Scorer], processes: Processes = ALONE) -> Evaluation:
    """Evaluate some weights under the protocol, continuing where an earlier call stopped.

    Several processes share the work, with the same result as one; the main process writes the records.

    Args:
        job: what is evaluated.
        scorers: the metrics, by name.
        processes: the processes that share the work; all see the same files, and each must make the call.

    Raises:
        UserError: a metric returns scores that are not finite, too few, or all the same; or a file of the finished evaluation is
            missing or was changed.
    """
    evaluation = job.evaluation

    # What an earlier call finished, under the same signatures.
    records = {name: scorer.record(name, job.protocol) for name, scorer in scorers.items()}
    judged = processes.from_main(lambda: _judged(job, records))
    if judged is None:
        return evaluation
    if processes.main:
        _begin(job, judged)

    # Images.
    with launched.working(Stage.EVALUATION):
        make_missing_images(job, processes)

    # Scores, one metric in memory at a time.
    images = evaluation.pictures()
    for name, scorer in scorers.items():
        if name in judged:
            continue
        with launched.working(Stage.SCORING):
            _score(job, scorer, records[name], images, processes)
        judged[name] = records[name]
        if processes.main:
            evaluation.write_metrics(judged)

    if processes.main:
        evaluation.finish()
    return evaluation


def _score(
    job: EvaluationJob, scorer: Scorer, record: MetricRecord, images: Sequence[PromptedImage], processes: Processes
) -> None:
    """Score all images with one metric, which is freed before the next is loaded."""
    metric = scorer.load()
    scores = score_images(job.evaluation.scores, job.title, record.name, metric, record.signature, images, processes)
    refuse_constant(record.name, metric, scores, job.title)


def _judged(job: EvaluationJob, records: Mapping[str, MetricRecord]) -> dict[str, MetricRecord] | None:
    """The metrics of an earlier call whose scores are still valid; None when nothing is left to do."""
    evaluation = job.evaluation
    evaluation.check_complete()
    judged = {
        name: value
        for name, value in _complete(evaluation, len(job.items)).items()
        if value.signature == records.get(name, value).signature
    }
    if evaluation.done and records.keys() <= judged.keys():
        return None
    return judged if _all_made(job) else {}


def _all_made(job: EvaluationJob) -> bool:
    return all(job.evaluation.image(*item).exists() for item in job.items)


def _complete(evaluation: Evaluation, images: int) -> dict[str, MetricRecord]:
    """The metrics of an earlier call with which every image has been scored."""
    counts = Counter((record["metric"], record["signature"]) for record in evaluation.score_records())
    return {name: value for name, value in evaluation.metrics().items() if counts[name, value.signature] == images}


def _begin(job: EvaluationJob, judged: Mapping[str, MetricRecord]) -> None:
    evaluation = job.evaluation
    evaluation.check_images(*job.items)  # they are scored again
    evaluation.reopen()
    if not _all_made(job):  # scores that are there are of images that are lost
        evaluation.scores.unlink(missing_ok=True)
    make_folder(evaluation.images)
    if job.variant is not None:
        write_json(evaluation.folder / VARIANT, job.variant.model_dump(mode="json"))
    write_json(evaluation.folder / PROTOCOL, job.protocol.to_json())
    write_json(evaluation.folder / PROMPTS, list(job.prompts))
    evaluation.write_metrics(judged)
    evaluation.all_scores()  # the scoring loop continues them; what is damaged is refused before an image is made
