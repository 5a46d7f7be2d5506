"""The calling side of a worker process: start it, send requests, restart it when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bench.core.errors import UserError
from bench.scoring.isolated.environment import foreign_variables

SERVE = Path(__file__).with_name("serve.py")
MAX_ATTEMPTS = 2
"""How many processes may die on one batch: one death may be unrelated to the batch, two are blamed on it."""
POLL_SECONDS = 1.0


class WorkerError(RuntimeError):
    """The scorer raised an exception in its process; the message holds its traceback."""


class _WorkerExitedError(Exception):
    """The process ended without an answer."""


class Worker:
    """A scorer in its own process, started at the first request.

    Args:
        title: what messages call the scorer.
        python: the interpreter of its environment.
        scorer: the scorer file, see `bench.scoring.isolated.metric.IsolatedMetric`.
        arguments: what its ``load`` is called with; JSON values.
    """

    def __init__(self, title: str, python: Path, scorer: Path, arguments: Mapping[str, Any]) -> None:
        self.title, self.arguments = title, arguments
        self.command = [str(python), "-I", str(SERVE), str(scorer)]
        self._running: _Process | None = None

    def score(self, images: Sequence[Path], prompts: Sequence[str]) -> list[float]:
        """The scores of image files for the prompts of the same position.

        Raises:
            UserError: the process died twice on these images, or did not return one number per image.
            WorkerError: the scorer raised an exception.
        """
        request = {"images": [str(path.absolute()) for path in images], "prompts": list(prompts)}
        deaths = []
        for _ in range(MAX_ATTEMPTS):
            try:
                scores = self._ask(request).get("scores")
            except _WorkerExitedError as death:
                deaths.append(str(death))
            else:
                return self._checked(scores, len(images))
        raise UserError(
            f"the worker process of {self.title} died {MAX_ATTEMPTS} times on the same {len(images)} images "
            f"({deaths[-1]}); check that it has enough memory, or leave this metric out"
        )

    def stop(self) -> None:
        """End the process; the next `score` starts another one."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        # Without an answer (an interrupted wait, say), the next line read could belong to an earlier request: restart then.
        with contextlib.ExitStack() as unless_answered:
            unless_answered.callback(self.stop)
            if self._running is None:
                self._running = self._start()
                self._answer(self._running, {"load": self.arguments})
            answer = self._answer(self._running, request)
            unless_answered.pop_all()
        return answer

    def _start(self) -> _Process:
        try:
            return _Process(self.command)
        except OSError as error:
            raise UserError(
                f"the worker process of {self.title} cannot be started ({error}); delete the folder of its environment "
                "to have it rebuilt"
            ) from error

    def _answer(self, process: _Process, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = json.loads(process.exchange(json.dumps(request).encode() + b"\n"))
        except ValueError as error:
            raise UserError(
                f"the worker process of {self.title} broke the protocol ({error}); fix its scorer"
            ) from error
        if "error" in answer:
            raise WorkerError(f"{self.title} raised an exception in its own environment:\n{answer['error']}")
        return dict(answer)

    def _checked(self, scores: Any, count: int) -> list[float]:
        if not isinstance(scores, list) or len(scores) != count:
            found = len(scores) if isinstance(scores, list) else "no"
            raise UserError(f"{self.title} returned {found} scores for {count} images; fix its scorer")
        return scores


class _Process:
    """One process; `stop` ends it, and so does the garbage collection of this object."""

    def __init__(self, command: Sequence[str]) -> None:
        self.channel, far_end = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        with far_end, contextlib.ExitStack() as unless_started:
            unless_started.callback(self.channel.close)
            unless_started.callback(self.log.close)
            self.process = subprocess.Popen(
                [*command, str(far_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                pass_fds=[far_end.fileno()],
                env=foreign_variables(),
                start_new_session=True,
            )
            unless_started.pop_all()
        self.stop = weakref.finalize(self, _end, self.process, self.channel, self.log)

    def exchange(self, line: bytes) -> bytes:
        """Send a line and wait for the line that answers it."""
        received = b""
        try:
            self.channel.sendall(line)
            while not received.endswith(b"\n"):
                ready, _, _ = select.select([self.channel], [], [], POLL_SECONDS)
                # A process that the scorer forked may hold the other end open after its parent's death.
                if not ready and self.process.poll() is None:
                    continue
                part = self.channel.recv(1 << 16) if ready else b""
                if not part:
                    raise _WorkerExitedError(self._exit_reason())
                received += part
        except (BrokenPipeError, ConnectionResetError):
            raise _WorkerExitedError(self._exit_reason()) from None
        return received

    def _exit_reason(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        code = self.process.poll()
        cause = "it closed the socket" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"{cause}; its last output: {last}"


def _end(process: subprocess.Popen[bytes], channel: socket.socket, log: IO[bytes]) -> None:
    """End a process and those that it started; SIGKILL is safe, since it has nothing to save."""
    channel.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.close()
