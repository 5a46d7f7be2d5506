"""``bench doctor``: what this machine has, and what to do where something is missing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import urllib.parse
from collections.abc import Iterator
from importlib.metadata import metadata, version
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from bench.core.hub_environment import wrong_environment
from bench.core.registry import DISTRIBUTION
from bench.core.terminal import Terminal
from bench.planning.gpus import GIB

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "huggingface-hub")
"""Distributions whose versions decide results, or whether anything runs."""
LITTLE_DISK = 20 * GIB
"""Free space below which a run with a published model is likely to end in a full disk."""
LITTLE_MEMORY = 8 * GIB
PATIENCE = 5.0
"""Seconds for the hub to answer."""


class Finding(NamedTuple):
    """One line of the answer.

    Attributes:
        mark: ok, note (works, but), or missing.
        subject: what was looked at.
        what: what is there.
        advice: what to do; empty where nothing is needed.
    """

    mark: Literal["ok", "note", "missing"]
    subject: str
    what: str
    advice: str = ""


def doctor(runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs")) -> None:
    """Show versions, GPU, memory, disk, access to the hub, extras, caches and Slurm, with what to do about each.

    With HF_HUB_OFFLINE=1 the hub is not contacted.
    """
    console = Terminal(highlight=False, soft_wrap=True)
    for finding in findings(runs):
        console.print(f"{finding.mark:<8} {finding.subject:<10} {finding.what}", markup=False)
        if finding.advice:
            console.print(f"{'':<19} {finding.advice}", markup=False)


def findings(runs: Path) -> Iterator[Finding]:
    """Everything that is looked at, in order.

    Args:
        runs: folder of all runs, which need not exist.
    """
    yield Finding("ok", "bench", f"{version(DISTRIBUTION)}, Python {platform.python_version()}, {platform.platform()}")
    yield Finding("ok", "libraries", ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    yield from _gpus()
    yield _memory()
    yield from _disks(runs)
    yield _hub()
    yield from _extras()
    yield from _caches(runs)
    yield _slurm()


def _gpus() -> Iterator[Finding]:
    import torch

    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        what = f"{facts.name}, {total / GIB:.1f} GiB, {free / GIB:.1f} GiB free"
        busy = "another program uses it; see nvidia-smi, or choose another with CUDA_VISIBLE_DEVICES"
        yield Finding("note" if free < total / 2 else "ok", f"gpu {number}", what, busy if free < total / 2 else "")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        advice = (
            "torch is built without CUDA; the tiny model needs none, for others install a torch for your GPU: https://pytorch.org"
            if built is None
            else f"torch is built for CUDA {built}, but finds no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
        yield Finding("note", "gpu", "none", advice)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    what = f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB unused; {len(os.sched_getaffinity(0))} cores"
    little = "enough for the tiny model; bench plan says what others need" if total < LITTLE_MEMORY else ""
    return Finding("note" if little else "ok", "memory", what, little)


def _disks(runs: Path) -> Iterator[Finding]:
    places = [("disk", runs, "free some, or give another --runs")]
    with contextlib.suppress(ValueError):  # an environment that it does not start with, of which `_hub` tells
        from huggingface_hub import constants

        places.append(("hub cache", Path(constants.HF_HUB_CACHE), "free some, or set HF_HOME to another disk"))
    for subject, place, change in places:
        there = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
        free = shutil.disk_usage(there).free
        what = f"{free / GIB:.1f} GiB free for {place}"
        if not os.access(there, os.W_OK):
            yield Finding("missing", subject, f"{there} cannot be written", "allow it, or give another place")
        elif free < LITTLE_DISK:
            yield Finding(
                "note", subject, what, f"SDXL with its metrics takes 26 GiB and each run's weights 10: {change}"
            )
        else:
            yield Finding("ok", subject, what)


def _hub() -> Finding:
    try:
        from huggingface_hub import constants, get_token
    except ValueError as error:
        if (wrong := wrong_environment(error)) is None:
            raise
        return Finding("missing", "hub", *wrong)
    if constants.HF_HUB_OFFLINE:
        return Finding("note", "hub", "HF_HUB_OFFLINE is set: only what is cached is used", "unset it to download")
    try:
        parts = urllib.parse.urlsplit(constants.ENDPOINT)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE).close()
    except ValueError as error:  # no port, or a name that no host can have
        what = f"{constants.ENDPOINT} is not an address ({error})"
        return Finding("missing", "hub", what, "correct or unset HF_ENDPOINT")
    except OSError as error:
        advice = "connect, check the proxy, or set HF_HUB_OFFLINE=1 and give local folders; the tiny model needs no hub"
        return Finding("missing", "hub", f"{constants.ENDPOINT} cannot be reached ({error.strerror or error})", advice)
    if get_token() is None:
        return Finding("note", "hub", f"{constants.ENDPOINT} answers, not logged in", "for gated models: hf auth login")
    return Finding("ok", "hub", f"{constants.ENDPOINT} answers, logged in")


def _extras() -> Iterator[Finding]:
    """The extras, read from the distribution's own metadata."""
    needs = metadata(DISTRIBUTION).get_all("Requires-Dist") or []
    for extra in metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        packages = [
            re.split(r"[ <>=!~;\[]", need, maxsplit=1)[0]
            for need in needs
            if re.search(rf"extra == ['\"]{extra}['\"]", need)
        ]
        missing = [name for name in packages if not _installed(name)]
        if missing:
            yield Finding(
                "note",
                extra,
                f"not installed: {', '.join(missing)}",
                f"if you need it: pip install '{DISTRIBUTION}[{extra}]'",
            )
        else:
            yield Finding("ok", extra, ", ".join(f"{name} {version(name)}" for name in packages))


def _installed(name: str) -> bool:
    try:
        version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _caches(runs: Path) -> Iterator[Finding]:
    from bench.records.config import BASE
    from bench.records.runs import CACHE

    size = sum(path.stat().st_size for path in (runs / CACHE).rglob("*") if path.is_file())
    if size:
        advice = f"{runs / CACHE} can be deleted while nothing runs; what is needed is computed again"
        yield Finding(
            "ok", "cache", f"{size / GIB:.1f} GiB of cached latents, embeddings and results of reading data", advice
        )
    bases = [path.parent.name for path in runs.glob(f"*/{BASE}")]
    if bases:
        yield Finding("ok", "models", f"evaluated under {runs}: {', '.join(sorted(bases))}")


def _slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return Finding(
            "ok", "slurm", "not on this machine", "bench run --jobs N, or --print-commands for another scheduler"
        )
    return Finding("ok", "slurm", "sbatch is there", "bench run --executor slurm submits one job per run")
