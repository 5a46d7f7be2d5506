"""Runs: evaluate the base model, train a method, evaluate the result; finished work is skipped."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.core import launched
from bench.core.files import write_json
from bench.core.paths import unlinked
from bench.core.processes import Processes
from bench.core.signs import Stage
from bench.data.cache import EncodedCaptions, EncodedData
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.evaluation.job import EvaluationJob
from bench.evaluation.loop import evaluate
from bench.evaluation.sampling_weights import SamplingWeights, default_sampling
from bench.evaluation.weights import run_weights
from bench.experiments.experiment import Experiment
from bench.experiments.identity import cache_folder, other_code, resolve_run
from bench.experiments.judges import fitted_names
from bench.experiments.method import Method
from bench.experiments.recipes import recipe_key
from bench.experiments.rounds import train_rounds
from bench.experiments.tracking import tracked
from bench.experiments.watching import watcher_of
from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.records.config import RunConfig
from bench.records.environment import write_environment
from bench.records.evaluations import Evaluation
from bench.records.runs import CONFIG, PREPARED, RunFolder
from bench.rollouts.rewards import Rewards
from bench.scoring.metric import with_origins
from bench.training.loop import Job, train
from bench.training.online import SamplingAlgorithm


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """How the user started runs.

    Attributes:
        typed: the command line, for the record.
        same_code: whether the user declares that code which changed since other seeds gives the same results.
        track: names of the trackers; no part of what a run is.
        wait: whether to wait where another process works on a run, instead of refusing.
    """

    typed: tuple[str, ...] = ()
    same_code: bool = False
    track: tuple[str, ...] = ()
    wait: bool = False


def refuse_other_runs(experiment: Experiment, methods: Sequence[Method], start: Start) -> None:
    """Raise a `UserError` where runs of a method that are there cannot be other seeds of it; before anything is computed."""
    _ = experiment.data  # on every process, since reading is collective
    if experiment.accelerator.is_main_process:
        for method in methods:
            other_code(experiment, method, resolve_run(experiment, method), same_code=start.same_code)


def judge_base(experiment: Experiment) -> Evaluation:
    """Evaluate the base model; a second command waits until the first has finished.

    A metric that cannot be loaded is refused before anything is written: a folder without an evaluation would look like work to
    be continued.
    """
    for name, scorer in experiment.scorers.items():
        scorer.record(name, experiment.protocol)
    base = experiment.base
    with held(experiment, base.run, wait=True):
        return judge(experiment, default_sampling(base, base, experiment.protocol.generation.guidance_scale))


def run_method(experiment: Experiment, method: Method, seed: int, start: Start) -> RunFolder:
    """Train a method with one seed and evaluate the result; continues what an earlier call began.

    Args:
        experiment: the experiment that it belongs to.
        method: what is trained.
        seed: the training seed.
        start: how the user started it.

    Raises:
        UserError: another process is working on the run, its folder or another seed's holds another run, or training or
            evaluation fails for a reason that the user can fix.
    """
    _ = experiment.data  # on every process, since reading is collective
    run = RunFolder(experiment.runs / experiment.name / method.name / method.label / f"seed-{seed}")
    with held(experiment, run, wait=start.wait):
        if experiment.accelerator.is_main_process:
            _begin(experiment, run, method, seed, start)
        launched.until_main()
        with tracked(run, start.track if experiment.accelerator.is_main_process else (), experiment) as done:
            if run.done:
                run.check_complete()
            elif method.settings.rounds is None:
                _train(experiment, run, method, seed)
            else:
                train_rounds(experiment, run, method, seed)
            weights = run_weights(experiment.runs, run)
            sampling = default_sampling(weights, experiment.base, experiment.protocol.generation.guidance_scale)
            judged = judge(experiment, sampling)
            if experiment.accelerator.is_main_process:
                judged.note_prompts_in_training(experiment.prompts_in_training)
                done(judged)
    return run


def judge(experiment: Experiment, sampling: SamplingWeights) -> Evaluation:
    """Evaluate some weights under the protocol, with any guidance; the caller must hold the lock on their owner's folder."""
    protocol, owner = experiment.protocol, sampling.result_owner
    variant = sampling.variant(protocol)
    model = experiment.load_model()

    def networks() -> Networks:
        return sampling.networks(model, protocol.generation)

    if experiment.accelerator.is_main_process:
        if owner.folder is not None and not (owner.run.folder / CONFIG).exists():
            networks()  # released weights that cannot be loaded do not take the name
        owner.run.begin(owner.config)
        if not owner.run.done:  # base or released weights, which are not trained here
            write_environment(owner.run, experiment.accelerator.num_processes, {})
            owner.run.finish()
    usual = default_sampling(owner, experiment.base, protocol.generation.guidance_scale).variant(protocol)
    if variant is None or variant == usual:
        place = owner.run.evaluation(protocol.signature)
    else:
        place = owner.run.evaluation_of(protocol.signature, variant)
    job = EvaluationJob(place, sampling.title, model, networks, protocol, variant, experiment.prompts)
    return evaluate(job, experiment.scorers, Processes(experiment.accelerator))


