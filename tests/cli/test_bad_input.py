from __future__ import annotations

import contextlib
import json
import resource
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.cli.ending import finish
from bench.cli.main import refuse_unusable
from bench.core.errors import UserError
from bench.records.runs import RunFolder
from tests.cli.conftest import CommandLine


def refusal(command: CommandLine, words: list[str]) -> str:
    done = command.run(words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_unknown_algorithm_names_the_nearest(command: CommandLine) -> None:
    text = refusal(command, command.train_words(algo="smpoo"))
    assert "unknown algorithm 'smpoo'" in text
    assert "did you mean 'smpo'" in text


def test_the_version_is_shown(command: CommandLine) -> None:
    done = command.run(command.arguments("--version"))
    assert (done.returncode, done.stdout) == (0, f"diffusion-alignment-bench {version('diffusion-alignment-bench')}\n")


def test_unknown_model_names_what_there_is(command: CommandLine) -> None:
    text = refusal(command, command.arguments("run", "--algo", "dpo", "--model", "tinny"))
    assert "unknown model 'tinny'" in text
    assert "'tiny'" in text


def test_unknown_field_names_the_nearest(command: CommandLine) -> None:
    text = refusal(command, command.train_words("--set", "betta=3"))
    assert "dpo has no field 'betta'" in text
    assert "'beta'" in text


def test_a_reward_twice_is_refused_by_every_command_that_takes_settings(command: CommandLine) -> None:
    for name in ("run", "plan"):
        words = command.arguments(name, "--algo", "nft", "--model", "tiny", "--set", "rewards=aesthetic,aesthetic")
        assert "nft: rewards='aesthetic,aesthetic' is not allowed: give each metric once" in refusal(command, words)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--algo", "dpo", "--algo", "npo", "--model", "tiny"),
        ("plan", "--model", "tiny", "--algo=dpo", "--algo", "npo"),
        ("profile", "--algo", "dpo", "--model", "tiny", "--algo", "dpo"),
        ("run", "--seeds", "0", "--algo", "dpo", "--model", "tiny", "--seeds", "1"),
    ],
)
def test_what_is_run_is_listed_once(command: CommandLine, words: tuple[str, ...]) -> None:
    option = "--seeds" if "--seeds" in words else "--algo"
    assert f"{option} is given 2 times; give it once, with commas between the values" in refusal(
        command, command.arguments(*words)
    )


def test_of_other_options_the_last_value_counts(command: CommandLine) -> None:
    words = (
        "run",
        "--algo",
        "dpo",
        "--model",
        "tiny",
        "--metrics",
        "gold",
        "--metrics",
        "aesthetic",
        "--save",
        "a.toml",
    )
    assert command.run(command.arguments(*words)).returncode == 0
    assert 'metrics = ["aesthetic"]' in (command.folder / "a.toml").read_text()


def test_a_stage_of_deepspeed_that_is_not_there(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    assert "ZeRO stage 1 is not supported; use --zero_stage 2" in refusal(command, command.train_words())


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("beta=-1", "beta='-1' is not allowed: input should be greater than 0"),
        ("learning_rate=fast", "learning_rate='fast' is not allowed: give a number"),
        ("beta", "not of the form field=value"),
    ],
)
def test_value_out_of_range_is_refused_by_name(command: CommandLine, setting: str, part: str) -> None:
    assert part in refusal(command, command.train_words("--set", setting))


def test_images_that_cannot_be_made_are_refused_by_name(command: CommandLine) -> None:
    assert "images: steps=0 is not allowed" in refusal(command, command.train_words("--sampling-steps", "0"))
    text = refusal(command, command.train_words("--image", "step=5"))
    assert "images: there is no field 'step': did you mean 'steps'?\n" in text


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (("run", "--limit", "eight"), "--limit", "'eight'"),
        (("run", "--limit", "1"), "--limit", "1"),
        (("plan", "--utilisation", "all"), "--utilisation", "'all'"),
        (("run", "--labels", "mixed"), "--labels", "'mixed'"),
        (("data", "generate", "--count", "some"), "--count", "'some'"),
        (("beta", "much", "--from", "diffusers-sd15"), "value", "'much'"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_sentence(
    command: CommandLine, words: tuple[str, ...], option: str, value: str
) -> None:
    text = refusal(
        command, command.arguments(*words)
    )  # the reason's words are typer's, or pydantic's, of whatever version
    assert text.startswith(f"error: {option} ")
    assert "is not allowed: " in text
    assert value in text
    assert text.count("\n") == 1


def test_an_argument_that_is_missing_is_still_named(command: CommandLine) -> None:
    assert "Missing argument" in refusal(command, command.arguments("beta", "--from", "diffusers-sd15"))


@pytest.mark.parametrize("seeds", ["0,one", "-1", "0,0", ","])
def test_seeds_that_are_no_different_numbers(command: CommandLine, seeds: str) -> None:
    text = refusal(command, command.train_words(f"--seeds={seeds}"))
    assert f"--seeds '{seeds}' is not a list of distinct non-negative integers" in text


def test_standard_error_that_is_full_does_not_change_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        with pytest.raises(SystemExit) as ended:
            finish(UserError("something"))
        monkeypatch.undo()
        assert ended.value.code == 2
        with contextlib.suppress(OSError):
            full.close()


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--algo", "sft", "--model", "tiny", "--metrics", ","),
        ("run", "--algo", "sft", "--model", "tiny", "--track", " , "),
        ("eval", "--model", "tiny", "--metrics", ",,"),
        ("score", ".", "--metrics", ","),
        ("rescore", "--metrics", ","),
        ("data", "score", "pairs.parquet", "--output", "scored.parquet", "--metrics", ","),
        ("data", "rank", "pairs.parquet", "--output", "ranked.parquet", "--judge", ","),
    ],
)
def test_a_list_of_commas_alone_is_not_the_default(command: CommandLine, words: tuple[str, ...]) -> None:
    sentence = f"error: {words[-2]} {words[-1]!r} has no names; give one or more, separated by commas\n"
    assert refusal(command, command.arguments(*words)) == sentence


