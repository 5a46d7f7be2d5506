"""The interface of an alignment algorithm."""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from torch import Tensor

from bench.core.registry import ClassOf, Registry
from bench.data.preferences import PreferenceData
from bench.data.prepare import PrepareContext
from bench.records.config import RECIPE
from bench.training.pair_batch import PairBatch
from bench.training.policy import Policy


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("give each metric once")
    return names


MetricNames = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda names: names.split(",") if isinstance(names, str) else names),
    AfterValidator(_each_once),
]
"""Names of registered metrics, typed on the command line as ``a,b``."""


class Need(enum.StrEnum):
    """What an algorithm cannot train without; a run that lacks one of these is refused before it starts."""

    PAIRS = "preference pairs"
    """Labels: which of a caption's two images is preferred."""
    IMAGES = "captioned images"
    """Images with captions; labels are not read."""
    PROMPTS = "prompts"
    """Captions; images and labels are not read."""
    REFERENCE = "a frozen reference model"
    """`bench.Policy.reference`, which costs memory and one forward per image; without this need it raises a ValueError."""
    REWARD = "a reward model"
    """The metrics in `Algorithm.trained_on`."""
    REWARD_GRADIENT = "a gradient of the reward"
    """That these metrics are a `bench.DifferentiableMetric`, and that the model's decoder has a gradient."""
    FITTED_REWARD = "a scorer that can be fitted"
    """Rounds whose judge is a `bench.FittableMetric`."""
    GUIDANCE = "classifier-free guidance"
    """A model and sampling settings whose guidance has an unconditional branch."""


