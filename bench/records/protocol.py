"""The evaluation protocol: one frozen value whose hash every score carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.core.values import digest

MOST_GUIDANCE = 1000.0
"""The largest guidance scale; far below it images are saturated, and far above it numbers overflow."""
MOST_SIDE = 8192
"""The largest height and width of an image in pixels."""


class GenerationSettings(BaseModel):
    """How images are made; one frozen value, part of the evaluation protocol's hash.

    Unknown fields and values out of range are refused (a `pydantic.ValidationError`).  Sizes are in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scheduler: str = Field(default="DDIMScheduler", description="name of a diffusers scheduler")
    steps: int = Field(default=50, gt=0, le=10_000, description="sampling steps")
    guidance_scale: float = Field(
        default=7.5, ge=1, le=MOST_GUIDANCE, description="classifier-free guidance; 1 switches it off"
    )
    negative_prompt: str = Field(default="", description="prompt of the unconditional branch")
    height: int = Field(default=512, gt=0, le=MOST_SIDE, description="pixels")
    width: int = Field(default=512, gt=0, le=MOST_SIDE, description="pixels")
    images_per_prompt: int = Field(default=1, gt=0, le=10_000, description="images per prompt")
    seed: int = Field(default=0, description="seed of the evaluation noise")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="arithmetic of the network")


class WeightsRecord(BaseModel):
    """What a record says about weights.

    Attributes:
        title: what tables call them.
        source: where they were, for a reader: a run (relative to the folder of all runs), or a folder as it was typed.
        digest: digest of their files; for the base model, the protocol's ``base_weights``.
        seed: the training seed; None if there is none or it is unknown.
        trained_on: names of the metrics that their training used, as far as known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    source: str
    digest: str
    seed: int | None = None
    trained_on: tuple[str, ...] = ()


class Variant(BaseModel):
    """Sampling that departs from the protocol's own: other guidance, or other weights in the negative slot of guidance.

    Prompts, noise, scheduler, steps and metrics stay the protocol's, so that the scores share a table with those of the
    protocol's own sampling.

    Attributes:
        positive: the weights conditioned on the prompt.
        negative: the weights in the negative slot; None means the positive ones.
        alpha: share of the positive weights' offset in the negative slot; see `bench.models.guidance.merge`.
        beta: share of the negative weights' offset in the negative slot.
        guidance_scale: scale of classifier-free guidance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    positive: WeightsRecord
    negative: WeightsRecord | None
    alpha: float = Field(ge=0, le=1)
    beta: float = Field(ge=0, le=1)
    guidance_scale: float = Field(ge=1, le=MOST_GUIDANCE)

    @property
    def signature(self) -> str:
        """Hash of what decides the images in addition to the protocol, 12 hex digits; names and places of weights do not."""
        slot = None if self.negative is None else [self.negative.digest, self.alpha, self.beta]
        return digest({"positive": self.positive.digest, "negative": slot, "guidance_scale": self.guidance_scale})


class Protocol(BaseModel):
    """Everything that decides which images are made and judged; equal protocols give comparable scores.

    Attributes:
        model: name of the base model.
        base_weights: digest of the base model's denoiser.
        prompts: digest of the ordered prompts.
        prompt_count: number of prompts.
        generation: how images are made.
        parts: digest of each component of the model on disk, such as ``scheduler`` and ``vae``; None in records that are older.
        limit: how many prompts and training pairs a trial uses at most; None for a full evaluation.
        code: digests of the code that makes the images, see `bench.core.code.code_digests`; None in records that are older.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base_weights: str
    prompts: str
    prompt_count: int
    generation: GenerationSettings
    parts: Mapping[str, str] | None = None
    limit: int | None = None
    code: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON values; of an older record it is what that version wrote, whose hash stays."""
        return self.model_dump(exclude_none=True)

    @property
    def signature(self) -> str:
        """Hash of the whole protocol, 12 hex digits."""
        return digest(self.to_json())

    def sampled_by(self, variant: Variant | None) -> GenerationSettings:
        """How images are made under a variant; None is the protocol's own sampling."""
        if variant is None:
            return self.generation
        return self.generation.model_copy(update={"guidance_scale": variant.guidance_scale})

    def metric_signature(self, name: str, identity: Mapping[str, Any]) -> str:
        """Hash of the protocol together with what decides a metric's scores, 12 hex digits."""
        return digest({"protocol": self.to_json(), "metric": name, "identity": dict(identity)})


def scorer_signature(name: str, identity: Mapping[str, Any]) -> str:
    """Hash of what decides a metric's scores besides image and prompt, 12 hex digits; the same under every protocol."""
    return digest({"metric": name, "identity": dict(identity)})


def prompts_digest(prompts: Sequence[str]) -> str:
    """Digest of prompts in their order."""
    return digest(list(prompts))
