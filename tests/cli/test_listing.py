from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field
from rich.console import Console
from terminal import on_terminal

from bench import Algorithm, AlgorithmInfo, Need, PairBatch, Recipe, StepOutput, UserError
from bench.cli.kinds import KINDS
from bench.cli.listing import overview, page, show, show_entry
from bench.models.registry import MODELS
from bench.prompts.sets import PROMPT_SETS
from bench.records.protocol import GenerationSettings, prompts_digest
from bench.scoring.metric import METRICS
from bench.tiny import ASSETS
from bench.tiny.world import COLOURS, OBJECTS, PLACES, SIZES
from bench.training.algorithm import ALGORITHMS
from bench.training.policy import Policy
from bench.training.settings import TrainingSettings


class Bracketed(Algorithm):
    """Its texts look like markup."""

    info: ClassVar[AlgorithmInfo] = AlgorithmInfo(
        title="Bracketed", paper="a 2024 paper", formula="T [phi(c Mw) - phi(c Ml)]", status="[red]reconstructed"
    )
    recipes: ClassVar[Any] = {"tiny": Recipe(source="ours [not tuned]", algorithm={"beta": 3.0}, training={"steps": 7})}

    beta: Annotated[float, Field(gt=0, le=9)] = Field(default=2.0, description="a strength")
    form: Literal["one", "two"] = Field(default="two", description="a choice")

    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        raise AssertionError("never stepped")


page_of = KINDS["algorithms"].page


def printed(thing: Any) -> str:
    """What a terminal of 100 columns shows, its line breaks taken out."""
    stream = io.StringIO()
    Console(width=100, file=stream).print(thing)
    assert max(map(len, stream.getvalue().splitlines())) <= 100
    return " ".join(stream.getvalue().split())


def test_an_algorithm_states_everything_about_itself() -> None:
    assert page_of(Bracketed) == {
        "": [
            ("title", "Bracketed"),
            ("paper", "a 2024 paper"),
            ("formula", "T [phi(c Mw) - phi(c Ml)]"),
            (
                "symbols",
                "Mw  mean squared denoising error of the policy on the preferred image (winner)\nMl  the same on the rejected image (loser)",
            ),
            ("status", "[red]reconstructed"),
            ("needs", "preference pairs"),
            ("placebo", "winner and loser of each pair are swapped with probability 1/2"),
        ],
        "settings": [
            ("--set beta=", "a strength (> 0, <= 9, default: 2.0)"),
            ("--set form=", "a choice (one | two, default: two)"),
        ],
        "recipes, by model": [("tiny", "beta 3.0, steps 7\nrecipe, source: ours [not tuned]")],
    }


def test_algorithms_are_grouped_by_what_a_user_must_have() -> None:
    groups = {
        printed(table).partition(" name ")[0]: printed(table) for table in overview("algorithms", KINDS["algorithms"])
    }
    assert " DPO + SFT, " in groups["algorithms that need preference pairs"]
    assert " DDPO, Black et al." in groups["algorithms that need prompts and a reward model"]
    assert " DRaFT, " in groups["algorithms that need prompts, a reward model and a gradient of the reward"]
    assert " RankDPO, " in groups["algorithms that need captioned images and a reward model"]
    # what is needed besides is a column
    assert all("also needs" not in group.partition(" also needs ")[2] for group in groups.values())
    assert " name what also needs from " in groups["algorithms that need preference pairs"]
    listed = [name for group in groups.values() for name in ALGORITHMS if f" {name} " in group]
    assert sorted(listed) == sorted(ALGORITHMS)


def test_an_algorithm_of_a_plug_in_may_need_no_data() -> None:
    class Needless(Bracketed):
        needs: ClassVar[frozenset[Need]] = frozenset({Need.REFERENCE})

    assert KINDS["algorithms"].group(Needless) == "that need no data"
    assert KINDS["algorithms"].also(Needless) == "a frozen reference model"


def test_an_algorithm_without_a_placebo_says_so() -> None:
    assert ("placebo", "none: it reads no preferences") in page_of(ALGORITHMS.get("self-npo"))[""]
    why = "none: it follows the gradient of its reward, which shuffled scores do not change"
    assert ("placebo", why) in page_of(ALGORITHMS.get("draft"))[""]


def test_a_symbol_is_explained_as_its_kind_of_algorithm_uses_it() -> None:
    sampled, paired = (dict(page_of(ALGORITHMS.get(name))[""])["symbols"] for name in ("d3po", "kto"))
    assert "reward of a sample" in sampled
    assert "denoising error" not in sampled
    assert "mean squared denoising error of the reference on one image" in paired


def test_brackets_are_text_and_no_markup() -> None:
    text = printed(page("bracketed", page_of(Bracketed)))
    for part in ("T [phi(c Mw) - phi(c Ml)]", "[red]reconstructed", "ours [not tuned]"):
        assert part in text


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_algorithm_shows_all_of_it_in_100_columns(name: str) -> None:
    stated = page_of(ALGORITHMS.get(name))
    text = printed(page(name, stated))
    for heading, statements in stated.items():
        assert heading in text
        for label, statement in statements:
            assert " ".join([*label.split(), *statement.split()]) in text


