"""`bench doctor`: what is there, and what to do where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.doctor import findings


def test_everything_has_a_line_and_what_is_missing_has_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # the port of nobody
    (tmp_path / ".cache" / "x").mkdir(parents=True)
    (tmp_path / ".cache" / "x" / "latents").write_bytes(b"1234")
    (tmp_path / "tiny" / "base").mkdir(parents=True)
    found = {each.subject: each for each in findings(tmp_path)}
    assert {
        "bench",
        "libraries",
        "memory",
        "disk",
        "hub cache",
        "hub",
        "tensorboard",
        "cache",
        "models",
        "slurm",
    } <= found.keys()
    assert any(subject.startswith("gpu") for subject in found)
    assert found["hub"].mark == "missing"
    assert "http://127.0.0.1:9 cannot be reached" in found["hub"].what
    assert "tiny" in found["models"].what
    assert all(each.advice for each in found.values() if each.mark != "ok")
    assert "torch 2" in found["libraries"].what


def test_the_hub_is_left_alone_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.create_connection", None)
    hub = next(each for each in findings(tmp_path) if each.subject == "hub")
    assert hub.what.startswith("HF_HUB_OFFLINE is set")


def test_a_folder_that_cannot_be_written_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda place, _: Path(place) != tmp_path)
    disk = next(each for each in findings(tmp_path / "runs") if each.subject == "disk")
    assert (disk.mark, disk.what) == ("missing", f"{tmp_path} cannot be written")


@pytest.mark.parametrize("endpoint", ["http://localhost:99999", "http://localhost:https", "http://[::1", "http://a..b"])
def test_an_endpoint_that_is_no_address_is_what_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    hub = next(each for each in findings(tmp_path) if each.subject == "hub")
    assert (hub.mark, hub.advice) == ("missing", "correct or unset HF_ENDPOINT")
    assert hub.what.startswith(f"{endpoint} is not an address (")


@pytest.mark.parametrize(
    ("variable", "value"), [("HF_ENDPOINT", "http://localhost:99999"), ("HF_HUB_ETAG_TIMEOUT", "soon")]
)
def test_an_environment_with_which_the_hubs_library_does_not_start(tmp_path: Path, variable: str, value: str) -> None:
    environment = {**os.environ, variable: value, "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "bench", "doctor", "--runs", str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "missing  hub        huggingface_hub does not start with this environment (" in done.stdout
    (advice,) = [line for line in done.stdout.splitlines() if "correct or unset the environment variable" in line]
    assert variable in advice
    assert "slurm" in done.stdout
    words = [sys.executable, "-m", "bench", "run", "--algo", "dpo", "--model", "tiny", "--runs", str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stderr.splitlines() if "huggingface_hub does not start" in line]
    assert (done.returncode, line.startswith("error: "), "Traceback" in done.stderr) == (2, True, False)
    assert variable in line
