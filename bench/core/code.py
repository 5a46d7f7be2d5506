"""What code a result depends on: the modules that a class may use, and their digests.

Python counts by its syntax tree, so that comments, formatting and docstrings are harmless; other files count by their bytes.
Of this package, what a module imports counts (also late imports, and public names of `bench`); of a plug-in, every file of its
distribution does.  Nothing is imported to find out.  Other libraries count by what they do, see `bench.core.probes`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.core.packages import OURS, is_followed, is_ours, located, plugins, root
from bench.core.values import digest

DOCUMENTATION = (".md", ".rst")
DOCUMENTS = ("readme", "license", "licence", "changelog", "notice", "authors")
READS_DOCSTRINGS = ("__doc__", "getdoc")
"""Words by which a module may read docstrings, which then count."""
NAME_LENGTH = 100
"""Longest constant that may be the name of a file, in characters."""
BOOKKEEPING = {
    *(
        f"bench/core/{name}.py"
        for name in (
            "code", "digests", "errors", "files", "folders", "hub", "inputs", "launched", "locks", "manifest", "paths", "progress",
            "registry", "resources", "strict", "termination",
        )
    ),
    *(
        f"bench/records/{name}.py"
        for name in (
            "bounds", "config", "evaluations", "lines", "migrations", "protocol", "reading", "runs", "scores", "training",
        )
    ),
    "bench/models/checkpoints/stated.py",
}  # fmt: skip
"""Our code that finds, reads whole and refuses files, and that shows, locks, and writes down what was done; it does not count, nor what
only it uses."""


def code_digests(kinds: Iterable[type], harness: Sequence[str]) -> dict[str, str]:
    """Digests of the code that a result depends on, 12 hex digits each.

    Args:
        kinds: the classes that the result is by, such as an algorithm's.
        harness: modules of this package that lead to the result, by their names.

    Returns:
        ``own``: of what the classes may use and the harness does not; ``harness``: of what the harness may use; ``libraries``: of
        what other packages do to fixed inputs.
    """
    from bench.core.probes import libraries_digest

    common = used_code(harness)
    bases = {base.__module__ for kind in kinds for base in kind.__mro__}
    own = {label: value for label, value in used_code(sorted(bases)).items() if label not in common}
    return {"own": digest(own), "harness": digest(common), "libraries": libraries_digest()}


def used_code(modules: Iterable[str]) -> dict[str, str]:
    """Digests of all files that some modules may use, by path relative to where packages are; libraries are left out."""
    found: dict[str, str] = {}
    pending = [file for module in modules for file in _files_of(module)]
    while pending:
        file = pending.pop()
        if file.label not in found and file.label not in BOOKKEEPING:
            found[file.label] = _content(file.path).digest
            pending += _used_by(file)
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    """A file of a package: where it is, its path relative to where packages are, and its name as a module or an empty one."""

    path: Path
    label: str
    module: str

    @property
    def package(self) -> str:
        """What its relative imports are relative to."""
        return self.module if self.path.name == "__init__.py" else self.module.rpartition(".")[0]


@dataclasses.dataclass(frozen=True, slots=True)
class _Content:
    """What a file says.

    Attributes:
        digest: of the syntax tree, or of the bytes of what is not Python.
        imports: module, level and names of each import; no names for ``import module``.
        strings: constants that may be the name of a file or a module beside it.
    """

    digest: str
    imports: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    strings: frozenset[str] = frozenset()


@functools.cache  # what was read first is what this process has imported
def _content(path: Path) -> _Content:
    content = path.read_bytes()
    try:
        tree = ast.parse(content) if path.suffix == ".py" else None
    except (SyntaxError, ValueError):  # a template, which nothing can import
        tree = None
    if tree is None:
        return _Content(hashlib.sha256(content).hexdigest()[:16])
    reader = _Reader(keeps_docstrings=any(word.encode() in content for word in READS_DOCSTRINGS))
    reader.read(tree)
    value = hashlib.sha256("\n".join(reader.words).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return _Content(value, tuple(reader.used()), frozenset(reader.strings))


class _Reader:
    """One pass over a syntax tree, without what only type checkers read and, mostly, without strings that are statements.

    Attributes:
        words: the tree, from which everything but positions can be told.
        strings: its short constants.
    """

    def __init__(self, *, keeps_docstrings: bool) -> None:
        self._keeps_docstrings = keeps_docstrings
        self.words: list[str] = []
        self.strings: set[str] = set()
        self._imports: list[tuple[str, int, tuple[str, ...]]] = []
        self._aliases: dict[str, str] = {}
        self._attributes: set[tuple[str, str]] = set()

    def used(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """Module, level and names of every import, also of ``bench.guide`` after ``import bench``."""
        attributes = [
            (self._aliases[name], 0, (attribute,)) for name, attribute in self._attributes if name in self._aliases
        ]
        return [*self._imports, *attributes]

    def read(self, node: object) -> None:
        if isinstance(node, list):
            kept = node if self._keeps_docstrings else [each for each in node if not _is_string(each)]
            self.words.append(str(len(kept)))
            for each in kept:
                self.read(each)
        elif isinstance(node, ast.AST):
            self._note(node)
            self.words.append(type(node).__name__)
            for field in node._fields:
                if field != "body" or not _for_types(node):
                    self.read(getattr(node, field, None))
        else:
            self.words.append(repr(node))

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            self._imports.append((node.module or "", node.level, tuple(each.name for each in node.names)))
        elif isinstance(node, ast.Import):
            self._imports += [(each.name, 0, ()) for each in node.names]
            self._aliases |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            self._attributes.add((node.value.id, node.attr))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < NAME_LENGTH:
            self.strings.add(node.value)


def _is_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@functools.cache
def _used_by(file: _File) -> tuple[_File, ...]:
    """The files that a file imports, and those beside it that it names, each once."""
    return tuple(dict.fromkeys(_imported_and_named(file, _content(file.path))))


def _imported_and_named(file: _File, content: _Content) -> Iterator[_File]:
    for module, level, names in content.imports:
        base = importlib.util.resolve_name("." * level + module, file.package) if level else module
        for used in _modules(base, names):
            yield from _files_of(used)
    for name in content.strings & _beside(file.path.parent):
        path = file.path.parent / name
        path = path if path.is_file() else path.with_name(f"{name}.py")
        if not _is_documentation(path):
            yield from _files_at(path, file)


def _files_at(path: Path, neighbour: _File) -> Iterator[_File]:
    folder = neighbour.label.rpartition("/")[0]
    parent = neighbour.module.rpartition(".")[0]
    module = ".".join(filter(None, [parent, path.stem])) if path.suffix == ".py" else ""
    yield _File(path, f"{folder}/{path.name}" if folder else path.name, module)


@functools.cache
def _beside(folder: Path) -> frozenset[str]:
    """By which names a constant may mean a file of a folder."""
    files = [path for path in folder.iterdir() if path.is_file()]
    # A word such as "loop" in our own code is not a module that is imported by its name.
    stems = [path.stem for path in files if path.suffix == ".py" and not is_ours(path)]
    return frozenset([*(path.name for path in files), *stems])


def _modules(base: str, names: tuple[str, ...]) -> Iterator[str]:
    """The modules that ``from base import names`` needs."""
    if not names or base == "":
        yield base
    for name in names:
        if located(f"{base}.{name}") is not None:
            yield f"{base}.{name}"
        else:
            yield _reexported(base).get(name, base)


@functools.cache
def _reexported(package: str) -> Mapping[str, str]:
    """Where the public names of one of our packages are from, as its imports for type checkers say."""
    path = located(package)
    if package.partition(".")[0] not in OURS or path is None or path.name != "__init__.py":
        return {}
    nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom)]
    return {each.asname or each.name: node.module for node in nodes for each in node.names if node.module}


def _files_of(module: str) -> Iterator[_File]:
    """The files that count where a module is used: its own one of ours, of others all of its package and distribution."""
    path = located(module)
    top = module.partition(".")[0]
    if path is None or not is_followed(top):
        return
    if is_ours(path):
        yield _File(path, _label(module, path), module)
        return
    for package in {root(module), *plugins().get(top, frozenset())}:
        yield from _package_files(package)


@functools.cache  # of a plug-in, every module that imports another one of it asks
def _package_files(package: str) -> tuple[_File, ...]:
    return tuple(_files_in(package))


def _files_in(package: str) -> Iterator[_File]:
    path = located(package)
    if path is None:
        return
    if path.name != "__init__.py":
        yield _File(path, _label(package, path), package)
        return
    for file in sorted(path.parent.rglob("*")):
        inside = file.relative_to(path.parent)
        if (
            not file.is_file()
            or _is_documentation(file)
            or any(part[0] == "." or part == "__pycache__" for part in inside.parts)
        ):
            continue
        parts = inside.parent.parts if file.name == "__init__.py" else inside.with_suffix("").parts
        module = ".".join((package, *parts)) if file.suffix == ".py" else ""
        yield _File(file, f"{package.replace('.', '/')}/{inside.as_posix()}", module)


def _is_documentation(path: Path) -> bool:
    return path.suffix in DOCUMENTATION or (path.suffix in ("", ".txt") and path.stem.lower() in DOCUMENTS)


def _label(module: str, path: Path) -> str:
    return module.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
