"""Which weights serve which branch of classifier-free guidance, and the guidance scale."""

from __future__ import annotations

import dataclasses

from bench.evaluation.weights import Weights
from bench.models.family import ModelFamily
from bench.models.frozen import stored_for
from bench.models.guidance import ALPHA, BETA, Networks, pair
from bench.records.protocol import GenerationSettings, Protocol, Variant


@dataclasses.dataclass(frozen=True, slots=True)
class SamplingWeights:
    """One way to sample images.

    Attributes:
        positive: the weights of the conditional branch, which sees the prompt.
        guidance_scale: the scale of classifier-free guidance.
        negative: the weights of the unconditional branch, merged with alpha and beta; None means the positive weights.
        alpha: the positive weights' factor in ``base + alpha (positive - base) + beta (negative - base)``, which is used for
            the unconditional branch.
        beta: the negative weights' factor in the same sum.
    """

    positive: Weights
    guidance_scale: float
    negative: Weights | None = None
    alpha: float = ALPHA
    beta: float = BETA

    def variant(self, protocol: Protocol) -> Variant | None:
        """How this departs from sampling the positive weights as the protocol says; None if it does not."""
        if self.negative is None and self.guidance_scale == protocol.generation.guidance_scale:
            return None
        return Variant(
            positive=self.positive.record,
            negative=None if self.negative is None else self.negative.record,
            alpha=self.alpha,
            beta=self.beta,
            guidance_scale=self.guidance_scale,
        )

    def networks(self, model: ModelFamily, settings: GenerationSettings) -> Networks:
        """The denoisers, for images in the precision of the settings."""
        if self.negative is None:
            return Networks.single(model.load_changed(self.positive.folder, stored_for(settings.precision)))
        positive = self.positive.network(model)
        return pair(model.network, positive, self.negative.network(model), alpha=self.alpha, beta=self.beta)

    @property
    def title(self) -> str:
        """What the progress display calls the images."""
        slots = [self.positive, *([self.negative] if self.negative else [])]
        names = [
            record.title if record.seed is None else f"{record.title} seed {record.seed}"
            for record in (weights.record for weights in slots)
        ]
        return f"{' + '.join(names)}, guidance {self.guidance_scale:g}"

    @property
    def result_owner(self) -> Weights:
        """The weights whose folder the images go to: the positive ones, or a negative run's if the base model is positive."""
        if self.negative is not None and self.negative.negative_scales is not None and self.positive.folder is None:
            return self.negative
        return self.positive


def default_sampling(weights: Weights, base: Weights, guidance_scale: float) -> SamplingWeights:
    """How weights are sampled by default: on their own, or, for a negative run's, as the base model's unconditional branch."""
    if weights.negative_scales is None:
        return SamplingWeights(weights, guidance_scale)
    alpha, beta = weights.negative_scales
    return SamplingWeights(base, guidance_scale, weights, alpha, beta)
