"""What the values in a run's logs must be: scores, steps of training, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from bench.records.bounds import Amount, Count
from bench.records.protocol import Protocol
from bench.records.reading import damaged, validated


@with_config(ConfigDict(strict=True, extra="forbid"))
class ScoreLine(TypedDict):
    """A line of ``scores.jsonl``.

    Attributes:
        prompt_index: the prompt's position in the protocol.
        image_index: which of the prompt's images.
        metric: registered name.
        score: raw.
        signature: of the metric under the protocol.
    """

    prompt_index: Count
    image_index: Count
    metric: str
    score: Annotated[float, Field(allow_inf_nan=False)]
    signature: str


@with_config(ConfigDict(strict=True, extra="allow"))
class StepLine(TypedDict):
    """What every line of ``train.jsonl`` has; the algorithm's own quantities come with it.

    Attributes:
        step: counts from 0.
        loss: of the step.
        pairs: seen so far.
        seconds: device seconds so far.
    """

    step: Count
    loss: Annotated[float, Field(allow_inf_nan=False)]
    pairs: Count
    seconds: Amount


@with_config(ConfigDict(strict=True, extra="forbid"))
class LedgerRecord(TypedDict):
    """``ledger.json``; see `bench.training.ledger.Ledger`."""

    pairs: Count
    policy_forwards: Count
    policy_backwards: Count
    reference_forwards: Count
    flops: NotRequired[Count]
    seconds: Amount
    peak_memory_bytes: Count
    samples: NotRequired[Count]
    reward_calls: NotRequired[Count]


def checked_scores(written: Any, protocol: Protocol, path: Path) -> list[ScoreLine]:
    """Lines of ``scores.jsonl``, each for an image of the protocol, and one for each image, metric and signature.

    Raises:
        UserError: a line is something else.
    """
    lines = validated(list[ScoreLine], written, path)
    images = protocol.generation.images_per_prompt
    for number, line in enumerate(lines, start=1):
        if line["prompt_index"] >= protocol.prompt_count or line["image_index"] >= images:
            raise damaged(path, f"line {number} is for an image that the protocol does not have")
    keys = Counter((each["metric"], each["signature"], each["prompt_index"], each["image_index"]) for each in lines)
    if twice := [key for key, count in keys.items() if count > 1]:
        metric, _, prompt, image = twice[0]
        raise damaged(path, f"it has two {metric!r} scores for image {image} of prompt {prompt}")
    return lines


def checked_steps(written: Any, path: Path) -> list[StepLine]:
    """Lines of ``train.jsonl``, which count the steps from 0.

    Raises:
        UserError: a line is something else.
    """
    lines = validated(list[StepLine], written, path)
    for number, line in enumerate(lines):
        if line["step"] != number:
            raise damaged(path, f"line {number + 1} is step {line['step']}, and step {number} was to come")
    return lines


def checked_ledger(written: Any, steps: Sequence[Mapping[str, Any]], path: Path) -> LedgerRecord:
    """``ledger.json``, which counts as many pairs as the training log.

    Raises:
        UserError: it is something else.
    """
    ledger = validated(LedgerRecord, written, path)
    if steps and steps[-1]["pairs"] != ledger["pairs"]:
        raise damaged(path, f"it counts {ledger['pairs']:,} pairs, and the training log {steps[-1]['pairs']:,}")
    return ledger
