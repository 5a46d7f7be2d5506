"""Runs the command line in a fork of a process that has imported it once, under limits."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO

from tests.fuzz.place import Expect, Kind, Place

SECONDS = 120
"""Time in which a case does not compute at all and after which it hangs, however busy the machine is."""
PROCESSOR = 60
"""Seconds of processor time after which it hangs."""
MEMORY = 3 << 30
"""Bytes of address space beyond what the imports take."""
IMPORTS = (
    "tests.helpers.imported", "bench.cli.main", "bench.cli.data", "bench.cli.listing", "bench.cli.plan", "bench.data.summary", "bench.experiments.experiment",
    "bench.experiments.judging", "bench.experiments.interface", "bench.experiments.rescoring", "bench.scoring.folder",
    "bench.planning.show", "bench.planning.profiling", "reports.content", "reports.report", "peft", "matplotlib.pyplot",
)  # fmt: skip
LAZY = {
    "diffusers": ("AutoencoderKL", "UNet2DConditionModel", "DDIMScheduler"),
    "transformers": ("CLIPTextModel", "CLIPTokenizer"),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a case did: its exit code (None for a hang), what it printed, what else appeared or changed, programs it started."""

    code: int | None
    out: str
    err: str
    outside: list[str]
    started: str
    expect: Expect | None


def command() -> Callable[[], None]:
    """The function that the script ``bench`` calls, wherever this version has it."""
    (point,) = entry_points(group="console_scripts", name="bench")
    return point.load()  # type: ignore[no-any-return]


def import_all() -> None:
    command()
    for name in IMPORTS:
        with contextlib.suppress(ImportError):  # an older version has no such module
            importlib.import_module(name)
    for name, parts in LAZY.items():
        for part in parts:
            getattr(importlib.import_module(name), part)


def run_case(make: Kind, seed: str, assets: Path, finished: Path) -> Outcome:
    """Build a case and run its command, both in a fork of this process."""
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    base.chmod(0o755)
    place = Place(base, random.Random(seed), assets, finished)
    try:
        place.make()
        with removed(base / "said") as said:
            built = _fork(lambda: _build(make, place, said), said, "build")
            if built != 0 or not (said / "expect").exists():
                raise RuntimeError(f"the case could not be built: {(said / 'build.err').read_text()}")
            written = json.loads((said / "expect").read_text())
            expect = Expect(
                **{key: tuple(v) if isinstance(v, list) and key != "words" else v for key, v in written.items()}
            )
            before = place.listing()
            code = _fork(lambda: _command(place, expect), said, "run")
            out, err = ((said / f"run.{name}").read_text(errors="replace") for name in ("out", "err"))
            after = place.listing()
        changed = [name for name in {*before, *after} if before.get(name) != after.get(name) and "/said/" not in name]
        started = base / "started"
        return Outcome(
            code, out, err, sorted({*changed} - {str(started)}), started.read_text() if started.exists() else "", expect
        )
    finally:
        for folder, _, _ in os.walk(base):
            Path(folder).chmod(0o755)
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def removed(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    yield folder


def _build(make: Kind, place: Place, said: Path) -> None:
    os.chdir(place.folder)
    expect = make(place)
    (said / "expect").write_text(json.dumps(expect.to_json()))


def _command(place: Place, expect: Expect) -> None:
    os.chdir(place.folder)
    os.environ.update(
        HOME=str(place.base / "home"), XDG_CACHE_HOME=str(place.base / "home"), COLUMNS="200", HF_HUB_OFFLINE="1",
        PATH=f"{place.base / 'bin'}:{os.environ['PATH']}", TMPDIR=str(place.base / "home"),
    )  # fmt: skip
    sys.path.insert(0, str(place.folder))  # for plug-ins
    sys.argv = ["bench", *expect.words]
    limits = expect.limits
    if "unprivileged" in limits:
        obey_permissions()
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = pages + limits.get("memory", MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
    if "file_size" in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_size"],) * 2)
    if "files" in limits:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits["files"],) * 2)
    command()()


def obey_permissions() -> None:
    """Make permission bits bind root too: without the capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    data[0] &= ~0b110  # effective; the numbers of the two are 1 and 2
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def _fork(call: Callable[[], None], said: Path, name: str) -> int | None:
    """The exit code of a call in a child, its output in files; None if it had to be killed.

    The child writes to pipes, since a limit on the size of files would bind what it says, too.
    """
    pipes = {each: os.pipe() for each in ("out", "err")}
    child = os.fork()
    if child == 0:
        _in_child(call, *(end for _, end in pipes.values()))
    used, since = 0, time.monotonic()
    with contextlib.ExitStack() as files:
        streams = [(end, files.enter_context((said / f"{name}.{each}").open("wb"))) for each, (end, _) in pipes.items()]
        for read, write in pipes.values():
            os.set_blocking(read, False)
            os.close(write)
            files.callback(os.close, read)
        while time.monotonic() < since + SECONDS:
            done, status = os.waitpid(child, os.WNOHANG)
            for end, stream in streams:
                _drain(end, stream)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return None if -code == signal.SIGXCPU else code
            if (now := _ticks(child)) != used:
                used, since = now, time.monotonic()
            time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _drain(end: int, stream: BinaryIO) -> None:
    """Copy what a pipe holds."""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(end, 1 << 16):
            stream.write(part)


def _ticks(process: int) -> int:
    """What a process has computed so far, in ticks of its processor time."""
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def _in_child(call: Callable[[], None], out: int, err: int) -> None:
    code = 1
    try:
        for number, end in ((1, out), (2, err)):
            os.dup2(end, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False) for number in (1, 2)
        )
        call()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (whatever it is, it is what the case found)
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
