"""What a new user types first."""

from __future__ import annotations

import subprocess
import sys

import pytest
from terminal import on_terminal

from tests.cli.conftest import CommandLine, offline

LOADED = """
import sys
from bench.cli.main import main
sys.argv = ["bench", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def libraries(*words: str) -> set[str]:
    """The top-level modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words], env=offline(), capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_bench_alone_says_where_to_start(command: CommandLine) -> None:
    done = command.run(command.arguments())
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("bench list", "bench run --algo dpo --model tiny", "bench report", "bench --help"):
        assert words in done.stdout


@pytest.mark.parametrize("words", [(), ("list",), ("data", "score")])
def test_h_is_help(command: CommandLine, words: tuple[str, ...]) -> None:
    long, short = (command.run(command.arguments(*words, option)) for option in ("--help", "-h"))
    assert short.returncode == 0, short.stderr
    assert short.stdout == long.stdout != ""


def test_the_limit_of_an_evaluation_is_of_prompts_alone(command: CommandLine) -> None:
    assert "training pairs" not in command.run(command.arguments("eval", "--help")).stdout
    assert "training pairs" in command.run(command.arguments("run", "--help")).stdout


def test_an_error_is_wrapped_between_words_on_a_terminal_and_one_line_elsewhere(command: CommandLine) -> None:
    words = command.arguments("list", "prompts", "partiprompt")
    piped = command.run(words).stderr.rstrip("\n")
    assert piped.count("\n") == 0
    assert len(piped) > 80
    shown = on_terminal(words, {**offline(), "TERM": "dumb", "COLUMNS": "100"}).splitlines()
    assert max(map(len, shown)) <= 80
    assert " ".join(shown) == piped


def test_a_page_is_not_written_to_a_terminal(command: CommandLine) -> None:
    shown = on_terminal(command.arguments("report", "--format", "html"), {**offline(), "TERM": "dumb"})
    assert shown.strip() == "error: an HTML page is not for a terminal; add --output report.html"


def test_a_help_text_needs_neither_torch_nor_numpy() -> None:
    for words in ((), ("--help",), ("run", "--help"), ("data", "--help"), ("plan", "--help")):
        loaded = libraries(*words)
        assert "typer" in loaded
        assert not loaded & {"torch", "numpy", "pyarrow", "transformers", "diffusers"}, words


def test_a_listing_loads_what_states_the_entries_and_no_more() -> None:
    loaded = libraries("list")
    assert {"algorithms", "metrics"} <= loaded
    heavy = {"accelerate", "diffusers", "transformers", "peft", "pandas", "scipy", "matplotlib", "sympy"}
    assert not loaded & heavy
