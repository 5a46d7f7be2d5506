"""bench: the referee for diffusion preference alignment.

The public names: what an algorithm, a metric, a model or a script of your own needs.  Each is imported when it is first used.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see, and what is read below
    from bench.core.chunks import batch_slices as batch_slices
    from bench.core.errors import UserError as UserError
    from bench.core.errors import require as require
    from bench.core.hub import hub_folder as hub_folder
    from bench.core.images import resize_image as resize_image
    from bench.core.prefetch import prefetched as prefetched
    from bench.core.randomness import uniform as uniform
    from bench.core.validation import build as build
    from bench.core.values import digest as digest
    from bench.data.preferences import PreferenceData as PreferenceData
    from bench.data.prepare import PrepareContext as PrepareContext
    from bench.data.ranking import calibrated_rewards as calibrated_rewards
    from bench.data.ranking import dominating_pairs as dominating_pairs
    from bench.data.ranking import win_shares as win_shares
    from bench.experiments.executors.base import Executor as Executor
    from bench.experiments.executors.base import Matrix as Matrix
    from bench.experiments.experiment import Choices as Choices
    from bench.experiments.interface import evaluate as evaluate
    from bench.experiments.interface import run as run
    from bench.experiments.results import EvaluationResult as EvaluationResult
    from bench.experiments.results import EvaluationResults as EvaluationResults
    from bench.experiments.results import RunResult as RunResult
    from bench.experiments.results import RunResults as RunResults
    from bench.experiments.votes import Votes as Votes
    from bench.models.card import ModelCard as ModelCard
    from bench.models.checkpoints.stated import check_vocabulary as check_vocabulary
    from bench.models.checkpoints.stated import read_object as read_object
    from bench.models.family import Condition as Condition
    from bench.models.family import ModelFamily as ModelFamily
    from bench.models.forward_process import ForwardProcess as ForwardProcess
    from bench.models.forward_process import expand as expand
    from bench.models.guidance import guide as guide
    from bench.models.inversion import Endpoint as Endpoint
    from bench.models.inversion import Inversion as Inversion
    from bench.models.inversion import InversionSettings as InversionSettings
    from bench.models.inversion import Renoise as Renoise
    from bench.models.inversion import invert as invert
    from bench.models.registry import MODELS as MODELS
    from bench.prompts.sets import PromptSet as PromptSet
    from bench.records.protocol import GenerationSettings as GenerationSettings
    from bench.records.scores import MetricInfo as MetricInfo
    from bench.records.studies import Cell as Cell
    from bench.records.studies import StudyFolder as StudyFolder
    from bench.rollouts.advantages import Convention as Convention
    from bench.rollouts.advantages import combined_advantages as combined_advantages
    from bench.rollouts.grid import Grid as Grid
    from bench.rollouts.grid import strided_grid as strided_grid
    from bench.rollouts.rules import ODE as ODE
    from bench.rollouts.rules import Rule as Rule
    from bench.rollouts.rules import RuleName as RuleName
    from bench.rollouts.rules import has_density as has_density
    from bench.rollouts.sampler import Denoise as Denoise
    from bench.rollouts.sampler import Predict as Predict
    from bench.rollouts.sampler import Step as Step
    from bench.rollouts.sampler import Trajectories as Trajectories
    from bench.rollouts.sampler import guided as guided
    from bench.rollouts.sampler import one_per_slot as one_per_slot
    from bench.rollouts.sampler import roll_out as roll_out
    from bench.scoring.images import CLIP_MEAN as CLIP_MEAN
    from bench.scoring.images import CLIP_STD as CLIP_STD
    from bench.scoring.isolated.environment import Environment as Environment
    from bench.scoring.isolated.metric import IsolatedMetric as IsolatedMetric
    from bench.scoring.metric import METRICS as METRICS
    from bench.scoring.metric import DifferentiableMetric as DifferentiableMetric
    from bench.scoring.metric import EmbeddingMetric as EmbeddingMetric
    from bench.scoring.metric import FittableMetric as FittableMetric
    from bench.scoring.metric import Metric as Metric
    from bench.scoring.metric import weights_digest as weights_digest
    from bench.training.algorithm import ALGORITHMS as ALGORITHMS
    from bench.training.algorithm import Algorithm as Algorithm
    from bench.training.algorithm import AlgorithmInfo as AlgorithmInfo
    from bench.training.algorithm import BetaScale as BetaScale
    from bench.training.algorithm import MetricNames as MetricNames
    from bench.training.algorithm import Need as Need
    from bench.training.algorithm import Recipe as Recipe
    from bench.training.algorithm import StepOutput as StepOutput
    from bench.training.judge_fitting import JudgeFittingAlgorithm as JudgeFittingAlgorithm
    from bench.training.noising import Noised as Noised
    from bench.training.noising import NoisedImages as NoisedImages
    from bench.training.noising import noised_alike as noised_alike
    from bench.training.noising import noised_forward as noised_forward
    from bench.training.noising import noised_images as noised_images
    from bench.training.noising import random_timesteps as random_timesteps
    from bench.training.online import ForwardAlgorithm as ForwardAlgorithm
    from bench.training.online import OnlineAlgorithm as OnlineAlgorithm
    from bench.training.online import SamplingAlgorithm as SamplingAlgorithm
    from bench.training.online import StepwiseAlgorithm as StepwiseAlgorithm
    from bench.training.pair_batch import PairBatch as PairBatch
    from bench.training.pairwise import NoisedPairAlgorithm as NoisedPairAlgorithm
    from bench.training.pairwise import PairErrors as PairErrors
    from bench.training.pairwise import PairPredictions as PairPredictions
    from bench.training.pairwise import PairwiseAlgorithm as PairwiseAlgorithm
    from bench.training.pairwise import PolicyErrors as PolicyErrors
    from bench.training.pairwise import ReferenceFreeAlgorithm as ReferenceFreeAlgorithm
    from bench.training.pairwise import pair_logs as pair_logs
    from bench.training.pairwise import sample_errors as sample_errors
    from bench.training.policy import Policy as Policy
    from bench.training.ratios import clipped_objective as clipped_objective
    from bench.training.ratios import kl_nats as kl_nats
    from bench.training.ratios import outside_clip as outside_clip
    from bench.training.ratios import ratio_logs as ratio_logs
    from bench.training.ratios import squared_mean_shift as squared_mean_shift
    from bench.training.reward_gradients import GradientBatch as GradientBatch
    from bench.training.reward_gradients import RewardGradientAlgorithm as RewardGradientAlgorithm
    from bench.training.rollout_batch import RolloutBatch as RolloutBatch
    from bench.training.settings import TrainingSettings as TrainingSettings
    from bench.training.step_pairs import StepPairAlgorithm as StepPairAlgorithm
    from bench.training.step_pairs import StepPairBatch as StepPairBatch
    from reports.report import ReportResult as ReportResult
    from reports.report import report as report


def _modules() -> dict[str, str]:
    """The modules of the public names, which the imports above are the only list of."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {each.name: str(node.module) for node in imports for each in node.names}


_MODULE_OF = _modules()

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 (names of the imports, not typed twice)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
