"""What an alignment algorithm is, and what the harness hands it."""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from torch import Tensor

from bench.optimizers import known_optimizer
from bench.randomness import Draws

if TYPE_CHECKING:
    from bench.data.preferences import PreferenceData
    from bench.policy import Policy
    from bench.prepare import PrepareContext

Condition = Mapping[str, Tensor]
"""What the network is conditioned on: named tensors, each with a leading batch axis."""


MetricNames = Annotated[
    tuple[str, ...], BeforeValidator(lambda names: names.split(",") if isinstance(names, str) else names)
]
"""Names of registered metrics, typed as ``a,b``."""

OptimizerName = Annotated[str, AfterValidator(known_optimizer)]

PictureSize = Literal["true", "nominal"]
AspectRatios = Literal["square", "buckets"]


class Need(enum.StrEnum):
    """What an algorithm cannot do without."""

    PAIRS = "preference pairs"
    IMAGES = "captioned images"
    REFERENCE = "a frozen reference model"
    REWARD = "a reward model"
    GUIDANCE = "classifier-free guidance"


@dataclasses.dataclass(frozen=True, slots=True)
class PairBatch:
    """Some preference pairs, or lists of more than two images a caption, as latents.

    Attributes:
        winner: clean latents of the preferred images, float32, (B, C, H, W); of a list or of unlabelled data, the first image.
        loser: clean latents of the others, same shape; of a list, the last image.
        candidates: clean latents of all images of each caption in the order of the data, (B, K, C, H, W); K is 2 for pairs.
        condition: what the network is told of the winners: embeddings of the captions and, for models that ask, size and crop.
        loser_condition: the same of the losers; the two differ in size and crop alone.
        candidate_condition: the same of all images of each caption, (B, K, ...) each.
        tell_unconditional: makes `candidate_unconditional`, which few algorithms ask for.
        winner_place: which candidate the winner is, int64, (B,).
        loser_place: which candidate the loser is, int64, (B,).
        preference: P(winner preferred), float32, (B,); 1 for a hard label, NaN for data without labels.
        scores: scores of the candidates by name in the order of the data, float32, (B, K) each.
        columns: what `Algorithm.prepare` noted about each row, float32, (B, ...) each.
        index: row numbers in the data.
        place: places of these rows in the global batch of the step.
        draws: the random draws of this step for these rows.
        survey: what `Algorithm.survey` found, for every row of the global batch in its order, (N, ...); None without a survey.
    """

    winner: Tensor
    loser: Tensor
    candidates: Tensor
    condition: Condition
    loser_condition: Condition
    candidate_condition: Condition
    tell_unconditional: Callable[[], Condition]
    winner_place: Tensor
    loser_place: Tensor
    preference: Tensor
    scores: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]
    index: tuple[int, ...]
    place: tuple[int, ...]
    draws: Draws
    survey: Tensor | None = None

    def flipped(self) -> PairBatch:
        """The same pairs under the opposite preference; candidates and scores keep the order of the data."""
        return dataclasses.replace(
            self,
            winner=self.loser,
            loser=self.winner,
            condition=self.loser_condition,
            loser_condition=self.condition,
            winner_place=self.loser_place,
            loser_place=self.winner_place,
        )

    @property
    def candidate_unconditional(self) -> Condition:
        """As ``candidate_condition``, with an empty prompt, as guidance at sampling has it; made anew at every call."""
        return self.tell_unconditional()

    @property
    def unconditional(self) -> Condition:
        """As ``condition``, with an empty prompt; made anew at every call."""
        rows = torch.arange(len(self.index), device=self.winner_place.device)
        return {name: value[rows, self.winner_place] for name, value in self.candidate_unconditional.items()}

    @property
    def both_conditions(self) -> Condition:
        """The conditions of the winners, then of the losers, (2B, ...), for one forward pass of both."""
        return {name: torch.cat([value, self.loser_condition[name]]) for name, value in self.condition.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step of an algorithm returns, un-reduced.

    Attributes:
        losses: one loss a pair, (B,), with gradient.
        timesteps: the training times, (B,), for diagnostics by time.
        logs: detached diagnostics, (B,) each; averaged over the global batch, in all and by bucket of t.
    """

    losses: Tensor
    timesteps: Tensor
    logs: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class Budget(BaseModel):
    """How much a run may cost, so that methods can be compared at matched cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    unit: Literal["pairs", "forwards", "seconds"] = Field(
        description="pairs seen, network forwards (a backward counts as two), or seconds of training times processes"
    )
    amount: float = Field(gt=0, description="training stops after the step that reaches it")


EXECUTION: JsonDict = {"execution": True}
"""Marks a field that says how a run is computed; what comes out is the same, rounding aside."""


class TrainingSettings(BaseModel):
    """How a run trains, whatever the algorithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=100, gt=0, description="optimizer steps, unless there is a budget")
    budget: Budget | None = Field(
        default=None, description="see --budget: train until so much is spent, instead of steps"
    )
    batch: int = Field(default=32, gt=0, description="pairs in one optimizer step, over all processes")
    micro_batch: int = Field(
        default=32, gt=0, description="pairs in one forward pass of one process", json_schema_extra=EXECUTION
    )
    optimizer: OptimizerName = Field(
        default="adamw", description="adamw, adafactor (less memory), or adamw-8bit (less still, CUDA only)"
    )
    learning_rate: float = Field(default=1e-4, gt=0, description="peak learning rate")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="the rate after warm-up: constant, or half a cosine that nears 0 at the last step",
    )
    warmup: int = Field(default=10, ge=0, description="optimizer steps of linear warm-up")
    weight_decay: float = Field(default=1e-2, ge=0, description="weight decay, decoupled from the gradient")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    caption_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of pairs trained with an empty caption")
    weights: Literal["full", "lora"] = Field(default="full", description="train all weights, or low-rank adapters")
    lora_rank: int = Field(default=16, gt=0, description="rank of the adapters")
    picture_size: PictureSize = Field(
        default="true", description="SDXL is told each picture's true size and crop, or nominal: whole and of full size"
    )
    aspect_ratios: AspectRatios = Field(
        default="square",
        description="pictures are cut to the model's square, or buckets: to the nearest shape of its area",
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="arithmetic of the network")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations to save memory", json_schema_extra=EXECUTION
    )
    compile: bool = Field(
        default=False,
        description="compile the network (torch.compile): minutes at first, then faster",
        json_schema_extra=EXECUTION,
    )
    checkpoint_seconds: float = Field(
        default=60.0,
        ge=0,
        description="least seconds between checkpoints; 0 saves every step",
        json_schema_extra=EXECUTION,
    )

    @classmethod
    def execution_fields(cls) -> frozenset[str]:
        """Names of the fields that are no part of what a run is."""
        return frozenset(name for name, field in cls.model_fields.items() if field.json_schema_extra == EXECUTION)

    @model_validator(mode="after")
    def _cosine_has_an_end(self) -> Self:
        if self.schedule == "cosine" and self.budget is not None:
            raise ValueError(
                "schedule=cosine ends with a number of steps; leave --budget out, or give schedule=constant"
            )
        return self


RECIPE = "recipe"


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """Settings for one model.

    Attributes:
        source: where they come from.
        algorithm: fields of the algorithm.
        training: fields of the run.
        name: what tables call a run with these settings as they are; says so where nobody has published or tried them.
    """

    source: str
    algorithm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = RECIPE


@dataclasses.dataclass(frozen=True, slots=True)
class AlgorithmInfo:
    """What `bench list` shows of an algorithm.

    Attributes:
        title: the name in tables.
        paper: citation with arXiv number.
        formula: the loss in one line.
        status: how it relates to the published method, in words: matches released code, matches the paper, reconstructed.
    """

    title: str
    paper: str
    formula: str
    status: str


class Algorithm(BaseModel, abc.ABC):
    """An alignment algorithm: its fields are its hyper-parameters.

    A subclass is registered under the entry-point group ``bench.algorithms``.  Unknown and out-of-range values are refused by
    name.  The harness calls `prepare` once, then `step` for every micro-batch, and reduces, checks, accumulates, clips and
    steps itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    info: ClassVar[AlgorithmInfo]
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    negative: ClassVar[bool] = False
    """Whether the trained weights are a negative: they serve only in the unconditional slot of guidance."""

    @property
    def initial_loss(self) -> float | None:
        """The loss at step 0, where policy and reference are the same, if it is known; the harness asserts it.

        A subclass states a constant as ``initial_loss: ClassVar[float | None] = ...``.
        """
        return None

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Names of the metrics whose scores this algorithm trains on; tables mark them."""
        return ()

    @property
    def embedded_by(self) -> tuple[str, ...]:
        """Names of the metrics whose embeddings `prepare` asks for; their scores are not trained on."""
        return ()

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Turn the data into what this algorithm trains on, for example with soft labels; the default changes nothing."""
        return data

    def begin(self, policy: Policy) -> None:
        """Called once before the first step of a run, and not again when it is resumed; the default does nothing."""

    def survey(self, batch: PairBatch, policy: Policy) -> Tensor | None:
        """What `step` must know of the whole global batch: one row a pair, (B, ...), float32; None when it needs nothing.

        Called without gradient for every micro-batch before the first `step`; gathered over micro-batches and processes, it
        comes back as ``batch.survey``.  So an objective that couples the pairs of a batch does not depend on how it is cut.
        """
        return None

    @abc.abstractmethod
    def step(self, batch: PairBatch, policy: Policy) -> StepOutput:
        """Losses of one micro-batch, un-reduced."""

    def end_step(self, step: int, policy: Policy) -> None:
        """Called after the optimizer's step number ``step`` (0-based), for example to average weights; the default does nothing."""
