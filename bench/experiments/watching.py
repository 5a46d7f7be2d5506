"""Images of training prompts, or of captions held out from training, along the training: their scores, and the decision to stop."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from bench.core.chunks import batch_slices, images_per_chunk
from bench.core.errors import UserError
from bench.core.files import append_lines, write_json
from bench.core.processes import Processes
from bench.core.progress import say
from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method
from bench.experiments.training_sampler import TrainingSampler
from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.models.sampling import forwards_per_image, generate_images
from bench.records.curve import CurveLine, CurveRecord, find
from bench.records.protocol import scorer_signature
from bench.records.runs import CURVE, CURVE_LOG, RunFolder
from bench.records.titles import distinct_titles
from bench.scoring.looks import looks_by_prompt, signature
from bench.scoring.metric import Metric, checked_scores, recorded_identity
from bench.training.distributed.launch import Split, asked_split
from bench.training.held_out import held_out_captions, spread_captions
from bench.training.online import SamplingAlgorithm
from bench.training.watching import Watcher, unwatched

PROMPTS = 16
"""Training prompts whose images are made."""
IMAGES = 4
"""Images of each."""


def watcher_of(experiment: Experiment, method: Method, run: RunFolder) -> Watcher:
    """What looks at a run of a method while it trains, as its settings say."""
    settings = method.settings
    return CurveWatcher(experiment, method, run) if settings.watched else unwatched


def refuse_unwatchable(experiment: Experiment, method: Method) -> None:
    """Raise a `UserError` where images along the training cannot be made, before anything is computed."""
    settings = method.settings
    if not settings.watched:
        return
    if settings.stop_when and settings.evaluate_every not in (0, settings.stop_when.every):
        raise UserError(
            f"evaluate_every={settings.evaluate_every} differs from the {settings.stop_when.every} steps of stop_when; leave one out"
        )
    if experiment.accelerator.num_processes > 1 and asked_split() is not Split.NOTHING:
        raise UserError(
            "--evaluate-every and --stop-when do not work with sharded training (FSDP, DeepSpeed); start without --use_fsdp and --use_deepspeed, "
            "or leave them out"
        )
    if method.algorithm.negative:
        raise UserError(
            f"{method.name} trains weights for the unconditional branch of guidance, which cannot make images on their own; "
            "leave --evaluate-every and --stop-when out"
        )
    prompts = watched_prompts(experiment, method)
    if not prompts:
        raise UserError(
            "every caption that --evaluate-every and --stop-when could look at is an evaluation prompt; use other --prompts, or "
            "leave them out"
        )
    if len(prompts) == 1:
        raise UserError(
            f"--evaluate-every and --stop-when have one caption to look at ({prompts[0]!r}), and noise is judged by how captions differ; "
            "use data with more captions, a larger --limit or held_out, or leave them out"
        )


def held_out_of(experiment: Experiment, method: Method) -> list[str]:
    """Captions of the data that a method does not train on."""
    algorithm = method.algorithm
    if not isinstance(algorithm, SamplingAlgorithm):
        return []
    return held_out_captions(experiment.data.captions, algorithm.held_out)


def watched_prompts(experiment: Experiment, method: Method) -> list[str]:
    """What images are made of along a training: the captions that are held out, if there are any, or else training prompts.

    No evaluation prompt is among them, whatever the data has.
    """
    evaluated = set(experiment.prompts)
    if held_out := held_out_of(experiment, method):
        return [caption for caption in held_out if caption not in evaluated]
    return spread_captions(set(experiment.data.captions) - evaluated, PROMPTS)


def joined(parts: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """Values by name of the prompts of several processes, one process after another; a process without prompts has no names."""
    filled = [part for part in parts if part]
    return {name: [value for part in filled for value in part[name]] for name in filled[0]} if filled else {}


class CurveWatcher:
    """Makes and scores images of training prompts at fixed steps, and writes ``curve.jsonl``.

    Noise is addressed by prompt and image, so every step and every run has the same; the state of torch's own random numbers is
    put back, so the weights are the same to the last bit as without a watcher.  Several processes share the prompts, and the main one
    writes and decides; every process must make every call.

    Args:
        experiment: the experiment, whose protocol says how images are made, and whose metrics judge them.
        method: what is trained.
        run: where the curve is recorded.
    """

    def __init__(self, experiment: Experiment, method: Method, run: RunFolder) -> None:
        self._experiment, self._method, self._run = experiment, method, run
        self._rule = method.settings.stop_when
        self._every = self._rule.every if self._rule else method.settings.evaluate_every
        self._processes = Processes(experiment.accelerator)
        self._prompts = watched_prompts(experiment, method)
        self._items = [(prompt, image) for prompt in self._processes.part(self._prompts) for image in range(IMAGES)]

    def __call__(self, step: int, pairs: int, network: nn.Module, *, last: bool) -> bool:
        """See `bench.training.watching.Watcher`."""
        if step % self._every and not last:
            return False
        if self._processes.from_main(lambda: self._lacks(step)):
            self._measure(step, pairs, network)
        return self._processes.from_main(lambda: self._ends(step))

    def _lacks(self, step: int) -> bool:
        """Whether the step has not been measured yet."""
        written = self._run.curve()
        return written is None or all(line["step"] != step for line in written[1])

    def _ends(self, step: int) -> bool:
        """Whether training is to stop at the step."""
        finding = find(*self._read())
        if self._rule is None or not finding.overoptimised:
            return False
        say(f"stopped at step {step}: {finding.sentence()}")
        return True

    def _measure(self, step: int, pairs: int, network: nn.Module) -> None:
        """Make and score the images, and append a line."""
        device = self._experiment.accelerator.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            every = self._processes.gathered([self._found(network)])
            if not self._processes.main:
                return
            if step == 0 or self._run.curve() is None:
                self._write_record(self._metrics)
            protocol, training = (joined(each) for each in zip(*every, strict=True))
            line = CurveLine(step=step, pairs=pairs, signal=self._signal(), scores=protocol, cost=self._cost())
            if self._sampler is not None:
                line["training_sampler"] = training
        append_lines(self._run.folder / CURVE_LOG, [json.dumps(line)])

    def _found(self, network: nn.Module) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Values of this process's images by name, as the protocol makes them and as training does; nothing where it has no images."""
        if not self._items:
            return {}, {}
        images = self._images(network)
        looks = looks_by_prompt([images[piece] for piece in batch_slices(len(images), IMAGES)])
        training = {} if self._sampler is None else self._scores(self._sampler.images(network, self._items))
        return self._scores(images) | looks, training

    def _cost(self) -> dict[str, int]:
        """What a look costs; see `CurveLine`."""
        settings, count = self._experiment.protocol.generation, len(self._prompts) * IMAGES
        images, forwards = count, count * forwards_per_image(self._model, settings)
        if self._sampler is not None:
            images, forwards = images + count, forwards + count * self._sampler.forwards_per_image
        return {"images": images, "forwards": forwards, "scores": images * len(self._metrics)}

    def _scores(self, images: NDArray[np.uint8]) -> dict[str, list[float]]:
        """Raw scores of images by metric."""
        prompts = [prompt for prompt, _ in self._items]
        pictures = [Image.fromarray(image) for image in images]
        return {
            name: checked_scores(name, metric.score(pictures, prompts), len(pictures))
            for name, metric in self._metrics.items()
        }

    def _images(self, network: nn.Module) -> NDArray[np.uint8]:
        """The images under the protocol, those of a prompt together, (N, H, W, 3)."""
        settings, model, items = self._experiment.protocol.generation, self._model, self._items
        shape = model.latent_shape(settings.height, settings.width)
        device = self._experiment.accelerator.device
        made = []
        for piece in batch_slices(len(items), images_per_chunk(settings.height, settings.width)):
            noise = torch.stack([evaluation_noise(settings, *item, shape) for item in items[piece]]).to(device)
            draws = evaluation_generators(settings, items[piece])
            prompts = [prompt for prompt, _ in items[piece]]
            made.append(generate_images(model, Networks.single(network), prompts, noise, settings, draws))
        return np.concatenate(made)

    def _signal(self) -> float | None:
        """The mean margin, or the mean reward, of the steps since the last line; where there is neither, the negative loss."""
        written = self._run.curve()
        since = written[1][-1]["step"] if written and written[1] else 0
        steps = self._run.steps()[since:]
        values = [float(line.get("margin", line.get("reward", -line["loss"]))) for line in steps]  # type: ignore[arg-type]
        return sum(values) / len(values) if values else None

    @functools.cached_property
    def _metrics(self) -> dict[str, Metric]:
        """The evaluation metrics, and the rewards of an algorithm that samples; they stay in memory, since loading them takes longer than a look."""
        algorithm = self._method.algorithm
        rewards = algorithm.trained_on if isinstance(algorithm, SamplingAlgorithm) else ()
        names = dict.fromkeys([*self._experiment.metric_names, *rewards])
        return {name: self._experiment.load_metric(name).for_prompts(self._prompts) for name in names}

    @functools.cached_property
    def _sampler(self) -> TrainingSampler | None:
        """Makes images as training does, if it samples; None for other algorithms."""
        algorithm, settings = self._method.algorithm, self._method.settings
        if not isinstance(algorithm, SamplingAlgorithm):
            return None
        device, seed = self._experiment.accelerator.device, self._experiment.protocol.generation.seed
        return TrainingSampler(algorithm, settings, self._model, device, seed)

    def _write_record(self, metrics: dict[str, Metric]) -> None:
        protocol = self._experiment.protocol
        scorers = {name: scorer_signature(name, recorded_identity(metric)) for name, metric in metrics.items()}
        record = CurveRecord(
            prompts=tuple(self._prompts),
            images_per_prompt=IMAGES,
            generation=protocol.generation.model_dump(mode="json"),
            signatures={**scorers, "looks": signature()},
            titles=distinct_titles({name: metric.info.title for name, metric in metrics.items()}),
            lower_is_better=tuple(name for name, metric in metrics.items() if not metric.info.higher_is_better),
            trained_on=self._run.config().trained_on,
            held_out=bool(held_out_of(self._experiment, self._method)),
            training_sampler={} if self._sampler is None else self._sampler.record(),
        )
        write_json(self._run.folder / CURVE, dataclasses.asdict(record))

    def _read(self) -> tuple[CurveRecord, list[CurveLine]]:
        written = self._run.curve()
        if written is None:
            raise UserError(f"{self._run.folder / CURVE} has disappeared; delete the run's folder and start it again")
        return written

    @functools.cached_property
    def _model(self) -> ModelFamily:
        """A copy of the base model with its encoders and its decoder, which the one that is trained has released."""
        return self._experiment.load_model()
