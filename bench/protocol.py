"""The evaluation protocol: one frozen value whose hash every score carries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, shortened to 12 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class GenerationSettings(BaseModel):
    """How images are made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scheduler: str = Field(default="DDIMScheduler", description="name of a diffusers scheduler")
    steps: int = Field(default=50, gt=0, description="sampling steps")
    guidance_scale: float = Field(default=7.5, ge=1, description="classifier-free guidance; 1 switches it off")
    negative_prompt: str = Field(default="", description="prompt of the unconditional branch")
    height: int = Field(default=512, gt=0, description="pixels")
    width: int = Field(default=512, gt=0, description="pixels")
    images_per_prompt: int = Field(default=1, gt=0, description="images made for each prompt")
    seed: int = Field(default=0, description="seed of the evaluation noise")
    precision: str = Field(default="fp32", pattern="^(fp32|bf16)$", description="arithmetic of the network")


class Protocol(BaseModel):
    """Everything that decides which images are made and judged; equal protocols give comparable scores.

    Attributes:
        model: name of the base model.
        base_weights: digest of the base model's denoiser.
        prompts: digest of the ordered prompts.
        prompt_count: how many there are.
        generation: how images are made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    base_weights: str
    prompts: str
    prompt_count: int
    generation: GenerationSettings

    @property
    def signature(self) -> str:
        """Hash of the whole protocol, 12 hex digits."""
        return digest(self.model_dump())

    def metric_signature(self, name: str, identity: Mapping[str, Any]) -> str:
        """Hash of the protocol together with what decides a metric's scores, 12 hex digits."""
        return digest({"protocol": self.model_dump(), "metric": name, "identity": dict(identity)})


def prompts_digest(prompts: Sequence[str]) -> str:
    """Digest of prompts in their order."""
    return digest(list(prompts))
