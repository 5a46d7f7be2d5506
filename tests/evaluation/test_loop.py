from __future__ import annotations

import dataclasses
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from workshop import Brightness

from bench import Metric, UserError
from bench.core.files import keep_lines
from bench.evaluation.job import EvaluationJob
from bench.evaluation.loop import evaluate
from bench.evaluation.noise import evaluation_generators, evaluation_noise
from bench.evaluation.scorer import Scorer
from bench.models.families.stable_diffusion import StableDiffusion
from bench.models.guidance import Networks
from bench.models.sampling import generate_images
from bench.records.evaluations import Evaluation
from bench.records.protocol import GenerationSettings, Protocol, Variant, WeightsRecord, prompts_digest
from bench.scoring.metric import code_of

SETTINGS = GenerationSettings(steps=2, guidance_scale=3.0, height=16, width=16, images_per_prompt=2)


class Broken(Brightness):
    answer: Tensor

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
        return self.answer[: len(images)]


def protocol_of(model: StableDiffusion, prompts: list[str]) -> Protocol:
    return Protocol(
        model="micro",
        base_weights=model.digest,
        prompts=prompts_digest(prompts),
        prompt_count=len(prompts),
        generation=SETTINGS.model_copy(update={"height": model.resolution, "width": model.resolution}),
    )


def judge(
    folder: Path,
    model: StableDiffusion,
    prompts: list[str],
    metric: Metric,
    name: str = "brightness",
    variant: Variant | None = None,
) -> Evaluation:
    protocol = protocol_of(model, prompts)
    place = Evaluation(folder / "evaluations" / protocol.signature)
    networks = Networks.single(model.network)
    job = EvaluationJob(place, "micro", model, lambda: networks, protocol, variant, prompts)
    return evaluate(job, {name: Scorer(lambda: metric, prompts)})


@pytest.fixture(scope="session")
def model(micro_model: Path) -> StableDiffusion:
    return StableDiffusion.load(str(micro_model), device=torch.device("cpu"))


def test_an_image_does_not_depend_on_the_other_prompts(model: StableDiffusion, tmp_path: Path) -> None:
    alone = judge(tmp_path / "alone", model, ["a bee on a red background"], Brightness())
    among = judge(tmp_path / "among", model, ["a cat", "a bee on a red background", "a dog"], Brightness())
    for index in (0, 1):
        one, other = (
            np.asarray(Image.open(path)).astype(int) for path in (alone.image(0, index), among.image(1, index))
        )
        assert np.abs(one - other).max() <= 1  # the last bit of a float may fall on either side of a level
    assert not np.array_equal(np.asarray(Image.open(alone.image(0, 0))), np.asarray(Image.open(alone.image(0, 1))))


@pytest.mark.parametrize("change", [{"seed": 1}, {"prompt": "b"}, {"image_index": 1}])
def test_noise_follows_prompt_index_and_seed_alone(change: dict[str, Any]) -> None:
    address = {"seed": 0, "prompt": "a", "image_index": 0}

    def noise(seed: int, prompt: str, image_index: int) -> Tensor:
        settings = SETTINGS.model_copy(update={"seed": seed, "steps": 7})
        return evaluation_noise(settings, prompt, image_index, (4, 2, 2))

    assert torch.equal(noise(**address), noise(**address))
    assert not torch.equal(noise(**address), noise(**{**address, **change}))


def test_images_carry_prompt_seed_and_signature(model: StableDiffusion, tmp_path: Path) -> None:
    evaluation = judge(tmp_path, model, ["a bee – élan"], Brightness())
    with Image.open(evaluation.image(0, 1)) as image:
        facts = dict(image.info)
    assert facts["prompt"] == "a bee – élan"
    assert (facts["seed"], facts["image_index"]) == ("0", "1")
    assert facts["signature"] == evaluation.folder.name


def test_images_on_disk_are_the_pictures_drawn_without_loss(model: StableDiffusion, tmp_path: Path) -> None:
    evaluation = judge(tmp_path, model, ["a bee", "a cat"], Brightness())
    settings = Protocol.model_validate(evaluation.protocol()).generation
    places = [(prompt, index) for prompt in ("a bee", "a cat") for index in (0, 1)]
    shape = model.latent_shape(settings.height, settings.width)
    noise = torch.stack([evaluation_noise(settings, prompt, index, shape) for prompt, index in places])
    drawn = generate_images(
        model,
        Networks.single(model.network),
        [prompt for prompt, _ in places],
        noise,
        settings,
        evaluation_generators(settings, places),
    )
    for (prompt, index), picture in zip(places, drawn, strict=True):
        with Image.open(evaluation.image(["a bee", "a cat"].index(prompt), index)) as image:
            assert image.format == "PNG"
            assert np.array_equal(np.asarray(image), picture)


