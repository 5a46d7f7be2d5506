"""What commands import, for `forked`; diffusers and transformers import their models when they are first named."""

import importlib

for name, parts in {
    "bench.cli": (),
    "bench.data.commands": (),
    "bench.experiment": (),
    "bench.folder": (),
    "bench.judging": (),
    "bench.listing": (),
    "bench.planning.commands": (),
    "reports.table": (),
    "peft": (),
    "diffusers": ("AutoencoderKL", "UNet2DConditionModel", "DDIMScheduler"),
    "transformers": ("CLIPTextModel", "CLIPTokenizer"),
}.items():
    module = importlib.import_module(name)
    for part in parts:
        getattr(module, part)
