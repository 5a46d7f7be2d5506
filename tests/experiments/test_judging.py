"""Which weights `bench eval` means, and what it refuses before anything is sampled."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli.options import parse_scales
from bench.core.errors import UserError
from bench.core.files import append_lines
from bench.evaluation.sampling_weights import SamplingWeights, default_sampling
from bench.experiments.experiment import Experiment
from bench.experiments.judging import Request, find_negative, find_positive, judge_request
from bench.records.config import DataReport, Resolved, RunConfig
from bench.records.runs import RunFolder
from bench.tiny import ASSETS

NOTHING = Request(run=None, weights=None, name=None, negative=None, alpha=None, beta=None, guidance_scales=[])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("judging")
    (folder / "prompts.txt").write_text("a bee\na cat\n")
    return Experiment("tiny", runs=folder / "runs", prompts=str(folder / "prompts.txt"), images={"steps": 2})


def write_run(
    experiment: Experiment, algorithm: str, *, model: str = "tiny", done: bool = True, **resolved: Any
) -> RunFolder:
    """A run folder as training leaves it, with the base's weights."""
    run = RunFolder(experiment.runs / model / algorithm / "recipe" / "seed-3")
    values = {
        "algorithm": {},
        "training": {"steps": 30},
        "init": experiment.protocol.base_weights,
        "data": {"digest": "d", "labels": "l", "pairs": 2},
        **resolved,
    }
    run.begin(
        RunConfig(
            model=model,
            algorithm=algorithm,
            title=algorithm.upper(),
            name="recipe",
            seed=3,
            trained_on=("clip",),
            resolved=Resolved.model_validate(values),
            data=DataReport("pairs.parquet", 2, 2, 0, ()),
        )
    )
    steps = [{"step": step, "loss": 0.5, "pairs": step + 1, "seconds": 1.0} for step in range(7)]
    append_lines(run.train_log, [json.dumps(step) for step in steps])
    if done:
        run.weights.symlink_to(ASSETS / "model" / "unet")
        run.finish()
    return run


def refusal(experiment: Experiment, **asked: Any) -> str:
    with pytest.raises(UserError) as caught:
        next(judge_request(experiment, dataclasses.replace(NOTHING, **asked)))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not list(experiment.runs.glob("**/evaluations"))
    return sentence


def test_nothing_named_is_the_base(experiment: Experiment) -> None:
    assert find_positive(experiment, NOTHING) is experiment.base
    assert find_negative(experiment, NOTHING) is None


def test_a_run_is_found_from_the_runs_folder_and_by_its_path(experiment: Experiment) -> None:
    run = write_run(experiment, "found")
    for typed in ("tiny/found/recipe/seed-3", str(run.folder)):
        weights = find_positive(experiment, dataclasses.replace(NOTHING, run=typed))
        assert weights.folder == run.weights
        record = weights.record
        assert (record.title, record.source, record.seed) == ("FOUND (recipe)", "tiny/found/recipe/seed-3", 3)
        assert record.trained_on == ("clip",)


