from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from pipelines import WRITERS
from shared import made_once


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``pipeline_folder("sdxl", prediction_type="v_prediction")``: a saved pipeline, made when first asked for and only to be read."""
    made: dict[str, Path] = {}

    def folder(kind: str, **changes: object) -> Path:
        key = repr((kind, sorted(changes.items())))
        if key not in made:
            name = f"micro-{kind}"
            place = made_once(
                tmp_path_factory,
                f"{kind}-{crc32(key.encode())}",
                lambda folder: WRITERS[kind](folder / name, **changes),
            )
            made[key] = place / name
        return made[key]

    return folder
