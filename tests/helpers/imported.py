"""Modules that commands import, for `forked`; diffusers and transformers import their models on first use."""

import importlib

for name, parts in {
    "bench.cli.main": (),
    "bench.cli.data": (),
    "bench.experiments.experiment": (),
    "bench.scoring.folder": (),
    "bench.experiments.judging": (),
    "bench.cli.listing": (),
    "bench.cli.plan": (),
    "reports.table": (),
    "peft": (),
    "diffusers": ("AutoencoderKL", "UNet2DConditionModel", "DDIMScheduler"),
    "transformers": ("CLIPTextModel", "CLIPTokenizer"),
}.items():
    module = importlib.import_module(name)
    for part in parts:
        getattr(module, part)
