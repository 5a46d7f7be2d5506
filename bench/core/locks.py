"""Lock files: one process at a time works on a folder or a file."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bench.core.errors import UserError
from bench.core.files import ELSEWHERE, make_folder, write_checked
from bench.core.progress import say
from bench.core.signs import here

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Error numbers of a file system that has no locks: Lustre without ``-o flock``, NFS without its lock daemon."""


@contextlib.contextmanager
def exclusive(lock: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file for this process; the lock ends with the process, however it ends.

    Args:
        lock: the file, created with its folder; contains the id of the process that holds it and `bench.core.signs.here`, and nothing
            after the block.
        doing: end of the sentence ``process 123 already ...``: what the other process does, and what to do about it.
        wait: say so and wait for another process instead of refusing.

    Raises:
        UserError: another process holds it, it cannot be written, or its file system has no locks.
    """
    make_folder(lock.parent)
    if lock.is_symlink() or (lock.exists() and not lock.is_file()):
        raise UserError(f"{lock} is not a file of this program (a link, or not a file at all); remove it")
    # A lock file whose mere existence is the lock, filelock's fallback, would outlive a process that is killed.
    held = FileLock(lock, timeout=0, fallback_to_soft=False)
    with write_checked(lock.parent), _locks_checked(lock):
        try:
            acquired = held.acquire()
        except Timeout:
            owner, *_ = lock.read_text(encoding="utf-8").split() or ["unknown"]
            sentence = f"process {owner} already {doing}"
            if not wait:
                raise UserError(sentence) from None
            say(f"waiting: {sentence}")
            acquired = held.acquire(timeout=-1)
    with acquired:
        # The lock is held, so that the file is the one that was checked.
        lock.write_text(f"{os.getpid()} {here()}", encoding="utf-8")
        try:
            yield
        finally:
            # For readers on other machines, which do not see the lock; that it ends is not up to the file's content.
            with contextlib.suppress(OSError):
                os.truncate(lock, 0)


@contextlib.contextmanager
def _locks_checked(lock: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        raise UserError(
            f"{lock} cannot be locked, since its file system has no locks ({os.strerror(error.errno)}); mount it with locks "
            f"(Lustre: -o flock), or {ELSEWHERE}"
        ) from error
