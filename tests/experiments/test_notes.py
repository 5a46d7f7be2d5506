"""What a command says before it costs hours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.core.errors import UserError
from bench.experiments.experiment import Experiment
from bench.experiments.method import Method, check_label
from bench.experiments.notes import notes_on_prompts, notes_on_training
from bench.experiments.recipes import resolve, run_name
from bench.training.algorithm import ALGORITHMS


def experiment(folder: Path, *prompts: str, limit: int | None = None) -> Experiment:
    (folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    runs = folder.parent / "runs-of-notes"  # one for all tests: what is found in the data is kept there
    return Experiment("tiny", runs=runs, prompts=str(folder / "prompts.txt"), limit=limit)


def method(**changed: str) -> Method:
    algorithm, settings = resolve("dpo", ALGORITHMS.get("dpo"), "tiny", changed)
    return Method("dpo", algorithm, settings, "mine", changed)


def test_repeated_prompts_are_no_evidence(tmp_path: Path) -> None:
    made = experiment(tmp_path, "a bee", "a cat", "a bee", "a bee")
    assert made.prompts == ["a bee", "a cat"]
    assert made.protocol.prompt_count == 2
    (note,) = notes_on_prompts(made)
    assert note.startswith("2 of 4 evaluation prompts are repeats and are left out")


def test_repeated_prompts_are_counted_among_all_of_the_file_whatever_the_limit(tmp_path: Path) -> None:
    made = experiment(tmp_path, "a bee", "a cat", "a bee", "a dog", "a fox", "a cat", "an ape", "an ox", limit=2)
    assert made.prompts == ["a bee", "a cat"]
    (note,) = notes_on_prompts(made)
    assert note.startswith("2 of 8 evaluation prompts are repeats and are left out")


def test_columns_of_the_prompts_that_nothing_uses_are_named(tmp_path: Path) -> None:
    (tmp_path / "prompts.csv").write_text("prompt,category,source\na bee,animals,me\na car,things,me\n")
    made = Experiment("tiny", runs=tmp_path / "runs", prompts=str(tmp_path / "prompts.csv"))
    (note,) = notes_on_prompts(made)
    assert note == "not used of the prompts' table: category, source; results are over all prompts together"


def test_nothing_is_said_where_nothing_is_amiss(tmp_path: Path) -> None:
    made = experiment(tmp_path, "a bee nobody has seen", "a cat nobody has seen")
    assert [*notes_on_prompts(made), *notes_on_training(made, [method()])] == []


def test_prompts_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    caption = experiment(tmp_path, "x", "y").data.captions[0]
    made = experiment(tmp_path, caption, "a cat nobody has seen")
    assert made.prompts_in_training == 1
    assert list(notes_on_training(made, [])) == ["1 of 2 evaluation prompts are also captions in the training data"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"trainable": "lora"},
            "dpo trains LoRA adapters at learning rate 0.0002, which its recipe uses for full fine-tuning",
        ),
        ({"trainable": "lora", "learning_rate": "1e-4"}, None),
        ({"steps": "15"}, "dpo reaches its learning rate only at step 10 of 15: --set warmup_steps=..."),
        (
            {"steps": "2"},
            "dpo never reaches its learning rate: its warm-up (10 steps) is longer than its training (2 steps): --set",
        ),
        (
            {"steps": "2", "rounds.number": "2"},
            "dpo never reaches its learning rate: its warm-up (10 steps) is longer than a round (2 steps) and restarts in each",
        ),
        ({"steps": "15", "rounds.number": "2"}, "dpo reaches its learning rate only at step 10 of 15 of each round"),
        ({"budget.unit": "pairs", "budget.amount": "320"}, "dpo reaches its learning rate only at step 10 of 10"),
        ({"global_batch_size": "5000"}, "dpo has a batch of 5000 pairs, but the data has only 3000"),
    ],
)
def test_settings_that_surprise(tmp_path: Path, changed: dict[str, str], said: str | None) -> None:
    notes = list(
        notes_on_training(experiment(tmp_path, "a cat nobody has seen", "a bee nobody has seen"), [method(**changed)])
    )
    assert len(notes) == (said is not None)
    assert all(note.startswith(str(said)) for note in notes)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("ddpo", "19200", None),  # 2,400 prompts of 8 samples each
        ("ddpo", "24000", "ddpo samples images of 3000 captions at a time, but trains on only 2976 rows of the data"),
        ("draft", "2985", "draft samples images of 2985 captions at a time"),
    ],
)
def test_prompts_are_counted_where_pictures_are_sampled(tmp_path: Path, name: str, size: str, said: str | None) -> None:
    changed = {"global_batch_size": size, "held_out": "16"}
    algorithm, settings = resolve(name, ALGORITHMS.get(name), "tiny", changed)
    made = experiment(tmp_path, "a cat nobody has seen", "a bee nobody has seen")
    notes = list(notes_on_training(made, [Method(name, algorithm, settings, "mine", changed)]))
    assert [note[: len(str(said))] for note in notes] == ([] if said is None else [said])


@pytest.mark.parametrize(("scale", "notes"), [("3", 0), ("5", 1)])
def test_a_branch_of_guidance_that_is_evaluated_at_another_scale(tmp_path: Path, scale: str, notes: int) -> None:
    changed = {"guidance_scale": scale}
    algorithm, settings = resolve("npo-joint", ALGORITHMS.get("npo-joint"), "tiny", changed)
    made = experiment(tmp_path, "a cat nobody has seen", "a bee nobody has seen")
    said = [each for each in notes_on_training(made, [Method("npo-joint", algorithm, settings, "mine", changed)])
            if "one branch of guidance" in each]  # fmt: skip
    assert said == notes * [
        "npo-joint trains one branch of guidance at guidance_scale 5, but its images are made at 3: --set guidance_scale=3"
    ]


@pytest.mark.parametrize("name", ["../../x", "", ".", "a/b", "a b", "-x"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=re.escape(repr(name))):
        check_label(name)


def test_two_ends_of_training_are_refused() -> None:
    with pytest.raises(UserError, match="both say when training ends"):
        method(**{"steps": "3", "budget.unit": "pairs", "budget.amount": "64"})


def test_data_and_weights_of_ones_own_add_to_the_name() -> None:
    recipe = ALGORITHMS.get("dpo").recipes["sdxl"]
    plain, others = run_name({}, recipe), {run_name({}, recipe, data=each) for each in ("one", "two")}
    assert plain == "recipe"
    assert len(others) == 2
    assert all(re.fullmatch(r"recipe-[0-9a-f]{8}", name) for name in others)
