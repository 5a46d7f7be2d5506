"""``python -m bench.tiny.quality``: the figures of the tiny world as an instrument.

It draws eight pictures of each of a hundred evaluation prompts by a base model, or by weights that a run trained, and prints how
often they show what the prompt names, how much voters agree about them and about the shipped pairs, what gold depends on, and how well
every judge agrees with it, for pairs within a prompt; and for weights what gold gained over the base.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from bench.core.errors import UserError
from bench.core.files import write_array, write_json
from bench.core.images import open_image
from bench.core.progress import Progress
from bench.core.terminal import Terminal
from bench.core.values import digest
from bench.evaluation.noise import evaluation_noise
from bench.models.checkpoints.compatibility import loaded_files
from bench.models.checkpoints.component import place_digest
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.guidance import Networks
from bench.models.registry import MODELS
from bench.models.sampling import generate_images
from bench.records.protocol import GenerationSettings
from bench.scoring.metric import METRICS
from bench.tiny import ASSETS, world
from bench.tiny.building.pairs import unused
from bench.tiny.checker import Checker
from bench.tiny.commands import refusing
from bench.tiny.voters import (
    PROPERTIES,
    expected_utility,
    named_extras,
    population_preference,
    properties,
    vote_variance,
)

PROMPTS = 100
PICTURES = 8
JUDGES = ("pickscore", "hpsv2", "imagereward", "aesthetic")
Floats = NDArray[np.float64]


def draw_pictures(
    model: StableDiffusion, generation: GenerationSettings, weights: Path | None, prompts: Sequence[str], folder: Path
) -> NDArray[np.uint8]:
    """`PICTURES` of each prompt; uint8, (prompts, pictures, 64, 64, 3); finished prompts are kept.

    Args:
        model: the base model.
        generation: how they are sampled.
        weights: the ``weights`` folder of a run; None means the base model's own.
        prompts: what is asked for.
        folder: where finished prompts are kept.
    """
    shape = model.latent_shape(generation.height, generation.width)
    network = model.network if weights is None else model.load_trained(weights)
    name = model.digest if weights is None else f"{model.digest}-{place_digest(loaded_files(weights))}"
    made = []
    with Progress("pictures", total=len(prompts)) as progress:
        for prompt in prompts:
            path = folder / f"{name}-{digest(prompt)}.npy"
            if not path.exists():
                noise = torch.stack([evaluation_noise(generation, prompt, index, shape) for index in range(PICTURES)])
                drawn = generate_images(model, Networks.single(network), [prompt] * PICTURES, noise, generation, unused)
                write_array(path, drawn)
            made.append(np.load(path))
            progress.advance()
    return np.stack(made)


def within_prompt(function: Callable[[Floats, Floats], float], one: Floats, other: Floats) -> float:
    """The mean of a function of two rows, (prompts, pictures) each, over the prompts for which it is a number."""
    values = [function(a, b) for a, b in zip(one, other, strict=True)]
    return float(np.nanmean(values))


def agreement(scores: Floats, gold: Floats) -> float:
    """The share of pairs within a prompt on which a judge prefers the picture with more gold; a tie of the judge is half."""
    differences = [(scores[:, a] - scores[:, b], gold[:, a] - gold[:, b]) for a, b in _pairs(gold)]
    judged, true = (np.concatenate(parts) for parts in zip(*differences, strict=True))
    counts = true != 0
    return float(np.mean(0.5 + 0.5 * np.sign(judged[counts]) * np.sign(true[counts])))


def agreement_on(scores: Floats, right: Floats) -> tuple[float, int]:
    """As `agreement`, for pairs of which exactly one picture is right; ``right`` is 1, 0 or NaN where nothing is named."""
    preferred = [
        0.5 + 0.5 * np.sign((scores[row, a] - scores[row, b]) * (right[row, a] - right[row, b]))
        for row in range(len(right))
        for a, b in _pairs(right)
        if abs(right[row, a] - right[row, b]) == 1
    ]
    return (float(np.mean(preferred)) if preferred else float("nan")), len(preferred)


def correlation(scores: Floats, gold: Floats) -> float:
    """Pearson's correlation within a prompt, its mean over the prompts in which both vary."""

    def one(a: Floats, b: Floats) -> float:
        return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")

    return within_prompt(one, scores, gold)


