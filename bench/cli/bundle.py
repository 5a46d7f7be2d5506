"""``bench bundle`` and ``bench verify``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.sentences import say
from bench.core.errors import UserError
from bench.core.progress import shortened

if TYPE_CHECKING:  # help texts need no records
    from bench.records.runs import RunFolder


def bundle(
    output: Annotated[Path, typer.Argument(help="The archive to write, for example table-1.tar.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Runs, or folders of runs, under --runs, for example tiny/dpo; their base models go with them.  Default: all.",
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    images: Annotated[int, typer.Option(min=0, help="Evaluation images of each evaluation, at most.")] = 16,
    weights: Annotated[bool, typer.Option("--weights", help="Also the trained weights.")] = False,
) -> None:
    """Put everything that a table stands on into one archive: records, scores, configuration, environment and sample images.

    The same runs make the same bytes, so that the digest that is printed names the archive.
    """
    from bench.core.paths import unlinked
    from bench.records.bundle import files_of, refuse_other_file, write_bundle

    refuse_other_file(output)
    chosen = _chosen(runs, names or [])
    for run in chosen:
        unlinked(runs, run.folder)  # a link could put a private file into an archive that is given away
        if weights:
            run.trained_weights()  # that none is lost or changed
    files = {
        f"runs/{path.relative_to(runs).as_posix()}": path
        for run in chosen
        for path in files_of(run, images=images, weights=weights)
    }
    with tempfile.TemporaryDirectory() as scratch:
        # The report of exactly these files, as whoever gets the archive will make it.
        for name, path in files.items():
            copy = Path(scratch, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path.absolute())
        with _named(Path(scratch, "runs"), str(runs)):
            reports = _reports(Path(scratch, "runs"))
    digest = write_bundle(output, files, {f"reports/{name}.json": text for name, text in reports.items()})
    say(f"{output}: {len(chosen)} runs, {len(files)} files, sha256 {digest}", "done")


def verify(
    archive: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An archive that bench bundle wrote.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder to unpack to, which must not exist; bench report --runs FOLDER/runs then shows the table."
        ),
    ] = None,
) -> None:
    """Check an archive of bench bundle: every digest, every record, and the tables, which are computed again.

    Numbers may differ in their last digits, as between machines.  Exit code 2 for an archive that is not as it was made.
    """
    from bench.core.files import make_folder, replace_folder
    from bench.core.manifest import sha256

    if output is not None and output.exists():
        raise UserError(f"{output} exists; give --output the name of a new folder")
    if output is not None:
        make_folder(output.absolute().parent)
    with tempfile.TemporaryDirectory(dir=None if output is None else output.absolute().parent) as scratch:
        folder = Path(scratch, "bundle")
        count, version = _verified(archive, folder)
        if output is not None:
            replace_folder(output, lambda partial: _move(folder, partial))
    again = f"{count} files, tables computed again, sha256 {sha256(archive)}"
    say(f"{archive} is as bench {version} made it: {again}", "done")


def _verified(archive: Path, folder: Path) -> tuple[int, str | None]:
    """Unpack an archive and check it; returns the number of its files, and the version that made it."""
    from bench.core.inputs import read_text
    from bench.records.bundle import names_of, not_as_made, unpack
    from bench.records.reading import DamagedError, read_whole
    from bench.records.runs import find_runs

    known: set[str] = set()
    with _named(folder, str(archive)):
        contents = unpack(archive, folder)
        try:
            for run in find_runs(folder / "runs"):
                _check_records(run)
                known |= names_of(run, folder)
            stored = {path.stem: read_whole(read_text, path) for path in folder.glob("reports/*.json")}
            made = _reports(folder / "runs")
        except DamagedError as error:
            what = f"{error.path.relative_to(folder)} is damaged ({error.reason})"
            raise not_as_made(archive, what) from error
    if not made:
        raise not_as_made(archive, "it holds no finished run")
    if strays := sorted(contents.files.keys() - known - {f"reports/{name}.json" for name in stored}):
        raise not_as_made(archive, f"{strays[0]} is not a file of a run")
    if stored.keys() != made.keys():
        raise not_as_made(archive, "its reports are not those of its protocols")
    versions = [_check_report(archive, name, stored[name], text) for name, text in made.items()]
    return len(contents.files), next(iter(versions), None)


def _check_report(archive: Path, name: str, stored: str, made: str) -> str | None:
    """Check a stored report against the one that its runs make; returns the version that made it."""
    from bench.core.files import from_json
    from bench.records.bundle import not_as_made
    from reports.recomputed import first_difference, version_of

    try:
        written = from_json(stored)
    except ValueError as error:
        raise not_as_made(archive, f"reports/{name}.json is not JSON ({error})") from error
    again = from_json(made)
    version, here = version_of(written), version_of(again)
    if (different := first_difference(written, again)) is None:
        return version
    what = f"reports/{name}.json differs from its runs in {shortened(different, 200)}"
    if version in (None, here):
        raise not_as_made(archive, what)
    advice = f"bench {version} made it, and this is bench {here}: verify it with that version to be sure"
    raise not_as_made(archive, what, advice)


@contextlib.contextmanager
def _named(folder: Path, name: str) -> Iterator[None]:
    """Sentences of errors with another name in the place of a temporary folder's, which is gone when they are read."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(folder), name)) from error


