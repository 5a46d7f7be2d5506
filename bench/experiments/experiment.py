"""An experiment's subject: one model with its data, prompts, scorers and protocol, resolved from what the user chose."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from bench.core.code import code_digests
from bench.core.errors import UserError, nearest_or_all
from bench.core.hub import HUB_ID
from bench.core.processes import Processes
from bench.core.validation import build
from bench.data.preferences import PreferenceData
from bench.data.reading import read_preferences
from bench.evaluation.scorer import Scorer
from bench.evaluation.weights import Weights, base_weights, find_run, is_run, released_weights
from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.probes import sampler_digest, tokenizers_digest
from bench.models.sampling import refuse_unused_negative_prompt, uses_classifier_free_guidance
from bench.prompts.sets import find_prompts, unused_columns
from bench.records.protocol import GenerationSettings, Protocol, prompts_digest
from bench.records.runs import surveys_folder
from bench.scoring.metric import METRICS, Metric, code_of
from bench.training.distributed.launch import connect


class EvaluationChoices(TypedDict, total=False):
    """What a user may choose for an evaluation besides the model; whatever is left out is the model's default.

    Attributes:
        runs: folder of all runs; default ``runs``.
        prompts: evaluation prompts: a registered set or a file.
        metrics: registered names of the evaluation metrics.
        images: changes to how evaluation images are made, by field of `bench.GenerationSettings`.
        limit: use only the first so many evaluation prompts and training pairs, at least 2, for a trial.
    """

    runs: Path | str
    prompts: str | None
    metrics: Sequence[str] | None
    images: Mapping[str, Any] | None
    limit: int | None


class Choices(EvaluationChoices, total=False):
    """What a user may choose for runs: the evaluation's choices, and those of training.

    Attributes:
        data: preference data: a file, a folder or a hub id.
        columns: the data's column names by expected name, for example ``{"caption": "text"}``.
        init: a finished run or released weights to start from; default the base model.
    """

    data: str | None
    columns: Mapping[str, str] | None
    init: str | None


FEWEST_PROMPTS = 2
"""Different prompts from which an interval can be computed."""
IMAGES = ("bench.evaluation.images", "bench.evaluation.sampling_weights")
"""What leads from weights and prompts to images."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reward:
    """A metric that training uses.

    Attributes:
        identity: see `Metric.identity`.
        code: see `bench.scoring.metric.code_of`.
    """

    identity: Mapping[str, Any]
    code: Mapping[str, str]


