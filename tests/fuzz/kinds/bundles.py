"""Archives of `bench bundle` from strangers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

from tests.fuzz.place import Expect, Place, kind

Members = list[tuple[tarfile.TarInfo, bytes]]


def listed(members: Members) -> Members:
    """The members after a table of contents that fits them."""
    files = {
        entry.name: {"bytes": entry.size, "sha256": hashlib.sha256(content).hexdigest()} for entry, content in members
    }
    return [plain("bundle.json", json.dumps({"schema": 1, "files": files}).encode()), *members]


def plain(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    return entry, content


def special(name: str, kind_of: bytes, target: str = "", size: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind_of, target, size
    return entry, b"x" * size


def written(members: Members, *, pax: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogatepass"
    ) as archive:
        for entry, content in members:
            entry.pax_headers = dict(pax or {}) if entry.name != "bundle.json" else {}
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def members(place: Place) -> Members:
    """What a real bundle of the version under test holds; of a version without bundles, records alone."""
    archive = place.finished.parent / "one.tar"
    if archive.exists():
        with tarfile.open(archive) as opened:
            found = [
                plain(each.name, stream.read()) for each in opened if (stream := opened.extractfile(each)) is not None
            ]
        return [each for each in found if each[0].name != "bundle.json"]
    runs = place.finished
    return [
        plain(f"runs/{path.relative_to(runs).as_posix()}", path.read_bytes())
        for path in sorted(runs.rglob("*.json"))
        if ".cache" not in path.parts
    ]


def verified(place: Place, content: bytes, *says: str, outcomes: tuple[int, ...] = (2,)) -> Expect:
    place.write("b.tar", content)
    return Expect(
        place.rng.choice([["verify", "b.tar"], ["verify", "b.tar", "--output", "unpacked"]]),
        outcomes,
        refusal_says=says,
    )


@kind(8, 5)
def damaged_bundles(place: Place) -> Expect:
    content = written(listed(members(place)))
    at = place.rng.randrange(len(content))
    change: Callable[[], bytes] = place.rng.choice([
        lambda: b"", lambda: content[: place.rng.randrange(len(content) - 20_000)], lambda: content[:at] + b"\xff" * 16 + content[at + 16 :],
        lambda: gzip.compress(content), lambda: b"\0" * 10_240, lambda: b"hello", lambda: content[:512] + b"\xff" * 512 + content[1024:],
        lambda: content[:124] + b"77777777777\0" + content[136:], lambda: b"\x80" * 2048,
    ])  # fmt: skip
    return verified(place, change(), "b.tar", outcomes=(0, 2))  # a byte in the padding changes nothing


@kind(4, 6)
def members_that_lead_elsewhere(place: Place) -> Expect:
    found = members(place)
    add = place.rng.choice([
        [plain("../x", b"x")], [plain("runs/../../../x", b"x")], [plain(f"{place.base}/outside/x", b"x")], [special("runs/link", tarfile.SYMTYPE, "../../outside")],
        [special("runs/link", tarfile.SYMTYPE, str(place.base / "outside")), plain("runs/link/x", b"x")], [special("runs/hard", tarfile.LNKTYPE, "/etc/passwd")],
        [special("runs/pipe", tarfile.FIFOTYPE)], [special("runs/device", tarfile.CHRTYPE)], [special("runs/folder", tarfile.DIRTYPE)], [plain("runs/a\\..\\b", b"x")],
        [plain("runs/./x", b"x"), plain("runs/x", b"x")], [plain("runs//y", b"x"), plain("runs/y", b"x")], [plain("runs/x", b"x"), plain("runs/x/y", b"x")],
        [plain("runs/x/y", b"x"), plain("runs/x", b"x")], [plain("runs/" + "x" * 300, b"x")], [plain("x/" * 3000 + "x", b"x")], [plain("runs/\x1b[31m", b"x")],
        [plain("", b"x")], [plain(".", b"x")], [plain("..", b"x")], [plain("runs/a\nb", b"x")],
    ])  # fmt: skip
    return verified(
        place,
        written(listed([*found, *add])),
        outcomes=(0, 2) if len(add) == 1 and "\\" in add[0][0].name + "\\" else (2,),
    )


@kind(8, 5)
def contents_of_bundles(place: Place) -> Expect:
    found = members(place)
    (_, text), *_ = listed(found)
    table = json.loads(text)
    first = next(iter(table["files"]), "x")
    changed: bytes = place.rng.choice([
        b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"schema": ' + b"9" * 6000 + b"}", b"\xff\xfe", b'{"schema": "1", "files": {}}', b'{"schema": 99, "files": 3}',
        b'{"schema": 1, "files": {"\\ud83d": {"bytes": 1, "sha256": "x"}}}', json.dumps(table | {"files": {}}).encode(), json.dumps(table | {"more": 1}).encode(),
        json.dumps(table | {"schema": 0}).encode(), json.dumps(table | {"schema": True}).encode(), b"\xef\xbb\xbf" + text,
        json.dumps(table | {"files": table["files"] | {first: {"bytes": 10**30, "sha256": "0" * 64}}}).encode(),
        json.dumps(table | {"files": table["files"] | {first: {"bytes": -1, "sha256": "0" * 64}}}).encode(),
        json.dumps(table | {"files": table["files"] | {"runs/more": {"bytes": 1, "sha256": "0" * 64}}}).encode(),
    ])  # fmt: skip
    return verified(
        place,
        written([plain("bundle.json", changed), *found]),
        "b.tar",
        outcomes=(0, 2) if b'"schema": true' in changed or changed[:1] == b"\xef" else (2,),
    )


@kind(8, 6)
def bundles_that_fit_their_contents(place: Place) -> Expect:
    """Changed files that are listed with the digests that they have."""
    found = members(place)
    at = place.rng.choice(
        [number for number, (entry, _) in enumerate(found) if entry.name.endswith((".json", ".jsonl", "DONE"))]
    )
    entry, content = found[at]
    new = place.rng.choice(
        [
            b"",
            b"{",
            b"[" * 100_000,
            b"\xff",
            b"null",
            b"[]",
            b"9" * 6000,
            content[: len(content) // 2],
            content.replace(b"0.", b"7.", 1),
            b"3",
        ]
    )
    if new == content or place.rng.random() < 0.2:
        return verified(place, written(listed(found[:at] + found[at + 1 :])), outcomes=(0, 2))
    found[at] = plain(entry.name, new)
    # an empty DONE is that of an older version, which wrote no digests
    return verified(
        place, written(listed(found)), outcomes=(0, 2) if new == b"" and entry.name.endswith("DONE") else (2,)
    )


@kind(5, 2)
def small_bundles_that_unpack_to_terabytes(place: Place) -> Expect:
    entry = tarfile.TarInfo("runs/x")
    stream = io.BytesIO()
    table = json.dumps({"schema": 1, "files": {"runs/x": {"bytes": 1 << 42, "sha256": "0" * 64}}}).encode()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        first, content = plain("bundle.json", table)
        archive.addfile(first, io.BytesIO(content))
        entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "runs/x", "GNU.sparse.size": str(1 << 42), "GNU.sparse.realsize": str(1 << 42),
                             "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"}  # fmt: skip
        archive.addfile(entry)
    return verified(place, stream.getvalue(), "b.tar")


@kind(8, 2)
def bundles_that_are_not_files(place: Place) -> Expect:
    place.write("b.tar", "x")
    (place.folder / "there").mkdir()
    typed = place.rng.choice(
        [
            ["nowhere.tar"],
            ["."],
            ["/dev/null"],
            [""],
            ["x" * 5000],
            ["b.tar", "--output", "there"],
            ["b.tar", "--output", ""],
            ["b.tar", "--output", "x/y/z"],
        ]
    )
    return Expect(["verify", *typed], (2,))


@kind(4, 4)
def runs_to_bundle(place: Place) -> Expect:
    runs = place.runs()
    secret = place.base / "outside" / "victim"
    run = runs / "tiny" / "dpo" / "one" / "seed-0"
    words = ["bundle", "b.tar"]
    how = place.rng.choice(["record", "weights", "image", "output", "name", "none"])
    if how == "record":
        file = place.rng.choice(
            [path for path in run.iterdir() if path.is_file() and path.suffix in (".json", ".jsonl")]
        )
        file.unlink()
        file.symlink_to(secret)
        return Expect(words, (2,))
    if how == "weights":
        (run / "weights" / "more").symlink_to(secret)
        return Expect([*words, "--weights"], (2,))
    if how == "image":
        file = place.rng.choice(sorted(run.rglob("*.png")))
        file.unlink()
        file.symlink_to(secret)
        return Expect(words, (2,))
    if how == "output":
        return Expect(
            ["bundle", place.rng.choice([".", "runs", "x" * 300 + ".tar", "", "/dev/null", "/proc/x.tar"])], (2,)
        )
    if how == "name":
        return Expect(
            [*words, place.rng.choice(["../x", "/etc", "nope", "tiny/../../x", "", "\x1b[31m", "[/x]"])], (0, 2)
        )
    return Expect([*words, "--images", place.rng.choice(["-1", "x", "9" * 30])], (0, 2))
