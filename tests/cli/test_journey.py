from __future__ import annotations

import json
import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import forked
import pytest
from PIL import Image

import bench
from tests.cli.conftest import CommandLine, offline

GUARD = """
import os, socket

with open(os.environ["REFUSED"] + ".guarded", "a") as log:
    print(os.getpid(), file=log)

def refuse(self, address):
    with open(os.environ["REFUSED"], "a") as log:
        print(address, file=log)
    raise OSError(f"no connection to {address} in this test")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda host, *rest, **more: refuse(None, host)
"""


@pytest.fixture
def guarded(command: CommandLine) -> dict[str, str]:
    (command.folder / "guard").mkdir()
    (command.folder / "guard" / "sitecustomize.py").write_text(GUARD)
    path = os.pathsep.join(filter(None, [str(command.folder / "guard"), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in offline().items() if name != "HF_HUB_OFFLINE"}
    return {**environment, "PYTHONPATH": path, "REFUSED": str(command.folder / "refused.log")}


def run(command: CommandLine, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=command.folder, env=environment, capture_output=True, text=True, check=False)


def test_the_guard_refuses_a_connection(command: CommandLine, guarded: dict[str, str]) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    words = [command.arguments()[0], "-c", code]
    assert "no connection to" in run(command, words, guarded).stderr
    assert (command.folder / "refused.log").exists()


def test_the_main_job_runs_to_its_table_and_page_without_any_connection(
    command: CommandLine, guarded: dict[str, str]
) -> None:
    words = command.train_words(algo="smpo")
    place = words.index("--metrics")
    trained = run(command, [*words[:place], *words[place + 2 :]], guarded)  # with the model's metrics
    assert trained.returncode == 0, trained.stderr
    assert "training smpo  6/6  in " in trained.stderr  # plain progress lines, since this is not a terminal
    assert "torchvision" not in trained.stderr
    runs = str(command.folder / "runs")
    assert trained.stderr.splitlines()[-1] == f"compare: bench report --runs {runs}"
    shown = forked.run(["report", "--runs", runs], command.folder, guarded)
    assert shown.returncode == 0, shown.stderr
    for word in ("SmPO", "PickScore", "HPSv2", "ImageReward", "gold"):
        assert word in shown.stdout, shown.stdout
    page = command.folder / "report.html"
    made = forked.run(["report", "--runs", runs, "--output", str(page)], command.folder, guarded)
    assert made.returncode == 0, made.stderr
    assert made.stderr == f"wrote {page}\n"
    assert sources(page), "the page shows no picture"
    assert all(source.startswith("data:") for source in sources(page))
    assert len(set((command.folder / "refused.log.guarded").read_text().split())) >= 3
    assert not (command.folder / "refused.log").exists()
    # Records are given away, so they do not say where the package is installed; diffusers' own file beside the weights does.
    records = [path for path in (command.folder / "runs").rglob("*.json*") if path.parent.name != "weights"]
    assert records
    assert [path for path in records if str(Path(bench.__file__).parent) in path.read_text()] == []


def sources(page: Path) -> list[str]:
    found: list[str] = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value or "" for name, value in attrs if name == "src" or (tag == "link" and name == "href"))

    Images().feed(page.read_text())
    return found


@pytest.mark.parametrize("kind", ["algorithms", "metrics", "models", "families"])
def test_list_shows_every_entry_with_its_details(command: CommandLine, kind: str) -> None:
    done = command.run(command.arguments("list", kind, "--verbose"))
    assert done.returncode == 0, done.stderr
    expected = {
        "algorithms": ["dpo", "arXiv 2311.12908", "beta", "recipes, by model", "sdxl"],
        "metrics": [
            "imagereward",
            "HPSv2.0",
            "HPSv2.1",
            "raw range",
            "direction",
            "x 100",
            "/ 26",
            "SD1.4 26.95",
            "1.35 after",
        ],
        "models": ["tiny", "OpenMoji", "guidance_scale 3.0", "stable-diffusion-xl-base-1.0", "FLUX.1 [dev]"],
        "families": ["StableDiffusionXLPipeline", "recipes of   sdxl", "FluxPipeline", "to_add_out"],
    }
    for word in expected[kind]:
        assert word in done.stdout
    assert "broken" not in done.stdout


def test_list_of_an_unknown_kind(command: CommandLine) -> None:
    done = command.run(command.arguments("list", "metric"))
    assert done.returncode == 2
    assert "did you mean 'metrics'" in done.stderr


def test_images_are_made_as_the_command_says(command: CommandLine) -> None:
    words = ("eval", "--model", "tiny", "--prompts", str(command.prompts), "--metrics", "aesthetic")
    done = command.run(command.arguments(*words, "--image", "steps=2", "--image", "height=32", "--image", "width=48"))
    assert done.returncode == 0, done.stderr
    (evaluation,) = command.folder.glob("runs/tiny/base/evaluations/*")
    made = json.loads((evaluation / "protocol.json").read_text())["generation"]
    assert (made["steps"], made["height"], made["width"], made["scheduler"]) == (2, 32, 48, "DDIMScheduler")
    with Image.open(next((evaluation / "images").glob("*.png"))) as image:
        assert image.size == (48, 32)

    for typed, complaint in (
        ("sharpness=3", "sharpness"),
        ("height=33", "multiples of"),
        ("precision=fp8", "precision"),
    ):
        refused = command.run(command.arguments(*words, "--image", typed))
        assert refused.returncode == 2
        assert complaint in refused.stderr
        assert "Traceback" not in refused.stderr
