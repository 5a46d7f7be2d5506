"""What all tests share."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Helpers that several rooms use, in no package.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
from workshop import Workshop

# A shell starts a background job with Ctrl-C ignored, and whatever a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Run on their own, where the plug-ins are installed: tox run -e plugin.
collect_ignore = ["plugins", "plugin_package", "broken_plugin"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected lives to the end: garbage is not looked for in it, neither meanwhile nor later."""
    gc.disable()
    yield
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A micro model, pairs and everything to train on them."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def micro_model(workshop: Workshop) -> Path:
    """The folder of a `StableDiffusionPipeline` with random weights, as small as it can be."""
    return workshop.model_folder
