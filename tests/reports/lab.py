"""Writes real run folders with synthetic scores."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.core.files import append_lines, write_json
from bench.records.config import Resolved, RunConfig
from bench.records.evaluations import Evaluation
from bench.records.protocol import GenerationSettings, Protocol, Variant, WeightsRecord, prompts_digest
from bench.records.runs import RunFolder
from bench.records.scores import MetricInfo, MetricRecord

PROMPTS = [
    f"a {thing} on a {colour} background"
    for thing in ("bee", "cat", "key")
    for colour in ("red", "blue", "pink", "gray")
]

INFOS = {
    "gold": MetricInfo("Gold", "0 to 1", "expected utility", "the tiny world"),
    "pickscore": MetricInfo(
        "PickScore (tiny)", "-1 to 1", "cosine", "https://example.org/pickscore", display_factor=100.0
    ),
    "distance": MetricInfo("Distance_%", "0 to 1", "distance", "made up & odd", higher_is_better=False),
}


PUBLISHED_INFOS = {
    "pickscore": MetricInfo("PickScore", "-100 to 100", "cosine x 100", "a paper"),
    "hpsv2": MetricInfo("HPSv2.1", "-1 to 1", "cosine", "a paper", display_factor=100.0),
    "hpsv2.0": MetricInfo("HPSv2.0", "-1 to 1", "cosine", "a paper", display_factor=100.0),
    "imagereward": MetricInfo("ImageReward", "about -3 to 3", "reward", "a paper"),
}
"""Metrics of which papers print scores, for `Lab.infos`."""


CODE = "6803e9e5a1d0"
"""Hash of the code that trained the runs."""
HARNESS = "19af0b58d56e"
"""Hash of the part of it that algorithms share."""


@dataclasses.dataclass
class Lab:
    """Writes run folders as `bench run` does."""

    runs: Path
    protocol: Protocol = dataclasses.field(
        default_factory=lambda: Protocol(
            model="tiny",
            base_weights="abc",
            prompts=prompts_digest(PROMPTS),
            prompt_count=len(PROMPTS),
            generation=GenerationSettings(steps=20, guidance_scale=3, height=64, width=64, images_per_prompt=2),
            parts={"unet": "abc", "vae": "v"},
            code={"own": "i", "harness": "i"},
        )
    )
    identities: dict[str, dict[str, Any]] = dataclasses.field(
        default_factory=lambda: {name: {"version": 1} for name in INFOS}
    )
    infos: Mapping[str, MetricInfo] = dataclasses.field(default_factory=lambda: INFOS)

    def base(self, *, model: str = "tiny", title: str = "base") -> RunFolder:
        """The base model, judged."""
        run = self.base_alone(model=model, title=title)
        self.judge(run, shift=0.0)
        return run

    def base_alone(self, *, model: str = "tiny", title: str = "base") -> RunFolder:
        """The base model, not judged."""
        run = RunFolder(self.runs / model / "base")
        run.begin(RunConfig(model=model, algorithm="base", title=title, resolved=Resolved()))
        return run

    def train(
        self,
        algorithm: str = "dpo",
        seed: int = 0,
        *,
        name: str = "default",
        title: str = "Diffusion-DPO",
        beta: float = 1000.0,
        trained_on: Sequence[str] = (),
        steps: int = 30,
        digest: str = "d",
        labels: str = "l",
        pairs: int = 2000,
        seconds: float = 10.0,
        budget: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        code: Mapping[str, str] | None = None,
        training: Mapping[str, Any] | None = None,
        samples: int = 0,
    ) -> RunFolder:
        """A run that was trained and has its log, but is not judged; ``config`` adds to its configuration, ``training`` to its settings."""
        run = RunFolder(self.runs / "tiny" / algorithm / name / f"seed-{seed}")
        resolved = {
            "algorithm": {"beta": beta},
            "training": {"steps": steps, "budget": budget, **(training or {})},
            "init": self.protocol.base_weights,
            "data": {"digest": digest, "labels": labels, "pairs": pairs},
            "model": {"unet": "abc", "vae": "v"},
            "code": dict(code or {"algorithm": "a", "harness": "h"}),
        }
        values = {
            "model": "tiny", "algorithm": algorithm, "title": title, "name": name, "seed": seed,
            "typed": [], "resolved": resolved, "trained_on": list(trained_on),
            "data": {"source": "/somewhere/votes.parquet", "rows": 2000, "pairs": 2000, "ties_dropped": 0, "undecodable": []},
            **(config or {}),
        }  # fmt: skip
        run.begin(RunConfig.model_validate(values))
        write_json(run.weights / "config.json", {"_class_name": "UNet2DConditionModel"})
        append_lines(run.train_log, [json.dumps(_line(step, seed, algorithm)) for step in range(steps)])
        write_json(
            run.folder / "ledger.json",
            {
                "pairs": 32 * steps, "policy_forwards": 64 * steps, "policy_backwards": 32 * steps,
                "reference_forwards": 64 * steps, "flops": 10**12, "seconds": seconds + seed, "peak_memory_bytes": 10**9 + seed,
                "samples": samples, "reward_calls": 2 * samples,
            },
        )  # fmt: skip
        run.finish()
        return run

    def run(self, algorithm: str = "dpo", seed: int = 0, *, shift: float = 0.2, **options: Any) -> RunFolder:
        """A run that was trained and judged."""
        run = self.train(algorithm, seed, **options)
        self.judge(run, shift=shift)
        return run

    def judge(
        self,
        run: RunFolder,
        *,
        shift: float,
        scores: Mapping[str, np.ndarray[Any, Any]] | None = None,
        done: bool = True,
        place: Evaluation | None = None,
        variant: Variant | None = None,
    ) -> None:
        """Images and scores of a run; ``scores`` by metric, (prompts, images), replace the synthetic ones."""
        evaluation = place or run.evaluation(self.protocol.signature)
        if variant is not None:
            write_json(evaluation.folder / "variant.json", variant.model_dump(mode="json"))
        images = self.protocol.generation.images_per_prompt
        random = np.random.default_rng(abs(hash_of(run.folder.relative_to(self.runs).as_posix())))
        common = np.random.default_rng(7).normal(size=(len(PROMPTS), images))
        write_json(evaluation.folder / "protocol.json", self.protocol.model_dump())
        write_json(evaluation.folder / "prompts.json", PROMPTS)
        evaluation.write_metrics(
            {
                name: MetricRecord(name, self.protocol.metric_signature(name, identity), identity, self.infos[name])
                for name, identity in self.identities.items()
            }
        )
        lines = []
        for name, identity in self.identities.items():
            sign = 1 if self.infos[name].higher_is_better else -1
            noise = 0.0 if shift == 0 else 0.3
            table = 0.2 + 0.1 * (common + sign * shift + noise * random.normal(size=common.shape))
            table = table if scores is None else scores[name]
            signature = self.protocol.metric_signature(name, identity)
            lines += [
                json.dumps(
                    {"prompt_index": p, "image_index": i, "metric": name, "score": score, "signature": signature}
                )
                for (p, i), score in np.ndenumerate(table)
            ]
        append_lines(evaluation.scores, lines)
        evaluation.images.mkdir()
        for p in range(len(PROMPTS)):
            shade = int(80 + 10 * p + 40 * shift)
            Image.new("RGB", (64, 64), (shade, 120, 255 - shade)).save(evaluation.image(p, 0))
        if done:
            evaluation.finish()


def weights(run: RunFolder) -> WeightsRecord:
    """What records say of the weights of a run or of the base model."""
    config = run.config()
    return WeightsRecord(
        title=run.title,
        source=run.folder.name,
        digest=str(run.folder),
        seed=config.seed,
        trained_on=config.trained_on,
    )


def variant(
    run: RunFolder, negative: RunFolder | None = None, *, alpha: float = 1, beta: float = 1, guidance_scale: float = 3
) -> Variant:
    """Sampling of a run with another one as its negative, or with other guidance."""
    other = None if negative is None else weights(negative)
    return Variant(positive=weights(run), negative=other, alpha=alpha, beta=beta, guidance_scale=guidance_scale)


def hash_of(text: str) -> int:
    """A number that depends on the text alone."""
    return int.from_bytes(text.encode()[-8:], "big")


def _line(step: int, seed: int, algorithm: str) -> dict[str, Any]:
    margin = 0.0 if step == 0 else 0.001 * step + 0.01 * seed
    line: dict[str, Any] = {
        "step": step, "loss": 0.6931 - margin, "winner_gap": -margin / 2, "loser_gap": margin / 2, "gradient_norm": 1.0,
        "learning_rate": 1e-4, "pairs": 32 * (step + 1), "seconds": 0.5 * (step + 1), "by_timestep": {"loss": [None] * 10},
    }  # fmt: skip
    return line if algorithm == "sft" else line | {"margin": margin, "accuracy": 0.5 + margin}


def fill(lab: Lab, *, base: str = "base") -> None:
    """Base with a title, `dpo` on three seeds, `smpo` on one (trained on PickScore), `sft` on two."""
    lab.base(title=base)
    for seed in range(3):
        lab.run("dpo", seed, shift=0.3 + 0.02 * seed)
    lab.run("smpo", 0, title="SmPO", shift=0.5, trained_on=["pickscore"])
    for seed in range(2):
        lab.run("sft", seed, title="SFT", shift=-0.6)