def gain_of_best(scores: Floats, gold: Floats) -> float:
    """The gold that picking each prompt's best picture by ``scores`` gains over a random one."""
    return within_prompt(lambda a, b: float(b[np.argmax(a)] - b.mean()), scores, gold)


def _pairs(values: Floats) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(values.shape[1]), 2))


def measure(pictures: NDArray[np.uint8], prompts: Sequence[str], checker: Checker) -> tuple[Floats, dict[str, Floats]]:
    """The voters' properties, (prompts, pictures, 7), and whether each named attribute is right, (prompts, pictures) each."""
    flat = torch.from_numpy(pictures.reshape(-1, *pictures.shape[2:])).permute(0, 3, 1, 2).float() / 127.5 - 1
    measured = checker.measure(flat)
    requests = [request for request in read_requests(prompts) for _ in range(pictures.shape[1])]
    values = np.stack([properties(request, measured, row) for row, request in enumerate(requests)])
    right: dict[str, list[float]] = {name: [] for name in ("object", "colour", *world.NAMED)}
    for row, request in enumerate(requests):
        checks = {"object": measured.objects[row] == request.object, "colour": measured.colours[row] == request.colour}
        for name, column in right.items():
            column.append(float((checks | named_extras(request, measured, row)).get(name, np.nan)))
    shape = pictures.shape[:2]
    return values.reshape(*shape, -1), {name: np.reshape(column, shape) for name, column in right.items()}


def read_requests(prompts: Sequence[str]) -> list[world.Request]:
    """What prompts ask for.

    Raises:
        UserError: a prompt is not a caption of the tiny world.
    """
    requests = []
    for prompt in prompts:
        request = world.parse_caption(prompt)
        if request is None:
            raise UserError(f"prompt {prompt!r} {world.caption_problem(prompt)}; give assets of the tiny world")
        requests.append(request)
    return requests


def vote_figures(values_0: Floats, values_1: Floats) -> dict[str, float]:
    """How sure voters are about pairs, of properties (N, 7) each, and what the variance of their votes is made of."""
    preference = population_preference(values_0, values_1)
    parts = dataclasses.asdict(vote_variance(values_0, values_1))
    return {
        "mean max(p, 1 - p)": float(np.maximum(preference, 1 - preference).mean()),
        "mean |p - 0.5|": float(np.abs(preference - 0.5).mean()),
        **{f"share of a vote's variance: {name}": part / sum(parts.values()) for name, part in parts.items()},
    }


def sides(values: Floats) -> tuple[Floats, Floats]:
    """The properties of both pictures of all pairs within a prompt, (pairs, 7) each."""
    one, other = (values[:, list(side)].reshape(-1, values.shape[-1]) for side in zip(*_pairs(values), strict=True))
    return one, other


def gold_figures(values: Floats) -> dict[str, float]:
    """How gold varies within a prompt, and how much of that is due to each property (covariances, which sum to 1)."""
    gold = _gold(values)
    deviations = gold - gold.mean(1, keepdims=True)
    parts = np.stack(
        [_gold(np.where(np.arange(len(PROPERTIES)) == place, values, 0)) for place in range(len(PROPERTIES))]
    )
    shares = (parts * deviations).sum((1, 2)) / (deviations**2).sum()
    return {
        "deviation within a prompt": float(gold.std(1, ddof=1).mean()),
        f"gained by the best of {gold.shape[1]}": gain_of_best(gold, gold),
        **{
            f"share of the variance: {name.replace('_', ' ')}": float(x)
            for name, x in zip(PROPERTIES, shares, strict=True)
        },
    }


def pair_values(path: Path, checker: Checker) -> Floats:
    """The properties of both pictures of shipped preference pairs, (pairs, 2, 7)."""
    rows = pq.read_table(path, columns=["caption", "jpg_0", "jpg_1"]).to_pylist()
    pictures = [[np.asarray(open_image(row[name])) for name in ("jpg_0", "jpg_1")] for row in rows]
    return measure(np.stack(pictures), [row["caption"] for row in rows], checker)[0]


