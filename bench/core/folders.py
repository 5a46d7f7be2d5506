"""Everything in a folder: a part that cannot be listed is an error, not an empty one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bench.core.errors import UserError


def walk(folder: Path) -> Iterator[Path]:
    """Files under a folder at any depth, and links to folders, which are not followed; in no order.

    Raises:
        UserError: a folder cannot be listed.
    """
    for place, folders, files in os.walk(folder, onerror=_refuse):
        inside = Path(place)
        yield from (inside / name for name in files)
        yield from (path for name in folders if (path := inside / name).is_symlink())


def _refuse(error: OSError) -> None:
    raise UserError(
        f"the folder {error.filename} cannot be read ({error.strerror}); allow it, or move it away"
    ) from error
