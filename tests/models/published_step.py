"""How much faster the harness trains than a step written as published scripts write it; run by hand, on a GPU for real figures.

    python tests/models/published_step.py MODEL [--inversion-steps 10] [--renoise] [--pairs 4] [--set field=value ...]

Both sides have random weights of one architecture and train all of them, with one optimizer, on pictures of its own size.  The
published side encodes pictures and captions inside the step, keeps two denoisers, takes one pair at a time with checkpointing as
the settings say, and inverts winner and loser each for itself.  The harness runs `bench profile`'s steps, which read latents from
the cache.  With 0 inversion steps the objective is dpo; with some it is inpo (without its added noise), and with --renoise smpo.
test_published_step.py holds that both sides compute the same.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from bench import TrainingSettings
from bench.cli.options import parse_overrides
from bench.experiments.recipes import resolve
from bench.models.family import ModelFamily
from bench.models.find import find_architecture
from bench.models.framing import Framing
from bench.planning.profiling import measure
from bench.training.algorithm import ALGORITHMS
from bench.training.optimizers import OPTIMIZERS

BETA = 5000.0


class PublishedStep:
    """The training step of the published scripts, one pair at a time."""

    def __init__(self, model: ModelFamily, settings: TrainingSettings, *, steps: int, renoise: bool) -> None:
        self.model, self.settings, self.steps, self.renoise = model, settings, steps, renoise
        self.device = next(model.network.parameters()).device
        self.reference = model.network
        self.policy: Any = copy.deepcopy(model.network).requires_grad_(True)
        if settings.gradient_checkpointing:
            self.policy.train()
            self.policy.enable_gradient_checkpointing()
        self.optimizer = OPTIMIZERS[settings.optimizer].build(list(self.policy.parameters()), 1e-12, 0.0)
        half = settings.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half)

    def predict(self, network: nn.Module, latents: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        with self.autocast:
            return self.model.predict(network, latents, self.model.process.network_times(t), condition).float()

    @torch.no_grad()
    def encode(self, pixels: Tensor, caption: str, drawn: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Latents of two pictures (2, 3, H, W), and what the denoiser is told of one; in half precision as the scripts do it.

        ``drawn`` is the noise of the posterior's draw, in the latents' shape.
        """
        side = pixels.shape[-1]
        with self.autocast:
            told = self.model.encode_text([caption])
            latents = self.model.encode_images(pixels).draw(drawn).float()
        condition = {name: value.float().to(self.device) for name, value in told.items()}
        sizes = self.model.picture_condition(Framing.whole((side, side)))
        condition |= {name: value[None].to(self.device) for name, value in sizes.items()}
        return latents, condition

    @torch.no_grad()
    def invert(self, clean: Tensor, t: Tensor, condition: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Deterministic inversion of one picture up to the first time of the grid that is at least t, and that time (1,)."""
        process, stride = self.model.process, self.model.process.train_timesteps // self.steps
        latents, start = clean, 1 - stride
        while start < t.item() and start + stride < process.train_timesteps:
            source = t.new_tensor([max(start, 0)])
            end = t.new_tensor([start + stride])
            noise = process.to_epsilon(latents, self.predict(self.policy, latents, source, condition), source)
            for _ in range(self.renoise):
                moved = self.moved(latents, noise, source, end)
                again = process.to_epsilon(moved, self.predict(self.policy, moved, end, condition), end)
                noise = (noise + again) / 2
            latents, start = self.moved(latents, noise, source, end), start + stride
        return latents, t.new_tensor([start])

    def moved(self, latents: Tensor, noise: Tensor, source: Tensor, end: Tensor) -> Tensor:
        process = self.model.process
        clean = (latents - process.sigma(source, latents) * noise) / process.alpha(source, latents)
        return process.alpha(end, latents) * clean + process.sigma(end, latents) * noise

    def loss(self, pixels: Tensor, caption: str, t: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        """Of one pair: the preferred picture and the other (2, 3, H, W), their time (1,), the noise of both (1, ...); see `encode`."""
        process = self.model.process
        clean, condition = self.encode(pixels, caption, drawn)
        both = {name: torch.cat([value, value]) for name, value in condition.items()}
        if self.steps:
            inverted, reached = zip(*(self.invert(one[None], t, condition) for one in clean), strict=True)
            latents, times = torch.cat(inverted), torch.cat(reached)
            noise = process.implied_noise(clean, latents, times)
        else:
            noise, times = torch.cat([noise, noise]), torch.cat([t, t])
            latents = process.add_noise(clean, noise, times)
        target = process.target(clean, noise, times)
        policy = (self.predict(self.policy, latents, times, both) - target).square().flatten(1).mean(1)
        with torch.no_grad():
            reference = (self.predict(self.reference, latents, times, both) - target).square().flatten(1).mean(1)
        winner, loser = policy - reference
        return -logsigmoid(-BETA / 2 * (winner - loser))

    def step(self) -> None:
        """The optimizer's step, on the gradients of all pairs so far."""
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def pairs_per_second(self, pairs: int) -> float:
        """Over some pairs at times spread evenly, with the optimizer's step shared by all pairs of the settings' batch."""
        side, count = self.model.resolution, self.model.process.train_timesteps
        pixels, shape = torch.zeros(2, 3, side, side), self.model.latent_shape(side, side)

        def backward(time: int) -> None:
            noise, drawn = torch.randn(3, *shape, device=self.device).split([1, 2])
            self.loss(pixels, "a caption", torch.tensor([time], device=self.device), noise, drawn).backward()

        backward(count // 2)
        self.step()
        began = self.now()
        for pair in range(pairs):
            backward(count * (2 * pair + 1) // (2 * pairs))
        gradients = self.now() - began
        began = self.now()
        self.step()
        return 1 / (gradients / pairs + (self.now() - began) / self.settings.global_batch_size)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--inversion-steps", type=int, default=0)
    parser.add_argument("--renoise", action="store_true")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    typed = parser.parse_args()

    name = ("smpo" if typed.renoise else "inpo") if typed.inversion_steps else "dpo"
    overrides = parse_overrides(typed.sets)
    if typed.inversion_steps:
        overrides["inversion_steps"] = str(typed.inversion_steps)
    found, accelerator = find_architecture(typed.model), Accelerator(cpu=not torch.cuda.is_available())
    algorithm, settings = resolve(name, ALGORITHMS.get(name), found.recipe, overrides)
    if settings.trainable != "full":
        parser.error("the published scripts train all weights; leave --set weights out")
    model = found.build(accelerator.device)
    step = PublishedStep(model, settings, steps=typed.inversion_steps, renoise=typed.renoise)
    published = step.pairs_per_second(typed.pairs)
    del step, model  # so that the harness has the memory
    ours = measure(found, algorithm, settings, max(2, typed.pairs), accelerator)
    remark = (
        "" if accelerator.device.type == "cuda" else "; on a CPU this says little: large batches gain nothing there"
    )
    lines = [
        f"{name} on {typed.model}, {ours.device}, {settings.precision}, {settings.optimizer}",
        f"published step  {published:.4g} pairs/s, one pair at a time",
        f"harness         {ours.pairs_per_second:.4g} pairs/s, micro_batch_size {settings.micro_batch_size}",
        f"ratio           {ours.pairs_per_second / published:.2f}{remark}",
        f"cache           {ours.phases['encode']:.3g} s a pair, once for all runs on the data; in no rate of the harness",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
