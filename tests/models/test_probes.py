"""Digests of a model's sampler and tokenizers: others when a library does something else, and the same otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

from bench.models.family import ModelFamily
from bench.models.find import find_model
from bench.models.probes import sampler_digest, tokenizers_digest
from bench.records.protocol import GenerationSettings


@pytest.fixture
def model(pipeline_folder: Callable[..., Path]) -> ModelFamily:
    folder = str(pipeline_folder("sd15"))
    return find_model(folder).card.family.load(folder, device=torch.device("cpu"))


def settings(scheduler: str = "DDIMScheduler", steps: int = 20) -> GenerationSettings:
    return GenerationSettings(scheduler=scheduler, steps=steps, guidance_scale=3, height=16, width=16)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)  # diffusers with NumPy 2
def test_samplers_and_their_steps_are_told_apart(model: ModelFamily) -> None:
    names = (
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    )
    digests = [sampler_digest(settings(name), model) for name in names]
    assert len({*digests, sampler_digest(settings(steps=21), model)}) == len(names) + 1
    assert [sampler_digest(settings(name), model) for name in names] == digests


def test_a_library_that_steps_differently_is_noticed(model: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sampler_digest(settings(), model)
    step = diffusers.DDIMScheduler.step

    def other(self: Any, *arguments: Any, **how: Any) -> Any:
        made = step(self, *arguments, **how)
        made.prev_sample = made.prev_sample * 1.01
        return made

    monkeypatch.setattr(diffusers.DDIMScheduler, "step", other)
    assert sampler_digest(settings(), model) != before


@pytest.mark.parametrize(("text", "read_as"), [("É", "E"), ("don't", "do n't"), ("under_score", "underscore")])
def test_a_library_that_reads_a_tokenizer_differently_is_noticed(
    model: ModelFamily, pipeline_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, text: str, read_as: str
) -> None:
    """Wherever in the texts: the ends of the long ones were cut by a tokenizer of few tokens, and so never looked at."""
    before = tokenizers_digest(model)
    again = type(model).load(str(pipeline_folder("sd15")), device=torch.device("cpu"))
    assert tokenizers_digest(again) == before
    call = transformers.PreTrainedTokenizerBase.__call__
    monkeypatch.setattr(
        transformers.PreTrainedTokenizerBase,
        "__call__",
        lambda self, texts, **how: call(self, [each.replace(text, read_as) for each in texts], **how),
    )
    assert tokenizers_digest(again) != before
