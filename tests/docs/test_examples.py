"""What the README and the pages show is run as it stands there."""

from __future__ import annotations

import base64
import csv
import http.server
import io
import json
import math
import os
import re
import runpy
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import forked
import pyarrow.parquet as pq
import pytest
import torch
from pages import DOCS, ROOT, blocks, files, install
from PIL import Image, ImageStat
from workshop import preference_columns, write_parquet

from bench.tiny import ASSETS

PROMPTS = ["a bee on a red background", "a cat on a blue background"]


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a command that can import what is installed in ``folder``."""
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


def bench(folder: Path, *arguments: str, errors: bool = False) -> str:
    """The output of a command that can import what is installed in ``folder``, or what it says on standard error."""
    done = forked.run(arguments, folder, surroundings(folder))
    assert done.returncode == 0, done.stderr
    return done.stderr if errors else done.stdout


def test_the_readme_and_the_page_show_the_same_plug_in() -> None:
    (module,) = blocks(ROOT / "README.md", "python")
    assert (
        f"# my_package/squared_hinge.py\n{module}"
        == files(DOCS / "write-an-algorithm.md")["my_package/squared_hinge.py"]
    )
    (table,) = blocks(ROOT / "README.md", "toml")
    assert blocks(DOCS / "write-an-algorithm.md", "toml")[0].startswith(table)


def test_the_algorithms_of_the_page(tmp_path: Path) -> None:
    page = DOCS / "write-an-algorithm.md"
    install(tmp_path, files(page), blocks(page, "toml"))
    names = ["squared-hinge", "margin-free", "both-sides", "soft-labels", "hard-half", "moving-reference", "flooded"]
    assert len(files(page)) == len([*names, "reward-weighted"])
    write_parquet(tmp_path / "pairs.parquet", preference_columns(6))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    sets = ("steps=2", "global_batch_size=6", "micro_batch_size=3", "warmup_steps=0")
    bench(
        tmp_path, "run", "--algo", ",".join(names), "--model", "tiny", "--data", "pairs.parquet", "--prompts", "prompts.txt",
        "--image", "steps=2", "--metrics", "gold", *(word for each in sets for word in ("--set", each)),
    )  # fmt: skip
    losses = {}
    for name in names:
        (log,) = tmp_path.glob(f"runs/tiny/{name}/*/seed-0/train.jsonl")
        losses[name] = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert all(len(steps) == 2 and all(map(math.isfinite, steps)) for steps in losses.values())
    # policy and reference are the same at first: the margin is 0, and so is its median
    first = {name: steps[0] for name, steps in losses.items()}
    assert first["squared-hinge"] == 1.0
    for name in ("soft-labels", "hard-half", "moving-reference", "flooded"):
        assert first[name] == pytest.approx(math.log(2), abs=1e-6), name
    assert first["both-sides"] > 0
    assert first["margin-free"] > 0

    before = set(tmp_path.iterdir())
    assert ", 0 broken, " in bench(tmp_path, "check", "algorithm", "squared-hinge")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.slow  # four minutes of two cores
def test_the_trial_of_the_readme(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.partition("## Several runs, watched live\n")[2].partition("\n## ")[0]
    lines = [shlex.split(line, comments=True) for line in section.splitlines() if line.startswith("    ")]
    commands = [words[1:] for words in lines if words[0] == "bench"]
    assert [words[0] for words in commands] == ["run", "status", "report"]
    _, stands, reported = (bench(tmp_path, *words) for words in commands)
    assert stands.splitlines()[-1].endswith("5 done")
    assert "Trial (--limit 32)" in reported
    assert "(a trial: it says nothing about the methods)" in " ".join(reported.split())  # at 80 columns it wraps
    (watched,) = (words[-1] for words in lines if words[0] == "tensorboard")
    assert len(list((tmp_path / watched).glob("tiny/*/*/seed-*/events.out.tfevents.*"))) == 4


@pytest.mark.slow
def test_the_trial_of_the_placebo_page(tmp_path: Path) -> None:
    page = (DOCS / "placebo.md").read_text(encoding="utf-8")
    section = page.partition("## Run one\n")[2].partition("\n## ")[0]
    commands = [line.split()[1:] for line in section.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["run", "report"]
    (shown,) = blocks(DOCS / "placebo.md", "text")
    said, reported = (bench(tmp_path, *words, errors=words[0] == "run") for words in commands)
    for line in shown.splitlines():
        assert line in said.splitlines()
    (twin,) = tmp_path.glob("trial-placebo/tiny/*/*-placebo/seed-0/config.json")
    config = json.loads(twin.read_text())
    assert (config["algorithm"], config["placebo_of"]) == ("sft", config["name"].removesuffix("-placebo"))
    assert config["resolved"]["training"]["labels"] == "shuffled"
    assert "placebo" in reported


@pytest.mark.slow
def test_the_trial_of_the_online_page(tmp_path: Path) -> None:
    page = (DOCS / "online.md").read_text(encoding="utf-8")
    section = page.partition("## A trial\n")[2].partition("\n## ")[0]
    commands = [line.split()[1:] for line in section.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["run", "report"]
    _, reported = (bench(tmp_path, *words) for words in commands)
    (log,) = tmp_path.glob("trial-ddpo/tiny/ddpo/trial/seed-0/train.jsonl")
    shown = set(re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", page.partition("## What is logged\n")[2], re.MULTILINE))
    names = {name for pair in shown for name in pair} - {
        "",
        "reward_NAME",
        "kl_nats",
        "distance",
        "gradient_norm_by_step",
    }
    for line in log.read_text().splitlines():
        assert names | {"reward_imagereward"} <= json.loads(line).keys()
        assert json.loads(line)["ratio_error"] == 0
    assert "DDPO" in reported


@pytest.mark.slow
def test_the_progress_of_the_online_page(tmp_path: Path) -> None:
    page = (DOCS / "online.md").read_text(encoding="utf-8")
    section = page.partition("## Progress\n")[2].partition("\n## ")[0]
    commands = [line.split()[1:] for line in section.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["run", "report"]
    _, reported = (bench(tmp_path, *words) for words in commands)
    assert "by the training's own sampler" in " ".join(reported.split())


@pytest.mark.slow
def test_the_rounds_of_the_online_page(tmp_path: Path) -> None:
    page = (DOCS / "online.md").read_text(encoding="utf-8")
    section = page.partition("## Rounds of pairs\n")[2].partition("\n## ")[0]
    commands = [line.split()[1:] for line in section.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["run", "report"]
    _, reported = (bench(tmp_path, *words) for words in commands)
    assert "Diffusion-DPO (rounds)" in " ".join(reported.split())


@pytest.mark.slow
def test_the_fitted_judge_of_the_online_page(tmp_path: Path) -> None:
    page = (DOCS / "online.md").read_text(encoding="utf-8")
    section = page.partition("## A reward model in every round\n")[2].partition("\n## ")[0]
    commands = [line.split()[1:] for line in section.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["reward", "run", "report"]
    pq.write_table(pq.read_table(ASSETS / "preferences.parquet").slice(0, 60), tmp_path / "votes.parquet")
    settings = ("steps=1", "global_batch_size=4", "rounds.captions=4", "judge_captions=2", "fit.steps=2", "fit.batch=4")
    sets = [word for each in settings for word in ("--set", each)]
    small = {
        "reward": ("--steps", "2", "--batch", "4"), "run": ("--limit", "30", *sets, "--image", "steps=2"), "report": (),
    }  # fmt: skip
    *_, reported = (bench(tmp_path, *words, *small[words[0]]) for words in commands)
    assert "APO (apo)" in " ".join(reported.split())


@pytest.mark.slow
def test_the_commands_of_the_page_on_reward_models(tmp_path: Path) -> None:
    page = (DOCS / "reward-models.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["reward", "run", "report"]
    pq.write_table(pq.read_table(ASSETS / "preferences.parquet").slice(0, 60), tmp_path / "pairs.parquet")
    small = {
        "reward": ("--steps", "2", "--batch", "4"),
        "run": (
            "--limit",
            "8",
            "--set",
            "steps=1",
            "--set",
            "group=2",
            "--set",
            "global_batch_size=4",
            "--image",
            "steps=2",
        ),
        "report": (),
    }
    *_, reported = (bench(tmp_path, *words, *small[words[0]]) for words in commands)
    assert "PickScore fitted (mine)" in " ".join(reported.split())


def test_the_metrics_of_the_page(tmp_path: Path) -> None:
    page = DOCS / "write-a-metric.md"
    own_python = f'"{sys.version_info.major}.{sys.version_info.minor}"'
    sources = {path: source.replace('"3.11"', own_python) for path, source in files(page).items()}
    install(tmp_path, sources, blocks(page, "toml"))
    (tmp_path / "images").mkdir()
    for level, side in ((10, 8), (30, 400)):
        Image.new("RGB", (side, side), (level, level, level)).save(tmp_path / "images" / f"{level}.png")
        (tmp_path / "images" / f"{level}.txt").write_text("grey")
    bench(tmp_path, "score", "images", "--metrics", "brightness,file-size", "--output", "out.csv")
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    scores = {
        name: [float(row["score"]) for row in rows if row["metric"] == name] for name in ("brightness", "file-size")
    }
    assert scores["brightness"] == [10.0, 30.0]
    small, large = scores["file-size"]
    assert 0 < small < large


def test_the_online_algorithm_of_the_page_is_one_file_and_one_line(tmp_path: Path) -> None:
    page = DOCS / "write-an-algorithm.md"
    (source,) = (text for path, text in files(page).items() if path.endswith("reward_weighted.py"))
    line = 'reward-weighted = "my_package.reward_weighted:RewardWeighted"'
    install(
        tmp_path, {"my_package/reward_weighted.py": source}, [f'[project.entry-points."bench.algorithms"]\n{line}\n']
    )
    sizes = ("steps=2", "group=2", "global_batch_size=4", "micro_batch_size=4", "sampling_steps=2", "trained=1")
    sets = [word for each in ("rewards=gold", *sizes) for word in ("--set", each)]
    bench(
        tmp_path, "run", "--algo", "reward-weighted", "--model", "tiny", "--limit", "8", "--image", "steps=2", "--metrics", "gold",
        "--placebo", *sets,
    )  # fmt: skip
    logs = list(tmp_path.glob("runs/tiny/reward-weighted/*/seed-0/train.jsonl"))
    assert len(logs) == 2
    assert all(math.isfinite(json.loads(each)["loss"]) for log in logs for each in log.read_text().splitlines())

    # Numbers of the paper's loss, by hand: exp(tau r) for r = 1 and -1, errors .02 and .03, distances .001 and .002.
    algorithm = runpy.run_path(str(tmp_path / "my_package" / "reward_weighted.py"))["RewardWeighted"]()
    weights = algorithm.advantages([torch.tensor([[1.0, -1.0]], dtype=torch.float64)])
    losses = weights * torch.tensor([[0.02, 0.03]]).double() + algorithm.alpha * torch.tensor([[0.001, 0.002]]).double()
    assert losses.mean().item() == pytest.approx(0.0270851727, abs=1e-9)


class Brightness(http.server.BaseHTTPRequestHandler):
    """The server of the page's scorer behind HTTP."""

    def do_GET(self) -> None:
        self._answer({"version": 7} if self.path == "/identity" else {})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        images = [Image.open(io.BytesIO(base64.b64decode(each))) for each in sent["images"]]
        assert len(sent["prompts"]) == len(images)
        self._answer([ImageStat.Stat(image.convert("L")).mean[0] for image in images])

    def _answer(self, value: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """No line on standard error for each request."""


def test_the_scorers_behind_http_and_in_an_environment_of_the_page_judge_and_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = DOCS / "write-a-metric.md"
    install(tmp_path, files(page), blocks(page, "toml"))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), (30, 30, 30)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.txt").write_text("grey")
    small = (
        "steps=1",
        "group=2",
        "global_batch_size=4",
        "micro_batch_size=4",
        "sampling_steps=2",
        "trained=1",
        "within=1",
    )
    train = ["run", "--algo", "ddpo", "--model", "tiny", "--limit", "8", "--image", "steps=2", "--metrics", "served"]
    train += [word for each in ("rewards=served,file-size", *small) for word in ("--set", each)]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Brightness) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MY_SCORER", f"http://127.0.0.1:{server.server_port}")
        bench(tmp_path, "score", "images", "--metrics", "served", "--output", "out.csv")
        bench(tmp_path, *train)
        server.shutdown()
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert [float(row["score"]) for row in csv.DictReader(stream)] == [30.0]
    (log,) = (tmp_path / "runs").rglob("train.jsonl")
    line = json.loads(log.read_text())
    assert 0 < line["reward_served"] < 255
    assert line["reward_file-size"] > 0  # by a process of its own
    gone = forked.run(
        ("score", "images", "--metrics", "served", "--output", "again.csv"), tmp_path, surroundings(tmp_path)
    )
    assert gone.returncode == 2
    assert "does not answer" in gone.stderr


def test_the_model_and_the_prompt_set_of_the_page(tmp_path: Path) -> None:
    page = DOCS / "models-and-prompts.md"
    install(tmp_path, files(page), blocks(page, "toml"))
    listed = " ".join(bench(tmp_path, "list").split())
    assert "tiny-gold Tiny, gold only" in listed
    assert "my-captions My captions: 500 prompts, licence: CC0" in listed
    assert listed.count("my-package 1.0") == 2


@pytest.mark.slow
def test_the_commands_of_the_over_optimisation_page(tmp_path: Path) -> None:
    page = (DOCS / "overoptimisation.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("    bench ")]
    assert [words[0] for words in commands] == ["run", "run"]
    small = ("--limit", "8", "--set", "steps=2", "--image", "steps=2", "--metrics", "gold,pickscore")
    for number, words in enumerate(commands):
        bench(tmp_path, *words, *small, "--name", f"shown-{number}")
    reported = bench(tmp_path, "report")
    assert "diversity, %" in reported
    for number in range(2):
        assert f"(shown-{number}), seed 0, on training prompts: " in " ".join(reported.split())
