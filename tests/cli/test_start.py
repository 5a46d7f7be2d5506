"""What a new user types first."""

from __future__ import annotations

import subprocess
import sys

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