def test_a_negative_is_a_run_the_base_or_a_folder(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(experiment, "away", negative={"alpha": 1.0, "beta": 1.0})
    by_run = find_negative(experiment, dataclasses.replace(NOTHING, negative="tiny/away/recipe/seed-3"))
    assert by_run is not None
    assert (by_run.folder, by_run.negative_scales) == (run.weights, (1, 1))
    base = RunFolder(experiment.runs / "tiny" / "base")
    base.begin(RunConfig(model="tiny", algorithm="base", title="Tiny", resolved=Resolved()))
    assert find_negative(experiment, dataclasses.replace(NOTHING, negative="tiny/base")) is experiment.base
    by_folder = find_negative(experiment, dataclasses.replace(NOTHING, negative=str(ASSETS / "model" / "unet")))
    assert by_folder is not None
    assert by_folder.record.title == "model"
    assert by_folder.negative_scales is None


def test_a_negative_run_is_judged_as_negative_of_the_base(experiment: Experiment) -> None:
    write_run(experiment, "guide", negative={"alpha": 1.0, "beta": 0.5})
    negative = find_negative(experiment, dataclasses.replace(NOTHING, negative="tiny/guide/recipe/seed-3"))
    assert negative is not None
    own = default_sampling(negative, experiment.base, 3)
    assert (own.positive, own.negative, own.alpha, own.beta) == (experiment.base, negative, 1, 0.5)
    assert own.result_owner is negative
    aligned = find_positive(experiment, dataclasses.replace(NOTHING, run=str(write_run(experiment, "aligned").folder)))
    assert SamplingWeights(aligned, 3, negative).result_owner is aligned
    assert SamplingWeights(experiment.base, 3, aligned).result_owner is experiment.base
    assert default_sampling(aligned, experiment.base, 3).variant(experiment.protocol) is None


def test_a_variant_is_signed_by_all_that_decides_its_images(experiment: Experiment) -> None:
    base = experiment.base
    theirs = find_negative(experiment, dataclasses.replace(NOTHING, negative=str(ASSETS / "model" / "unet")))
    assert theirs is not None
    renamed = dataclasses.replace(theirs, record=theirs.record.model_copy(update={"title": "t", "source": "s"}))
    other = dataclasses.replace(theirs, record=theirs.record.model_copy(update={"digest": "d"}))
    every = [
        SamplingWeights(base, 5), SamplingWeights(base, 5, theirs), SamplingWeights(base, 6, theirs), SamplingWeights(base, 5, theirs, alpha=0.5),
        SamplingWeights(base, 5, theirs, beta=0.5), SamplingWeights(base, 5, other), SamplingWeights(other, 5, theirs),
    ]  # fmt: skip
    variants = [slots.variant(experiment.protocol) for slots in every]
    assert len({variant.signature for variant in variants if variant}) == len(every)
    same = SamplingWeights(base, 5, renamed).variant(experiment.protocol)
    assert same is not None
    assert variants[1] is not None
    assert same.signature == variants[1].signature
    assert SamplingWeights(base, experiment.protocol.generation.guidance_scale).variant(experiment.protocol) is None


def test_an_unknown_run_names_the_nearest(experiment: Experiment) -> None:
    write_run(experiment, "known")
    sentence = refusal(experiment, run="tiny/knwon/recipe/seed-3")
    assert "there is no run 'tiny/knwon/recipe/seed-3'" in sentence
    assert "did you mean 'tiny/known/recipe/seed-3'" in sentence


def test_a_run_that_is_not_finished(experiment: Experiment) -> None:
    write_run(experiment, "halfway", done=False)
    assert "has not finished training (step 7 of 30)" in refusal(experiment, run="tiny/halfway/recipe/seed-3")
    write_run(experiment, "bounded", done=False, training={"steps": 100, "budget": {"unit": "pairs", "amount": 960}})
    assert "(step 7 of a budget of 960 pairs)" in refusal(experiment, run="tiny/bounded/recipe/seed-3")


def test_a_run_on_another_model(experiment: Experiment) -> None:
    write_run(experiment, "dpo", model="large")
    assert "is a run on the model 'large'" in refusal(experiment, negative="large/dpo/recipe/seed-3")


def test_a_run_from_other_base_weights(experiment: Experiment) -> None:
    write_run(experiment, "older", init="0123")
    assert "was trained from weights 0123, but 'tiny' has" in refusal(experiment, run="tiny/older/recipe/seed-3")


def test_negative_weights_make_no_images_alone(experiment: Experiment) -> None:
    write_run(experiment, "alone", negative={"alpha": 1.0, "beta": 1.0})
    assert "use --negative" in refusal(experiment, run="tiny/alone/recipe/seed-3")


def test_a_run_and_released_weights_at_once(experiment: Experiment) -> None:
    assert "use one of them" in refusal(experiment, run="tiny/a/b/c", weights=Path("theirs"))


def test_offsets_without_a_negative(experiment: Experiment) -> None:
    assert "add --negative" in refusal(experiment, alpha=0.5)


def test_a_negative_under_guidance_1(experiment: Experiment) -> None:
    sentence = refusal(experiment, negative=str(ASSETS / "model"), guidance_scales=[3, 1])
    assert "has an effect only with guidance above 1, but the guidance scale is 1" in sentence


@pytest.mark.parametrize("typed", ["strong", "0.5", "3,,5", "nan", "inf", ""])
def test_guidance_that_means_nothing(typed: str) -> None:
    with pytest.raises(UserError, match="is not a list of numbers from 1 to 1000"):
        parse_scales(typed)


def test_a_sweep_of_guidance() -> None:
    assert parse_scales("1,2.5, 7") == [1, 2.5, 7]


def test_a_name_that_is_of_no_weights_is_refused(experiment: Experiment) -> None:
    run = write_run(experiment, "unnamed")
    for asked in ({"run": str(run.folder)}, {"negative": str(ASSETS / "model" / "unet")}, {}):
        sentence = refusal(experiment, name="other", **asked)
        assert sentence == "--name other is what tables call --weights; add --weights, or leave --name out"
