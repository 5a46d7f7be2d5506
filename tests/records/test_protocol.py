from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.core.values import digest
from bench.records.protocol import GenerationSettings, Protocol, prompts_digest

GENERATION: dict[str, Any] = {
    "scheduler": "EulerDiscreteScheduler",
    "steps": 49,
    "guidance_scale": 7.6,
    "negative_prompt": "blurry",
    "height": 504,
    "width": 520,
    "images_per_prompt": 2,
    "seed": 1,
    "precision": "bf16",
}
PROTOCOL: dict[str, Any] = {
    "model": "sd15",
    "base_weights": "abd",
    "prompts": "124",
    "prompt_count": 8,
    "parts": {"vae": "1"},
    "limit": 8,
    "code": {"own": "2", "harness": "3"},
}


def protocol(generation: dict[str, Any] | None = None, **changes: Any) -> Protocol:
    values = {"model": "tiny", "base_weights": "abc", "prompts": "123", "prompt_count": 7, **changes}
    return Protocol(**values, generation=GenerationSettings(**(generation or {})))


def test_equal_protocols_have_equal_signatures() -> None:
    assert protocol().signature == protocol().signature
    assert protocol({"steps": 50}).signature == protocol().signature
    assert len(protocol().signature) == 12


def test_a_protocol_read_back_from_json_has_the_same_signature() -> None:
    first = protocol(GENERATION, **PROTOCOL)
    assert Protocol.model_validate_json(first.model_dump_json()).signature == first.signature


@pytest.mark.parametrize(("field", "value"), GENERATION.items())
def test_any_change_of_how_images_are_made_changes_the_signature(field: str, value: Any) -> None:
    assert protocol({field: value}).signature != protocol().signature


@pytest.mark.parametrize(("field", "value"), PROTOCOL.items())
def test_any_change_of_what_is_judged_changes_the_signature(field: str, value: Any) -> None:
    assert protocol(**{field: value}).signature != protocol().signature


def test_a_protocol_of_an_older_version_keeps_its_signature() -> None:
    """As version 0.1 wrote it, with the name of the folder that it wrote it to."""
    folder = Path(__file__).parent / "folders" / "schema-1" / "runs" / "tiny" / "base" / "evaluations"
    for file in folder.glob("*/protocol.json"):
        assert Protocol.model_validate_json(file.read_text()).signature == file.parent.name


def test_no_field_is_left_out_above() -> None:
    assert GENERATION.keys() == GenerationSettings.model_fields.keys()
    assert {*PROTOCOL, "generation"} == Protocol.model_fields.keys()


def test_prompts_count_with_their_order() -> None:
    digests = {prompts_digest(prompts) for prompts in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""])}
    assert len(digests) == 4


def test_a_metric_is_signed_with_its_name_and_what_decides_its_scores() -> None:
    made = protocol()
    signatures = {
        made.signature,
        made.metric_signature("clip", {"version": 1}),
        made.metric_signature("clip", {"version": 2}),
        made.metric_signature("pickscore", {"version": 1}),
        protocol({"seed": 1}).metric_signature("clip", {"version": 1}),
    }
    assert len(signatures) == 5


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_a_protocol_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        protocol().model = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("guidance_scale", 0.5), ("precision", "fp16"), ("sampler", "ddim")]
)
def test_settings_that_mean_nothing_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        GenerationSettings(**{field: value})
