from __future__ import annotations

from pathlib import Path

from bench.core.files import write_json
from bench.records.runs import find_runs


def run(folder: Path) -> Path:
    write_json(folder / "config.json", {"schema": 2})
    return folder


def found(runs: Path) -> list[str]:
    return [each.folder.relative_to(runs).as_posix() for each in find_runs(runs)]


def test_runs_are_found_in_order_and_not_inside_one_another(tmp_path: Path) -> None:
    for name in ("tiny/dpo/recipe/seed-1", "tiny/dpo/recipe/seed-0", "tiny/base", ".cache/old"):
        run(tmp_path / name)
    run(tmp_path / "tiny/base/weights")  # diffusers writes a config.json too
    assert found(tmp_path) == ["tiny/base", "tiny/dpo/recipe/seed-0", "tiny/dpo/recipe/seed-1"]


def test_links_to_folders_are_followed_and_a_circle_of_them_ends(tmp_path: Path) -> None:
    elsewhere, runs = tmp_path / "elsewhere", tmp_path / "runs"
    run(elsewhere / "dpo/recipe/seed-0")
    run(tmp_path / "there/base")
    (runs / "tiny").mkdir(parents=True)
    (runs / "tiny/dpo").symlink_to(elsewhere / "dpo")
    (runs / "tiny/base").symlink_to(tmp_path / "there/base")
    (runs / "tiny/again").symlink_to(runs)
    assert found(runs) == ["tiny/base", "tiny/dpo/recipe/seed-0"]