def test_one_entry_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_entry("algorithms", "dpo")
    text = " ".join(capsys.readouterr().out.split())
    assert "--set beta=" in text
    assert "symbols Mw mean squared denoising error of the policy on the preferred image (winner) Ml " in text
    assert "SmPO" not in text
    with pytest.raises(UserError, match="unknown algorithm 'dop': did you mean"):
        show_entry("algorithms", "dop")
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="'hpsv2' is a metric. Try: bench list metrics hpsv2"):
        show("hpsv2", verbose=False)
    with pytest.raises(UserError, match="'dpo' is an algorithm. Try: bench list algorithms dpo"):
        show("dpo", verbose=False)
    with pytest.raises(UserError, match="bench list models tiny or bench list prompts tiny"):
        show("tiny", verbose=False)
    with pytest.raises(UserError, match="unknown kind 'algos': did you mean 'algorithms'"):
        show_entry("algos", "dpo")


def test_a_text_that_is_empty_shows_as_such() -> None:
    shown = dict(KINDS["models"].page(MODELS.get("sdxl"))[""])
    assert "negative_prompt (empty), " in shown["images"]


def test_the_fields_of_training_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show("training", verbose=False)
    text = " ".join(capsys.readouterr().out.split())
    for name, field in TrainingSettings.model_fields.items():
        assert f"--set {name}=" in text
        assert " ".join(str(field.description).split()) in text


def test_the_symbols_of_a_formula_are_explained_one_by_one() -> None:
    def symbols(name: str) -> list[str]:
        facts = dict(page_of(ALGORITHMS.get(name))[""])
        return [line.split()[0] for line in facts.get("symbols", "").splitlines()]

    assert symbols("dpo") == ["Mw", "Ml", "Rw", "Rl"]
    assert symbols("kto") == ["M", "R"]
    assert symbols("snpo") == ["Dw", "Dl"]
    assert symbols("npo") == ["L"]
    assert symbols("self-npo") == []


def test_the_words_of_the_tiny_prompts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show_entry("prompts", "tiny")
    text = " ".join(capsys.readouterr().out.split())
    for word in (*OBJECTS, *COLOURS, *SIZES, *PLACES):
        assert word in text
    assert "1 a fox on a yellow background" in text


def test_a_prompt_set_states_the_digest_that_a_protocol_records() -> None:
    tiny, parti = (dict(KINDS["prompts"].page(PROMPT_SETS.get(name))[""]) for name in ("tiny", "partiprompts"))
    prompts = (ASSETS / "prompts.txt").read_text().splitlines()
    assert tiny["digest"] == prompts_digest(prompts)
    assert parti["digest"] == "known once downloaded"


def test_an_empty_default_is_said_to_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    show_entry("images", "negative_prompt")
    assert "(default: none)" in capsys.readouterr().out


def test_a_model_folder_is_listed_like_a_registered_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ASSETS / "model", tmp_path / "mine")
    (tmp_path / "mine" / "bench.json").write_text('{"generation": {"steps": 7}, "metrics": {"clip": null}}')
    show_entry("models", str(tmp_path / "mine"))
    text = " ".join(capsys.readouterr().out.split())
    assert "title mine" in text
    assert "steps 7" in text
    assert "metrics clip" in text


def test_pages_come_as_they_are_in_a_pipe_and_through_a_pager_on_a_terminal() -> None:
    words = [sys.executable, "-m", "bench", "list", "models", "-v"]
    environment = {**os.environ, "PAGER": "sed s/^/paged:/", "COLUMNS": "100", "TERM": "xterm"}
    piped = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    assert "OpenMoji" in piped
    assert "paged:" not in piped
    assert "paged:" in on_terminal(words, environment)


def test_a_metric_with_an_environment_of_its_own_shows_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown = dict(KINDS["metrics"].page(METRICS.get("hpsv2-official"))["its own environment"])
    assert shown["Python"] == "3.11, built when it is first used"
    assert {"torch==2.0.1", "torchvision==0.15.2"} <= set(shown["requirements"].split(", "))
    assert shown["without dependencies"] == "hpsv2==1.2.0, image-reward==1.5"
    assert list(KINDS["metrics"].page(METRICS.get("hpsv2"))) == [""]
    show("metrics", verbose=True)
    assert "its own environment Python 3.11" in " ".join(capsys.readouterr().out.split())


def test_the_fields_of_images_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show("images", verbose=False)
    text = " ".join(capsys.readouterr().out.split())
    for name in GenerationSettings.model_fields:
        assert f"--image {name}=" in text
    assert "fp32 | bf16" in text


def test_one_field_of_images_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_entry("images", "precision")
    text = capsys.readouterr().out
    assert "--image precision=" in text
    assert "--image steps=" not in text
    with pytest.raises(UserError, match="images have no field 'stops': did you mean 'steps'"):
        show_entry("images", "stops")
