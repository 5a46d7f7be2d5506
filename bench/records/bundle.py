"""A bundle: one archive with what a table stands on, the same bytes whenever it is made of the same runs.

bundle.json              schema, and size and SHA-256 of every other file
reports/<protocol>.json  the report, by signature of the protocol
runs/<model>/...         the run folders: records, some evaluation images, and weights if they were asked for

The archive is an uncompressed tar file with sorted names, no times and no owners.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from bench.core.errors import UserError
from bench.core.files import BLOCK, create_file, from_json, replace_file, space_checked
from bench.core.inputs import regular
from bench.core.manifest import sha256
from bench.core.paths import inside
from bench.core.progress import shortened
from bench.records import evaluations, runs
from bench.records.evaluations import DONE, Evaluation
from bench.records.reading import DamagedError, validated
from bench.records.runs import RunFolder

CONTENTS = "bundle.json"
"""The archive's first file."""
SCHEMA = 1
"""Version of the format."""
MOST_CONTENTS = 1 << 28
"""Bytes of the largest table of contents that is read."""
BROKEN = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, MemoryError)
"""What `tarfile` raises for headers that no program writes."""
MOST_SHOWN = 300
"""Characters of what a sentence says of an archive, which may hold names of any length."""


class _Listed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Contents(BaseModel):
    """``bundle.json``.

    Attributes:
        schema_version: version of the format; ``schema`` in the file.
        files: what the archive holds besides, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(alias="schema", ge=1)
    files: dict[str, _Listed]


def files_of(run: RunFolder, *, images: int, weights: bool) -> Iterator[Path]:
    """What of a finished run goes into a bundle.

    Args:
        run: the run.
        images: evaluation images of each evaluation, at most.
        weights: whether the trained weights go in.
    """
    yield from (path for path in (run.folder / name for name in (*runs.RECORDS, DONE)) if path.exists())
    for evaluation in run.evaluations():
        if evaluation.done:
            yield from (
                path for path in (evaluation.folder / name for name in (*evaluations.RECORDS, DONE)) if path.exists()
            )
            yield from _images(evaluation, images)
    if weights:
        yield from run.weight_files()


def names_of(run: RunFolder, folder: Path) -> set[str]:
    """Names that the files of a run in an unpacked bundle may have: all of `files_of`, with any number of images.

    Args:
        run: the run.
        folder: what the bundle was unpacked to.
    """
    images = (evaluation.image(*item) for evaluation in run.evaluations() for item in evaluation.items)
    return {path.relative_to(folder).as_posix() for path in (*files_of(run, images=0, weights=True), *images)}


def _images(evaluation: Evaluation, count: int) -> Iterator[Path]:
    items = evaluation.items[:count]
    evaluation.check_images(*items)
    yield from map(evaluation.image, *zip(*items, strict=True)) if items else ()


def refuse_other_file(path: Path) -> None:
    """Raise a `UserError` unless a bundle can be written to a path: nothing is there, or an older bundle, which is replaced."""
    if path.exists() and not _begins_like_a_bundle(path):
        raise UserError(f"{path} exists and is not a bundle; give the name of a new file, for example table-1.tar")


def _begins_like_a_bundle(path: Path) -> bool:
    """Whether a file is an archive whose first file is a bundle's, however damaged the rest of it is."""
    if not path.is_file():
        return False
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
    except (*BROKEN, OSError):
        return False
    return first is not None and first.name == CONTENTS


