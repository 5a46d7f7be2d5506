"""The example files and those of the page: each is a study, and what it will cost is planned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks, files, install

from bench import ALGORITHMS
from bench.experiments.executors.base import make_executor
from bench.experiments.recipes import resolve
from bench.experiments.study_file import StudyFile
from tests.docs.test_examples import bench

EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_planned(path: Path, tmp_path: Path) -> None:
    page = DOCS / "write-an-algorithm.md"
    install(tmp_path, files(page), blocks(page, "toml"))
    study = StudyFile(path).study({})
    shown = bench(tmp_path, "plan", str(path))
    for each in study.configurations():
        (title,) = {
            line.strip()
            for line in shown.splitlines()
            if line.split()[:1] == [each.algorithm] and _named(line, each.overrides)
        }
        assert title.endswith(f"on {study.model[0]}")


def _named(line: str, overrides: dict[str, str]) -> bool:
    return " on " in line and ("(" not in line or all(f"{field}={value}" in line for field, value in overrides.items()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_settings_that_exist(path: Path) -> None:
    study = StudyFile(path).study({})
    for each in study.configurations():
        name = (
            "dpo" if each.algorithm == "squared-hinge" else each.algorithm
        )  # the plug-in of the page has dpo's beta, too
        for model in study.model:
            resolve(name, ALGORITHMS.get(name), model, each.overrides)
    if study.executor is not None:
        make_executor(study.executor)


def test_the_page_shows_the_example_and_files_that_are_studies(tmp_path: Path) -> None:
    shown = blocks(DOCS / "experiments.md", "toml")
    assert shown[0] == (ROOT / "examples" / "readme-study.toml").read_text(encoding="utf-8")
    counts = []
    for text in shown:
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        counts.append(len(list(StudyFile(path).study({}).configurations())))
    assert counts == [6, 4, 1, 1]


def test_the_offline_campaign_has_the_commands_of_its_pages() -> None:
    script = (ROOT / "examples" / "offline-campaign.sh").read_text(encoding="utf-8").splitlines()
    commands = {line.removesuffix(" --jobs 2") for line in script if line.startswith(("bench ", "python "))}
    shown: set[str] = set()
    for page in ("findings", "placebo"):
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        shown |= {line.strip() for line in text.splitlines() if line.startswith("    bench ") and "trial" not in line}
        shown |= set(re.findall(r"`(python docs/[^`]+)`", text))
    assert len(shown) >= 6
    assert shown <= commands


def test_the_online_campaign_has_the_commands_of_its_page() -> None:
    script = (ROOT / "examples" / "online-campaign.sh").read_text(encoding="utf-8").splitlines()
    commands = [line for line in script if line.startswith(("bench ", "python "))]
    page = (DOCS / "findings-online.md").read_text(encoding="utf-8").splitlines()
    shown = [line.strip() for line in page if line.startswith(("    bench ", "    python "))]
    assert shown == commands