@pytest.mark.parametrize("count", [1_040, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_prompts_are_continued_where_they_stopped(
    model: StableDiffusion, tmp_path: Path, count: int
) -> None:
    prompts = [f"prompt {number}" for number in range(count)]
    settings = SETTINGS.model_copy(update={"images_per_prompt": 1, "steps": 1, "guidance_scale": 1.0})
    settings = settings.model_copy(update={"height": model.resolution, "width": model.resolution})
    protocol = Protocol(
        model="micro", base_weights="w", prompts=prompts_digest(prompts), prompt_count=len(prompts), generation=settings
    )
    place = Evaluation(tmp_path / "evaluations" / protocol.signature)
    place.images.mkdir(parents=True)
    made = [place.image(number, 0) for number in range(count - 16)]  # all but the last 16, a chunk of their own
    for number, path in enumerate(made):
        Image.new("RGB", (1, 1), (number % 256, number // 256, 0)).save(path)
    before = [path.stat().st_mtime_ns for path in made]
    loaded = []

    def load() -> Networks:
        loaded.append(1)
        return Networks.single(model.network)

    def go_on() -> Evaluation:
        job = EvaluationJob(place, "micro", model, load, protocol, None, prompts)
        return evaluate(job, {"brightness": Scorer(Brightness, prompts)})

    go_on()
    assert [path.stat().st_mtime_ns for path in made] == before
    assert len(list(place.images.iterdir())) == len(place.score_records()) == count
    assert place.done

    lines = place.scores.read_text().splitlines()
    (place.folder / "DONE").unlink()
    place.scores.write_text("\n".join(lines[: count // 2]) + "\n")
    go_on()
    assert sorted(place.scores.read_text().splitlines()) == sorted(lines)
    assert loaded == [1]


def test_other_guidance_makes_other_images_under_the_same_metric_signatures(
    model: StableDiffusion, tmp_path: Path
) -> None:
    weights = WeightsRecord(title="micro", source="base", digest=model.digest)
    strong = Variant(positive=weights, negative=None, alpha=1, beta=1, guidance_scale=9)
    plain = judge(tmp_path / "plain", model, ["a", "b"], Brightness())
    other = judge(tmp_path / "other", model, ["a", "b"], Brightness(), variant=strong)
    assert other.metrics() == plain.metrics()
    assert other.variant() == strong
    assert plain.variant() is None
    assert not np.array_equal(*(np.asarray(Image.open(each.image(0, 0))) for each in (plain, other)))
    with Image.open(other.image(1, 0)) as image:
        assert image.info["variant"] == strong.signature
        assert image.info["signature"] == plain.folder.name


def test_scores_that_were_cut_short_are_made_again(model: StableDiffusion, tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(20)]
    evaluation = judge(tmp_path, model, prompts, Brightness())
    whole = evaluation.scores.read_text()
    (evaluation.folder / "DONE").unlink()
    evaluation.scores.write_text(whole[: len(whole) // 2])
    judge(tmp_path, model, prompts, Brightness())
    assert sorted(evaluation.scores.read_text().splitlines()) == sorted(whole.splitlines())
    assert len(whole.splitlines()) == 40


def test_a_torn_line_behind_whole_chunks_does_not_spoil_the_next_one(model: StableDiffusion, tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(20)]
    evaluation = judge(tmp_path, model, prompts, Brightness())
    whole = evaluation.scores.read_text().splitlines()
    (evaluation.folder / "DONE").unlink()
    evaluation.scores.write_text("\n".join(whole[:32]) + "\n" + whole[32][:20])
    assert judge(tmp_path, model, prompts, Brightness()).scores.read_text().splitlines() == whole


@pytest.mark.parametrize("line", ["{", '{"note": "mine"}'])
def test_damaged_scores_of_an_interrupted_call_are_refused(model: StableDiffusion, tmp_path: Path, line: str) -> None:
    evaluation = judge(tmp_path, model, ["a", "b"], Brightness())
    (evaluation.folder / "DONE").unlink()
    evaluation.write_metrics({})  # it was interrupted in its first metric
    evaluation.scores.write_text(line + "\n")
    with pytest.raises(UserError, match=r"scores.jsonl is damaged \("):
        judge(tmp_path, model, ["a", "b"], Brightness())
    assert evaluation.scores.read_text() == line + "\n"


def test_a_metric_with_another_identity_is_scored_again_beside_the_old_scores(
    model: StableDiffusion, tmp_path: Path
) -> None:
    class Newer(Brightness):
        def identity(self) -> dict[str, Any]:
            return {"version": 2}

    first = judge(tmp_path, model, ["a", "b"], Brightness()).score_records()
    newer = judge(tmp_path, model, ["a", "b"], Newer())
    second = newer.score_records()
    assert len(first) == len(second) == 4
    assert {record["signature"] for record in first}.isdisjoint(record["signature"] for record in second)
    assert newer.all_scores() == [*first, *second]


def test_scores_of_lost_images_are_not_kept_for_the_ones_that_replace_them(
    model: StableDiffusion, tmp_path: Path
) -> None:
    evaluation = judge(tmp_path, model, ["a", "b"], Brightness())
    before = evaluation.score_records()
    lines = [{**line, "score": 99.0} for line in before]
    (evaluation.folder / "DONE").unlink()
    keep_lines(evaluation.scores, lines)
    evaluation.image(1, 0).unlink()
    assert judge(tmp_path, model, ["a", "b"], Brightness()).score_records() == before


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (torch.tensor([1.0, float("nan"), 2.0, 3.0]), "not finite as float32, for image 1 of 4"),
        (torch.tensor([1.0, 2.0]), "shape \\(2,\\) for 4 images"),
        (torch.full((4,), 2.5), "returns the score 2.5 for all 4 images of micro"),
    ],
)
def test_no_wrong_score_enters_a_record(model: StableDiffusion, tmp_path: Path, answer: Tensor, complaint: str) -> None:
    metric = Broken()
    metric.answer = answer
    with pytest.raises(UserError, match=complaint):
        judge(tmp_path, model, ["a", "b"], metric)
    (folder,) = (tmp_path / "evaluations").iterdir()
    assert not (folder / "DONE").exists()
    assert len(list((folder / "images").glob("*.png"))) == 4


def test_metrics_json_describes_every_metric(model: StableDiffusion, tmp_path: Path) -> None:
    evaluation = judge(tmp_path, model, ["a", "b"], Brightness())
    (described,) = json.loads((evaluation.folder / "metrics.json").read_text()).values()
    assert described["info"] == dataclasses.asdict(Brightness.info)
    assert described["identity"] == {"version": 1, "code_digests": code_of(Brightness())}


def test_another_metric_later_keeps_the_earlier_ones_even_when_it_fails(model: StableDiffusion, tmp_path: Path) -> None:
    evaluation = judge(tmp_path, model, ["a", "b"], Brightness())
    broken = Broken()
    broken.answer = torch.full((4,), 2.5)
    with pytest.raises(UserError, match="fix the metric"):
        judge(tmp_path, model, ["a", "b"], broken, name="second")
    assert not evaluation.done
    assert list(evaluation.metrics()) == ["brightness"]
    judge(tmp_path, model, ["a", "b"], Brightness(), name="third")
    assert evaluation.done
    assert list(evaluation.metrics()) == ["brightness", "third"]
    before = evaluation.scores.stat().st_mtime_ns
    judge(tmp_path, model, ["a", "b"], Brightness())
    assert evaluation.scores.stat().st_mtime_ns == before


def test_metrics_are_in_memory_one_at_a_time_and_not_at_all_when_nothing_is_left_to_score(
    model: StableDiffusion, tmp_path: Path
) -> None:
    loaded: list[weakref.ref[Metric]] = []

    def load() -> Metric:
        assert not any(reference() for reference in loaded), "the one before is still there"
        metric = Brightness()
        loaded.append(weakref.ref(metric))
        return metric

    prompts = ["a", "b"]
    scorers = {name: Scorer(load, prompts) for name in ("first", "second")}
    protocol = protocol_of(model, prompts)
    place = Evaluation(tmp_path / "evaluations" / protocol.signature)
    networks = Networks.single(model.network)
    evaluate(EvaluationJob(place, "micro", model, lambda: networks, protocol, None, prompts), scorers)
    assert place.done
    assert len(loaded) == 4  # each to be described, and to score
    evaluate(EvaluationJob(place, "micro", model, lambda: networks, protocol, None, prompts), scorers)
    assert len(loaded) == 4


def test_a_metric_learns_of_the_protocols_prompts(model: StableDiffusion, tmp_path: Path) -> None:
    class Crowd(Brightness):
        others: tuple[str, ...] = ()

        def for_prompts(self, prompts: Sequence[str]) -> Metric:
            bound = type(self)()
            bound.others = tuple(prompts)
            return bound

        def identity(self) -> dict[str, Any]:
            return {"others": list(self.others)}

    evaluation = judge(tmp_path, model, ["a", "b"], Crowd())
    assert evaluation.metrics()["brightness"].identity == {"others": ["a", "b"], "code_digests": code_of(Crowd())}