def write_bundle(path: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> str:
    """Write a bundle; returns its SHA-256, 64 hex digits.

    Args:
        path: the archive.
        files: files on disk by their names in the archive.
        texts: further files by name.

    Raises:
        UserError: the archive cannot be written, or another file is there.
    """
    refuse_other_file(path)
    contents: dict[str, dict[str, Any]] = {
        name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for name, file in files.items()
    }
    for name, text in texts.items():
        contents[name] = {"bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    listing = json.dumps({"schema": SCHEMA, "files": dict(sorted(contents.items()))}, indent=1) + "\n"

    def write(partial: Path) -> None:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, CONTENTS, listing.encode())
            for name in sorted(contents):
                if name in texts:
                    _add(archive, name, texts[name].encode())
                else:
                    with regular(files[name]).open("rb") as stream:
                        archive.addfile(_entry(name, contents[name]["bytes"]), stream)

    replace_file(path, write)
    return sha256(path)


def unpack(path: Path, folder: Path) -> Contents:
    """Unpack a bundle into an empty folder, checking every file.

    Nothing is written outside of the folder, and nothing but plain files.

    Raises:
        UserError: it is not a bundle, or a file is not what the contents list; the sentence names it.
    """
    if not path.is_file():
        raise UserError(f"there is no bundle {path}")
    with _headers_checked(path), tarfile.open(regular(path), "r:") as archive:
        contents = _contents(archive.next(), archive, path)
        seen: set[str] = set()
        while (member := archive.next()) is not None:
            _check(member, contents, seen, path)
            try:
                _unpack_file(archive, member, contents.files[member.name], inside(folder, member.name))
            except FileExistsError as error:  # another spelling of a name, or a file where a folder is
                raise not_as_made(path, f"it holds {member.name} twice") from error
            except OSError as error:
                raise UserError(
                    f"{path}: {shortened(member.name, MOST_SHOWN)} cannot be unpacked ({error.strerror}); get an archive "
                    "that bench bundle wrote, or give another --output"
                ) from error
            seen.add(member.name)
    if missing := sorted(contents.files.keys() - seen):
        raise not_as_made(path, f"{missing[0]} is missing")
    return contents


@contextlib.contextmanager
def _headers_checked(path: Path) -> Iterator[None]:
    """Turn what `tarfile` raises for headers that no program writes into a `UserError`."""
    try:
        yield
    except BROKEN as error:
        reason = "a header is said to be larger than the memory" if isinstance(error, MemoryError) else error
        raise not_as_made(path, f"it is not a whole tar file ({reason})") from error


def _contents(first: tarfile.TarInfo | None, archive: tarfile.TarFile, path: Path) -> Contents:
    if first is None or first.name != CONTENTS or not first.isreg() or first.size > MOST_CONTENTS:
        raise not_as_made(path, f"it does not begin with {CONTENTS}")
    stream = archive.extractfile(first)
    try:
        written: Any = from_json(stream.read()) if stream else None
    except ValueError as error:
        raise not_as_made(path, f"{CONTENTS} is not JSON ({error})") from error
    if isinstance(written, dict) and isinstance(found := written.get("schema"), int) and found > SCHEMA:
        raise UserError(f"{path} was written with bundle schema {found}, and this version reads up to {SCHEMA}")
    try:
        return validated(Contents, written, path)
    except DamagedError as error:
        raise not_as_made(path, f"{CONTENTS} is not a table of contents ({error.reason})") from error


def _check(member: tarfile.TarInfo, contents: Contents, seen: Iterable[str], path: Path) -> None:
    if not member.isreg() or member.issparse():  # a sparse file of terabytes takes two blocks
        raise not_as_made(path, f"{member.name} is not a plain file")
    if member.name in seen:
        raise not_as_made(path, f"it holds {member.name} twice")
    if above := [str(each) for each in PurePosixPath(member.name).parents if str(each) in seen]:
        raise not_as_made(path, f"it holds {above[0]} as a file and as a folder")
    if member.name not in contents.files:
        raise not_as_made(path, f"{CONTENTS} does not list {member.name}")
    if member.size != (listed := contents.files[member.name].bytes):
        raise not_as_made(path, f"{member.name} has {member.size:,} bytes, and {CONTENTS} says {listed:,}")


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, listed: _Listed, target: Path) -> None:
    stream, digest = archive.extractfile(member), hashlib.sha256()
    with space_checked(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        create_file(target)
        with target.open("wb") as out:
            while stream and (block := stream.read(BLOCK)):
                digest.update(block)
                out.write(block)
    if digest.hexdigest() != listed.sha256:
        raise not_as_made(Path(str(archive.name)), f"the SHA-256 of {member.name} is not the one in {CONTENTS}")


def not_as_made(path: Path, what: str, advice: str = "get an intact copy") -> UserError:
    """The error about a bundle that differs from what `bench bundle` wrote."""
    return UserError(f"{path} is not as it was made: {shortened(what, MOST_SHOWN)}; {advice}")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_entry(name, len(content)), io.BytesIO(content))
