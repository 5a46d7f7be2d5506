"""Lock files: one process at a time works on a folder or a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bench.core.errors import UserError
from bench.core.files import make_folder, write_checked
from bench.core.progress import say


@contextlib.contextmanager
def exclusive(lock: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file for this process; the lock ends with the process, however it ends.

    Args:
        lock: the file, created with its folder; contains the id of the process that holds it, and nothing after the block.
        doing: end of the sentence ``process 123 already ...``: what the other process does, and what to do about it.
        wait: say so and wait for another process instead of refusing.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    make_folder(lock.parent)
    if lock.is_symlink() or (lock.exists() and not lock.is_file()):
        raise UserError(f"{lock} is not a file of this program (a link, or not a file at all); remove it")
    # A lock file whose mere existence is the lock, filelock's fallback, would outlive a process that is killed.
    held = FileLock(lock, timeout=0, fallback_to_soft=False)
    with write_checked(lock.parent):
        try:
            acquired = held.acquire()
        except Timeout:
            sentence = f"process {lock.read_text(encoding='utf-8').strip() or 'unknown'} already {doing}"
            if not wait:
                raise UserError(sentence) from None
            say(f"waiting: {sentence}")
            acquired = held.acquire(timeout=-1)
    with acquired:
        # The lock is held, so that the file is the one that was checked.
        lock.write_text(str(os.getpid()), encoding="utf-8")
        try:
            yield
        finally:
            # For readers on other machines, which do not see the lock; that it ends is not up to the file's content.
            with contextlib.suppress(OSError):
                os.truncate(lock, 0)
