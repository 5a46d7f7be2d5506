"""Edits of one byte or one word on a finished run: harmful ones are noticed by each command that reads what was edited.

``pytest tests/cli/test_edits.py --collect-only -q`` lists them; `EDITS` says what each command does.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workshop import Workshop, preference_columns

CODE = {
    "__init__.py": '"""A plug-in."""\n',
    "loss.py": '''
        """An algorithm."""

        from typing import ClassVar

        import json
        from pathlib import Path

        from torch import Tensor

        from bench import AlgorithmInfo, PairErrors, PairwiseAlgorithm
        from edited.helper import width


        class Edited(PairwiseAlgorithm):
            """A squared hinge."""

            info: ClassVar[AlgorithmInfo] = AlgorithmInfo(title="Edited", paper="none", formula="none", status="an example")

            def loss(self, errors: PairErrors, preference: Tensor) -> Tensor:
                # the margin in units of its width
                factor = json.loads(Path(__file__).with_name("table.json").read_text())["factor"]
                return factor * (1 - errors.margin / width()).relu().square()
        ''',
    "helper.py": "def width() -> float:\n    return 0.002\n",
    "table.json": '{"factor": 1.0}',
    "README.md": "# A plug-in\n",
    "metric.py": '''
        """A metric."""

        from typing import Any, ClassVar

        import torch
        from PIL import ImageStat

        from bench import Metric, MetricInfo


        class Lightness(Metric):
            info: ClassVar[MetricInfo] = MetricInfo(title="lightness", raw_range="0 to 255", unit="level", source="an example")

            @classmethod
            def load(cls, checkpoint: str | None, *, device: torch.device) -> "Lightness":
                return cls()

            def identity(self) -> dict[str, Any]:
                return {"version": 1}

            def score(self, images: Any, prompts: Any) -> torch.Tensor:
                return torch.tensor([ImageStat.Stat(image.convert("L")).mean[0] for image in images])
        ''',
}
ANNOUNCED = "[bench.algorithms]\nedited = edited.loss:Edited\n[bench.metrics]\nlightness = edited.metric:Lightness\n"
RUN = "model-*/edited/*/seed-0"


@dataclasses.dataclass(frozen=True)
class World:
    """A folder with a plug-in, a model, data, prompts and a finished run."""

    folder: Path

    def bench(self, *words: str, fresh: bool = False) -> Any:
        """A command, in a fork of a process that has imported everything, or in a fresh process."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        environment["PYTHONPATH"] = str(self.folder / "plugin")
        if fresh:
            command = [sys.executable, "-m", "bench", *words]
            return subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
            )
        return forked.run(words, self.folder, environment)

    def run(self, *words: str, fresh: bool = False) -> Any:
        sets = ["--set", "steps=1", "--set", "global_batch_size=2", "--set", "warmup_steps=0"]
        data = ["--data", "data/pairs.parquet", "--prompts", "prompts.txt"]
        return self.bench("run", "--algo", "edited", "--model", "model", *data, *sets, *words, fresh=fresh)

    def eval(self) -> Any:
        [run] = self.folder.glob(f"runs/{RUN}")
        place = run.relative_to(self.folder / "runs").as_posix()
        return self.bench("eval", "--model", "model", "--run", place, "--prompts", "prompts.txt")

    def records(self) -> dict[str, str]:
        """All that is kept of results."""
        files = [
            path
            for path in self.folder.glob("runs/model-*/**/*")
            if path.is_file() and path.suffix in (".json", ".jsonl")
        ]
        return {path.relative_to(self.folder).as_posix(): path.read_text() for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, workshop: Workshop) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    package, about = folder / "plugin" / "edited", folder / "plugin" / "edited-1.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    for name, text in CODE.items():
        (package / name).write_text(textwrap.dedent(text).lstrip())
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: edited\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ANNOUNCED)
    shutil.copytree(workshop.model_folder, folder / "model")
    own = {"generation": {"steps": 1}, "metrics": {"lightness": None}}
    (folder / "model" / "bench.json").write_text(json.dumps(own))
    columns = preference_columns(4)
    (folder / "data").mkdir()
    for name in ("jpg_0", "jpg_1"):
        for row, picture in enumerate(columns[name]):
            (folder / "data" / f"{name}-{row}.png").write_bytes(picture)
        columns[name] = [f"{name}-{row}.png" for row in range(4)]
    pq.write_table(pa.table(columns), folder / "data" / "pairs.parquet")
    (folder / "prompts.txt").write_text("a bee\na cat\n")
    done = World(folder).run()
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def world(finished: Path, tmp_path: Path) -> World:
    shutil.copytree(finished, tmp_path / "world")
    return World(tmp_path / "world")