def test_an_empty_option_is_not_the_default(command: CommandLine) -> None:
    words = ("run", "--algo", "dpo", "--model", "tiny", "--set", "steps=1", "--prompts", "")
    assert "--prompts is empty; give a value" in refusal(command, command.arguments(*words))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["data", "check", "pairs.parquet", "--prompts", ""], "--prompts"),
        (["report", "--against="], "--against"),
        (["report", "--runs", "runs", "--protocol", ""], "--protocol"),
        (["list", "models", ""], "an argument"),
        (["", "list"], "an argument"),
    ],
)
def test_no_command_takes_an_empty_word(words: list[str], what: str) -> None:
    with pytest.raises(UserError, match=f"^{what} is empty; give a value, or leave it out for the default$"):
        refuse_unusable(words)


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_written(command: CommandLine) -> None:
    words = ("run", "--algo", "dpo", "--model", "tiny", "--set", "steps=1", "--runs", "q\udcffuns")
    assert r"--runs is 'q\udcffuns', which is not UTF-8" in refusal(command, command.arguments(*words))
    assert not (command.folder / "q\udcffuns").exists()


def test_words_that_are_not_empty() -> None:
    refuse_unusable(["run", "--set", "beta=", "--set=beta=", "--algo", "dpo", "-", " ", "--print-commands"])


def test_missing_data_file(command: CommandLine) -> None:
    assert "'nowhere.parquet' does not exist" in refusal(command, command.train_words("--data", "nowhere.parquet"))


def test_data_without_a_needed_column(command: CommandLine) -> None:
    table = pq.read_table(command.data).rename_columns(
        ["text" if name == "caption" else name for name in pq.read_schema(command.data).names]
    )
    pq.write_table(table, command.folder / "other.parquet")
    text = refusal(command, command.train_words("--data", str(command.folder / "other.parquet")))
    assert "column 'caption' is missing" in text


def test_labels_out_of_range(command: CommandLine) -> None:
    table = pq.read_table(command.data)
    table = table.set_column(table.schema.get_field_index("label_0"), "label_0", pa.array([2.0] * len(table)))
    pq.write_table(table, command.folder / "other.parquet")
    text = refusal(command, command.train_words("--data", str(command.folder / "other.parquet")))
    assert "label_0 is 2.0 in row 0" in text


@pytest.mark.parametrize("algo", ["dpo", "kto", "npo"])
def test_what_needs_labels_says_so_on_data_without(command: CommandLine, algo: str) -> None:
    path = command.folder / "unlabelled.parquet"
    pq.write_table(pq.read_table(command.data).drop_columns(["label_0"]), path)
    text = refusal(command, command.train_words("--data", str(path), algo=algo))
    assert f"{algo} needs preference pairs, but {path} has no column 'label_0'" in text


def test_what_needs_several_rewards_refuses_one(command: CommandLine) -> None:
    text = refusal(command, command.train_words("--set", "rewards=pickscore", algo="capo"))
    assert "capo: rewards=" in text
    assert "give 2 or more" in text


@pytest.mark.parametrize("algo", ["npo", "self-npo", "seppo"])
def test_what_needs_guidance_says_so_where_there_is_none(command: CommandLine, algo: str) -> None:
    text = refusal(command, command.train_words("--guidance-scale", "1", algo=algo))
    assert f"{algo} needs classifier-free guidance" in text


