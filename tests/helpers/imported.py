"""Modules that commands import, for `forked`; diffusers and transformers import their models on first use."""

import gc
import importlib

from bench.core import code, packages
from bench.scoring.metric import METRICS
from bench.training.algorithm import ALGORITHMS

for name, parts in {
    "bench.cli.main": (),
    "bench.cli.data": (),
    "bench.experiments.experiment": (),
    "bench.scoring.folder": (),
    "bench.experiments.judging": (),
    "bench.cli.listing": (),
    "bench.cli.plan": (),
    "bench.cli.run": (),
    "bench.experiments.interface": (),
    "bench.tiny.checker": (),
    "algorithms.dpo": (),
    "algorithms.smpo": (),
    "metrics.gold": (),
    "metrics.imagereward": (),
    "metrics.pickscore": (),
    "reports.report": (),
    "reports.power": (),
    "matplotlib.figure": (),
    "ftfy": (),
    "pandas": (),
    "peft": (),
    "diffusers": ("AutoencoderKL", "UNet2DConditionModel", "DDIMScheduler"),
    "transformers": ("BertTokenizer", "CLIPTextModel", "CLIPTokenizer"),
    "transformers.models.blip.modeling_blip_text": (),
}.items():
    module = importlib.import_module(name)
    for part in parts:
        getattr(module, part)

# Our own files are read for the digests of code; which plug-ins there are depends on a command's environment.
code.used_code(
    [
        "bench.cli.run",
        "bench.cli.eval",
        *(kinds.point(name).module for kinds in (ALGORITHMS, METRICS) for name in kinds),
    ]
)
packages.plugins.cache_clear()

# What all forks share is not looked through for garbage by each of them, which would also copy its pages.
gc.freeze()
