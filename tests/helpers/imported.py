"""Modules that commands import, for `forked`; diffusers and transformers import their models on first use."""

import gc
import importlib

from bench.core import code, packages

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
ours = [
    f"{path.parent.name}.{path.stem}"
    for kind in ("algorithms", "metrics")
    for path in packages.ROOT.glob(f"{kind}/*.py")
]
code.used_code(["bench.cli.run", "bench.cli.eval", *ours])
packages.plugins.cache_clear()

# What all forks share is not looked through for garbage by each of them, which would also copy its pages.
gc.freeze()
