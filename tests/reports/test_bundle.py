"""`bench bundle` and `bench verify`: the same bytes twice, a table like the runs', and every manipulation found."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, fill

from bench.cli.bundle import bundle, verify
from bench.core.errors import UserError
from bench.core.files import append_lines
from bench.records.runs import find_runs
from reports.render import as_json
from reports.report import make_report

Members = list[tuple[tarfile.TarInfo, bytes]]
HERE = version("diffusion-alignment-bench")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, bytes]:
    """Runs, and their bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    lab = Lab(folder / "runs")
    fill(lab)
    bundle(folder / "table.tar", runs=lab.runs, images=1)
    return lab, (folder / "table.tar").read_bytes()


@pytest.fixture
def made(original: tuple[Lab, bytes], tmp_path: Path) -> Path:
    """A bundle of the whole lab, to be changed."""
    path = tmp_path / "table.tar"
    path.write_bytes(original[1])
    return path


def members(path: Path) -> Members:
    with tarfile.open(path, "r:") as archive:
        return [(each, (stream.read() if (stream := archive.extractfile(each)) else b"")) for each in archive]


def write(path: Path, content: Members) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in content:
            entry.size = len(data) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(data))


def test_the_same_runs_make_the_same_bytes(original: tuple[Lab, bytes], made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    bundle(again, runs=original[0].runs, images=1)
    assert made.read_bytes() == again.read_bytes()
    names = [entry.name for entry, _ in members(made)]
    assert names[0] == "bundle.json"
    assert names[1:] == sorted(names[1:])
    assert sum(name.endswith(".png") for name in names) == sum(name.endswith("scores.jsonl") for name in names)
    assert not any("/weights/" in name for name in names)


def test_a_bundle_from_elsewhere_reports_like_the_runs(original: tuple[Lab, bytes], made: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    verify(made, elsewhere)
    assert as_json(make_report(elsewhere / "runs")) == as_json(make_report(original[0].runs))


def tar_of_something_else() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"))
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"PAR1 a table PAR1", b"", tar_of_something_else()], ids=["table", "empty", "tar"])
def test_a_file_that_is_no_bundle_is_not_replaced(lab: Lab, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pairs.parquet exists and is not a bundle; give the name of a new file"):
        bundle(path, runs=lab.runs)  # which holds no runs: said before they are looked at
    assert path.read_bytes() == content


def test_a_folder_is_not_replaced_and_an_older_bundle_is(
    original: tuple[Lab, bytes], made: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(UserError, match=r"folder.tar exists and is not a bundle"):
        bundle(tmp_path / "folder.tar", runs=original[0].runs)
    made.write_bytes(made.read_bytes()[:2000])  # of which the end is lost
    bundle(made, runs=original[0].runs, images=1)
    assert made.read_bytes() == original[1]


def test_only_the_runs_that_were_named_and_their_base(full_lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "one.tar"
    name = next(run.folder.relative_to(full_lab.runs) for run in find_runs(full_lab.runs) if run.config().is_trained)
    bundle(path, [str(name.parts[0]) + "/" + name.parts[1]], runs=full_lab.runs, images=0)
    folders = {tuple(entry.name.split("/")[1:3]) for entry, _ in members(path) if entry.name.startswith("runs/")}
    assert folders == {(name.parts[0], "base"), (name.parts[0], name.parts[1])}
    verify(path)
    with pytest.raises(UserError, match="holds no finished run"):
        bundle(path, ["tiny/nothing"], runs=full_lab.runs)
    with pytest.raises(UserError, match=r"runs/tiny is the folder of one model; .* --runs .*/runs, and tiny as RUN"):
        bundle(path, runs=full_lab.runs / "tiny")


def test_what_was_changed_before_it_is_bundled_is_refused(full_lab: Lab, tmp_path: Path) -> None:
    scores = next(full_lab.runs.glob("tiny/*/*/*/evaluations/*/scores.jsonl"))
    append_lines(scores, [scores.read_text().splitlines()[0]])
    with pytest.raises(UserError, match=r"scores.jsonl is damaged"):
        bundle(tmp_path / "table.tar", runs=full_lab.runs, images=1)


def test_weights_are_the_files_that_training_ended_with(full_lab: Lab, tmp_path: Path) -> None:
    run = next(run for run in find_runs(full_lab.runs) if run.config().is_trained)
    run.weights.mkdir(exist_ok=True)
    (run.weights / "more.safetensors").write_bytes(b"x")
    run.finish()
    for evaluation in run.evaluations():
        evaluation.finish()
    (run.weights / "notes.txt").write_text("not of the training")
    bundle(tmp_path / "table.tar", runs=full_lab.runs, images=1, weights=True)
    held = members(tmp_path / "table.tar")
    names = {entry.name.partition("/weights/")[2] for entry, _ in held if "/weights/" in entry.name}
    assert names == {"config.json", "more.safetensors"}
    verify(tmp_path / "table.tar")
    place = next(entry.name for entry, _ in held if entry.name.endswith("more.safetensors"))
    both(place.replace("more.safetensors", "x.sh"))(held)
    write(tmp_path / "table.tar", held)
    with pytest.raises(UserError, match="weights/x.sh is not a file of a run"):
        verify(tmp_path / "table.tar")
    (run.weights / "more.safetensors").unlink()
    with pytest.raises(UserError, match="more.safetensors is damaged"):
        bundle(tmp_path / "table.tar", runs=full_lab.runs, images=1, weights=True)


def test_a_name_that_leads_elsewhere_is_neither_read_nor_linked(
    full_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch" / "inner"
    scratch.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    run = next(run for run in find_runs(full_lab.runs) if run.config().is_trained)
    secret = tmp_path / "secret"
    secret.write_text("known\n")
    run.finish()
    done = run.folder / "DONE"
    manifest = json.loads(done.read_text())
    up = "../" * (len(run.folder.relative_to(tmp_path).parts) + 1)
    assert (run.weights / up / "secret").read_text() == "known\n"
    digest = hashlib.sha256(b"known\n").hexdigest()
    manifest["files"][f"weights/{up}secret"] = {"bytes": 6, "sha256": digest}
    done.write_text(json.dumps(manifest))
    for evaluation in run.evaluations():
        (evaluation.folder / "DONE").write_text("")  # as of older versions, which named no weights
    before = {path for path in tmp_path.rglob("*") if "runs" not in path.parts}
    with pytest.raises(
        UserError, match=r"DONE is damaged \(it lists 'weights/\.\./.*', which leads out of the folder\)"
    ):
        bundle(tmp_path / "table.tar", runs=full_lab.runs, images=0, weights=True)
    assert {path for path in tmp_path.rglob("*") if "runs" not in path.parts} == before


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME], ids=["x", "g", "L"])
def test_a_header_of_an_exabyte_is_not_taken_for_a_lack_of_memory(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = kind, 1 << 60
    (tmp_path / "table.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="is not as it was made: it is not a whole tar file"):
        verify(tmp_path / "table.tar")


def test_a_link_does_not_put_a_private_file_into_a_bundle(full_lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    run = next(run for run in find_runs(full_lab.runs) if run.config().is_trained)
    run.weights.mkdir(exist_ok=True)
    (run.weights / "more").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a symbolic link"):
        bundle(tmp_path / "table.tar", runs=full_lab.runs, images=0, weights=True)
    assert not (tmp_path / "table.tar").exists()


def of(content: Members, end: str) -> int:
    """The place of the first member whose name ends so."""
    return next(place for place, (entry, _) in enumerate(content) if entry.name.endswith(end))


def change(end: str, old: bytes, new: bytes) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        place = of(content, end)
        entry, data = content[place]
        assert old in data
        content[place] = (entry, data.replace(old, new, 1))

    return apply


def consistently(end: str, old: bytes, new: bytes) -> Callable[[Members], None]:
    """A change whose digest in the table of contents is changed, too."""

    def apply(content: Members) -> None:
        change(end, old, new)(content)
        relist(content)

    return apply


def relist(content: Members) -> None:
    listing = json.loads(content[0][1])
    listing["files"] = {
        entry.name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for entry, data in content[1:]
    }
    content[0] = (content[0][0], json.dumps(listing).encode())


def without(end: str, *, listed: bool = False) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        del content[of(content, end)]
        if listed:
            relist(content)

    return apply


def with_member(name: str, *, kind: bytes = tarfile.REGTYPE, listed: bool = False) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/hostname" if kind != tarfile.REGTYPE else ""
        content.append((entry, b"x" if kind == tarfile.REGTYPE else b""))
        if listed:
            relist(content)

    return apply


def twice(content: Members) -> None:
    content.append(content[of(content, "config.json")])


def first_last(content: Members) -> None:
    content.append(content.pop(0))


MANIPULATIONS: dict[str, tuple[Callable[[Members], None], str]] = {
    "a score": (change("scores.jsonl", b'"score": 0', b'"score": 1'), "SHA-256 of .*scores.jsonl"),
    "a score, and the contents": (
        consistently("scores.jsonl", b'"score": 0', b'"score": 1'),
        "scores.jsonl is damaged",
    ),
    "a longer file": (change("config.json", b"{", b"{ "), "config.json has .* bytes"),
    "a setting, and the contents": (
        consistently("seed-0/config.json", b'"seed": 0', b'"seed": 7'),
        "config.json is damaged",
    ),
    "the protocol, and the contents": (
        consistently("protocol.json", b'"steps": 20', b'"steps": 50'),
        "protocol.json is damaged",
    ),
    "a prompt, and the contents": (consistently("prompts.json", b"bee", b"dog"), "prompts.json is damaged"),
    "the cost, and the contents": (
        consistently("ledger.json", b'"seconds": ', b'"seconds": 1'),
        "ledger.json is damaged",
    ),
    "the training log, and the contents": (
        consistently("train.jsonl", b'"loss": 0', b'"loss": 1'),
        "train.jsonl is damaged",
    ),
    "the metrics, and the contents": (
        consistently("metrics.json", b'"version": 1', b'"version": 2'),
        "metrics.json is damaged",
    ),
    "a picture": (change(".png", b"IHDR", b"IHDS"), "SHA-256 of .*png"),
    "a picture, and the contents": (consistently(".png", b"IHDR", b"IHDS"), "png is damaged"),
    "a file is missing": (without("ledger.json"), "ledger.json is missing"),
    "a file is missing, and not listed": (without("ledger.json", listed=True), "ledger.json is damaged"),
    "a table is missing, and not listed": (without(".json", listed=True), "x"),
    "a file more": (with_member("runs/extra.json"), "does not list runs/extra.json"),
    "a file outside": (with_member("../outside.json", listed=True), "leads out of the folder"),
    "an absolute path": (with_member("/outside.json", listed=True), "leads out of the folder"),
    "a link": (with_member("runs/link", kind=tarfile.SYMTYPE), "runs/link is not a plain file"),
    "a device": (with_member("runs/device", kind=tarfile.CHRTYPE), "runs/device is not a plain file"),
    "a file twice": (twice, "holds .*config.json twice"),
    "another order": (first_last, "does not begin with bundle.json"),
    "a schema before the first": (change("bundle.json", b'"schema": 1', b'"schema": 0'), "schema"),
    "a newer schema": (change("bundle.json", b'"schema": 1', b'"schema": 2'), "bundle schema 2"),
    "contents that are not JSON": (change("bundle.json", b"{", b"["), "bundle.json is not JSON"),
    "contents that are a list": (
        lambda content: content.__setitem__(0, (content[0][0], b"[]")),
        "bundle.json is not a table of contents",
    ),
    "contents without files": (change("bundle.json", b'"files": {', b'"files": null, "x": {'), "is not as it was made"),
    "a file of fewer bytes than none": (
        change("bundle.json", b'"bytes": ', b'"bytes": -'),
        "bundle.json is not a table of contents .*bytes: input should be greater",
    ),
    "a name of a million letters": (with_member("x" * 1_000_000), "does not list x{100}"),
    "a field more in the contents": (
        change("bundle.json", b'"schema": 1', b'"schema": 1, "by": 1'),
        "holds by, a field",
    ),
}


def table(change: Callable[[dict[str, Any]], None], *, version: str | None = None) -> Callable[[Members], None]:
    """A change of the stored table whose digest is changed, too; ``version`` is the one that the table claims to be made by."""

    def apply(content: Members) -> None:
        place = next(place for place, (entry, _) in enumerate(content) if entry.name.startswith("reports/"))
        entry, data = content[place]
        report = json.loads(data)
        if version is not None:
            report["citation"] = re.sub(r"^bench \S+", f"bench {version}", report["citation"])
        change(report)
        content[place] = (entry, (json.dumps(report, indent=2) + "\n").encode())
        relist(content)

    return apply


def relabelled(report: dict[str, Any]) -> None:
    report["rows"][0]["label"] = "ours"


def without_a_score(report: dict[str, Any]) -> None:
    del report["rows"][1]["scores"]["gold"]


def uncited(report: dict[str, Any]) -> None:
    del report["citation"]


def cited_otherwise(report: dict[str, Any]) -> None:
    report["citation"] = report["citation"].replace("12 prompts", "120 prompts")


def raised(report: dict[str, Any]) -> None:
    report["rows"][1]["scores"]["gold"]["mean"] *= 1 + 1e-6


def certain(report: dict[str, Any]) -> None:
    report["rows"][1]["scores"]["gold"]["win_rate"]["p_value"] = 0


def untrained_on(report: dict[str, Any]) -> None:
    report["rows"][3]["scores"]["pickscore"]["trained_on"] = False


def cheaper(report: dict[str, Any]) -> None:
    report["rows"][1]["cost"]["peak_memory_bytes"] -= 1


def row_more(report: dict[str, Any]) -> None:
    report["rows"].append(report["rows"][1])


def field_more(report: dict[str, Any]) -> None:
    report["rows"][1]["award"] = "best"


def grown(report: dict[str, Any]) -> None:
    report["schema"] += 1


def table_lost(content: Members) -> None:
    del content[next(place for place, (entry, _) in enumerate(content) if entry.name.startswith("reports/"))]
    relist(content)


DIFFERS = "reports/.*json differs from its runs in "
MANIPULATIONS |= {
    "a label": (table(relabelled), rf"{DIFFERS}rows.0.label \('ours' and 'base'\); get an intact copy$"),
    "a score of the table is missing": (
        table(without_a_score),
        rf"{DIFFERS}rows.1.scores.gold \(it is missing\); get an intact copy$",
    ),
    "a table without its citation": (table(uncited), rf"{DIFFERS}citation"),
    "a table cited otherwise": (table(cited_otherwise), rf"{DIFFERS}citation"),
    "a mean": (table(raised), rf"{DIFFERS}rows.1.scores.gold.mean"),
    **{
        f"{name}, of a table of another version": (
            table(change, version="0.0.9"),
            rf"{DIFFERS}{where} .*; bench 0.0.9 made it, and this is bench {HERE}: verify it with that version to be sure$",
        )
        for name, change, where in (
            ("a label", relabelled, "rows.0.label"),
            ("the citation", cited_otherwise, "citation"),
            ("a mean", raised, "rows.1.scores.gold.mean"),
            ("a p value", certain, "rows.1.scores.gold.win_rate.p_value"),
            ("what a row was trained on", untrained_on, "rows.3.scores.pickscore.trained_on"),
            ("a cost", cheaper, "rows.1.cost.peak_memory_bytes"),
            ("a row more", row_more, "rows"),
            ("a field more", field_more, "rows.1.award"),
            ("a newer format", grown, "schema"),
        )
    },
}
MANIPULATIONS["a table is missing, and not listed"] = (table_lost, "its reports are not those of its protocols")


def sparse(content: Members) -> None:
    """A member of two blocks that unpacks to 4 TiB."""
    entry = tarfile.TarInfo("runs/zeros")
    size = str(1 << 42)
    entry.pax_headers = {"GNU.sparse.name": "runs/zeros", "GNU.sparse.size": size, "GNU.sparse.map": f"{size},0"}
    listing = json.loads(content[0][1])
    listing["files"][entry.name] = {"bytes": 1 << 42, "sha256": "0" * 64}
    content[0] = (content[0][0], json.dumps(listing).encode())
    content.append((entry, b""))


def nothing(content: Members) -> None:
    del content[1:]
    relist(content)


def with_report(text: bytes) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        place = next(place for place, (entry, _) in enumerate(content) if entry.name.startswith("reports/"))
        content[place] = (content[place][0], text)
        relist(content)

    return apply


def both(*names: str) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        for name in names:
            with_member(name, listed=True)(content)

    return apply


def with_header(**fields: Any) -> Callable[[Members], None]:
    """A member more, whose header holds what no program writes there."""

    def apply(content: Members) -> None:
        with_member("runs/x", listed=True)(content)
        for name, value in fields.items():
            setattr(content[-1][0], name, value)

    return apply


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "runs/x"}
MANIPULATIONS |= {
    "a sparse file without a size": (with_header(pax_headers=SPARSE), "is not a whole tar file"),
    "a size that is no number": (with_header(pax_headers={"GNU.sparse.size": "x"}), "is not a whole tar file"),
    "a name that is too long": (
        both("runs/" + "x" * 300),
        r"table.tar: runs/x+\.\.\.x+ cannot be unpacked .File name too long",
    ),
    "a file of no run": (both("runs/x"), "runs/x is not a file of a run"),
    "a file beside the runs": (both("README.md"), "README.md is not a file of a run"),
    "a file in a run": (both("runs/tiny/base/x.sh"), "runs/tiny/base/x.sh is not a file of a run"),
    "a file beside the reports": (both("reports/x.sh"), "reports/x.sh is not a file of a run"),
    "nothing": (nothing, "it holds no finished run"),
    "a sparse file": (sparse, "runs/zeros is not a plain file"),
    "two spellings of a name": (both("runs/x", "runs/./x"), "holds runs/./x twice"),
    "a file where a folder is": (both("runs/x/y", "runs/x"), "holds runs/x twice"),
    "a folder where a file is": (both("runs/x", "runs/x/y"), "holds runs/x as a file and as a folder"),
    "a table that is not JSON": (with_report(b"{"), "json is not JSON"),
    "a table that is deeply nested": (with_report(b"[" * 100_000), "json is not JSON .it is nested too deeply"),
    "a table that is not an object": (with_report(b"3"), "differs from its runs in citation"),
    "a table that is not text": (with_report(b"\xff"), "reports/.*json is damaged"),
    "an environment that is not JSON": (
        with_member("runs/tiny/base/environment.json", listed=True),
        "base/environment.json is damaged",
    ),
    "another environment": (
        with_member("runs/tiny/dpo/default/seed-0/environment.json", listed=True),
        "environment.json is damaged .DONE does not list it",
    ),
}


@pytest.mark.parametrize("manipulation", MANIPULATIONS)
def test_a_manipulation_is_found(made: Path, manipulation: str) -> None:
    apply, sentence = MANIPULATIONS[manipulation]
    content = members(made)
    apply(content)
    write(made, content)
    with pytest.raises(UserError, match=sentence) as refused:
        verify(made)
    said = str(refused.value)
    assert "is not as it was made" not in said or said.endswith(
        ("; get an intact copy", "with that version to be sure")
    )
    assert "/bundle" not in said  # the temporary folder that it is unpacked to


def test_an_archive_of_another_version_and_another_machine_is_as_it_was_made(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers that differ in their last digits, sentences in other words, and a field that this version added."""

    def elsewhere(report: dict[str, Any]) -> None:
        report["rows"] = rounded(report["rows"])
        report["settings"] = "the tiny world"
        report["notes"].append("A sentence that this version does not write.")
        del report["primary"]

    verify(made)
    assert f"is as bench {HERE} made it: " in capsys.readouterr().err
    content = members(made)
    table(elsewhere, version="0.0.9")(content)
    write(made, content)
    verify(made)
    assert (
        f"{made} is as bench 0.0.9 made it: {len(content) - 1} files, tables computed again" in capsys.readouterr().err
    )


def rounded(value: Any) -> Any:
    """A JSON value whose floats differ in the 12th digit, as none of one computation do."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return value * (1 + 1e-12) + 1e-15 if isinstance(value, float) else value


def test_errors_name_the_runs_and_the_archive_and_no_temporary_folder(lab: Lab, tmp_path: Path) -> None:
    lab.base_alone()
    lab.run("dpo")
    with pytest.raises(UserError) as refused:
        bundle(tmp_path / "table.tar", runs=lab.runs, images=1)
    assert str(refused.value).startswith(f"{lab.runs}/tiny has no finished evaluation of the base model")


def test_an_archive_is_unpacked_into_a_new_folder_of_a_new_folder(made: Path, tmp_path: Path) -> None:
    verify(made, tmp_path / "new" / "table")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table"]
    assert (tmp_path / "new/table/runs/tiny/base/config.json").exists()


def test_a_cut_archive_and_none_at_all_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no bundle"):
        verify(tmp_path / "nothing.tar")
    made.write_bytes(made.read_bytes()[:5000])
    with pytest.raises(UserError, match="is not as it was made"):
        verify(made)
    made.write_text("not an archive")
    with pytest.raises(UserError, match="is not as it was made: it is not a whole tar file"):
        verify(made)
