"""``bench data``: check, score, generate and rank preference data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.app import App
from bench.cli.sentences import say
from bench.core.errors import UserError
from bench.core.terminal import Terminal

if TYPE_CHECKING:
    from bench.data.preferences import PreferenceData
    from bench.data.reading import InspectedData
    from bench.scoring.metric import Metric

app = App(no_args_is_help=True, help="Check, score, generate and rank preference data.")

Data = Annotated[str, typer.Argument(help="Preference data; see --data in: bench run --help")]
COLUMNS = "Rename the data's columns: caption=text,jpg_0=chosen,...  label_0=1 means that image 0 is always preferred, label_0=0 image 1."
Columns = Annotated[str | None, typer.Option(help=COLUMNS)]
Output = Annotated[Path, typer.Option(help="Parquet file to write.")]
Runs = Annotated[Path, typer.Option(help="Folder of all runs; its cache keeps the results of reading images.")]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        help="metric=path: another checkpoint for a metric.  Default: the model's, or the published one.",
    ),
]
SCORED_BY = (
    "A model whose metric checkpoints are used: a registered one, for example tiny, or a folder with its bench.json."
)
ScoredBy = Annotated[str | None, typer.Option(help=SCORED_BY)]


@app.command()
def check(
    data: Data,
    prompts: Annotated[
        str | None, typer.Option(help="Evaluation prompts to look for among the captions: a set or a file.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A registered model, for its default evaluation prompts.")] = None,
    columns: Columns = None,
    runs: Runs = Path("runs"),
) -> None:
    """Summarise preference data: rows, ties, corrupt and repeated rows, sizes, labels, prompt overlap, digest.

    Exit code 2 for data that every algorithm would refuse; data without labels is fine for some algorithms.
    """
    from bench.data.summary import check_table
    from bench.models.registry import MODELS
    from bench.prompts.sets import find_prompts

    default = MODELS.get(model).prompts if model else None
    typed = prompts or default
    wanted = find_prompts(typed) if typed else None
    needed = f"{model} has no default prompts, use --prompts" if model else "use --prompts or --model"
    inspected = _examine(data, columns, runs)
    folder = Path(data) if Path(data).is_dir() else None
    Terminal().print(check_table(inspected, wanted, needed, folder))
    inspected.refuse_unusable()


@app.command()
def score(
    data: Data,
    metrics: Annotated[str, typer.Option(help="Registered metrics, separated by commas.")],
    output: Output,
    labels: Annotated[
        str | None, typer.Option(help="One of the metrics: derive label_0 from its scores; equal scores are ties.")
    ] = None,
    model: ScoredBy = None,
    checkpoints: Checkpoints = None,
    columns: Columns = None,
    runs: Runs = Path("runs"),
) -> None:
    """Add columns score_<metric>_0, score_<metric>_1, ... to preference data.

    Ties and undecodable rows are left out.  Safe to re-run: finished work is skipped, interrupted work resumes.
    """
    from bench.cli.options import split_names
    from bench.data.scores import labels_by_reward, rewards, score_data
    from bench.data.writing import FOUND, already_made, held, scored_tables, work_folder, write_data
    from bench.scoring.metric import recorded_identity, with_origins

    names = split_names(metrics, "--metrics")
    if labels is not None and labels not in names:
        raise UserError(f"--labels {labels} is not one of --metrics {metrics}; add it there")
    _refuse_input(output, data)
    inspected, pairs = _kept(data, columns, runs)
    if labels is not None and pairs.width != 2:
        raise UserError(f"{data} has {pairs.width} images per caption, but labels need pairs; see: bench data rank")
    scorers = _scorers(names, model, checkpoints)
    step: dict[str, Any] = {
        "command": "data score",
        "data": pairs.digest,
        "labels_of_data": pairs.labels_digest,
        "metrics": {name: recorded_identity(scorer) for name, scorer in scorers.items()},
        "judges": with_origins([labels] if labels else []),
    }
    with held(output):
        if already_made(output, step):
            say(f"done: {output}")
            return
        scores = {name: score_data(name, scorer, pairs, work_folder(output)) for name, scorer in scorers.items()}
        voted = None if labels is None else labels_by_reward(rewards(scorers[labels].info, scores[labels]))
        found = {"rows": len(pairs), "ties_dropped": pairs.report.ties_dropped, "undecodable": pairs.report.undecodable}
        if voted is not None:
            found["label_ties"] = int((voted == 0.5).sum())
            say(f"{found['label_ties']} of {len(pairs)} pairs have equal {labels} scores: ties")
        write_data(
            output,
            scored_tables(inspected, pairs, scores, voted),
            [*inspected.source.provenance, {**step, FOUND: found}],
        )
        _finish(output)


@app.command()
def generate(
    model: Annotated[str, typer.Option(help="A registered model.  See: bench list")],
    prompts: Annotated[str, typer.Option(help="Captions: a file or a prompt set; repeats count once.")],
    count: Annotated[int, typer.Option(min=2, max=10_000, help="Images per caption.")],
    output: Output,
    guidance_scale: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    sampling_steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
) -> None:
    """Generate unlabelled candidates: several images by a model per caption, as jpg_0, jpg_1, ...

    Safe to re-run: finished work is skipped, interrupted work resumes.
    """
    from bench.core.validation import build
    from bench.data.candidates import generate_candidates
    from bench.data.writing import FOUND, already_made, candidate_tables, held, work_folder, write_data
    from bench.models.registry import MODELS
    from bench.prompts.sets import find_prompts
    from bench.records.protocol import GenerationSettings, prompts_digest

    card = MODELS.get(model)
    _refuse_input(output, prompts)
    captions = list(dict.fromkeys(find_prompts(prompts)))
    typed = {"guidance_scale": guidance_scale, "steps": sampling_steps, "seed": seed}
    changes = {field: value for field, value in typed.items() if value is not None}
    settings = build(GenerationSettings, {**card.generation.model_dump(), **changes}, "data generate")
    family = card.family.load(card.source, device=_device())
    step = {
        "command": "data generate",
        "model": model,
        "parts": dict(family.parts),
        "prompts": prompts_digest(captions),
        "count": count,
        "generation": settings.model_dump(),
        "judges": [],
    }
    with held(output):
        if already_made(output, step):
            say(f"done: {output}")
            return
        data = generate_candidates(family, captions, count, settings, work_folder(output))
        found = {"captions": len(data), "digest": data.digest}
        write_data(output, candidate_tables(data, model), [{**step, FOUND: found}])
        _finish(output)


@app.command()
def rank(
    data: Data,
    output: Output,
    judge: Annotated[
        str | None, typer.Option(help="For pairwise: the metric that compares two images, in both orders.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="For pareto: the metrics, separated by commas.")] = None,
    method: Annotated[str, typer.Option(help="pairwise or pareto.")] = "pairwise",
    model: ScoredBy = None,
    checkpoints: Checkpoints = None,
    columns: Columns = None,
    runs: Runs = Path("runs"),
) -> None:
    """Turn lists of images into preference pairs.

    pairwise: iterative pairwise ranking; the best and the worst image form the pair, ties form none; comparisons are logged
    next to the output.
    pareto: CaPO's pairs between the upper and the lower Pareto front, better under every metric, with calibrated rewards.
    """
    from bench.cli.ranking_methods import METHODS
    from bench.core.errors import did_you_mean
    from bench.data.scores import rewards, score_data
    from bench.data.writing import FOUND, already_made, held, pair_tables, work_folder, write_data
    from bench.scoring.metric import recorded_identity, with_origins

    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: {did_you_mean(method, METHODS)}there are {', '.join(METHODS)}")
    names = METHODS[method].metrics(method, {"--judge": judge, "--metrics": metrics})
    _refuse_input(output, data)
    inspected, lists = _kept(data, columns, runs)
    if lists.width < 2:
        raise UserError(f"{data} has one image per caption, but ranking needs at least two; see: bench data generate")
    scorers = _scorers(names, model, checkpoints)
    step: dict[str, Any] = {
        "command": "data rank",
        "method": method,
        "data": lists.digest,
        "labels_of_data": lists.labels_digest,  # its scores and sources go into the pairs
        "metrics": {name: recorded_identity(scorer) for name, scorer in scorers.items()},
        "judges": with_origins(names),
        "note": _leakage(names, model),
    }
    if step["note"]:
        say(step["note"], "note")
    with held(output):
        if already_made(output, step):
            say(f"done: {output}")
            return
        scores = {name: score_data(name, scorer, lists, work_folder(output)) for name, scorer in scorers.items()}
        chosen = METHODS[method].choose(lists, [rewards(scorers[name].info, scores[name]) for name in names], output)
        pairs = pair_tables(lists.with_scores(**scores, **chosen.scores), chosen.rows, chosen.winners, chosen.losers)
        found = {"rows": len(lists), **chosen.found}
        write_data(output, pairs, [*inspected.source.provenance, {**step, FOUND: found}])
        say(", ".join(f"{name}: {count:,}" for name, count in found.items()))
        _finish(output)


def _leakage(judges: list[str], model: str | None) -> str:
    """A warning if a judge is also an evaluation metric; empty if not."""
    from bench.models.find import find_metrics

    shared = [name for name in judges if model and name in find_metrics(model)]
    if not shared:
        return ""
    return f"{', '.join(shared)} also evaluates {model}: after training on these labels its score is not independent evidence"


def _examine(data: str, columns: str | None, runs: Path) -> InspectedData:
    from bench.cli.options import parse_columns
    from bench.data.reading import inspect_data
    from bench.data.sources import open_source
    from bench.records.runs import surveys_folder

    source = open_source(data, parse_columns(columns))
    inspected = inspect_data(source, data, surveys_folder(runs))
    # A missing column was named by that; captions alone are complete data, but not for these commands.
    if not source.image_names:
        raise UserError(f"{data} has no images, which this command is about; give data with a column 'jpg_0'")
    return inspected


def _refuse_input(output: Path, data: str) -> None:
    """Raise a `UserError` for an output that is the input, or lies in the folder of the data, which read all that is in it."""
    read, written = Path(data), output.resolve()
    if output.exists() and written == read.resolve():
        raise UserError(f"--output {output} is the input; choose another --output")
    if read.is_dir() and read.resolve() in written.parents:
        raise UserError(
            f"--output {output} is in {data} and would become a part of the data; choose a place outside of it"
        )


def _kept(data: str, columns: str | None, runs: Path) -> tuple[InspectedData, PreferenceData]:
    from bench.data.reading import kept_data

    inspected = _examine(data, columns, runs)
    inspected.refuse_unusable()
    return inspected, kept_data(inspected)


def _scorers(names: list[str], model: str | None, checkpoints: list[str] | None) -> dict[str, Metric]:
    from bench.cli.options import choose_metrics, parse_overrides

    own = parse_overrides(checkpoints or [], option="--checkpoint", example="pickscore=folder")
    judges = choose_metrics(names, model, own)
    return {name: judge.load(_device()) for name, judge in judges.items()}


def _device() -> Any:
    from bench.core.precision import this_device

    return this_device()


def _finish(output: Path) -> None:
    from bench.data.writing import work_folder

    shutil.rmtree(work_folder(output), ignore_errors=True)
    say(f"done: {output}")
