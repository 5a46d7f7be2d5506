"""The environment of a run."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from bench.core.files import write_json
from bench.records.runs import ENVIRONMENT, RunFolder


def write_environment(run: RunFolder, processes: int, execution: Mapping[str, Any]) -> None:
    """Write the environment of the run's latest start: packages, Python, device, processes, git commit, execution settings."""
    import torch

    write_json(
        run.folder / ENVIRONMENT,
        {
            "python": sys.version,
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "processes": processes,
            "execution": dict(execution),
            "git": _git_commit(),
            "packages": dict(_packages()),
        },
    )


@functools.cache  # hundreds of files, which a process has imported from
def _packages() -> Mapping[str, str]:
    """The versions of all installed packages by name, in order."""
    about = [item.metadata for item in distributions()]
    return dict(sorted((each["Name"], each["Version"]) for each in about))


def _git_commit() -> str | None:
    """The commit of the checkout that this package is imported from, with ``+`` for changes; None if the package is installed."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder)]
    try:
        tracked = subprocess.run([*command, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False)
        if tracked.returncode:
            return None  # a repository around an installed package is not this project's
        head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run([*command, "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+" if changed.returncode else "") or None
