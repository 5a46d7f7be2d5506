"""Finished work that was changed, cut or lost is named by the command that reads it, in one sentence, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shared import linked_copy

from bench.records.runs import RunFolder

Small = Any
"""`conftest.Small`, which is in no package."""
Edit = Callable[[Small], Path]
"""Changes something and returns the file that the sentence must name."""

REPORT = ("report", "--format", "csv")


def replace(path: Path, content: bytes | str) -> Path:
    """Put other content in place of a file, which may be a link to one that other tests use."""
    path.unlink()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lost(path: Path) -> Path:
    path.unlink()
    return path


def cut(path: Path) -> Path:
    content = path.read_bytes()
    return replace(path, content[: len(content) // 2])


def flipped(path: Path, place: int = -1) -> Path:
    """One bit of a file changed."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    return replace(path, bytes(content))


def lines(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> Path:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    changed = change(records) or records
    return replace(path, "".join(json.dumps(record) + "\n" for record in changed))


def value(path: Path, change: Callable[[Any], Any]) -> Path:
    content = json.loads(path.read_text())
    changed = change(content) or content
    return replace(path, json.dumps(changed, indent=2, ensure_ascii=False) + "\n")


def swapped(one: Path, other: Path) -> Path:
    first, second = one.read_bytes(), other.read_bytes()
    replace(other, first)
    return replace(one, second)


def painted(path: Path) -> Path:
    """One pixel of an image changed by one level."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    red, green, blue = image.getpixel((5, 5))  # type: ignore[misc]
    image.putpixel((5, 5), (red ^ 1, green, blue))
    path.unlink()
    image.save(path)
    return path


def other_folder(folder: Path, other: Path) -> Path:
    """Another whole folder in place of one."""
    shutil.rmtree(folder)
    linked_copy(other, folder)
    return next(folder.rglob("state.safetensors"), folder / "DONE")


def of_another_seed(small: Small) -> Path:
    """A whole run that is finished but was trained with seed 1, in the folder of seed 0."""
    path: Path = small.run().folder / "config.json"
    value(path, lambda v: v.update(seed=1))
    done = path.with_name("DONE")
    content = path.read_bytes()
    value(
        done,
        lambda v: v["files"]["config.json"].update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),
    )
    return path.parent


def without_digests(small: Small) -> None:
    """Leave the folder as older versions did: finished work is marked by empty files."""
    for done in small.runs.glob("tiny/**/DONE"):
        replace(done, "")


def unfinished(small: Small) -> RunFolder:
    """The run, whose training is to be finished from its checkpoint."""
    run: RunFolder = small.run()
    (run.folder / "DONE").unlink()
    return run


SCORES: dict[str, Edit] = {
    "a score": lambda s: lines(s.evaluation().scores, lambda r: r[0].update(score=r[0]["score"] + 0.5)),
    "a score of the base": lambda s: lines(s.evaluation("base").scores, lambda r: r[3].update(score=0.0)),
    "the last digit of a score": lambda s: flipped(
        s.evaluation().scores, s.evaluation().scores.read_bytes().rfind(b",") - 1
    ),
    "a deleted score": lambda s: lines(s.evaluation().scores, lambda r: r[1:]),
    "a repeated score": lambda s: lines(s.evaluation().scores, lambda r: [*r, r[0]]),
    "scores in another order": lambda s: lines(s.evaluation().scores, lambda r: r[::-1]),
    "scores of another metric": lambda s: lines(s.evaluation().scores, lambda r: [{**e, "metric": "clip"} for e in r]),
    "scores of another run": lambda s: swapped(s.evaluation().scores, s.evaluation("smpo").scores),
    "scores cut short": lambda s: cut(s.evaluation().scores),
    "scores lost": lambda s: lost(s.evaluation().scores),
    "an empty file of scores": lambda s: replace(s.evaluation().scores, ""),
}
TRAINING: dict[str, Edit] = {
    "pairs in the ledger": lambda s: value(s.run().folder / "ledger.json", lambda v: v.update(pairs=2)),
    "seconds in the ledger": lambda s: value(s.run().folder / "ledger.json", lambda v: v.update(seconds=0.001)),
    "a field of the ledger lost": lambda s: value(s.run().folder / "ledger.json", lambda v: {"pairs": v["pairs"]}),
    "the ledger cut short": lambda s: cut(s.run().folder / "ledger.json"),
    "the ledger lost": lambda s: lost(s.run().folder / "ledger.json"),
    "a loss": lambda s: lines(s.run().train_log, lambda r: r[1].update(loss=0.1)),
    "a step lost": lambda s: lines(s.run().train_log, lambda r: r[1:]),
    "the log cut short": lambda s: cut(s.run().train_log),
    "the log lost": lambda s: lost(s.run().train_log),
    "a hyper-parameter": lambda s: value(
        s.run().folder / "config.json", lambda v: v["resolved"]["algorithm"].update(beta=5.0)
    ),
    "the training seed": lambda s: value(s.run().folder / "config.json", lambda v: v.update(seed=1)),
    "the configuration cut short": lambda s: cut(s.run().folder / "config.json"),
    "the configuration lost": lambda s: lost(s.run().folder / "config.json"),
    "the run's manifest cut short": lambda s: cut(s.run().folder / "DONE"),
    "the run's manifest, something else": lambda s: replace(s.run().folder / "DONE", '{"files": {"a": 1}}'),
    "the run's manifest, endless bytes": lambda s: replace(
        s.run().folder / "DONE", '{"files": {"a": {"bytes": 1e999, "sha256": ""}}}'
    ),
    "the run's manifest, a file elsewhere": lambda s: value(
        s.run().folder / "DONE", lambda v: v["files"].update({"weights/../../x": {"bytes": 2, "sha256": "0" * 64}})
    ),
}
EVALUATION: dict[str, Edit] = {
    "guidance in the protocol": lambda s: value(
        s.evaluation().folder / "protocol.json", lambda v: v["generation"].update(guidance_scale=4.0)
    ),
    "the protocol cut short": lambda s: cut(s.evaluation().folder / "protocol.json"),
    "the protocol lost": lambda s: lost(s.evaluation().folder / "protocol.json"),
    "a metric's identity": lambda s: value(
        s.evaluation().folder / "metrics.json", lambda v: v["gold"]["identity"].update(version=9)
    ),
    "a metric's signature": lambda s: value(
        s.evaluation().folder / "metrics.json", lambda v: v["gold"].update(signature="0" * 12)
    ),
    "a metric's direction": lambda s: value(
        s.evaluation().folder / "metrics.json", lambda v: v["gold"]["info"].update(higher_is_better=False)
    ),
    "a metric lost": lambda s: value(s.evaluation().folder / "metrics.json", lambda v: {"gold": v["gold"]}),
    "the metrics lost": lambda s: lost(s.evaluation().folder / "metrics.json"),
    "a prompt": lambda s: value(s.evaluation().folder / "prompts.json", lambda v: ["a cat", *v[1:]]),
    "prompts in another order": lambda s: value(s.evaluation().folder / "prompts.json", lambda v: v[::-1]),
    "prompts lost": lambda s: lost(s.evaluation().folder / "prompts.json"),
    "prompts in training": lambda s: value(s.evaluation().folder / "in_training.json", lambda v: {"prompts": 1}),
    "prompts in training, a list": lambda s: replace(s.evaluation().folder / "in_training.json", "[1]"),
    "a sampling that was not": lambda s: (s.evaluation().folder / "variant.json", replace_or_make(s))[0],
    "the evaluation of another run": lambda s: other_folder(s.evaluation().folder, s.evaluation("smpo").folder),
    "the base's evaluation in place of a run's": lambda s: other_folder(
        s.evaluation().folder, s.evaluation("base").folder
    ),
    "the evaluation's manifest cut short": lambda s: cut(s.evaluation().folder / "DONE"),
}


IMAGES: dict[str, Edit] = {
    "an image, one level of one pixel": lambda s: painted(s.evaluation().image(1, 0)),
    "two images swapped": lambda s: swapped(s.evaluation().image(0, 0), s.evaluation().image(1, 0)),
    "an image of another run": lambda s: replace(
        s.evaluation().image(0, 0), s.evaluation("base").image(0, 0).read_bytes()
    ),
}
"""Edits of what the page alone shows."""


def replace_or_make(small: Small) -> None:
    (small.evaluation().folder / "variant.json").write_text("{}")


@pytest.mark.parametrize("edit", (SCORES | TRAINING | EVALUATION).values(), ids=(SCORES | TRAINING | EVALUATION).keys())
def test_the_report_names_what_was_changed(small: Small, edit: Edit) -> None:
    assert_named(small, small.bench, REPORT, edit)


@pytest.mark.parametrize("edit", IMAGES.values(), ids=IMAGES.keys())
def test_the_page_names_the_image_that_was_changed(small: Small, edit: Edit) -> None:
    assert_named(small, small.bench, ("report", "--format", "html", "--output", "page.html"), edit)
    assert not (small.folder / "page.html").exists()
    assert small.bench(*REPORT).returncode == 0  # which shows no image


RUN: dict[str, Edit] = {
    "an image lost": lambda s: lost(s.evaluation().image(1, 0)),
    "an image of the base cut short": lambda s: cut(s.evaluation("base").image(0, 0)),
    "a score": lambda s: lines(s.evaluation().scores, lambda r: r[0].update(score=r[0]["score"] + 0.5)),
    "the log lost": lambda s: lost(s.run().train_log),
    "a digit of the ledger": lambda s: flipped(s.run().folder / "ledger.json", 12),
    "a letter of a prompt": lambda s: flipped(s.evaluation().folder / "prompts.json", 8),
    "one bit of the weights": lambda s: flipped(next(s.run().weights.glob("*.safetensors"))),
    "the weights lost": lambda s: lost(next(s.run().weights.glob("*.safetensors"))),
    "the weights' configuration": lambda s: flipped(s.run().weights / "config.json", 10),
    "one bit of the checkpoint": lambda s: flipped(next(unfinished(s).checkpoints.glob("*/state.safetensors"))),
    "the checkpoint cut short": lambda s: cut(next(unfinished(s).checkpoints.glob("*/state.safetensors"))),
    "the checkpoint's state lost": lambda s: lost(next(unfinished(s).checkpoints.glob("*/state.safetensors"))),
    "the checkpoints of another run": lambda s: other_folder(unfinished(s).checkpoints, s.run("smpo").checkpoints),
    "the run of another seed": of_another_seed,
    "the evaluation of another run": lambda s: other_folder(s.evaluation().folder, s.evaluation("smpo").folder),
    "the log before the checkpoint": lambda s: lines(unfinished(s).train_log, lambda r: r[:1]),
}


@pytest.mark.parametrize("edit", RUN.values(), ids=RUN.keys())
def test_the_command_that_made_them_names_what_was_changed(small: Small, edit: Edit) -> None:
    assert_named(small, small.train, (), edit)


def surveyed_here(small: Small) -> Path:
    """What was found in the data in this folder; in another place it is looked for again."""
    before = set(small.runs.glob(".cache/surveys/*.npz"))
    assert small.train().returncode == 0
    (made,) = set(small.runs.glob(".cache/surveys/*.npz")) - before
    return made


CACHES: dict[str, Edit] = {
    "one bit of the latents": lambda s: flipped(next(s.runs.glob(".cache/*/posterior-*.npy"))),
    "embeddings cut short": lambda s: cut(next(s.runs.glob(".cache/*/text-*.npy"))),
    "one bit of the scores trained on": lambda s: flipped(next(s.runs.glob(".cache/*/scores-*.npy"))),
    "what was found in the data": lambda s: flipped(surveyed_here(s), 200),
}


READ_ALIKE = ("embeddings cut short", "what was found in the data", "one bit of the scores trained on")
"""Read and refused as the others are."""


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=name, marks=pytest.mark.slow if name in READ_ALIKE else ())
        for name, edit in CACHES.items()
    ],
)
def test_a_changed_cache_is_named_and_computed_again_when_it_is_deleted(small: Small, edit: Edit) -> None:
    words = ("--set", "learning_rate=1e-4")
    named = assert_named(small, lambda *words: small.train(*words, algo="smpo"), words, edit)
    named.unlink()
    again = small.train(*words, algo="smpo")
    assert again.returncode == 0, again.stderr


def test_other_weights_in_place_of_a_runs_are_not_judged(small: Small) -> None:
    edit = lambda s: swapped(*(next(s.run(each).weights.glob("*.safetensors")) for each in ("dpo", "smpo")))  # noqa: E731
    run = small.run().folder.relative_to(small.runs).as_posix()
    assert_named(small, small.bench, ("eval", "--model", "tiny", "--run", run, "--prompts", "prompts.txt"), edit)


OLD: dict[str, Edit] = {
    "a score for a prompt that is not there": lambda s: lines(
        s.evaluation().scores, lambda r: r[0].update(prompt_index=7)
    ),
    "a score for a prompt before the first": lambda s: lines(
        s.evaluation().scores, lambda r: r[0].update(prompt_index=-1)
    ),
    "a score for an image that is not there": lambda s: lines(
        s.evaluation().scores, lambda r: r[0].update(image_index=1)
    ),
    "a score that is not a number": lambda s: lines(s.evaluation().scores, lambda r: r[0].update(score=float("nan"))),
    "a score that is text": lambda s: lines(s.evaluation().scores, lambda r: r[0].update(score="0.5")),
    "two scores of one image": lambda s: lines(s.evaluation().scores, lambda r: [*r, {**r[0], "score": 0.9}]),
    "a score without a metric": lambda s: lines(s.evaluation().scores, lambda r: r[0].pop("metric") and None),
    "a deleted score": lambda s: lines(s.evaluation().scores, lambda r: r[1:]),
    "a prompt": lambda s: value(s.evaluation().folder / "prompts.json", lambda v: ["a cat", *v[1:]]),
    "guidance in the protocol": lambda s: value(
        s.evaluation().folder / "protocol.json", lambda v: v["generation"].update(guidance_scale=4.0)
    ),
    "a metric's identity": lambda s: value(
        s.evaluation().folder / "metrics.json", lambda v: v["gold"]["identity"].update(version=9)
    ),
    "pairs in the ledger": lambda s: value(s.run().folder / "ledger.json", lambda v: v.update(pairs=2)),
    "negative seconds": lambda s: value(s.run().folder / "ledger.json", lambda v: v.update(seconds=-1.0)),
    "a field of the ledger lost": lambda s: value(s.run().folder / "ledger.json", lambda v: {"pairs": v["pairs"]}),
    "steps out of order": lambda s: lines(s.run().train_log, lambda r: r[::-1]),
    "an infinite loss": lambda s: lines(s.run().train_log, lambda r: r[0].update(loss=float("inf"))),
    "the protocol lost": lambda s: lost(s.evaluation().folder / "protocol.json"),
    "prompts lost": lambda s: lost(s.evaluation().folder / "prompts.json"),
    "prompts in training": lambda s: value(s.evaluation().folder / "in_training.json", lambda v: {"prompts": 3}),
    "the configuration lost": lambda s: lost(s.run().folder / "config.json"),
}


@pytest.mark.parametrize("edit", OLD.values(), ids=OLD.keys())
def test_records_without_digests_have_their_values_checked(small: Small, edit: Edit) -> None:
    without_digests(small)
    assert_named(small, small.bench, REPORT, edit)


def assert_named(small: Small, command: Callable[..., Any], words: tuple[str, ...], edit: Edit) -> Path:
    """The command refuses in one sentence that names the file, and leaves all files as they are; returns the file."""
    named = edit(small)
    before = {path: path.read_bytes() for path in small.runs.rglob("*.json*") if path.is_file()}
    done = command(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert named.relative_to(small.folder).as_posix() in sentence
    assert {path: path.read_bytes() for path in before} == before
    return named


def test_records_that_were_not_changed_are_reported(small: Small) -> None:
    done = small.bench(*REPORT)
    assert done.returncode == 0, done.stderr
    assert "without digests" not in small.bench("report").stdout
    without_digests(small)
    old = small.bench(*REPORT)
    assert (old.returncode, old.stdout) == (0, done.stdout)
    assert "Records without digests, in which changes cannot be noticed: base, dpo/" in small.bench("report").stdout
