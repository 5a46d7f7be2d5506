"""``bench eval``."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.run import DEFAULT_RUNS, PROMPTS, Images, Runs, SamplingSteps
from bench.cli.sentences import say


def eval_(
    model: Annotated[str, typer.Option(help="A registered model (see: bench list), a diffusers folder, or a hub id.")],
    run: Annotated[
        str | None,
        typer.Option(help="A finished run, for example tiny/dpo/recipe/seed-0.  Default: the base model."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Released weights: a hub id, the folder of a diffusers denoiser, pipeline or LoRA, or a safetensors file."
        ),
    ] = None,
    negative: Annotated[
        str | None,
        typer.Option(
            help="Weights for the unconditional branch of classifier-free guidance: a run, or released weights."
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="alpha in: unconditional weights = base + alpha (positive - base) + beta (negative - base).  Default: 1.",
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="beta in the formula of --alpha.  Default: 1."),
    ] = None,
    guidance_scale: Annotated[
        str | None,
        typer.Option(help="Guidance scale, instead of the protocol's; several, separated by commas, make a sweep."),
    ] = None,
    prompts: Annotated[str | None, typer.Option(help=PROMPTS)] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Evaluation metrics, separated by commas.  Default: the model's.")
    ] = None,
    images: Images = None,
    sampling_steps: SamplingSteps = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of --weights in tables.  Default: the name of its file, folder or repository."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Trial: use only the first N evaluation prompts; tables say so.")
    ] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Evaluate a base model, a finished run or released weights under the protocol, with any guidance, without training.

    Each guidance scale and each negative is a row of the report.  Safe to re-run: finished work is skipped, interrupted work
    resumes.
    """
    from bench.cli.options import image_settings, parse_scales, split_names
    from bench.experiments.experiment import Experiment
    from bench.experiments.judging import Request, judge_request
    from bench.experiments.notes import notes_on_prompts

    request = Request(run, weights, name, negative, alpha, beta, parse_scales(guidance_scale))
    experiment = Experiment(
        model,
        runs=runs,
        prompts=prompts,
        metrics=None if metrics is None else split_names(metrics, "--metrics"),
        images=image_settings(images, sampling_steps=sampling_steps),
        limit=limit,
    )
    main = experiment.accelerator.is_main_process
    if main:
        for note in notes_on_prompts(experiment):
            say(note, "note")
    for evaluation in judge_request(experiment, request):
        if main:
            say(str(evaluation.folder), "done")
