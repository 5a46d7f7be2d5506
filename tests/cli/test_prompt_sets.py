"""Prompt sets: from a hub, from its cache, and not at all, by the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import local_hub, nowhere

from bench.prompts.sets import PROMPT_SETS

PRINT = """
import sys
from bench.prompts.sets import find_prompts
for name in sys.argv[1:]:
    print(*find_prompts(name)[::799], sep="|")
"""
SHOW = "from bench.cli.main import main; import sys; main()"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datasets of the prompt sets in their own layouts, with prompts made up."""
    folder = tmp_path_factory.mktemp("hub") / "datasets"
    parti = folder / "nateraw" / "parti-prompts"
    parti.mkdir(parents=True)
    rows = [f"parti {number}\tAbstract\tBasic\t" for number in range(1632)]
    (parti / "PartiPrompts.tsv").write_text("Prompt\tCategory\tChallenge\tNote\n" + "\n".join(rows) + "\n")
    benchmark = folder / "zhwang" / "HPDv2" / "benchmark"
    benchmark.mkdir(parents=True)
    for style in ("anime", "concept-art", "paintings", "photo", "drawbench"):
        (benchmark / f"{style}.json").write_text(json.dumps([f"{style} {number}" for number in range(800)]))
    pick = folder / "yuvalkirstain" / "pickapic_v2_no_images" / "data"
    pick.mkdir(parents=True)
    for split, count in (("validation", 700), ("validation_unique", 500), ("test_unique", 500)):
        captions = [f"{split} {number}" for number in range(count)]
        table = pa.table({"caption": captions, "image_0_uid": captions, "label_0": [1.0] * count})
        pq.write_table(table, pick / f"{split}-00000-of-00001-abc.parquet")
    return folder.parent


@pytest.fixture
def run(hub: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """``run(program, *words)`` with a hub that answers; ``run(..., reachable=False)`` with none, but the same cache."""
    with local_hub(hub, tmp_path / "cache") as environment:

        def start(program: str, *words: str, reachable: bool = True) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=tmp_path,
                env=environment if reachable else nowhere(tmp_path / "cache"),
            )  # fmt: skip

        yield start


Run = Callable[..., subprocess.CompletedProcess[str]]


SAMPLES = {
    "partiprompts": "parti 0|parti 799|parti 1598",
    "hpdv2": "anime 0|anime 799|concept-art 798|paintings 797|photo 796",
    "hpdv2-photo": "photo 0|photo 799",
    "pickapic-validation": "validation_unique 0",
    "pickapic-test": "test_unique 0",
}


def test_sets_are_downloaded_once_in_their_own_order(run: Run, tmp_path: Path) -> None:
    first = run(PRINT, *SAMPLES)
    assert first.stdout.splitlines() == list(SAMPLES.values()), first.stderr
    again = run(PRINT, *SAMPLES, reachable=False)
    assert again.stdout.splitlines() == list(SAMPLES.values()), again.stderr
    cached = [path.name for path in (tmp_path / "cache").rglob("snapshots/*/**/*") if path.is_file()]
    assert "drawbench.json" not in cached
    assert not [file for file in cached if file.startswith("validation-")]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = (line for line in done.stderr.splitlines() if line and not line.startswith("Fetching"))
    return sentence


def test_without_a_network_and_a_copy_the_evaluation_says_what_to_do(run: Run) -> None:
    text = refusal(run(SHOW, "eval", "--model", "tiny", "--prompts", "partiprompts", reachable=False))
    assert "the prompt set 'PartiPrompts' cannot be downloaded from the hub: the hub cannot be reached" in text
    assert "the cache has no complete copy of nateraw/parti-prompts; connect, or give a local copy" in text


@pytest.mark.slow
def test_a_copy_that_lacks_another_style(run: Run) -> None:
    assert run(PRINT, "hpdv2-anime").returncode == 0
    text = refusal(run(SHOW, "eval", "--model", "tiny", "--prompts", "hpdv2-photo", reachable=False))
    assert "the cache has no complete copy of zhwang/HPDv2" in text


@pytest.mark.slow
def test_a_dataset_that_has_changed_is_refused(run: Run, hub: Path) -> None:
    path = hub / "datasets" / "nateraw" / "parti-prompts" / "PartiPrompts.tsv"
    text = path.read_text()
    path.write_text(text + "one more\tAbstract\tBasic\t\n")
    try:
        told = refusal(run(SHOW, "eval", "--model", "tiny", "--prompts", "partiprompts"))
    finally:
        path.write_text(text)
    assert "nateraw/parti-prompts holds 1633 prompts for the set 'PartiPrompts', not 1632" in told


def test_the_listing_shows_source_count_digest_policy_and_licence(run: Run) -> None:
    shown = " ".join(run(SHOW, "list", "prompts", "-v").stdout.split())
    for name in PROMPT_SETS:
        entry = PROMPT_SETS.get(name)
        for part in (
            name,
            entry.source,
            f"{entry.count}; {entry.note}",
            entry.licence,
            "known once downloaded" if not entry.local else "digest",
        ):
            assert part in shown
