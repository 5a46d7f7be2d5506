"""One experiment: judge the base, train, judge the result; whatever is already there is not done again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.files import write_json
from bench.core.hub import HUB_ID
from bench.core.processes import Processes
from bench.core.validation import build
from bench.data.cache import EncodedData
from bench.data.preferences import PreferenceData, read_preferences
from bench.data.prepare import PrepareContext
from bench.evaluation.loop import Scorer, evaluate
from bench.evaluation.sampling_weights import SamplingWeights, default_sampling
from bench.evaluation.weights import Weights, base_weights, find_run, is_run, released_weights, run_weights
from bench.experiments.method import Method
from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.guidance import ALPHA, BETA
from bench.models.sampling import uses_classifier_free_guidance
from bench.prompts.sets import find_prompts
from bench.records.config import DataIdentity, NegativeScales, Resolved, RunConfig, TrainingRecord
from bench.records.environment import write_environment
from bench.records.protocol import GenerationSettings, Protocol, prompts_digest
from bench.records.runs import CACHE, Evaluation, RunFolder, surveys_folder
from bench.scoring.metric import METRICS, EmbeddingMetric, Metric
from bench.training.algorithm import ALGORITHMS, Algorithm, Need, Recipe
from bench.training.distributed.launch import choose_strategy, connect
from bench.training.loop import Job, train
from bench.training.optimizers import OPTIMIZERS
from bench.training.settings import TrainingSettings


class Experiment:
    """A model with its data, prompts and scorers, on which algorithms are compared.

    Args:
        model: a registered model, a diffusers folder or a hub id.
        runs: folder of all runs.
        data: preference data; None is the model's default.
        columns: names of the data's columns by their names here.
        init: a finished run, or released weights, that training starts from; None is the base model.
        prompts: evaluation prompts, a registered set or a file; None is the model's default.
        metrics: registered names of the metrics that judge; None is those of the model.
        generation: changes to how images are made, by field.

    Attributes:
        prompts: the evaluation prompts without repeats, whose images would be the same.
        repeated_prompts: how many repeats were left out.
    """

    def __init__(
        self,
        model: str,
        runs: Path,
        *,
        data: str | None,
        prompts: str | None,
        generation: Mapping[str, Any],
        metrics: Sequence[str] | None = None,
        columns: Mapping[str, str] | None = None,
        init: str | None = None,
    ) -> None:
        found = find_model(model)
        self.name, self.card, self.recipe, self.runs = found.name, found.card, found.recipe, runs
        self.accelerator = connect()
        self._judges = list(self.card.metrics) if metrics is None else metrics
        for judge in self._judges:
            METRICS.point(judge)
        self._data_source, self._columns, self._init = data or self.card.data, columns, init
        prompt_source = prompts or self.card.prompts
        if prompt_source is None:
            raise UserError(
                f"model {model!r} has no default evaluation prompts; give --prompts FILE or a set of: bench list prompts"
            )
        found_prompts = find_prompts(prompt_source)
        self.prompts = list(dict.fromkeys(found_prompts))
        self.repeated_prompts = len(found_prompts) - len(self.prompts)
        settings = build(GenerationSettings, {**self.card.generation.model_dump(), **generation}, "images")
        base = self.load_model()
        base.check(settings)
        self._guided = uses_classifier_free_guidance(base, settings)
        self.protocol = Protocol(
            model=self.name,
            base_weights=base.digest,
            prompts=prompts_digest(self.prompts),
            prompt_count=len(self.prompts),
            generation=settings,
        )

    @functools.cached_property
    def data(self) -> PreferenceData:
        """The preference pairs, read once."""
        if self._data_source is None:
            raise UserError(f"model {self.name!r} has no default preference data; give --data FILE")
        with self.accelerator.main_process_first():  # the main process keeps what it found in the images
            return read_preferences(self._data_source, self._columns, surveys_folder(self.runs))

    @functools.cached_property
    def scorers(self) -> dict[str, Scorer]:
        """What judges; a metric that the model's card does not name has its published checkpoint."""
        return {name: Scorer(functools.partial(self._load_metric, name), self.prompts) for name in self._judges}

    def load_model(self) -> ModelFamily:
        """A fresh copy of the base model."""
        return self.card.family.load(self.card.source, device=self.accelerator.device)

    @functools.cached_property
    def base(self) -> Weights:
        """The base model's weights."""
        return base_weights(self.runs, self.name, self.card.title, self.protocol.base_weights)

    @functools.cached_property
    def init(self) -> Weights:
        """The weights that training starts from.

        Raises:
            UserError: no such weights, or negative ones.
        """
        if self._init is None:
            return self.base
        weights = self.find_weights(self._init)
        if weights.negative_scales is not None:
            raise UserError(
                f"--init {self._init} trained negative weights, which make no images alone; give another run"
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

    @contextlib.contextmanager
    def held(self, run: RunFolder, *, wait: bool = False) -> Iterator[None]:
        """Hold a run's folder for all processes of this command; see `RunFolder.locked`."""
        with run.locked(wait=wait) if self.accelerator.is_main_process else contextlib.nullcontext():
            self.accelerator.wait_for_everyone()
            yield

    def judge_base(self) -> None:
        """Evaluate the base model; a command that comes second waits for the first."""
        with self.held(self.base.run, wait=True):
            self.judge(default_sampling(self.base, self.base, self.protocol.generation.guidance_scale))

    def judge(self, slots: SamplingWeights) -> Evaluation:
        """Evaluate some weights under the protocol, with guidance of any kind; the caller holds the owner's folder."""
        result_owner, variant = slots.result_owner, slots.variant(self.protocol)
        if self.accelerator.is_main_process:
            result_owner.run.begin(result_owner.config)
            if not result_owner.run.done:  # not trained here
                write_environment(result_owner.run, self.accelerator.num_processes, {})
                result_owner.run.finish()
        own = default_sampling(result_owner, self.base, self.protocol.generation.guidance_scale).variant(self.protocol)
        signature = self.protocol.signature
        if variant is None or variant == own:
            place = result_owner.run.evaluation(signature)
        else:
            place = result_owner.run.evaluation_of(signature, variant)
        model = self.load_model()
        return evaluate(
            place,
            slots.title,
            lambda: slots.networks(model),
            model,
            self.protocol,
            variant,
            self.prompts,
            self.scorers,
            Processes(self.accelerator),
        )

    def run(self, method: Method, seed: int, typed: Sequence[str]) -> RunFolder:
        """Train a method with one seed and judge the result; continues what an earlier call began.

        Args:
            typed: the command line, for the record.
        """
        _ = self.data  # by every process: reading waits for the main one
        run = RunFolder(self.runs / self.name / method.name / method.label / f"seed-{seed}")
        with self.held(run):
            if self.accelerator.is_main_process:
                self._begin(run, method, seed, typed)
            self.accelerator.wait_for_everyone()
            if not run.done:
                self._train(run, method.algorithm, method.settings, seed)
            weights = run_weights(self.runs, run)
            judged = self.judge(default_sampling(weights, self.base, self.protocol.generation.guidance_scale))
            if self.accelerator.is_main_process:
                judged.note_prompts_in_training(self.prompts_in_training)
        return run

    @functools.cached_property
    def prompts_in_training(self) -> int:
        """How many of the evaluation prompts are captions of the training data, letter by letter."""
        prompts = set(self.prompts)
        return len({caption for caption in self.data.captions if caption in prompts})

    def _begin(self, run: RunFolder, method: Method, seed: int, typed: Sequence[str]) -> None:
        name, algorithm, settings = method.name, method.algorithm, method.settings
        resolved = Resolved(
            algorithm=algorithm.model_dump(mode="json"),
            training=TrainingRecord.model_validate(
                settings.model_dump(mode="json", exclude=set(settings.execution_fields()))
            ),
            init=self.init.record.digest,
            data=DataIdentity(digest=self.data.digest, labels=self.data.labels_digest, pairs=len(self.data)),
            rewards={metric: self._load_metric(metric).identity() for metric in algorithm.trained_on},
        )
        if algorithm.negative:
            resolved = resolved.model_copy(update={"negative": NegativeScales(alpha=ALPHA, beta=BETA)})
        run.begin(
            RunConfig(
                model=self.name,
                algorithm=name,
                title=algorithm.info.title,
                name=method.label,
                changed=dict(method.changed),
                seed=seed,
                typed=tuple(typed),
                base_weights=self.protocol.base_weights,
                init=self.init.record.source,
                recipe=recipe.source if (recipe := self._recipe(name)) else None,
                resolved=resolved,
                data=self.data.report,
                trained_on=tuple(
                    dict.fromkeys([*algorithm.trained_on, *self.data.judges, *self.init.record.trained_on])
                ),
            )
        )
        if not run.done:
            execution = settings.model_dump(mode="json", include=set(settings.execution_fields()))
            write_environment(run, self.accelerator.num_processes, execution)

    def _recipe(self, name: str) -> Recipe | None:
        return ALGORITHMS.get(name).recipes.get(self.recipe)

    def _train(self, run: RunFolder, algorithm: Algorithm, settings: TrainingSettings, seed: int) -> None:
        model = self.load_model()
        if self.init.folder is not None:
            model.start_from(self.init.folder)
        context = PrepareContext(self._load_metric, model, self.card.generation, self._cache(self.data, model))
        with self.accelerator.main_process_first():
            data = algorithm.prepare(self.data, context)
            encoded = EncodedData(data, model, self._cache(data, model), settings.aspect_ratios)
        model.release_encoders()
        if self.accelerator.is_main_process and context.notes:
            write_json(run.folder / "prepared.json", context.notes)
        job = Job(algorithm, settings, model, data, encoded, seed, context.forwards)
        train(job, run, self.accelerator)

    def _cache(self, data: PreferenceData, model: ModelFamily) -> Path:
        return self.runs / CACHE / f"{data.digest}-{model.encoders_digest}-{model.resolution}"

    def refuse_unfit(self, name: str, algorithm: Algorithm, settings: TrainingSettings) -> None:
        """Raise a `UserError` that says why the algorithm cannot run here with these settings, if it cannot."""
        OPTIMIZERS[settings.optimizer].refuse(self.accelerator.device)
        choose_strategy(self.accelerator).check(settings)
        if settings.trainable == "lora" and self.init.folder is not None:
            raise UserError(
                f"{name} would train adapters of {self.init.record.title}, which say nothing without it; "
                "leave --init out, or train all weights: --set trainable=full"
            )
        for metric in algorithm.trained_on:
            METRICS.point(metric)
        for metric in algorithm.embedded_by:
            if not issubclass(METRICS.get(metric), EmbeddingMetric):
                raise UserError(
                    f"{name} needs embeddings, but the metric {metric!r} has none; choose a CLIP scorer such as pickscore or clip"
                )
        if Need.PAIRS in algorithm.needs:
            self._refuse_unlabelled(name)
        if Need.GUIDANCE in algorithm.needs and not self._guided:
            raise UserError(
                f"{name} needs {Need.GUIDANCE}, but images of {self.name!r} are made without (guidance_scale "
                f"{self.protocol.generation.guidance_scale:g}); give --guidance-scale above 1, or a model that is not distilled"
            )

    def _refuse_unlabelled(self, name: str) -> None:
        if not self.data.labelled:
            raise UserError(
                f"{name} needs {Need.PAIRS}, but {self.data.report.source} has no column 'label_0'; "
                "give labelled pairs, say that image 0 is always the preferred one (--columns label_0=1), or rank these images first: "
                "bench data rank"
            )
        if self.data.width != 2:
            raise UserError(
                f"{name} needs {Need.PAIRS}, but {self.data.report.source} has {self.data.width} images a caption; "
                "give pairs, or rank these images first: bench data rank"
            )

    def _load_metric(self, name: str) -> Metric:
        return METRICS.get(name).load(self.card.metrics.get(name), device=self.accelerator.device)
