"""Records and reports are read without the weight of training."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "accelerate")

SCRIPT = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{sys.argv[1]}.")]
for name in names:
    importlib.import_module(name)
print(len(names), *[name for name in sys.argv[2:] if name in sys.modules])
"""


@pytest.mark.parametrize(("package", "least"), [("reports", 10), ("bench.records", 6)])
def test_no_module_imports_torch(package: str, least: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, package, *HEAVY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, *imported = done.stdout.split()
    assert int(count) >= least
    assert imported == []
