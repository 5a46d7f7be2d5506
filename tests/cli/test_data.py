"""`bench data` in a subprocess: from prompts to candidates to ranked and scored pairs on which a run trains."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine, offline

COUNT = 3
STEPS = "2"


@pytest.fixture(scope="session")
def candidates(tmp_path_factory: pytest.TempPathFactory, small_data: tuple[Path, Path]) -> Path:
    line = CommandLine(tmp_path_factory.mktemp("candidates"), *small_data)
    prompts = line.folder / "captions.txt"
    prompts.write_text("\n".join([*(ASSETS / "prompts.txt").read_text().splitlines()[:5], "a bee on a red background"]))
    done = line.run(generate_words(line, prompts))
    assert done.returncode == 0, done.stderr
    return line.folder / "candidates.parquet"


def generate_words(line: CommandLine, prompts: Path, *words: str) -> list[str]:
    return line.arguments(
        "data", "generate", "--model", "tiny", "--prompts", str(prompts), "--count", str(COUNT),
        "--sampling-steps", STEPS, "--output", "candidates.parquet", *words,
    )  # fmt: skip


def provenance(path: Path) -> list[dict[str, object]]:
    steps: list[dict[str, object]] = json.loads(pq.read_schema(path).metadata[b"bench.provenance"])
    return steps


def test_generate_makes_lists_with_their_maker_and_is_not_repeated(command: CommandLine, candidates: Path) -> None:
    table = pq.read_table(candidates)
    assert table.column_names == ["caption", *(f"jpg_{i}" for i in range(3)), *(f"source_{i}" for i in range(3))]
    assert table.num_rows == 6
    assert len({image for place in range(COUNT) for image in table[f"jpg_{place}"].to_pylist()}) == 18
    assert set(table["source_2"].to_pylist()) == {"tiny"}
    (step,) = provenance(candidates)
    assert (step["command"], step["model"], step["count"]) == ("data generate", "tiny", 3)
    there = CommandLine(candidates.parent, command.data, command.prompts)
    before = candidates.stat().st_mtime_ns
    prompts = candidates.parent / "captions.txt"
    assert there.run(generate_words(there, prompts)).returncode == 0
    assert candidates.stat().st_mtime_ns == before
    other = there.run(generate_words(there, prompts, "--seed", "1"))
    assert other.returncode == 2
    assert "differs in generation.seed (0 and 1)" in other.stderr
    assert not list(candidates.parent.glob(".*.partial"))


def test_ranked_pairs_are_trained_on_and_the_judge_is_marked(command: CommandLine, candidates: Path) -> None:
    words = ("data", "rank", str(candidates), "--judge", "pickscore", "--model", "tiny", "--output", "pairs.parquet")
    done = command.run(command.arguments(*words))
    assert done.returncode == 0, done.stderr
    assert "note: pickscore also evaluates tiny" in done.stderr
    pairs = pq.read_table(command.folder / "pairs.parquet").to_pydict()
    for row, label in enumerate(pairs["label_0"]):
        one, other = pairs["score_pickscore_0"][row], pairs["score_pickscore_1"][row]
        assert label == (one > other), row
    log = (command.folder / "pairs.comparisons.jsonl").read_text().splitlines()
    assert {json.loads(line)["verdict"] for line in log} <= {"first", "second", "tie"}
    assert [step["command"] for step in provenance(command.folder / "pairs.parquet")] == ["data generate", "data rank"]
    prompts = str(candidates.parent / "captions.txt")
    trained = command.run(command.train_words("--data", "pairs.parquet", "--prompts", prompts))
    assert trained.returncode == 0, trained.stderr
    (config,) = command.folder.glob("runs/tiny/dpo/*/seed-0/config.json")
    assert json.loads(config.read_text())["trained_on"] == ["pickscore"]


@pytest.mark.parametrize("column", ["source_0", "score_beauty_0"])
def test_pairs_of_lists_whose_sources_or_scores_were_corrected_are_not_passed_off(
    command: CommandLine, candidates: Path, column: str
) -> None:
    table = pq.read_table(candidates)
    for name in (f"score_beauty_{place}" for place in range(COUNT)):
        table = table.append_column(name, [[0.5] * table.num_rows])
    pq.write_table(table, command.folder / "lists.parquet")
    words = ("data", "rank", "lists.parquet", "--judge", "aesthetic", "--model", "tiny", "--output", "pairs.parquet")
    assert command.run(command.arguments(*words)).returncode == 0
    assert command.run(command.arguments(*words)).returncode == 0
    values = ["corrected" if column == "source_0" else 0.75] * table.num_rows
    table = table.set_column(table.column_names.index(column), column, [values])
    pq.write_table(table, command.folder / "lists.parquet")
    done = command.run(command.arguments(*words))
    assert done.returncode == 2
    assert "pairs.parquet holds data that differs in labels_of_data" in done.stderr


def test_pareto_pairs_are_better_under_every_metric(command: CommandLine, candidates: Path) -> None:
    words = ("data", "rank", str(candidates), "--method", "pareto", "--metrics", "pickscore,hpsv2", "--model", "tiny")
    done = command.run(command.arguments(*words, "--output", "pairs.parquet"))
    assert done.returncode == 0, done.stderr
    pairs = pq.read_table(command.folder / "pairs.parquet").to_pydict()
    for name in ("pickscore", "hpsv2", "calibrated"):
        differences = zip(pairs[f"score_{name}_0"], pairs[f"score_{name}_1"], pairs["label_0"], strict=True)
        assert all((one > other) == (label == 1) for one, other, label in differences), name


def test_score_adds_columns_and_labels(command: CommandLine) -> None:
    words = ("data", "score", str(command.data), "--metrics", "pickscore", "--labels", "pickscore")
    own = ("--checkpoint", f"pickscore={ASSETS / 'scorers' / 'pickscore'}", "--output", "scored.parquet")
    done = command.run(command.arguments(*words, *own))
    assert done.returncode == 0, done.stderr
    assert "0 of 48 pairs have equal pickscore scores: ties" in done.stderr
    before, after = (
        pq.read_table(command.data).to_pydict(),
        pq.read_table(command.folder / "scored.parquet").to_pydict(),
    )
    assert all(after[name] == before[name] for name in before if name != "label_0")
    assert after["label_0"] == [
        float(one > other) for one, other in zip(after["score_pickscore_0"], after["score_pickscore_1"], strict=True)
    ]
    (step,) = provenance(command.folder / "scored.parquet")
    assert step["judges"] == ["pickscore"]


@pytest.mark.parametrize("words", [["rank", "--judge", "gold"], ["score", "--metrics", "gold"]])
def test_the_input_is_no_output(command: CommandLine, words: list[str]) -> None:
    before = command.data.read_bytes()
    done = command.run(
        command.arguments("data", words[0], str(command.data), *words[1:], "--output", str(command.data))
    )
    assert done.returncode == 2
    assert f"error: --output {command.data} is the input; choose another --output\n" in done.stderr
    assert command.data.read_bytes() == before


@pytest.mark.parametrize("words", [["rank", "--judge", "gold"], ["score", "--metrics", "gold"]])
@pytest.mark.parametrize("output", ["pairs/scored.parquet", "pairs/more/scored.parquet", "other/../pairs/x.parquet"])
def test_an_output_does_not_become_data(command: CommandLine, words: list[str], output: str) -> None:
    (command.folder / "pairs").mkdir()
    (command.folder / "other").mkdir()
    shutil.copy(command.data, command.folder / "pairs")
    done = command.run(command.arguments("data", words[0], "pairs", *words[1:], "--model", "tiny", "--output", output))
    assert done.returncode == 2
    assert f"error: --output {output} is in pairs and would become a part of the data; choose a" in done.stderr
    assert [path.name for path in (command.folder / "pairs").rglob("*")] == [command.data.name]


def test_the_prompts_are_no_output(command: CommandLine, candidates: Path) -> None:
    before = candidates.read_bytes()
    words = ("--model", "tiny", "--prompts", str(candidates), "--count", "2", "--output", str(candidates))
    done = command.run(command.arguments("data", "generate", *words))
    assert done.returncode == 2
    assert f"error: --output {candidates} is the input; choose another --output" in done.stderr
    assert candidates.read_bytes() == before


class TestCheck:
    def test_the_tiny_world(self, command: CommandLine) -> None:
        done = command.run(command.arguments("data", "check", str(command.data), "--model", "tiny"))
        assert done.returncode == 0, done.stderr
        for words in ("rows                                   48", "0 of 200", "64x64: 96", "tiny: 96", "train: 48"):
            assert words in done.stdout, words

    def test_a_folder_says_which_files_were_read_and_which_were_left(self, command: CommandLine) -> None:
        folder, elsewhere = command.folder / "mine", command.folder / "elsewhere"
        for name in ("a.parquet", "more/b.parquet", ".hidden/c.parquet", "._a.parquet"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(command.data, folder / name)
        for name in ("notes.txt", "1.png", "2.png", "README", "d.PARQUET"):
            (folder / name).touch()
        elsewhere.mkdir()
        shutil.copy(command.data, elsewhere / "e.parquet")
        (folder / "link").symlink_to(elsewhere)
        done = command.run(command.arguments("data", "check", "mine"))
        assert done.returncode == 0, done.stderr
        text = " ".join(done.stdout.split())
        assert "files read 2: a.parquet, more/b.parquet" in text
        for part in (
            "2 hidden: ._a.parquet, .hidden/c.parquet",
            "1 links to folders, not followed, or to nothing: link",
            "2 with suffix .png: 1.png, 2.png",
            "1 with suffix .txt: notes.txt",
            "1 with suffix .PARQUET: d.PARQUET",
            "1 without suffix: README",
        ):
            assert part in text
        assert f"rows {2 * 48}" in text

    def test_images_that_rows_name_were_read(self, command: CommandLine) -> None:
        folder = command.folder / "mine"
        folder.mkdir()
        for name in ("0.png", "1.png", "2.png"):
            Image.new("RGB", (64, 64), "red" if name == "1.png" else "blue").save(folder / name)
        row = {"caption": "a bee", "image_0": "0.png", "image_1": "1.png", "label_0": 1}
        (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
        done = command.run(command.arguments("data", "check", "mine"))
        text = " ".join(done.stdout.split())
        assert "files read 3: 0.png, 1.png, metadata.jsonl" in text
        assert "files left out 1 with suffix .png: 2.png" in text

    def test_unusable_data_are_shown_and_end_in_2(self, command: CommandLine) -> None:
        table = pq.read_table(command.data)
        broken = [b"broken"] * 2 + table["jpg_0"].to_pylist()[2:]
        pq.write_table(table.set_column(1, "jpg_0", [broken]), command.folder / "broken.parquet")
        done = command.run(command.arguments("data", "check", "broken.parquet"))
        assert done.returncode == 2
        assert "2: row 0 jpg_0, row 1 jpg_0" in done.stdout
        assert "2 of 48 rows have images that cannot be decoded" in done.stderr
        assert "Traceback" not in done.stderr

    def test_other_columns(self, command: CommandLine) -> None:
        names = [{"caption": "text", "jpg_0": "chosen"}.get(name, name) for name in pq.read_schema(command.data).names]
        pq.write_table(pq.read_table(command.data).rename_columns(names), command.folder / "other.parquet")
        words = command.arguments("data", "check", "other.parquet")
        refused = command.run(words)
        assert refused.returncode == 2
        assert "column 'caption' is missing" in refused.stderr
        assert "--columns" in refused.stderr
        assert command.run([*words, "--columns", "caption=text,jpg_0=chosen"]).returncode == 0

    TYPED = "caption=text,jpg_0=chosen,jpg_1=rejected"

    def chosen_and_rejected(self, command: CommandLine) -> str:
        table = pq.read_table(command.data)
        names = {"caption": "text", "jpg_0": "chosen", "jpg_1": "rejected"}
        pairs = table.select(list(names)).rename_columns(list(names.values()))
        pq.write_table(pairs, command.folder / "other.parquet")
        return "other.parquet"

    def test_chosen_and_rejected_need_no_column_of_labels(self, command: CommandLine) -> None:
        check = command.arguments("data", "check", self.chosen_and_rejected(command), "--model", "sdxl", "--columns")
        unlabelled = command.run([*check, self.TYPED])
        assert unlabelled.returncode == 0
        assert "none; most algorithms need label_0, and --columns label_0=1 says" in unlabelled.stdout
        assert "not looked for: sdxl has no default prompts, use --prompts" in unlabelled.stdout
        labelled = command.run([*check, f"{self.TYPED},label_0=1"])
        assert "image 0 is preferred in 100.0 % of 48 pairs" in labelled.stdout

    @pytest.mark.slow
    def test_chosen_and_rejected_are_trained_on(self, command: CommandLine) -> None:
        data = self.chosen_and_rejected(command)
        trained = command.run(command.train_words("--data", data, "--columns", f"{self.TYPED},label_0=1"))
        assert trained.returncode == 0, trained.stderr


class TestHub:
    def run(self, command: CommandLine, source: str) -> tuple[int, str]:
        environment = {
            **offline(),
            "HF_HOME": str(command.folder / "hf"),
            "HF_HUB_CACHE": str(command.folder / "hf" / "hub"),
        }
        words = command.arguments("data", "check", source)
        done = subprocess.run(words, cwd=command.folder, env=environment, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def test_a_cached_dataset_is_read_without_a_network(self, command: CommandLine) -> None:
        repository = command.folder / "hf" / "hub" / "datasets--somebody--pairs"
        commit = "0" * 40
        data = repository / "snapshots" / commit / "data"
        data.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        table = pq.read_table(command.data)
        pq.write_table(table.slice(0, 30), data / "train-00000-of-00002.parquet")
        pq.write_table(table.slice(30, 10), data / "train-00001-of-00002.parquet")
        pq.write_table(table.slice(40), data / "test-00000-of-00001.parquet")
        code, text = self.run(command, "somebody/pairs")
        assert code == 0, text
        assert "64x64: 80" in text
        code, text = self.run(command, "somebody/pairs:test")
        assert code == 0, text
        assert "64x64: 16" in text

    def test_without_a_network_and_a_cached_copy_one_sentence_says_so(self, command: CommandLine) -> None:
        code, text = self.run(command, "somebody/pairs")
        assert code == 2
        assert "'somebody/pairs' is not a local path and cannot be downloaded from the hub" in text
