"""The contracts of a metric, and how an installed one is checked against them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import UserError
from bench.experiments.contracts.contract import (
    BrokenError,
    Contract,
    Finding,
    NotApplicableError,
    check_all,
    expect,
)
from bench.experiments.contracts.metric_case import CPU, SIZES, MetricCase, contract, pictures, tiny_prompts
from bench.models.registry import MODELS
from bench.scoring.metric import METRICS, DifferentiableMetric, EmbeddingMetric, Metric

SAME_SCORE = 0.1
"""By how much of the range of the scores those of pixels may differ: Pillow rounds to 256 levels and clips while it resizes."""
STEP = 1e-5
"""Root mean square of a small step, of pixels in [0, 1]: even scorers with random weights are straight over so much."""
SAME_SLOPE = 0.1
"""By which share the median change of the scores may differ from the predicted one."""


@contract
def states_its_scale(case: MetricCase) -> None:
    """It states its title, its range, its unit and its source."""
    info = case.metric.info
    empty = [name for name in ("title", "raw_range", "unit", "source") if not getattr(info, name)]
    expect(not empty, "words in each of them", f"nothing in {', '.join(empty)}")


@contract
def keeps_its_direction(case: MetricCase) -> str:
    """It says whether higher is better, and the factor of tables keeps the order."""
    info = case.metric.info
    expect(isinstance(info.higher_is_better, bool), "higher_is_better of True or False", repr(info.higher_is_better))
    factor = info.display_factor
    expect(math.isfinite(factor) and factor > 0, "a display_factor above 0", factor)
    return "higher is better" if info.higher_is_better else "lower is better"


@contract
def returns_one_score_per_image(case: MetricCase) -> str:
    """It returns one finite float32 score per image, on the CPU and without gradient."""
    scores, count = case.scores, len(case.images)
    expect(isinstance(scores, Tensor), "a torch.Tensor", type(scores).__name__)
    expect(scores.shape == (count,), f"scores of shape ({count},) for {count} images", tuple(scores.shape))
    expect(scores.dtype == torch.float32, "float32 scores", scores.dtype)
    expect(scores.device.type == "cpu", "scores on the CPU", scores.device)
    expect(not scores.requires_grad, "scores without gradient", "scores with gradient")
    expect(not scores.is_inference(), "scores that can be used outside of torch.inference_mode", "an inference tensor")
    expect(bool(torch.isfinite(scores).all()), "finite scores", _short(scores))
    return f"{scores.min():.6g} to {scores.max():.6g}"


@contract
def score_is_the_same_in_any_batch(case: MetricCase) -> str:
    """The score of an image does not depend on the other images of the call."""
    pairs = zip(case.images, case.prompts, strict=True)
    alone = torch.cat([case.metric.score([image], [prompt]) for image, prompt in pairs])
    return _alike(alone, case.scores, case, "images one by one")


@contract
def order_of_the_images_does_not_matter(case: MetricCase) -> str:
    """Permuting images and prompts permutes the scores."""
    order = torch.arange(len(case.images)).roll(3).flip(0).tolist()
    permuted = case.metric.score([case.images[place] for place in order], [case.prompts[place] for place in order])
    return _alike(permuted, case.scores[order], case, "the images in another order")


@contract
def repeats_itself(case: MetricCase) -> None:
    """The same images and prompts have the same scores to the last bit."""
    again = case.metric.score(case.images, case.prompts)
    expect(torch.equal(again, case.scores), _short(case.scores), _short(again))


@contract
def copies_agree(case: MetricCase) -> str:
    """Loaded a second time, it has the same scores."""
    return _alike(case.again().score(case.images, case.prompts), case.scores, case, "a second copy")


@contract
def leaves_images_alone(case: MetricCase) -> None:
    """Scoring leaves the images as they were."""
    before = [(image.mode, image.size, image.tobytes()) for image in case.images]
    case.metric.score(case.images, case.prompts)
    after = [(image.mode, image.size, image.tobytes()) for image in case.images]
    changed = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    expect(not changed, "unchanged images", f"changes in image {', '.join(map(str, changed))}")


@contract
def tells_images_apart(case: MetricCase) -> str:
    """A continuous metric gives different images different scores."""
    if not case.metric.continuous:
        raise NotApplicableError("many images rightly share a score (continuous = False)")
    different = len(set(case.scores.tolist()))
    expect(different > 1, "different scores", f"{case.scores[0]:.6g} for all {len(case.images)} images")
    return f"{different} scores of {len(case.images)} images"


@contract
def reads_prompts_as_stated(case: MetricCase) -> str:
    """Scores depend on the prompts exactly when reads_prompt is stated as True."""
    moved = case.metric.score(case.images, [*case.prompts[1:], case.prompts[0]])
    difference = (moved - case.scores).abs().max().item()
    if not case.metric.reads_prompt:
        expect(
            difference == 0, "the same scores for other prompts (reads_prompt = False)", f"others by {difference:.2g}"
        )
        return "no"
    if not case.metric.continuous:
        raise NotApplicableError("hit or miss may stay the same under another prompt (continuous = False)")
    expect(difference > 0, "other scores for other prompts", "the same; state reads_prompt = False")
    return f"other prompts change scores by up to {difference:.2g}"


@contract
def scores_images_of_any_mode(case: MetricCase) -> str:
    """Greyscale, palette and transparent images are scored, each with one finite score."""
    modes = ("L", "P", "RGBA")
    for mode in modes:
        scores = case.metric.score([image.convert(mode) for image in case.images], case.prompts)
        expect(scores.shape == case.scores.shape, f"a score per image of mode {mode}", tuple(scores.shape))
        expect(bool(torch.isfinite(scores).all()), f"finite scores for images of mode {mode}", _short(scores))
    return ", ".join(modes)


@contract
def identity_is_json(case: MetricCase) -> str:
    """Its identity is JSON, the same at every call and of every copy."""
    identity = case.metric.identity()
    try:
        written = json.dumps(identity, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BrokenError(f"expected JSON values, found {error}") from error
    expect(bool(identity), "something that tells it from others, such as a version", "an empty identity")
    _ = case.scores
    for later in (case.metric, case.again()):
        made = json.dumps(later.identity(), sort_keys=True)
        expect(made == written, f"{written} again", made)
    return written if len(written) < 80 else f"{len(identity)} entries"


@contract
def refuses_a_missing_checkpoint(case: MetricCase) -> str:
    """A checkpoint that does not exist is refused with a bench.UserError, one sentence that says what to do."""
    missing = str(Path("no-such-folder").absolute() / "no-such-checkpoint")  # whole: a short one could be a hub id
    try:
        case.load(missing)
    except UserError as error:
        return str(error)
    if not case.given:
        raise NotApplicableError("it needs no checkpoint")
    raise BrokenError(f"expected a bench.UserError for the checkpoint {missing}, found that it loads")


@contract
def embeddings_have_length_one(case: MetricCase) -> str:
    """Embeddings of images and prompts are float32 of one size and length 1, and do not depend on the batch."""
    metric = case.metric
    if not isinstance(metric, EmbeddingMetric):
        raise NotApplicableError("it is not a bench.EmbeddingMetric")
    whole = metric.embed_images(case.images), metric.embed_texts(case.prompts)
    alone = (
        torch.cat([metric.embed_images([image]) for image in case.images]),
        torch.cat([metric.embed_texts([prompt]) for prompt in case.prompts]),
    )
    size = whole[0].shape[-1]
    for made, single, what in zip(whole, alone, ("images", "prompts"), strict=True):
        expect(made.shape == (len(case.images), size), f"a row of {size} for each of {what}", tuple(made.shape))
        expect(made.dtype == torch.float32, f"float32 embeddings of {what}", made.dtype)
        off = (made.norm(dim=-1) - 1).abs().max().item()
        expect(off < 1e-4, f"embeddings of {what} of length 1", f"lengths that are {off:.2g} off")
        apart = (made - single).abs().max().item()
        expect(apart < 1e-4, f"the same embeddings of {what} alone", f"a difference of {apart:.2g}")
    return f"{size} numbers"


@contract
def gradient_is_that_of_the_score(case: MetricCase) -> str:
    """Pixels have the scores of their images, and the gradient predicts how a small step changes them."""
    metric = case.metric
    if not isinstance(metric, DifferentiableMetric):
        raise NotApplicableError("it is not a bench.DifferentiableMetric")
    values = [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255 for image in case.images]
    pairs = list(zip(values, case.prompts, strict=True))
    scores = torch.cat([metric.score_pixels(pixels, [prompt]).detach() for pixels, prompt in pairs])
    apart = (scores - case.scores).abs().max().item() / (case.scores.max() - case.scores.min()).item()
    expect(apart < SAME_SCORE, f"{_short(case.scores)} from pixels too", _short(scores))
    found = statistics.median(_realised(metric, pixels, prompt) for pixels, prompt in pairs)
    expect(abs(found - 1) < SAME_SLOPE, "steps that change the scores as the gradient says", f"{found:.3g} times that")
    return f"scores differ by {apart:.2g} of their range; steps change them {found:.4g} times as much as predicted"


def _realised(metric: DifferentiableMetric, pixels: Tensor, prompt: str) -> float:
    """The change of a score by a small step up its gradient, by the change that the gradient predicts."""
    values = pixels.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(metric.score_pixels(values, [prompt]).sum(), values)
    size = gradient.square().mean().sqrt()
    expect(bool(torch.isfinite(size)) and size.item() > 0, "a gradient", f"one of size {size.item():g}")
    step = STEP * gradient / size
    with torch.no_grad():
        up, down = (metric.score_pixels(pixels + way * step, [prompt]) for way in (1, -1))
    return ((up - down) / (2 * (gradient * step).sum())).item()


def _alike(scores: Tensor, others: Tensor, case: MetricCase, what: str) -> str:
    """Expect scores to be equal up to rounding; returns how far apart they are."""
    expect(scores.shape == others.shape, f"{len(others)} scores for {what}", tuple(scores.shape))
    difference = (scores - others).abs().max().item()
    expect(difference <= case.rounding, f"{_short(others)} for {what}", _short(scores))
    return f"largest difference {difference:.1g}"


def _short(values: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in values.flatten().tolist())


METRIC_CONTRACTS: tuple[Contract[MetricCase], ...] = (
    states_its_scale,
    keeps_its_direction,
    returns_one_score_per_image,
    score_is_the_same_in_any_batch,
    order_of_the_images_does_not_matter,
    repeats_itself,
    copies_agree,
    leaves_images_alone,
    tells_images_apart,
    reads_prompts_as_stated,
    scores_images_of_any_mode,
    identity_is_json,
    refuses_a_missing_checkpoint,
    embeddings_have_length_one,
    gradient_is_that_of_the_score,
)


def check_metric(name: str, *, checkpoint: str | None, model: str | None) -> Iterator[Finding]:
    """Check a registered metric, one finding for each contract as it is made.

    Args:
        checkpoint: a local path or a hub id.
        model: a registered model whose checkpoint of the metric is used where none is given; without both, the metric's own
            default.

    Raises:
        UserError: there is no such metric, or its checkpoint cannot be loaded.
    """
    kind = METRICS.get(name)
    chosen = checkpoint
    if chosen is None and model is not None:
        judges = MODELS.get(model).metrics
        if name not in judges:
            raise UserError(f"model {model!r} has no checkpoint of {name!r}; give --checkpoint, or leave --model out")
        chosen = judges[name]
    prompts = tiny_prompts(len(SIZES))

    def load(place: str | None) -> Metric:
        return kind.load(place, device=CPU).for_prompts(prompts)

    case = MetricCase(load(chosen), lambda: load(chosen), load, chosen is not None, pictures(), prompts)
    yield from check_all(METRIC_CONTRACTS, lambda _: case)