def _check_records(run: RunFolder) -> None:
    """Read every record of a run, which checks it against the run's own manifests."""
    run.config()
    run.check_notes()
    run.steps()
    run.ledger()
    run.curve()
    for evaluation in run.evaluations():
        evaluation.score_records()
        evaluation.prompts()
        evaluation.variant()
        evaluation.check_images(*(item for item in evaluation.items if evaluation.image(*item).exists()))


def _chosen(runs: Path, names: Iterable[str]) -> list[RunFolder]:
    """The finished runs that were named, with the base models that they are compared with.

    Raises:
        UserError: a name holds no finished run, or ``runs`` is the folder of one model.
    """
    from bench.records.config import BASE
    from bench.records.runs import find_runs

    found = [
        run
        for run in find_runs(runs)
        if (run.done or run.folder.name == BASE) and any(each.done for each in run.evaluations())
    ]
    if any(run.folder == runs / BASE for run in found):
        raise UserError(
            f"{runs} is the folder of one model; give the folder around it: --runs {runs.absolute().parent}, and {runs.name} as RUN"
        )
    wanted = {runs / name: False for name in names}
    chosen = []
    for run in found:
        places = [place for place in wanted if run.folder == place or place in run.folder.parents]
        wanted |= dict.fromkeys(places, True)
        if not wanted or places:
            chosen.append(run)
    if missing := [place for place, seen in wanted.items() if not seen]:
        raise UserError(f"{missing[0]} holds no finished run; see: bench status --runs {runs}")
    if not chosen:
        raise UserError(f"{runs} holds no finished run; see: bench status --runs {runs}")
    models = {run.folder.relative_to(runs).parts[0] for run in chosen}
    bases = [run for run in found if run.folder in {runs / model / BASE for model in models} and run not in chosen]
    return sorted([*bases, *chosen], key=lambda run: run.folder)


def _reports(runs: Path) -> dict[str, str]:
    """The report of each protocol, by its signature, as JSON."""
    from bench.records.runs import find_runs
    from reports.render import as_json
    from reports.report import make_report

    models = sorted({run.folder.relative_to(runs).parts[0] for run in find_runs(runs)})
    made: dict[str, str] = {}
    for model in models:
        signatures = {each.protocol_signature for run in find_runs(runs / model) for each in run.evaluations()}
        made |= {signature: as_json(make_report(runs / model, signature)) for signature in sorted(signatures)}
    return made


def _move(folder: Path, target: Path) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(target / path.name)
