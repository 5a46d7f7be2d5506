from __future__ import annotations

import io
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field
from rich.console import Console

from bench import Algorithm, AlgorithmInfo, PairBatch, Recipe, StepOutput, UserError
from bench.cli.kinds import KINDS
from bench.cli.listing import details, show, show_entry
from bench.models.registry import MODELS
from bench.records.protocol import GenerationSettings
from bench.scoring.metric import METRICS
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


statements_of = KINDS["algorithms"].statements


def printed(thing: Any) -> str:
    """What a terminal of 100 columns shows, its line breaks taken out."""
    stream = io.StringIO()
    Console(width=100, file=stream).print(thing)
    assert max(map(len, stream.getvalue().splitlines())) <= 100
    return " ".join(stream.getvalue().split())


def test_an_algorithm_states_everything_about_itself() -> None:
    assert statements_of(Bracketed) == [
        ("paper", "a 2024 paper"),
        ("formula", "T [phi(c Mw) - phi(c Ml)]"),
        ("status", "[red]reconstructed"),
        ("needs", "preference pairs"),
        ("--set beta=", "a strength (> 0, <= 9, default 2.0)"),
        ("--set form=", "a choice (one | two, default two)"),
        ("recipe tiny", "beta 3.0, steps 7\nsource: ours [not tuned]"),
    ]


def test_brackets_are_text_and_no_markup() -> None:
    text = printed(details("bracketed", statements_of(Bracketed)))
    for part in ("T [phi(c Mw) - phi(c Ml)]", "[red]reconstructed", "ours [not tuned]"):
        assert part in text


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_algorithm_shows_all_of_it_in_100_columns(name: str) -> None:
    statements = statements_of(ALGORITHMS.get(name))
    text = printed(details(name, statements))
    for label, statement in statements:
        assert " ".join([*label.split(), *statement.split()]) in text


def test_one_entry_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show_entry("algorithms", "dpo")
    text = " ".join(capsys.readouterr().out.split())
    assert "--set beta=" in text
    assert "M and R their mean squared denoising errors" in text
    assert "SmPO" not in text
    with pytest.raises(UserError, match="unknown algorithm 'dop': did you mean"):
        show_entry("algorithms", "dop")
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="'hpsv2' is no kind, but one of metrics: bench list metrics hpsv2"):
        show("hpsv2", verbose=False)
    with pytest.raises(UserError, match="unknown kind 'algos': did you mean 'algorithms'"):
        show_entry("algos", "dpo")


def test_a_text_that_is_empty_shows_as_such() -> None:
    shown = dict(KINDS["models"].statements(MODELS.get("sdxl")))
    assert "negative_prompt (empty), " in shown["images"]


def test_the_fields_of_training_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    show("training", verbose=False)
    text = " ".join(capsys.readouterr().out.split())
    for name, field in TrainingSettings.model_fields.items():
        assert f"--set {name}=" in text
        assert " ".join(str(field.description).split()) in text


def test_symbols_of_the_formulas_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    show("algorithms", verbose=True)
    assert "M and R their mean squared denoising errors" in " ".join(capsys.readouterr().out.split())


def test_a_metric_with_an_environment_of_its_own_shows_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown = dict(KINDS["metrics"].statements(METRICS.get("hpsv2-official")))
    assert shown["environment"] == "one of its own, Python 3.11, built when it is first used"
    assert {"torch==2.0.1", "torchvision==0.15.2"} <= set(shown["requirements"].split(", "))
    assert shown["without theirs"] == "hpsv2==1.2.0, image-reward==1.5"
    assert "environment" not in dict(KINDS["metrics"].statements(METRICS.get("hpsv2")))
    show("metrics", verbose=True)
    assert "one of its own, Python 3.11" in " ".join(capsys.readouterr().out.split())


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
