"""How a run trains, whatever the algorithm."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from bench.data.buckets import AspectRatios, HorizontalFlip, PictureSize
from bench.records.training import Labels
from bench.training.optimizers import known_optimizer

MOST_STEPS = 10**9
"""Optimizer steps of the longest run."""
MOST_PAIRS = 1 << 20
"""Pairs of the largest batch."""

EXECUTION: JsonDict = {"execution": True}
"""Marks a field that says how a run is computed; the result is the same up to rounding."""

Precision = Literal["fp32", "bf16"]
"""Arithmetic of a network; its weights are in float32 either way."""
AdapterInit = Literal["uniform", "gaussian"]

OptimizerName = Annotated[str, AfterValidator(known_optimizer)]


ONLINE_UNITS = ("samples", "rewards")
"""Units of a budget that only online algorithms spend."""


class Budget(BaseModel):
    """How much a run may cost, so that methods can be compared at matched cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    unit: Literal["pairs", "forwards", "seconds", "samples", "rewards"] = Field(
        description="pairs seen, network forwards (a backward counts as two), seconds of training times processes; of online "
        "algorithms also samples or rewards, images that were sampled or scored"
    )
    amount: float = Field(gt=0, description="training stops after the step that reaches this amount")


class StopRule(BaseModel):
    """When training ends before its steps or its budget are spent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["overoptimised"] = Field(
        description="overoptimised: training succeeds by its own measure while most held-out judges fall"
    )
    every: int = Field(gt=0, description="optimizer steps between two measurements")


class Rounds(BaseModel):
    """Training in rounds, each on pairs of images by the weights of the round before, instead of on the data's pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(
        ge=1, le=1000, description="rounds of generate, judge and train, of `steps` optimizer steps each"
    )
    judge: str = Field(default="pickscore", description="metric that chooses the best and the worst image of a caption")
    candidates: int = Field(default=4, ge=2, le=10_000, description="images of each caption")
    captions: int | None = Field(
        default=None,
        ge=1,
        description="maximum number of captions per round, drawn anew each round; by default as many as the round's steps need",
    )


class TrainingSettings(BaseModel):
    """How a run trains, whatever the algorithm: the fields of ``Recipe.training`` and of ``--set``.

    Batch sizes are in pairs, durations in optimizer steps.  Unknown fields and values out of range are refused (a
    `pydantic.ValidationError`), and so is a cosine schedule without a known end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=100, gt=0, le=MOST_STEPS, description="optimizer steps, unless there is a budget")
    budget: Budget | None = Field(
        default=None,
        description="stop at a budget (pairs, forwards or seconds) instead of after a number of steps; see --budget",
    )
    stop_when: StopRule | None = Field(default=None, description="stop early by this rule; see --stop-when")
    rounds: Rounds | None = Field(
        default=None, description="train in rounds, on pairs of the model's own images; see --rounds"
    )
    evaluate_every: int = Field(
        default=0,
        ge=0,
        description="optimizer steps between two measurements on images of training prompts, or of held-out captions, recorded as curves (0: never)",
        json_schema_extra=EXECUTION,
    )
    global_batch_size: int = Field(
        default=32, gt=0, le=MOST_PAIRS, description="pairs per optimizer step, over all processes"
    )
    micro_batch_size: int = Field(
        default=32,
        gt=0,
        le=MOST_PAIRS,
        description="pairs per forward pass of one process",
        json_schema_extra=EXECUTION,
    )
    optimizer: OptimizerName = Field(
        default="adamw", description="adamw, adafactor (less memory), or adamw-8bit (less still, CUDA only)"
    )
    learning_rate: float = Field(default=1e-4, gt=0, description="peak learning rate")
    lr_schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="learning rate after warm-up: constant, or cosine decay to almost 0 at the last step",
    )
    warmup_steps: int = Field(default=10, ge=0, le=MOST_STEPS, description="optimizer steps of linear warm-up")
    weight_decay: float = Field(default=1e-2, ge=0, description="weight decay, decoupled from the gradient")
    max_grad_norm: float = Field(default=1.0, gt=0, description="clip gradients to this norm")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of a moving average of the weights, which is saved and evaluated instead of the last weights (0: the last weights)",
    )
    ema_every: int = Field(
        default=1, gt=0, le=MOST_STEPS, description="optimizer steps between two updates of that average"
    )
    labels: Labels = Field(
        default="as given",
        description="shuffled makes a placebo: winner and loser of each pair are swapped with probability 1/2; see --labels",
    )
    caption_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of pairs trained with an empty caption")
    trainable: Literal["full", "lora"] = Field(default="full", description="train all weights, or low-rank adapters")
    lora_rank: int = Field(default=16, gt=0, le=65_536, description="rank of the low-rank adapters")
    lora_init: AdapterInit = Field(
        default="uniform",
        description="how an adapter's first factor starts: uniform (PEFT's own), or gaussian with deviation 1 / lora_rank",
    )
    latents: Literal["sample", "mean"] = Field(
        default="sample",
        description="an image's latents: drawn from the autoencoder's posterior anew at every step, or the posterior's mean",
    )
    horizontal_flip: HorizontalFlip = Field(
        default="none",
        description="mirror at random with probability 1/2: none, each image of a pair on its own, or the pair together; "
        "doubles the cache of latents",
    )
    size_conditioning: PictureSize = Field(
        default="true",
        description="SDXL size/crop conditioning: true uses each image's original size and crop, nominal pretends it is "
        "uncropped at the target size",
    )
    aspect_ratios: AspectRatios = Field(
        default="square",
        description="square crops images to the model's square; buckets crops them to the nearest shape of the same area",
    )
    precision: Precision = Field(default="fp32", description="precision of the network's arithmetic")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations to save memory", json_schema_extra=EXECUTION
    )
    gradients_by_step: bool = Field(
        default=False,
        description="log the norm of the gradient by sampling step, of online methods that train such steps; takes the memory of all "
        "gradients once for each of them",
        json_schema_extra=EXECUTION,
    )
    compile: bool = Field(
        default=False,
        description="compile the network (torch.compile): takes minutes at first, then steps are faster",
        json_schema_extra=EXECUTION,
    )
    checkpoint_seconds: float = Field(
        default=60.0,
        ge=0,
        description="minimum seconds between checkpoints (0: after every step)",
        json_schema_extra=EXECUTION,
    )

    @property
    def watched(self) -> bool:
        """Whether images are made along the training."""
        return self.stop_when is not None or self.evaluate_every > 0

    @classmethod
    def execution_fields(cls) -> frozenset[str]:
        """Names of the fields that are not part of a run's identity."""
        return frozenset(name for name, field in cls.model_fields.items() if field.json_schema_extra == EXECUTION)

    @model_validator(mode="after")
    def _an_average_is_updated(self) -> Self:
        if self.ema_every > 1 and not self.ema_decay:
            raise ValueError(f"ema_every={self.ema_every} has no effect without an ema_decay above 0; set ema_every=1")
        if self.budget is None and self.ema_every > self.steps:
            raise ValueError(
                f"the average would never be updated in {self.steps} steps; lower ema_every, which is {self.ema_every}"
            )
        return self

    @model_validator(mode="after")
    def _cosine_has_an_end(self) -> Self:
        if self.lr_schedule == "cosine" and self.budget is not None:
            raise ValueError(
                "lr_schedule=cosine needs a fixed number of steps; leave --budget out, or use lr_schedule=constant"
            )
        return self
