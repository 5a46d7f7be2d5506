"""What a run was made with."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from typing import Any

import torch

from bench.files import write_json
from bench.runs import RunFolder


def write_environment(run: RunFolder, processes: int, execution: Mapping[str, Any]) -> None:
    """Write what the run was made with last: packages, Python, device, processes, git commit, and settings of how to compute."""
    packages = {item.metadata["Name"]: item.version for item in distributions()}
    write_json(
        run.folder / "environment.json",
        {
            "python": sys.version,
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "processes": processes,
            "execution": dict(execution),
            "git": _git_commit(),
            "packages": dict(sorted(packages.items())),
        },
    )


def _git_commit() -> str | None:
    """The commit of the working folder, None outside a repository."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None
