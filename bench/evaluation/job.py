"""What is evaluated, and where images and scores go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from bench.models.family import ModelFamily
from bench.models.guidance import Networks
from bench.records.evaluations import Evaluation
from bench.records.protocol import GenerationSettings, Protocol, Variant

Item = tuple[int, int]
"""Prompt index and image index."""


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationJob:
    """The evaluation of some weights under a protocol.

    Attributes:
        evaluation: where images and scores go.
        title: what the progress display calls the weights.
        model: the model whose encoders and decoder are used.
        load_networks: returns the denoisers; called only if images are missing, perhaps more than once.
        protocol: how images are made, and for which prompts.
        variant: how the sampling departs from the protocol; None if it does not.
        prompts: the protocol's prompts.
    """

    evaluation: Evaluation
    title: str
    model: ModelFamily
    load_networks: Callable[[], Networks]
    protocol: Protocol
    variant: Variant | None
    prompts: Sequence[str]

    @property
    def settings(self) -> GenerationSettings:
        """How the images are made, including the variant."""
        return self.protocol.sampled_by(self.variant)

    @property
    def items(self) -> list[Item]:
        """Every image of the evaluation, in order."""
        images = self.protocol.generation.images_per_prompt
        return [(prompt, image) for prompt in range(len(self.prompts)) for image in range(images)]