def test_what_needs_a_reward_refuses_an_unknown_one(command: CommandLine) -> None:
    text = refusal(command, command.train_words("--set", "reward=pickscor", algo="smpo"))
    assert "unknown metric 'pickscor': did you mean 'pickscore'" in text


def test_empty_data(command: CommandLine) -> None:
    pq.write_table(pq.read_table(command.data).slice(0, 0), command.folder / "other.parquet")
    text = refusal(command, command.train_words("--data", str(command.folder / "other.parquet")))
    assert "no preference pair is left of 0 rows" in text


def test_a_run_folder_of_a_newer_version(command: CommandLine, finished: Path) -> None:
    config = finished / "config.json"
    record = json.loads(config.read_text())
    config.write_text(json.dumps({**record, "schema": 999}))
    RunFolder(finished).finish()
    text = refusal(command, command.train_words())
    assert "was written with record schema 999" in text
    assert json.loads(config.read_text())["schema"] == 999


def test_the_same_name_with_other_settings_is_refused(command: CommandLine, finished: Path) -> None:
    text = refusal(command, command.train_words("--name", finished.parent.name, "--set", "beta=77"))
    assert "algorithm.beta" in text
    assert "77.0" in text


def test_the_same_name_on_other_labels_is_refused(command: CommandLine, finished: Path) -> None:
    table = pq.read_table(command.data)
    flipped = pa.array([1 - label for label in table["label_0"].to_pylist()])
    pq.write_table(
        table.set_column(table.schema.get_field_index("label_0"), "label_0", flipped), command.folder / "x.parquet"
    )
    text = refusal(
        command, command.train_words("--name", finished.parent.name, "--data", str(command.folder / "x.parquet"))
    )
    assert "data.labels" in text


@pytest.mark.parametrize("metric", ["imagereward", "nope"])
def test_embeddings_of_a_metric_without_them_are_refused(command: CommandLine, metric: str) -> None:
    text = refusal(command, command.train_words("--set", f"features={metric}", algo="rpo"))
    assert metric in text
    assert not list(command.folder.glob("runs/tiny/base/evaluations/*"))


@pytest.mark.slow
def test_a_full_disk_while_saving_keeps_what_was_there(command: CommandLine) -> None:
    def two_megabytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))

    done = command.run(command.train_words(), preexec=two_megabytes)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    base = list(command.folder.glob("runs/tiny/base/evaluations/*/DONE"))
    assert len(base) == 1
    continued = command.run(command.train_words())
    assert continued.returncode == 0, continued.stderr


@pytest.mark.parametrize("runs", ["a.txt", "/sys/runs"])
def test_a_runs_folder_that_cannot_be_made(command: CommandLine, runs: str) -> None:
    (command.folder / "a.txt").write_text("a bee\n")
    for words in (
        command.train_words("--runs", runs),
        command.arguments("eval", "--model", "tiny", "--prompts", str(command.prompts), "--runs", runs),
        command.arguments("data", "check", str(command.data), "--runs", runs),
    ):
        text = refusal(command, words)
        assert f"error: {runs}/" in text
        assert "give another --output or --runs" in text
    assert (command.folder / "a.txt").read_text() == "a bee\n"


@pytest.mark.parametrize("parent", ["a.txt", "/sys"])
def test_an_output_that_cannot_be_written(command: CommandLine, parent: str) -> None:
    (command.folder / "a.txt").write_text("a bee\n")
    (command.folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(command.folder / "images" / "0.png")
    scorer = ("--metrics", "gold", "--model", "tiny")
    data = str(command.data)
    for words in (
        ["score", "images", "--prompts", "a.txt", *scorer, "--output", f"{parent}/x.csv"],
        ["data", "score", data, *scorer, "--output", f"{parent}/x.parquet"],
        ["data", "rank", data, "--judge", "gold", "--model", "tiny", "--output", f"{parent}/x.parquet"],
        ["data", "generate", "--model", "tiny", "--prompts", "a.txt", "--count", "2", "--sampling-steps", "2",
         "--output", f"{parent}/x.parquet"],
    ):  # fmt: skip
        text = refusal(command, command.arguments(*words))
        assert parent in text
        assert "give another --output or --runs" in text
    assert (command.folder / "a.txt").read_text() == "a bee\n"


def test_report_of_an_empty_folder(command: CommandLine) -> None:
    (command.folder / "empty").mkdir()
    refusal(command, command.arguments("report", "--runs", str(command.folder / "empty")))


def test_report_refuses_two_protocols_and_names_the_field(command: CommandLine, finished: Path, tmp_path: Path) -> None:
    assert command.run(command.train_words("--guidance-scale", "2")).returncode == 0
    text = refusal(command, command.arguments("report", "--runs", str(tmp_path / "runs")))
    assert "guidance_scale" in text
    assert "--protocol" in text
