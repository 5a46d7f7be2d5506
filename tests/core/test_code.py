"""What counts as the code of a class, and what does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def digests(folder: Path, expression: str) -> dict[str, str]:
    """The value of an expression on `bench.core.code`, in a new process that finds packages in ``folder`` first."""
    program = f"import json, sys; sys.path.insert(0, {str(folder)!r}); from bench.core.code import *; "
    program += f"print(json.dumps({expression})); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of the project's own packages."""
    for package in ("bench", "algorithms", "metrics", "reports"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def untouched() -> dict[str, str]:
    return digests(ROOT, TRAINING)


TRAINING = "used_code(['algorithms.dpo', 'bench.training.loop', 'bench.models.families.stable_diffusion'])"


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("algorithms/dpo.py", "beta", "gamma", True),
        ("bench/training/step.py", "def ", "def _", True),
        ("bench/training/pairwise.py", "import ", "import ast\nimport ", True),  # by way of `from bench import ...`
        ("bench/core/randomness.py", "return", "assert True\n    return", True),
        ("bench/models/forward_process.py", '"""', '"""Other words.  ', False),
        ("bench/training/step.py", "from __future__", "# a comment\nfrom __future__", False),
        ("bench/core/progress.py", "def ", "def _", False),  # what is shown
        ("bench/records/runs.py", "def ", "def _", False),  # what is written down
        ("bench/core/files.py", "def ", "def _", False),
        ("bench/models/checkpoints/stated.py", "download the model again", "download it", False),  # what is refused
        ("bench/models/families/flux.py", "def ", "def _", False),  # another family
        ("bench/cli/run.py", "def ", "def _", False),
        ("reports/content.py", "def ", "def _", False),
        ("algorithms/kto.py", "def ", "def _", False),
    ],
)
def test_what_counts_of_our_own_code(
    ours: Path, untouched: dict[str, str], file: str, old: str, new: str, counts: bool
) -> None:
    edit(ours / file, old, new)
    assert (digests(ours, TRAINING) != untouched) == counts


def plugin(folder: Path, files: dict[str, str], announced: str | None = None) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    if announced is not None:
        name = announced.partition(".")[0].partition(":")[0]
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[bench.algorithms]\n{name} = {announced}\n")
    return folder


PACKAGE = {
    "own/__init__.py": "",
    "own/loss.py": "class Loss:\n    '''Words.'''\n    value = 1\n",
    "own/deep/lazily.py": "value = 1\n",
    "own/data.json": "{}",
    "own/README.md": "words",
    "own/notes.rst": "words",
    "other.py": "value = 1\n",
}


@pytest.mark.parametrize("announced", ["own.loss:Loss", None], ids=["a distribution", "a folder on the path"])
@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("own/loss.py", "1", "2", True),
        ("own/deep/lazily.py", "1", "2", True),  # nothing imports it by name
        ("own/data.json", "{}", "[]", True),
        ("own/loss.py", "Words", "Other words", False),
        ("own/loss.py", "value = 1", "value   =  (1)  # one", False),
        ("own/README.md", "words", "other", False),
        ("own/notes.rst", "words", "other", False),
        ("other.py", "1", "2", False),
    ],
)
def test_of_a_plugin_all_files_count(
    tmp_path: Path, announced: str | None, file: str, old: str, new: str, counts: bool
) -> None:
    folder = plugin(tmp_path, PACKAGE, announced)
    before = digests(folder, "used_code(['own.loss'])")
    assert before
    edit(folder / file, old, new)
    assert (digests(folder, "used_code(['own.loss'])") != before) == counts


def test_a_docstring_counts_where_it_may_be_read(tmp_path: Path) -> None:
    folder = plugin(tmp_path, {"own.py": "class Loss:\n    '''2'''\n    value = int(__doc__)\n"})
    before = digests(folder, "used_code(['own'])")
    edit(folder / "own.py", "'''2'''", "'''3'''")
    assert digests(folder, "used_code(['own'])") != before


@pytest.mark.parametrize(
    "use",
    [
        "from helper import value",
        "def late():\n    import helper\n    return helper.value",
        "import importlib\nvalue = importlib.import_module('helper').value",
    ],
)
def test_a_helper_beside_a_single_module_counts(tmp_path: Path, use: str) -> None:
    folder = plugin(tmp_path, {"own.py": use, "helper.py": "value = 1\n", "setup.py": "value = 1\n"})
    before = digests(folder, "used_code(['own'])")
    assert sorted(before) == ["helper.py", "own.py"]
    edit(folder / "helper.py", "1", "2")
    assert digests(folder, "used_code(['own'])") != before


def test_another_distribution_with_parts_of_ours_counts_and_a_library_does_not(tmp_path: Path) -> None:
    folder = plugin(tmp_path, {"own.py": "import numpy\nfrom base.core import Loss\n"}, "own:Loss")
    base = {"base/__init__.py": "", "base/core.py": "class Loss: ...\n", "base/helper.py": "value = 1\n"}
    plugin(tmp_path, base, "base.core:Loss")
    found = digests(folder, "used_code(['own'])")
    assert sorted(found) == ["base/__init__.py", "base/core.py", "base/helper.py", "own.py"]


def test_which_part_changed_can_be_told() -> None:
    from algorithms.dpo import DPO
    from algorithms.kto import KTO
    from bench.core.code import code_digests

    harness = ["bench.training.loop"]
    dpo, kto = code_digests([DPO], harness), code_digests([KTO], harness)
    assert dpo["harness"] == kto["harness"]
    assert dpo["own"] != kto["own"]