@contextlib.contextmanager
def held(experiment: Experiment, run: RunFolder, *, wait: bool = False) -> Iterator[None]:
    """Lock a run's folder on behalf of all processes of this command; see `RunFolder.locked`."""
    main = experiment.accelerator.is_main_process
    if main:
        unlinked(experiment.runs, run.folder)
    with run.locked(wait=wait) if main else contextlib.nullcontext():
        launched.until_main()  # perhaps hours, while another command holds the lock
        yield


def _begin(experiment: Experiment, run: RunFolder, method: Method, seed: int, start: Start) -> None:
    """Write a run's configuration and environment, or check that the folder already holds the same run."""
    algorithm, settings, data, init = method.algorithm, method.settings, experiment.data, experiment.init
    resolved = resolve_run(experiment, method)
    same_code = other_code(experiment, method, resolved, same_code=start.same_code)
    key = recipe_key(method.name, type(algorithm), experiment.found.recipe, method.changed)
    recipe = algorithm.recipes.get(key)
    run.begin(
        RunConfig(
            model=experiment.name,
            algorithm=method.name,
            title=algorithm.info.title,
            name=method.label,
            changed=dict(method.changed),
            seed=seed,
            typed=start.typed,
            base_weights=experiment.protocol.base_weights,
            init=init.record.source,
            recipe=recipe.source if recipe else None,
            limit=experiment.limit,
            resolved=resolved,
            data=data.report,
            trained_on=_trained_on(experiment, method, run),
            same_code=same_code,
            placebo=algorithm.placebo or "",
            placebo_of=method.placebo_of,
            fits_judge=method.fits_judge,
        )
    )
    if not run.done:
        how = settings.model_dump(mode="json", include=set(settings.execution_fields()))
        write_environment(run, experiment.accelerator.num_processes, how)


def _trained_on(experiment: Experiment, method: Method, run: RunFolder) -> tuple[str, ...]:
    """The metrics that a method's training uses, as far as we know."""
    rounds, used = method.settings.rounds, [*with_origins(method.algorithm.trained_on)]
    if rounds is not None:
        used += [*with_origins([rounds.judge]), *(fitted_names(run.folder, rounds.number) if method.fits_judge else ())]
    if not method.makes_pairs:
        used += experiment.data.judges
    return tuple(dict.fromkeys([*used, *experiment.init.record.trained_on]))


def _train(experiment: Experiment, run: RunFolder, method: Method, seed: int) -> None:
    """Prepare and encode the data, then train.

    The preferences of a placebo are shuffled before anything reads them.
    """
    model = experiment.load_model()
    if experiment.init.folder is not None:
        model.start_from(experiment.init.folder)
    cache, settings = cache_folder(experiment, experiment.data, model), method.settings
    context = PrepareContext(experiment.load_metric, model, experiment.card.generation, cache)
    given = experiment.data.shuffled(seed) if settings.labels == "shuffled" else experiment.data
    processes = Processes(experiment.accelerator)
    with launched.working(Stage.PREPARATION):
        with processes.main_first():
            data = method.algorithm.prepare(given, context)
            cache = cache_folder(experiment, data, model)
        encoded = _encoded(method, data, model, cache, processes)
    model.release_encoders()
    if experiment.accelerator.is_main_process and context.notes:
        write_json(run.folder / PREPARED, context.notes)
    job = Job(
        method.algorithm,
        settings,
        model,
        data,
        encoded,
        seed,
        method.name,
        run.config().run_id,
        context.forwards,
        watcher_of(experiment, method, run),
        _rewards(experiment, method),
        experiment.protocol.generation.precision,
    )
    with launched.working(Stage.TRAINING):
        train(job, run, experiment.accelerator)


def _encoded(
    method: Method, data: PreferenceData, model: ModelFamily, cache: Path, processes: Processes
) -> EncodedCaptions:
    """What a method reads of the data: captions, and images unless it samples its own."""
    if not method.algorithm.reads_pictures:
        return EncodedCaptions(data.captions, model, cache, processes)
    settings = method.settings
    return EncodedData(data, model, cache, settings.aspect_ratios, settings.horizontal_flip, processes)


def _rewards(experiment: Experiment, method: Method) -> Rewards | None:
    """The metrics that judge while an algorithm that samples trains; None for other algorithms."""
    if not isinstance(method.algorithm, SamplingAlgorithm):
        return None
    captions = list(experiment.data.captions)
    return Rewards(
        {
            name: lambda name=name: experiment.load_metric(name).for_prompts(captions)  # type: ignore[misc]
            for name in method.algorithm.trained_on
        }
    )
