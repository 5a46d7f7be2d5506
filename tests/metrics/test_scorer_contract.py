"""What every scorer promises: `bench.scoring.metric.Metric`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filled import PROMPTS, picture

from bench.core.errors import UserError
from bench.experiments.contracts.contract import Contract, NotApplicableError
from bench.experiments.contracts.metric import METRIC_CONTRACTS, embeddings_have_length_one
from bench.experiments.contracts.metric_case import MetricCase
from bench.scoring.metric import METRICS, DifferentiableMetric, EmbeddingMetric, Metric, checked_scores
from metrics import cosine, inference
from metrics.cosine import clean
from metrics.hpsv2 import HPSv2, HPSv20
from metrics.pickscore import PickScore
from metrics.retrieval import RPrecision

SCORERS = ("hpsv2", "pickscore", "imagereward", "clip", "aesthetic")
CPU = torch.device("cpu")
# 1e-5 of a cosine's range; PickScore's is a hundred times wider.
TOLERANCE = {"pickscore": 1e-4}


@pytest.fixture(scope="module", params=SCORERS)
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def case(named: tuple[str, Any], checkpoints: Path) -> MetricCase:
    name, scorer = named

    def load(checkpoint: str | None) -> Metric:
        return type(scorer).load(checkpoint, device=CPU)

    def again() -> Metric:
        made: Any = load(str(checkpoints / name))
        if hasattr(scorer, "tokenize"):
            made.tokenize = scorer.tokenize  # of the golden prompts
        return made  # type: ignore[no-any-return]

    images, prompts = some_pairs(5)
    prompts[4] = PROMPTS[4]
    return MetricCase(scorer, again, load, True, images, prompts)


def some_pairs(count: int) -> tuple[list[Any], list[str]]:
    names = ["sq224", "odd549x400", "port300x500", "gray640x384", "tiny97x131"]
    images = [picture(names[place % len(names)]) for place in range(count)]
    return images, [PROMPTS[place % 4] for place in range(count)]


@pytest.mark.parametrize("contract", METRIC_CONTRACTS, ids=lambda contract: contract.name)
def test_it_keeps_the_contract(contract: Contract[MetricCase], case: MetricCase) -> None:
    if contract is embeddings_have_length_one and not isinstance(case.metric, EmbeddingMetric):
        with pytest.raises(NotApplicableError):
            contract.check(case)
    else:
        contract.check(case)


def test_the_gradient_equals_finite_differences_in_float64(named: tuple[str, Any]) -> None:
    """The slope along a random direction, of a picture that is resized, by central differences."""
    _, scorer = named
    networks = [each for each in vars(scorer).values() if isinstance(each, torch.nn.Module)]
    # Half-way between black and white, so that no pixel is clipped after resizing, where the score has a kink.
    pixels = 0.25 + torch.rand(2, 3, 40, 52, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    direction = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    try:
        for network in networks:
            network.double()
        values = pixels.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(scorer.score_pixels(values, PROMPTS[:2]).sum(), values)
        up, down = (scorer.score_pixels(pixels + way * 1e-6 * direction, PROMPTS[:2]).sum() for way in (1, -1))
    finally:
        for network in networks:
            network.float()
    assert ((up - down) / 2e-6).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


def test_pixels_need_as_many_prompts(named: tuple[str, Any]) -> None:
    with pytest.raises(ValueError, match="2 images for 1 prompts"):
        named[1].score_pixels(torch.zeros(2, 3, 8, 8), ["one"])


def test_a_hit_or_a_miss_has_no_gradient() -> None:
    assert not issubclass(RPrecision, DifferentiableMetric)


def test_scores_do_not_depend_on_the_size_of_batches(
    named: tuple[str, Metric], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, scorer = named
    images, prompts = some_pairs(10)
    whole = scorer.score(images, prompts)
    for module in (cosine, inference):
        monkeypatch.setattr(module, "BATCH", 3)
    torch.testing.assert_close(scorer.score(images, prompts), whole, rtol=0, atol=TOLERANCE.get(name, 1e-5))


def test_no_images_have_no_scores(named: tuple[str, Metric]) -> None:
    assert named[1].score([], []).shape == (0,)


def test_as_many_prompts_as_images(named: tuple[str, Metric]) -> None:
    with pytest.raises(ValueError, match="2 images for 1 prompts"):
        named[1].score(some_pairs(2)[0], ["one"])


def test_autocast_and_tf32_of_the_caller_change_nothing(named: tuple[str, Metric]) -> None:
    images, prompts = some_pairs(2)
    expected, before = named[1].score(images, prompts), torch.backends.cuda.matmul.fp32_precision
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(named[1].score(images, prompts), expected)
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_identity_names_weights_and_preprocessing(named: tuple[str, Metric]) -> None:
    identity = named[1].identity()
    assert identity["weights"].startswith("sha256:")
    assert len(identity["weights"]) == len("sha256:") + 16
    assert identity["preprocessing"]["size"] == 224
    assert identity["version"]


def test_nan_weights_end_in_an_error(named: tuple[str, Any]) -> None:
    name, scorer = named
    network = getattr(scorer, {"imagereward": "network", "aesthetic": "head"}.get(name, "model"))
    parameter = next(value for key, value in network.named_parameters() if value.ndim == 2)
    kept = parameter.detach().clone()
    try:
        parameter.fill_(torch.nan)
        scores = scorer.score(*some_pairs(2))
    finally:
        parameter.copy_(kept)
    with pytest.raises(UserError, match="not finite"):
        checked_scores(name, scores, 2)


def test_each_distinct_prompt_is_encoded_once(pickscore: PickScore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    tokenize = pickscore.tokenize

    def spy(prompts: Any) -> torch.Tensor:
        seen.extend(prompts)
        return tokenize(prompts)

    monkeypatch.setattr(pickscore, "tokenize", spy)
    images, prompts = some_pairs(8)
    pickscore.score(images, prompts)
    assert sorted(seen) == sorted(set(prompts))


def test_pickscore_is_scaled(pickscore: PickScore) -> None:
    assert pickscore.scale == pytest.approx(100, abs=1e-4)


def test_the_two_versions_of_hpsv2_are_told_apart() -> None:
    assert (HPSv2.version, HPSv20.version) == ("v2.1", "v2.0")
    assert HPSv2.info.title != HPSv20.info.title
    assert not set(HPSv2.files) & set(HPSv20.files)
    assert (METRICS.get("hpsv2"), METRICS.get("hpsv2.0")) == (HPSv2, HPSv20)


@pytest.mark.parametrize(
    ("file", "kind", "other"),
    [
        ("HPS_v2.1_compressed.pt", HPSv20, "holds HPS v2.1, not v2.0; score it with the metric hpsv2"),
        ("HPS_v2_compressed.pt", HPSv2, "holds HPS v2.0, not v2.1; score it with the metric hpsv2.0"),
        ("HPS_v2.pt", HPSv2, "holds HPS v2.0, not v2.1"),
    ],
)
def test_a_file_of_the_other_version_is_refused(tmp_path: Path, file: str, kind: type[HPSv2], other: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=other):
        kind.load(str(tmp_path / file), device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("folder_file", "kind"), [("HPS_v2_small.pt", HPSv20), ("mine.pt", HPSv20), ("mine.pt", HPSv2)]
)
def test_either_version_loads_its_file(tmp_path: Path, checkpoints: Path, folder_file: str, kind: type[HPSv2]) -> None:
    shutil.copytree(checkpoints / "hpsv2", tmp_path / "hps")
    (tmp_path / "hps" / "HPS_v2.1_small.pt").rename(tmp_path / "hps" / folder_file)
    scorer = kind.load(str(tmp_path / "hps" / folder_file), device=torch.device("cpu"))
    assert scorer.identity()["version"] == kind.version
    assert scorer.info.title.endswith(kind.version.removeprefix("v"))


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("  Two\tDogs \n\n and   one bird  ", "two dogs and one bird"),
        ("it\u2019s \u201csmart\u201d", 'it\'s "smart"'),
        ("Mona Lisa &amp;amp; cats &lt;lora&gt;", "mona lisa & cats <lora>"),
        ("\uff21\uff22 \ufb01sh", "ab fish"),
        ("", ""),
    ],
)
def test_prompts_are_cleaned_as_clip_cleans_them(prompt: str, cleaned: str) -> None:
    assert clean(prompt) == cleaned


@pytest.mark.parametrize("name", [*SCORERS, "hpsv2.0", "gold"])
def test_every_scorer_states_its_scale(name: str) -> None:
    info = METRICS.get(name).info
    assert info.raw_range
    assert info.unit
    assert info.conventions
    assert info.source
    assert info.published or name == "gold"


def test_without_clip_benchmark_the_pip_line_is_shown(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        """Makes the import system answer as it does where the package is not installed."""

        def find_spec(self, name: str, path: Any, target: Any = None) -> None:
            if name == "clip_benchmark":
                raise ModuleNotFoundError("No module named 'clip_benchmark'", name="clip_benchmark")

    for name in [name for name in sys.modules if name.startswith("clip_benchmark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(UserError, match=r"'clip_benchmark', which is not installed: pip install '.*\[retrieval\]'"):
        RPrecision.load(str(checkpoints / "clip"), device=torch.device("cpu"))
