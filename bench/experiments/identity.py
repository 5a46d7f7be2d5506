"""What a run's result depends on, and whether the runs that are there may be other seeds of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.code import code_digests, used_code
from bench.core.errors import UserError
from bench.core.paths import unlinked
from bench.core.probes import libraries_digest
from bench.core.values import differing, digest
from bench.data.preferences import PreferenceData
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method
from bench.models.family import ModelFamily
from bench.models.guidance import ALPHA, BETA
from bench.records.config import DataIdentity, NegativeScales, Resolved, RunConfig, declared_same
from bench.records.runs import CACHE, RunFolder
from bench.records.training import TrainingRecord
from bench.scoring.metric import METRICS
from bench.training.algorithm import ALGORITHMS, Algorithm
from bench.training.settings import TrainingSettings

TRAINING = ("bench.training.loop", "bench.data.cache", "bench.data.prepare", "bench.data.reading")
"""What leads from data and settings to weights."""
ROUNDS = ("bench.experiments.rounds", "bench.data.writing")
"""What leads to the pairs of a run in rounds."""
ENCODING = ("bench.data.cache", "bench.data.prepare")
"""What leads from data to what is cached of it."""


def resolve_run(experiment: Experiment, method: Method) -> Resolved:
    """What decides the weights of a method's runs; loads the scorers that it trains on, once."""
    algorithm, settings, data = method.algorithm, method.settings, experiment.data
    judges = () if settings.rounds is None else (settings.rounds.judge,)
    rewards = {name: experiment.reward(name) for name in (*algorithm.trained_on, *algorithm.embedded_by, *judges)}
    resolved = Resolved(
        algorithm=algorithm.model_dump(mode="json"),
        training=_recorded(experiment, settings),
        init=experiment.init.record.digest,
        data=DataIdentity(digest=data.digest, labels=data.labels_digest, pairs=len(data)),
        rewards={name: reward.identity for name, reward in rewards.items()},
        model=dict(experiment.base_parts),
        code={
            **_training_code(algorithm, experiment.card.family, () if settings.rounds is None else ROUNDS),
            "tokenizers": experiment.tokenizers,
            **{f"metric {name}": digest(reward.code) for name, reward in rewards.items()},
        },
    )
    if algorithm.negative:
        resolved = resolved.model_copy(update={"negative": NegativeScales(alpha=ALPHA, beta=BETA)})
    return resolved


def other_code(experiment: Experiment, method: Method, resolved: Resolved, *, same_code: bool) -> tuple[str, ...]:
    """Hashes of the code of a method's runs that are there, other than today's, which is declared to give the same results.

    Args:
        resolved: what a new run of the method would be.
        same_code: whether the user declares it.

    Raises:
        UserError: a run differs in more than its seed, or in its code, of which nobody declared it.
    """
    runs = list(_seeds(experiment, method))
    configs = [run.config() for run in runs]
    others: dict[str, None] = {}
    for run, config in zip(runs, configs, strict=True):
        config.resolved.refuse_other(resolved, run.folder)
        if config.resolved.code_id == resolved.code_id:
            continue
        others[config.resolved.code_id] = None
        if not same_code and not declared_same(configs, config.resolved.code_id, resolved.code_id):
            raise UserError(
                f"{run.folder} {_changed_code(config, resolved)}; give another --name to keep both apart, or add --same-code "
                "if the change does not alter results, which tables will say"
            )
    return tuple(others)


def cache_folder(experiment: Experiment, data: PreferenceData, model: ModelFamily) -> Path:
    """Where latents, embeddings and scores of some data are cached for all runs on the same model by the same code."""
    code = used_code([*ENCODING, type(model).__module__])
    made_by = digest([dict(model.encoding_parts), code, libraries_digest(), experiment.tokenizers])
    return unlinked(experiment.runs, experiment.runs / CACHE / f"{data.digest}-{made_by}-{model.resolution}")


def _seeds(experiment: Experiment, method: Method) -> Iterator[RunFolder]:
    """The runs of a method that have begun, of any seed."""
    place = experiment.runs / experiment.name / method.name / method.label
    for path in sorted(place.glob("seed-*/config.json")):
        yield RunFolder(path.parent)


def _recorded(experiment: Experiment, settings: TrainingSettings) -> TrainingRecord:
    """The settings that decide the weights; of rounds also how the model makes images, up to the seed, which is each round's own."""
    chosen = settings.model_dump(mode="json", exclude=set(settings.execution_fields()))
    if settings.rounds is not None:
        chosen["rounds"]["generation"] = experiment.card.generation.model_dump(mode="json", exclude={"seed"})
    return TrainingRecord.model_validate(chosen)


def _changed_code(config: RunConfig, resolved: Resolved) -> str:
    """The middle of the sentence ``FOLDER ...; give another --name``."""
    if config.resolved.code is None:
        return "was made by a version that did not record its code and the model's files"
    differences = differing(dict(config.resolved.code), dict(resolved.code or {}))
    return f"was trained by other code, which differs in {', '.join(differences)}"


def _training_code(algorithm: Algorithm, family: type[ModelFamily], more: Sequence[str]) -> dict[str, str]:
    """Digests of the algorithm's code, with that of parts that its fields name, and of the harness with the model's family.

    ``more`` are modules of the harness that only this kind of run uses.
    """
    kinds: list[type] = [type(algorithm)]
    for text in _texts(algorithm.model_dump(mode="json")):
        kinds += [registry.get(text) for registry in (ALGORITHMS, METRICS) if text in registry]
    digests = code_digests(kinds, [*TRAINING, family.__module__, *more])
    return {"algorithm": digests["own"], "harness": digests["harness"], "libraries": digests["libraries"]}


def _texts(value: Any) -> Iterator[str]:
    """The strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)