class Experiment:
    """A model with its data, prompts and scorers, on which algorithms are compared.

    Whatever is cheap to check is resolved at once; data, weights and scorers are loaded when they are first used.

    Args:
        model: a registered model, a diffusers folder or a hub id.
        choices: see `Choices`.

    Attributes:
        found: the model.
        runs: folder of all runs.
        accelerator: the processes of this command.
        prompts: the evaluation prompts without repeats, whose images would be the same.
        given_prompts: how many were given, with repeats and before the limit.
        repeated_prompts: how many repeats were left out.
        unused_columns: of the prompts' file, see `bench.prompts.sets.unused_columns`.
        limit: how many prompts and pairs are used at most; None means all.
        metric_names: registered names of the evaluation metrics.
        base_parts: digests of the base model's components.
        tokenizers: digest of what its tokenizers do; see `bench.models.probes.tokenizers_digest`.
        protocol: how images are made and judged.
        guided: whether images are made with classifier-free guidance.

    Raises:
        UserError: no such model, metric, prompts or choice, or settings that are not allowed.
    """

    def __init__(self, model: str, **choices: Unpack[Choices]) -> None:
        _check_choices(choices)
        self.found = find_model(model)
        self.name, self.card = self.found.name, self.found.card
        self.runs = Path(choices.get("runs") or "runs")
        self.accelerator = connect()
        self.limit = choices.get("limit")

        # The metrics.
        self.metric_names = tuple(choices.get("metrics") or self.card.metrics)
        for metric in self.metric_names:
            METRICS.point(metric)

        # The training data and the initial weights, read when they are first needed.
        self._data, self._columns = choices.get("data") or self.card.data, choices.get("columns")
        self._init = choices.get("init")

        # The evaluation prompts, and how images are made for them.
        prompts = choices.get("prompts") or self.card.prompts
        if prompts is None:
            raise UserError(
                f"model {model!r} has no default evaluation prompts; use --prompts with a file, or with a set from: "
                "bench list prompts"
            )
        read = find_prompts(prompts)
        different = list(dict.fromkeys(read))
        self.given_prompts, self.repeated_prompts = len(read), len(read) - len(different)
        self.prompts = different[: self.limit]
        self.unused_columns = unused_columns(prompts)
        if len(self.prompts) < FEWEST_PROMPTS:
            raise UserError(
                f"prompts {prompts!r}: only {len(self.prompts)} different prompt to evaluate, and an interval needs at least "
                f"{FEWEST_PROMPTS}; give more"
            )
        generation = {**self.card.generation.model_dump(), **(choices.get("images") or {})}
        settings = build(GenerationSettings, generation, "images")
        base = self.load_model()
        base.check(settings)
        refuse_unused_negative_prompt(base, settings)
        sampler = sampler_digest(settings, base)  # a sampler that is refused is named before anything is trained
        self.guided = uses_classifier_free_guidance(base, settings)
        self.base_parts, self.tokenizers = base.parts, tokenizers_digest(base)
        self.protocol = Protocol(
            model=self.name,
            base_weights=base.digest,
            prompts=prompts_digest(self.prompts),
            prompt_count=len(self.prompts),
            generation=settings,
            parts=dict(self.base_parts),
            limit=self.limit,
            code={**code_digests([type(base)], IMAGES), "sampler": sampler, "tokenizers": self.tokenizers},
        )
        self._rewards: dict[str, Reward] = {}

    @functools.cached_property
    def data(self) -> PreferenceData:
        """The preference pairs, read once; collective: every process must read them, as each waits for the main one."""
        if self._data is None:
            raise UserError(f"model {self.name!r} has no default preference data; use --data FILE")
        with Processes(self.accelerator).main_first():  # the main process caches what it found in the images
            data = read_preferences(self._data, self._columns, surveys_folder(self.runs), self.limit)
        if self._data == self.card.data and Path(self._data).is_absolute():
            # Where a package is installed is its user's matter, and records are given away.
            data = dataclasses.replace(data, report=dataclasses.replace(data.report, source=Path(self._data).name))
        return data

    @functools.cached_property
    def prompts_in_training(self) -> int:
        """How many of the evaluation prompts are captions in the training data, character for character."""
        prompts = set(self.prompts)
        return len({caption for caption in self.data.captions if caption in prompts})

    @functools.cached_property
    def scorers(self) -> dict[str, Scorer]:
        """The metrics by name, loaded when they are needed."""
        return {name: Scorer(functools.partial(self.load_metric, name), self.prompts) for name in self.metric_names}

    def load_metric(self, name: str) -> Metric:
        """A registered metric, with the checkpoint that the model's card names or else its published one."""
        return METRICS.get(name).load(self.card.metrics.get(name), device=self.accelerator.device)

    def reward(self, name: str) -> Reward:
        """What identifies a metric that training uses; loaded once."""
        if name not in self._rewards:
            metric = self.load_metric(name)
            self._rewards[name] = Reward(metric.identity(), code_of(metric))
        return self._rewards[name]

    def load_model(self) -> ModelFamily:
        """A fresh copy of the base model."""
        return self.card.family.load(self.card.source, device=self.accelerator.device)

    @functools.cached_property
    def base(self) -> Weights:
        """The base model's weights."""
        return base_weights(self.runs, self.name, self.card.title, self.protocol)

    @functools.cached_property
    def init(self) -> Weights:
        """The weights that training starts from.

        Raises:
            UserError: there are no such weights, or they are for the unconditional branch only.
        """
        if self._init is None:
            return self.base
        weights = self.find_weights(self._init)
        if weights.negative_scales is not None:
            raise UserError(
                f"--init {self._init} trained weights for the unconditional branch of guidance, which cannot make images on "
                "their own; choose another run"
            )
        return weights

    def find_weights(self, typed: str) -> Weights:
        """A finished run, the base model's run, or released weights: a file, a folder or a hub id.

        Raises:
            UserError: there are no such weights, or they do not fit the model.
        """
        place = Path(typed)
        named = place.exists() or HUB_ID.fullmatch(typed)
        if named and not is_run(place) and not is_run(self.runs / place):
            return released_weights(self.runs, self.name, typed, None, self.load_model())
        return find_run(self.runs, self.name, self.base, typed)


def _check_choices(choices: Choices) -> None:
    """Type checkers refuse an unknown name; a notebook does not, and the default would be used without a word."""
    known = sorted(Choices.__annotations__)
    for name in choices:
        if name not in known:
            raise UserError(
                f"there is no argument {name!r}: {nearest_or_all(name, known)} (fields of the algorithm and of training go into "
                "settings)"
            )
    if empty := [name for name, value in choices.items() if value == ""]:
        # as of a variable of a shell that is not set; the default would be used without a word
        raise UserError(f"{empty[0]} is empty; give a value, or leave it out for the default")
    limit = choices.get("limit")
    if limit is not None and limit < 2:
        raise UserError(f"limit={limit} is too small; use at least 2 prompts and pairs")