def word(file: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a word, once."""

    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text, text
        (folder / file).write_text(text.replace(old, new, 1))

    return edit


def byte(file: str, place: int) -> Callable[[Path], None]:
    """Change one bit of a byte and set the time of the last write back, as some programs do."""

    def edit(folder: Path) -> None:
        content, about = bytearray((folder / file).read_bytes()), (folder / file).stat()
        content[place] ^= 1
        (folder / file).write_bytes(content)
        os.utime(folder / file, ns=(about.st_atime_ns, about.st_mtime_ns))

    return edit


def added(file: str, text: str = "a word") -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text) and None


def reformatted(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()))) and None


def relabelled(column: str, value: Any) -> Callable[[Path], None]:
    """Another value in the first row of the data."""

    def edit(folder: Path) -> None:
        file = folder / "data" / "pairs.parquet"
        columns = pq.read_table(file).to_pydict()
        columns[column][0] = value
        pq.write_table(pa.table(columns), file)

    return edit


LOSS, UNET, SCHEDULER = "plugin/edited/loss.py", "model/unet/config.json", "model/scheduler/scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"
DONE = "done"  # nothing is trained, generated or scored
RESCORED = "scored again"  # nothing is trained or generated
APART = "a run of its own"  # under another name, beside the first

EDITS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # code: what was edited, what `bench run` does, what `bench eval` does; anything else is what the refusal names
    "loss.py: a sign": (word(LOSS, "1 - errors", "1 + errors"), "algorithm", RESCORED),
    "helper.py: a digit": (word("plugin/edited/helper.py", "0.002", "0.003"), "algorithm", RESCORED),
    "table.json: a digit": (word("plugin/edited/table.json", "1.0", "2.0"), "algorithm", RESCORED),
    "metric.py: a letter": (word("plugin/edited/metric.py", 'convert("L")', 'convert("1")'), "algorithm", RESCORED),
    "loss.py: a comment": (word(LOSS, "in units of", "divided by"), DONE, DONE),
    "loss.py: a docstring": (word(LOSS, "A squared hinge", "The squared hinge"), DONE, DONE),
    "loss.py: formatting": (word(LOSS, "factor * (1", "factor*(1"), DONE, DONE),
    "README of the plug-in": (word("plugin/edited/README.md", "plug-in", "plugin"), DONE, DONE),
    # model
    "scheduler: prediction_type": (word(SCHEDULER, "epsilon", "v_prediction"), "scheduler", "scheduler"),
    "scheduler: a digit of beta_end": (word(SCHEDULER, "0.012", "0.013"), "scheduler", "scheduler"),
    "tokenizer: model_max_length": (word("model/tokenizer/tokenizer_config.json", '"model_max_length": ', '"model_max_length": 1'), "tokenizer", "tokenizer"),
    "autoencoder: scaling_factor": (word("model/vae/config.json", "0.18215", "0.18216"), "vae", "vae"),
    "denoiser: a word of its configuration": (word(UNET, '"act_fn": "silu"', '"act_fn": "gelu"'), "unet", "unet"),
    "text encoder: a digit of its configuration": (word("model/text_encoder/config.json", '"layer_norm_eps": 1e-05', '"layer_norm_eps": 2e-05'), "text_encoder", "text_encoder"),
    "denoiser: a bit of a weight": (byte(f"model/unet/{WEIGHTS}.safetensors", -4), APART, "is a run on the model"),
    "text encoder: a bit of a weight": (byte("model/text_encoder/model.safetensors", -4), APART, "is a run on the model"),
    "README of the model": (added("model/README.md"), DONE, DONE),
    "scheduler: formatting": (reformatted(SCHEDULER), DONE, DONE),
    "denoiser: the version that saved it": (word(UNET, '"_diffusers_version": "0', '"_diffusers_version": "1'), DONE, DONE),
    "weights in another variant": (added(f"model/unet/{WEIGHTS}.fp16.safetensors"), DONE, DONE),
    "a document beside the tokenizer": (added("model/tokenizer/README.txt"), DONE, DONE),
    # data
    "data: a label": (relabelled("label_0", 0.0), APART, DONE),
    "data: a caption": (relabelled("caption", "a cat"), APART, DONE),
    "data: a bit of a picture behind a path": (byte("data/jpg_0-1.png", -13), APART, DONE),
    "README of the data": (added("data/README.md"), DONE, DONE),
    "a picture that no row names": (added("data/other.png"), DONE, DONE),
    "data: the time of a picture": (lambda folder: os.utime(folder / "data" / "jpg_0-2.png"), DONE, DONE),
}  # fmt: skip


def check(world: World, before: dict[str, str], done: Any, expected: str) -> None:
    """Whether a command did what is expected."""
    after = world.records()
    changed = {name for name in before if after.get(name) != before[name]}
    assert not any(name.endswith(("train.jsonl", "config.json", "protocol.json")) for name in changed), changed
    if expected in (DONE, RESCORED, APART):
        assert done.returncode == 0, done.stderr
        new = {name.split("/evaluations/")[0] for name in after.keys() - before.keys()}
        if expected == DONE:
            assert after == before
        elif expected == RESCORED:
            assert {name.rpartition("/")[2] for name in changed} >= {"metrics.json", "scores.jsonl"}
            assert not new - {name.split("/evaluations/")[0] for name in before}
        else:
            assert any("/edited/" in name for name in new), "a run with its own name"
            assert not changed
    else:
        assert done.returncode == 2, done.stdout + done.stderr
        assert expected in done.stderr
        assert "\n" not in done.stderr[done.stderr.index("error: ") :].strip()
        assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_noticed_where_it_matters_and_nowhere_else(world: World, name: str) -> None:
    edit, on_run, on_eval = EDITS[name]
    table = world.bench("report", "--format", "csv")
    edit(world.folder)
    before = world.records()
    assert world.bench("report", "--format", "csv").stdout == table.stdout, "a report reads records alone"
    check(world, before, world.eval(), on_eval)
    check(world, world.records(), world.run(), on_run)


LIBRARIES = {
    "ftfy: another cleaning": (
        "import ftfy\nclean = ftfy.fix_text\nftfy.fix_text = lambda text, *rest, **how: clean(text, *rest, uncurl_quotes=False)\n",
        "libraries",
    ),
    "Pillow: another JPEG decoder": (
        """
        from PIL import JpegImagePlugin

        load = JpegImagePlugin.JpegImageFile.load

        def other(self):
            self.draft("RGB", (self.width // 2, self.height // 2))
            return load(self)

        JpegImagePlugin.JpegImageFile.load = other
        """,
        "libraries",
    ),
    "transformers: another reading of the tokenizer's files": (
        """
        import transformers

        call = transformers.PreTrainedTokenizerBase.__call__

        def other(self, texts, *rest, **how):
            return call(self, [text.replace("don't", "do n't") for text in texts], *rest, **how)

        transformers.PreTrainedTokenizerBase.__call__ = other
        """,
        "differs in tokenizers",
    ),
    "ftfy: another version that does the same": ("import ftfy\nftfy.__version__ = '99'\n", DONE),
}
"""What runs before the command, as a library of another version would be there, and what `bench run` does."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_is_noticed_by_what_it_does(world: World, name: str) -> None:
    program, on_run = LIBRARIES[name]
    (world.folder / "plugin" / "sitecustomize.py").write_text(textwrap.dedent(program))
    check(world, world.records(), world.run(fresh=True), on_run)


def test_a_second_seed_of_changed_code_is_refused_or_declared(world: World) -> None:
    """Old and new code were averaged into one row without a word."""
    word(LOSS, "1 - errors", "1 + errors")(world.folder)
    refused = world.run("--seeds", "0,1")
    assert refused.returncode == 2
    assert "was trained by other code, which differs in algorithm" in refused.stderr
    assert not list(world.folder.glob("runs/*/edited/*/seed-1"))
    named = world.run("--seeds", "1", "--name", "changed")
    assert named.returncode == 0, named.stderr
    declared = world.run("--seeds", "0,1", "--same-code")
    assert declared.returncode == 0, declared.stderr
    again = world.run("--seeds", "0,1")
    assert again.returncode == 0, again.stderr
    report = world.bench("report", "--format", "markdown")
    assert "different code trained its seeds (seed 0 by " in report.stdout
    assert "(changed)" in report.stdout
    [second] = world.folder.glob("runs/*/edited/set-*/seed-1/config.json")
    config = json.loads(second.read_text())
    config["same_code"] = []
    second.write_text(json.dumps(config))
    second.with_name("DONE").write_text("")  # as older versions wrote it, which did not check records
    refused = world.bench("report", "--format", "markdown")
    assert refused.returncode == 2
    assert "are not seeds of the same run: they differ in code.algorithm" in refused.stderr