@dataclasses.dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step of an algorithm returns, unreduced.

    Attributes:
        losses: one loss per pair, (B,), float32, with gradient; a non-finite one stops the run before the optimizer step.
        timesteps: the training timesteps, int64, (B,), for diagnostics by timestep.
        logs: detached diagnostics by name, floating point, (B,) each; averaged over the global batch, overall and by timestep
            bucket.
    """

    losses: Tensor
    timesteps: Tensor
    logs: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


UNTRIED = ("untried", "summarised", "defaults")
"""Names of recipes whose settings nobody has published or tried, or that were published but read in summaries alone."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of an algorithm for one model.

    Attributes:
        source: where they come from, and where they depart from that source.
        algorithm: fields of the algorithm; fields that are left out keep their defaults.
        training: fields of `bench.TrainingSettings`; likewise.
        name: what tables call a run with these settings unchanged; ``untried`` if nobody has published or tried them, and
            ``summarised`` if neither the paper nor its code could be read.
    """

    source: str
    algorithm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = RECIPE


@dataclasses.dataclass(frozen=True, slots=True)
class BetaScale:
    """What an algorithm's field ``beta`` multiplies, so that a published value can be converted (`bench beta`).

    Attributes:
        factor: the constant that comes with beta, with errors that are means over the elements of a latent.
        of: what it multiplies: ``margin``, (Ml - Rl) - (Mw - Rw) of a pair; ``gain``, R - M of one image; or other words.
    """

    factor: float
    of: str


@dataclasses.dataclass(frozen=True, slots=True)
class AlgorithmInfo:
    """What `bench list` shows about an algorithm.

    Attributes:
        title: the name in tables.
        paper: citation with arXiv number.
        formula: the loss in one line; M is the policy's mean squared error and R the reference's; w is the winner, l the loser.
        status: how it relates to the published method, in words: matches released code, matches the paper, or reconstructed.
        beta: what the field ``beta`` multiplies; None without such a field, or if no published beta can be converted to it.
    """

    title: str
    paper: str
    formula: str
    status: str
    beta: BetaScale | None = None


class Algorithm(BaseModel, abc.ABC):
    """An alignment algorithm: its fields are its hyper-parameters.

    A subclass is registered under the entry-point group ``bench.algorithms``.  Unknown fields and out-of-range values are
    refused, and the error names the field.  The harness calls `prepare` in every process and again when
    a run is resumed, `begin` once, then `step` for every micro-batch
    and `end_step` after every optimizer step; reducing, checking, accumulating and clipping are the harness's job.  Derive from
    `bench.PairwiseAlgorithm` or `bench.ReferenceFreeAlgorithm` if the objective is defined on pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    info: ClassVar[AlgorithmInfo]
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    recipes: ClassVar[Mapping[str, Recipe]] = {}
    """By model.  A second recipe for a model has its name after a slash, as in ``sd15/script``: ``--set recipe=script`` chooses it."""
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """Fields of `bench.TrainingSettings` for models without a recipe, where the fields' own defaults would not do."""
    negative: ClassVar[bool] = False
    """Whether the trained weights are for the unconditional branch of guidance only, next to the base model's."""
    placebo: ClassVar[str | None] = "winner and loser of each pair are swapped with probability 1/2"
    """What a run with shuffled preferences is (``bench run --placebo``); None if shuffling changes nothing."""
    fields_of: ClassVar[Mapping[str, str]] = {}
    """Of a wrapper: the field that holds another registered algorithm's fields, by the field that names that algorithm.  A recipe's
    values of the former are for the algorithm that the recipe names; another one that the user names has those of its own recipe."""
    no_placebo: ClassVar[str] = "it reads no preferences"
    """Why shuffling changes nothing, where ``placebo`` is None."""

    @property
    def initial_loss(self) -> float | None:
        """The loss at step 0, where policy and reference are identical, if known; a run that starts with another loss stops.

        A subclass states a constant as ``initial_loss: ClassVar[float | None] = ...``.
        """
        return None

    @property
    def calls_reference(self) -> bool:
        """Whether it calls `bench.Policy.reference` with its present fields; if not, no reference is kept in memory.

        An algorithm that states `Need.REFERENCE` may say that some of its settings do without.
        """
        return Need.REFERENCE in self.needs

    @property
    def reads_pictures(self) -> bool:
        """Whether it trains on images of the data; if not, they are not encoded."""
        return True

    @property
    def empties_captions(self) -> bool:
        """Whether it trains pairs with an empty caption in a way of its own, which ``caption_dropout`` would undo; it must then be 0."""
        return False

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Names of the metrics whose scores this algorithm trains on; tables mark these."""
        return ()

    @property
    def embedded_by(self) -> tuple[str, ...]:
        """Names of the metrics whose embeddings `prepare` uses; their scores are not trained on."""
        return ()

    def unread_fields(self, data: PreferenceData) -> Mapping[str, str]:
        """Its own fields that have no effect on these data, and why, in words that follow "since"; by default none.

        A run whose user changed one is refused; a recipe may state it for other data.
        """
        return {}

    def prepare(self, data: PreferenceData, context: PrepareContext) -> PreferenceData:
        """Turn the data into what this algorithm trains on, for example by adding soft labels; the default changes nothing.

        Called before training in every process, the main process first; take expensive results from ``context``, which caches
        them.

        Raises:
            UserError: the data does not suit the algorithm; the message should say what to change.
        """
        return data

    def begin(self, policy: Policy) -> None:
        """Called once before the first step of a run, and not again when it is resumed; the default does nothing."""

    @property
    def needs_batch_stats(self) -> bool:
        """Whether `step` reads ``batch.global_batch_stats``, which costs another pass over the global batch.

        By default, whether the class overrides `global_batch_stats`.  An algorithm that wraps another passes on the other's.
        """
        return type(self).global_batch_stats is not Algorithm.global_batch_stats

    def global_batch_stats(self, batch: PairBatch, policy: Policy) -> Tensor | None:
        """What `step` must know about the whole global batch: one row per pair, (B, ...), float32.

        If `needs_batch_stats`, called without gradient for every micro-batch before the first `step`.  The rows are gathered
        over micro-batches and processes and come back as ``batch.stats()``, (N, ...) for the N pairs of the global
        batch.  An objective that couples the pairs of a batch therefore does not depend on how the batch is cut.  Return None,
        as the default does, if it turns out that nothing is needed.
        """
        return None

    @abc.abstractmethod
    def step(self, batch: Any, policy: Policy) -> StepOutput:
        """Losses of one micro-batch, one per pair, unreduced; ``batch`` is a `bench.PairBatch`, or what another interface says.

        A pair's loss must not depend on the other pairs of the micro-batch, since the batch may be cut anywhere; see
        `global_batch_stats`.  Take random numbers from ``batch.draws``, so a resumed run equals one that never stopped.
        """

    def end_step(self, step: int, policy: Policy) -> None:
        """Called after optimizer step ``step`` (0-based), for example to average weights; the default does nothing."""


ALGORITHMS: Registry[type[Algorithm]] = Registry(
    "bench.algorithms", "algorithm", ClassOf(Algorithm, info=AlgorithmInfo, needs=frozenset, recipes=Mapping)
)
"""The registered algorithms by name: iterate over names, ``get(name)`` imports the class."""
