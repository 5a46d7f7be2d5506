"""Python environments for scorers, built once and kept in the user's cache folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from bench.core.errors import UserError
from bench.core.files import read_json, replace_folder, sweep, write_json
from bench.core.locks import exclusive
from bench.core.terminal import Terminal
from bench.core.values import digest

FACTS = "environment.json"
TOOLS = ("pip", "setuptools")
"""What every new environment contains, in versions that vary between machines and do not affect scores."""
DESCRIBE = f"""\
import importlib.metadata, json, sys
packages = {{item.metadata["Name"]: item.version for item in importlib.metadata.distributions()}}
packages = {{name: version for name, version in sorted(packages.items()) if name not in {TOOLS}}}
print(json.dumps({{"python": "%d.%d" % sys.version_info[:2], "packages": packages}}))
"""
OURS = ("PIP_CONSTRAINT", "PYTHONHOME", "PYTHONPATH")
"""Variables that describe the current environment and would break another one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Environment:
    """What an `IsolatedMetric` needs installed; built once, with pip, in the user's cache folder.

    Attributes:
        python: version of the interpreter, ``3.8`` or later, for example ``3.11``; it must be installed.
        requirements: as pip takes them; pin them, otherwise two machines have different signatures.
        unresolved: installed last, without their dependencies: packages whose own pins cannot be met.
    """

    python: str
    requirements: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class BuiltEnvironment:
    """An environment on disk."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def identity(self) -> dict[str, Any]:
        """``python`` and ``packages``: the versions that were installed, for the record."""
        facts: dict[str, Any] = read_json(self.folder / FACTS)
        return facts


def built(title: str, environment: Environment) -> BuiltEnvironment:
    """The environment, built at the first call; concurrent processes wait for the one that builds it.

    Args:
        title: what messages call the scorer that needs it.
        environment: what it needs.

    Raises:
        UserError: the interpreter is not installed, or pip failed.
    """
    folder = cache_folder() / digest(dataclasses.asdict(environment))
    with exclusive(folder.with_suffix(".lock"), f"builds the environment of {title}", wait=True):
        if not folder.exists():
            sweep(folder.parent, f"{folder.name}*")
            log = folder.with_suffix(".log")
            console = Terminal(stderr=True)
            console.print(
                f"building the environment of {title}, once; see {log}", markup=False, highlight=False, soft_wrap=True
            )
            replace_folder(folder, lambda partial: _build(title, environment, partial, log))
    return BuiltEnvironment(folder)


def cache_folder() -> Path:
    """Where environments are kept, in the user's cache folder: on Linux under ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    return user_cache_path("diffusion-alignment-bench", appauthor=False) / "environments"


def interpreter(title: str, version: str) -> str:
    """A Python of that version: the running one, or ``python<version>`` on the PATH.

    Raises:
        UserError: there is none.
    """
    for candidate in (sys.executable, shutil.which(f"python{version}")):
        if candidate is not None and _version(candidate) == version:
            return candidate
    raise UserError(
        f"{title} needs its own environment with Python {version}, which is not on this machine; install it so "
        f"that python{version} is on the PATH"
    )


def _version(python: str) -> str:
    ask = [python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def _build(title: str, environment: Environment, folder: Path, log: Path) -> None:
    python = interpreter(title, environment.python)
    # Scripts in the environment contain the path it was built at, but only its interpreter is used, which can be moved.
    install = [str(BuiltEnvironment(folder).python), "-I", "-m", "pip", "install", "--no-input"]
    with log.open("w+", encoding="utf-8") as stream:
        _run([python, "-I", "-m", "venv", str(folder)], title, stream)
        if environment.requirements:
            _run([*install, *environment.requirements], title, stream)
        if environment.unresolved:
            _run([*install, "--no-deps", *environment.unresolved], title, stream)
    ask = [str(BuiltEnvironment(folder).python), "-I", "-c", DESCRIBE]
    facts = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    write_json(folder / FACTS, json.loads(facts))


def _run(command: Sequence[str], title: str, log: Any) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=foreign_variables(), check=False
    )
    if done.returncode:
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        reason = (errors or lines or [f"exit code {done.returncode}"])[-1]
        raise UserError(
            f"the environment of {title} could not be built ({reason}); check that the package index can be reached and "
            f"run the same command again; the output is in {log.name}"
        )


def foreign_variables() -> dict[str, str]:
    """The variables for a process in another environment: those of this process, without those that describe its environment."""
    return {name: value for name, value in os.environ.items() if name not in OURS}
