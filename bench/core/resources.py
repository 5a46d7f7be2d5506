"""What the machine refuses: files that may not be read or written, a full disk, no memory.  One sentence each."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping

ADVICE: Mapping[int, str] = {
    errno.EACCES: "allow it, or give another place",
    errno.EPERM: "allow it, or give another place",
    errno.EROFS: "give another place",
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EFBIG: "raise the limit on the size of files and run the same command again",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system and run the same command again",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "give a place that is not a link to itself",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOENT: "it was moved or deleted meanwhile; put it back, or run the same command again",
    errno.ENOTDIR: "give another place",
    errno.EISDIR: "give a file",
}
"""What to do about a failed operation on a file, by its error number."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, a quota and a limit on the size of files."""
NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|failed to map segment|bad_alloc|out of memory|can't start new thread|could not create a primitive",
    re.IGNORECASE,
)
"""How libraries say in their own errors that memory has run out, also while they are imported."""


def sentence_about(error: BaseException) -> str | None:
    """What happened and what to do, if the machine refused something; None for an error of the program.

    Args:
        error: an exception, also one that a library raised.
    """
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number is not None and number in ADVICE and error.filename is not None:
        place = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
        shown = place if len(place) < 300 else f"{place[:300]}..."
        return f"{shown} cannot be used ({os.strerror(number)}); {ADVICE[number]}"
    if number in FULL:  # without a name it is an open file, such as that of standard output
        return f"what is printed, or another open file, cannot be written ({os.strerror(number)}); {ADVICE[number]}"
    if (
        isinstance(error, FileNotFoundError | PermissionError) and number is None
    ):  # safetensors, whose errors have no number
        return f"a file cannot be read ({error}); allow it, or put it back"
    return memory_sentence(error)


def memory_sentence(error: BaseException) -> str | None:
    """What to do if memory has run out, also where a library says so in an error of its own; None for any other error."""
    full = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if not full and not (isinstance(error, (OSError, RuntimeError, ImportError)) and NO_MEMORY.search(str(error))):
        return None
    reason = " ".join(str(error).split())[:200]
    told = f" ({reason})" if reason else ""
    return f"the memory of this machine, or the limit of this process, is used up{told}; end other programs, raise the limit, or use smaller batches"