def gain_figures(values: Floats, base: Floats) -> dict[str, float]:
    """What gold gained over the base for the same prompts and noise, properties (prompts, pictures, 7) both."""
    gains = (_gold(values) - _gold(base)).mean(1)
    half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
    return {"gained over the base": float(gains.mean()), "half of its 95 % interval over prompts": float(half)}


def judge_figures(scores: Floats, gold: Floats, right: Mapping[str, Floats]) -> dict[str, float]:
    """How well one judge agrees with gold."""
    figures = {
        "agreement with gold": agreement(scores, gold),
        "correlation with gold": correlation(scores, gold),
        "share of the gold that the best gains": gain_of_best(scores, gold) / gain_of_best(gold, gold),
    }
    for name, column in right.items():
        share, count = agreement_on(scores, column)
        if count:
            figures[f"prefers the right {name} ({count} pairs)"] = share
    return figures


def _gold(values: Floats) -> Floats:
    return expected_utility(values.reshape(-1, values.shape[-1])).reshape(values.shape[:2])


def judge_scores(name: str, folder: Path, pictures: NDArray[np.uint8], prompts: Sequence[str]) -> Floats:
    """One judge's scores, (prompts, pictures)."""
    judge = METRICS.get(name).load(str(folder), device=torch.device("cpu"))
    rows = [
        judge.score([Image.fromarray(picture) for picture in row], [prompt] * len(row))
        for row, prompt in zip(pictures, prompts, strict=True)
    ]
    return torch.stack(rows).double().numpy()


def refuse_incomplete(assets: Path, needed: Sequence[str]) -> None:
    """Say what is missing before anything is drawn.

    Raises:
        UserError: assets lack something needed.
    """
    if missing := [name for name in needed if not (assets / name).exists()]:
        raise UserError(f"{assets} has no {', no '.join(missing)}; give a folder of assets of the tiny world")


@refusing
def main(
    model: Annotated[Literal["tiny", "tiny-flow"], typer.Option(help="The base model.")] = "tiny",
    assets: Annotated[Path, typer.Option(help="The assets to measure.", exists=True, file_okay=False)] = ASSETS,
    work: Annotated[Path, typer.Option(help="Where pictures are kept.")] = Path("build/tiny/quality"),
    count: Annotated[int, typer.Option(min=2, help="How many evaluation prompts.")] = PROMPTS,
    weights: Annotated[
        Path | None,
        typer.Option(help="The weights folder of a run, whose pictures are measured instead of the base model's."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
) -> None:
    """Print the figures of the tiny world."""
    console = Terminal()
    card = MODELS.get(model)
    files = ["prompts.txt", "preferences.parquet", "off-policy.parquet", "quality.json"]
    refuse_incomplete(assets, [*files, "checker", Path(card.source).name, *(f"scorers/{name}" for name in JUDGES)])
    prompts = (assets / "prompts.txt").read_text(encoding="utf-8").splitlines()[:count]
    checker = Checker.load(assets / "checker")
    base = StableDiffusion.load(str(assets / Path(card.source).name), device=torch.device("cpu"))
    pictures = draw_pictures(base, card.generation, weights, prompts, work)
    values, right = measure(pictures, prompts, checker)
    parts = {"pictures": {f"right {name}": float(np.nanmean(x)) for name, x in right.items() if not np.isnan(x).all()}}
    parts["votes on them"], parts["gold"] = vote_figures(*sides(values)), gold_figures(values)
    if weights is not None:
        before = measure(draw_pictures(base, card.generation, None, prompts, work), prompts, checker)[0]
        parts["gold"] |= gain_figures(values, before)
    for name in ("preferences", "off-policy"):
        parts[f"votes on {name}"] = vote_figures(*sides(pair_values(assets / f"{name}.parquet", checker)))
    recorded = json.loads((assets / "quality.json").read_text(encoding="utf-8"))
    for name in JUDGES:
        scores = judge_scores(name, assets / "scorers" / name, pictures, prompts)
        parts[name] = judge_figures(scores, _gold(values), right) | recorded[name]
    parts["checker"] = recorded["checker"]
    for part, figures in parts.items():
        for name, value in figures.items():
            console.print(f"{part}: {name} {value:.3f}", highlight=False)
    if output is not None:
        write_json(output, parts)


if __name__ == "__main__":
    typer.run(main)
