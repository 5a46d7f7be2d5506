"""Whether pip finds versions for every extra of pyproject.toml within constraints.txt; downloads what packages need, not packages.

``python tests/house/extras.py CHECKOUT``, with the pip of the Python that runs it.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path


def fits(checkout: Path, extra: str) -> bool:
    """Whether pip could install an extra; otherwise pip says why."""
    words = ("install", "--dry-run", "--quiet", "-c", str(checkout / "constraints.txt"), f"{checkout}[{extra}]")
    return subprocess.run([sys.executable, "-m", "pip", *words], check=False).returncode == 0


def main() -> None:
    checkout = Path(sys.argv[1])
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if missing := [extra for extra in project["optional-dependencies"] if not fits(checkout, extra)]:
        sys.exit(f"cannot be installed with constraints.txt: {', '.join(missing)}")


if __name__ == "__main__":
    main()
