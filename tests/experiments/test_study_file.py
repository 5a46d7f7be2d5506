"""Experiment files: what they say, and one sentence with line and name about each that is broken."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pages import DOCS

from bench.core.errors import UserError
from bench.experiments.executors.base import make_executor
from bench.experiments.experiment import Choices
from bench.experiments.matrix import cells_of, plan_study
from bench.experiments.study import Study
from bench.experiments.study_file import StudyFile
from bench.experiments.study_text import schema_text, toml_text, write_study
from tests.fuzz.place import picture

WHOLE = """\
# a comment
model = "tiny"
seeds = [0, 1]
limit = 8

[settings]
steps = 4
budget = { unit = "pairs", amount = [10, 20] }

[[algorithms]]
name = "dpo"
[algorithms.settings]
beta = [
  100,
  2000.5,  # the second
]
trainable = "lora"

[[algorithms]]
name = "sft"
label = "plain"
"""


def read(tmp_path: Path, text: str) -> StudyFile:
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    return StudyFile(path)


def test_a_grid_is_every_combination_in_the_order_of_the_file(tmp_path: Path) -> None:
    study = read(tmp_path, WHOLE.replace("steps = 4\n", "")).study({})
    assert [(each.algorithm, dict(each.overrides), each.label) for each in study.configurations()] == [
        ("dpo", {"budget.unit": "pairs", "budget.amount": amount, "beta": beta, "trainable": "lora"}, None)
        for amount in ("10", "20")
        for beta in ("100", "2000.5")
    ] + [
        ("sft", {"budget.unit": "pairs", "budget.amount": "10"}, "plain"),
        ("sft", {"budget.unit": "pairs", "budget.amount": "20"}, "plain"),
    ]


def test_what_is_typed_replaces_what_the_file_says(tmp_path: Path) -> None:
    typed = {
        "seeds": [5],
        "settings": {"beta": "7", "budget.amount": "3"},
        "algorithms": [{"name": "dpo"}, {"name": "kto"}],
    }
    study = read(tmp_path, WHOLE.replace("steps = 4\n", "")).study(typed)
    assert study.seeds == (5,)
    assert study.limit == 8
    assert [(each.algorithm, dict(each.overrides)) for each in study.configurations()] == [
        ("dpo", {"budget.unit": "pairs", "beta": "7", "budget.amount": "3", "trainable": "lora"}),
        ("kto", {"budget.unit": "pairs", "beta": "7", "budget.amount": "3"}),
    ]


def test_all_that_is_typed_is_the_entries_of_the_file_and_all_others(tmp_path: Path) -> None:
    text = 'model = "tiny"\n[[algorithms]]\nname = "dpo"\nsettings = { beta = 100 }\n[[algorithms]]\nname = "sft"\n'
    file = read(tmp_path, text)

    def chosen(*names: str) -> list[tuple[str, dict[str, str], str | None]]:
        study = file.study({"algorithms": [{"name": name, "label": "typed"} for name in names]})
        return [(each.algorithm, dict(each.overrides), each.label) for each in study.configurations()]

    dpo, sft, others = ("dpo", {"beta": "100"}, "typed"), ("sft", {}, "typed"), ("all", {}, "typed")
    assert chosen("all") == [dpo, sft, others]
    assert chosen("sft", "all") == [sft, dpo, others]


def test_all_in_a_file_has_settings_for_those_that_have_no_entry_there(tmp_path: Path) -> None:
    text = 'model = "tiny"\n[[algorithms]]\nname = "all"\nsettings = { steps = 7 }\n[[algorithms]]\nname = "sft"\n'
    study = read(tmp_path, text).study({"algorithms": [{"name": "dpo"}, {"name": "sft"}]})
    assert [(each.algorithm, dict(each.overrides)) for each in study.configurations()] == [
        ("dpo", {"steps": "7"}),
        ("sft", {}),
    ]


def test_a_name_that_is_typed_is_that_of_every_algorithm_of_the_file(tmp_path: Path) -> None:
    file = read(tmp_path, 'model = "tiny"\n[[algorithms]]\nname = "dpo"\nlabel = "a"\n[[algorithms]]\nname = "sft"\n')
    study = file.study({"label": "mine"})
    assert [(each.name, each.label) for each in study.algorithms] == [("dpo", "mine"), ("sft", "mine")]
    assert [(each.name, each.label) for each in file.study({}).algorithms] == [("dpo", "a"), ("sft", None)]


def test_a_name_that_is_typed_must_be_of_one_configuration(tmp_path: Path) -> None:
    twice = read(tmp_path, HEAD + "limit = 4\n" + DPO + DPO + "settings = { beta = 3 }\n")
    with pytest.raises(UserError, match="two configurations are called dpo/mine; give each its own label"):
        plan_study(twice.study({"label": "mine", "runs": str(tmp_path / "runs")}), twice.at)
    grid = read(tmp_path, HEAD + DPO + "settings = { beta = [1, 2] }\n")
    with pytest.raises(UserError, match="^label 'mine' names one configuration, but the settings are a grid of 2"):
        plan_study(grid.study({"label": "mine"}), grid.at)
    wrong = read(tmp_path, HEAD + DPO + "settings = { bta = 1 }\n")
    with pytest.raises(UserError, match="line 4: dpo has no field 'bta'"):  # which was not typed
        plan_study(wrong.study({"label": "mine"}), wrong.at)


def test_the_settings_of_another_executor_are_left_out_but_for_those_of_all(tmp_path: Path) -> None:
    text = 'model = "tiny"\nexecutor = { name = "local", jobs = 2 }\n[[algorithms]]\nname = "dpo"\n'
    file = read(tmp_path, text)
    assert file.study({"executor": {"jobs": "3"}}).executor == {"name": "local", "jobs": "3"}
    assert file.study({"executor": {"name": "print"}}).executor == {"name": "print"}
    shared = read(tmp_path, text.replace("jobs = 2", "jobs = 2, processes = 4"))
    assert shared.study({"executor": {"name": "print"}}).executor == {"name": "print", "processes": 4}
    assert read(tmp_path, text.replace('{ name = "local", jobs = 2 }', '"local"')).study({}).executor == {
        "name": "local"
    }


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("model",), 2),
        (("seeds", 1), 3),
        (("settings", "steps"), 7),
        (("settings", "budget.unit"), 8),
        (("settings",), 6),
        (("algorithms", 0, "name"), 11),
        (("algorithms", 0, "settings", "beta", 1), 13),
        (("algorithms", 0, "settings", "trainable"), 17),
        (("algorithms", 1), 19),
        (("algorithms", 1, "label"), 21),
        (("nothing",), None),
    ],
)
def test_lines(tmp_path: Path, place: tuple[str | int, ...], line: int | None) -> None:
    assert read(tmp_path, WHOLE).line(place) == line


def test_the_line_of_an_error_is_not_looked_for_in_a_file_that_takes_hours(tmp_path: Path) -> None:
    text = "# a comment\n" * 50_000 + WHOLE.replace("limit = 8", "limit = 0")
    with pytest.raises(UserError, match=r"experiment.toml: limit = 0 is not allowed"):
        read(tmp_path, text).study({})


def test_a_grid_without_end_is_refused_before_it_is_made(tmp_path: Path) -> None:
    many = list(range(1, 3000))
    text = WHOLE.replace("steps = 4", f"steps = {many}\nlearning_rate = {many}")
    file = read(tmp_path, text)
    with pytest.raises(UserError, match=r"the grids are .*, and at most 10,000 are planned; split the study"):
        plan_study(file.study({}), file.at)


@pytest.mark.parametrize("name", ["a.", '"a" . ', "'b'."])
def test_a_name_of_thousands_of_parts_is_not_parsed(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="line 2: a name of more than 64 parts"):
        read(tmp_path, "# x\n" + name * 20_000 + "a = 1\n")
    with pytest.raises(UserError, match="line 1: a name of more than 64 parts"):
        read(tmp_path, "[" + name * 20_000 + "a]\n")


def test_numbers_with_points_are_not_a_name(tmp_path: Path) -> None:
    many = ", ".join(f"0.{number}" for number in range(1, 300))
    assert len(read(tmp_path, f"beta = [{many}]\n" + WHOLE).document["beta"]) == 299


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 5000])
def test_a_value_that_python_cannot_hold(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="is not a TOML file"):
        read(tmp_path, text)


def test_a_byte_order_mark_is_not_part_of_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + WHOLE).document == read(tmp_path, WHOLE).document


HEAD = 'model = "tiny"\n'
DPO = '[[algorithms]]\nname = "dpo"\n'
BROKEN = {
    "not TOML": (HEAD + "seeds = [0\n" + DPO, "experiment.toml, line 3: this is not TOML (", "at column"),
    "a key twice": (HEAD + HEAD + DPO, "experiment.toml, line 2: this is not TOML (", "see docs/experiments.md"),
    "not TOML at its end": (HEAD + "seeds = [0", "experiment.toml is not a TOML file (", "at end of document"),
    "a field like no other": (HEAD + "xyz = 1\n" + DPO, "line 2: there is no field 'xyz': there are model, algorithms, seeds", "executor"),
    "no model": (DPO, "model is missing", ""),
    "no algorithm": (HEAD, "algorithms is missing", ""),
    "an algorithm without a name": (HEAD + "[[algorithms]]\nlabel = 'x'\n", "line 2: algorithms.1.name is missing", ""),
    "unknown field": (HEAD + "sedes = [0]\n" + DPO, "line 2: there is no field 'sedes': did you mean 'seeds'", ""),
    "field of the file in a table": (HEAD + DPO + "seeds = [0]\n", "line 4: seeds is a field of the whole file; move it", ""),
    "unknown field of an algorithm": (HEAD + DPO + "setings = {}\n", "line 4: there is no field 'setings': did you mean 'settings'", ""),
    "negative seed": (HEAD + "seeds = [0, -1]\n" + DPO, "line 2: seeds.2 = -1 is not allowed: input should be greater than", ""),
    "null character": (
        HEAD + 'runs = "a\\u0000"\n' + DPO,
        "line 2: runs holds a null character, which no name and no path has; remove it",
        "",
    ),
    "metric twice": (
        HEAD + 'metrics = ["gold", "gold"]\n' + DPO,
        'line 2: metrics = ["gold", "gold"] is not allowed: give each value once',
        "",
    ),
    "seed twice": (HEAD + "seeds = [1, 1]\n" + DPO, "line 2: seeds = [1, 1] is not allowed: give each value once", ""),
    "a seed of 20 digits": (HEAD + f"seeds = [{10**19}]\n" + DPO, "line 2: seeds.1 = 10000000000000000000 is not allowed", "less than"),
    "no seeds": (HEAD + "seeds = []\n" + DPO, "line 2: seeds = [] is not allowed: give 1 or more", ""),
    "a text for a number": (HEAD + 'limit = "few"\n' + DPO, 'line 2: limit = "few" is not allowed: give a whole number', ""),
    "limit of one": (HEAD + "limit = 1\n" + DPO, "line 2: limit = 1 is not allowed: input should be greater than or equal to 2", ""),
    "a date": (HEAD + DPO + "[algorithms.settings]\nsteps = 2026-01-01\n", "line 4: ", "steps must be a number, a text"),
    "unknown model": ('model = "tinny"\n' + DPO, "line 1: unknown model 'tinny': did you mean 'tiny'", ""),
    "unknown algorithm": (HEAD + '\n[[algorithms]]\nname = "dppo"\n', "line 4: unknown algorithm 'dppo': did you mean 'dpo'", ""),
    "unknown metric": (HEAD + 'metrics = [\n  "golden",\n]\n' + DPO, "line 2: unknown metric 'golden': did you mean 'gold'", ""),
    "no such prompts": (HEAD + 'prompts = "nowhere.txt"\n' + DPO, "line 2: ", "nowhere.txt"),
    "unknown setting": (HEAD + DPO + "[algorithms.settings]\nbta = 1\n", "line 5: dpo has no field 'bta': did you mean 'beta'", ""),
    "setting of all out of range": (
        HEAD + "[settings]\nsteps = 2\nbeta = [5, -1]\n" + DPO, "line 4: dpo: beta='-1' is not allowed", "greater than 0"
    ),
    "unknown field of images": (HEAD + "[images]\nstep = 4\n" + DPO, "line 3: images: there is no field 'step': did you mean 'steps'", ""),
    "image setting out of range": (HEAD + "images = { steps = 0 }\n" + DPO, "line 2: images: steps=0 is not allowed", "greater than"),
    "an empty setting": (HEAD + DPO + '[algorithms.settings]\nrecipe = ""\n', "line 4: ", "recipe is empty; give a value, or leave it out"),
    "columns as for the option": (
        HEAD + 'columns = "caption=prompt"\n' + DPO,
        'line 2: columns = "caption=prompt" is not allowed: give a table, { name = value }',
        "",
    ),
    "seeds as for the option": (
        HEAD + 'seeds = "0,1"\n' + DPO,
        'line 2: seeds = "0,1" is not allowed: give a list, [value, value]',
        "",
    ),
    "a seed alone": (HEAD + "seeds = 3\n" + DPO, "line 2: seeds = 3 is not allowed: give a list, [value, value]", ""),
    "metrics as for the option": (
        HEAD + 'metrics = "gold,pickscore"\n' + DPO,
        'line 2: metrics = "gold,pickscore" is not allowed: give a list, ["gold", "pickscore"]',
        "",
    ),
    "algorithms as for the option": (
        HEAD + 'algorithms = ["dpo"]\n',
        'line 2: algorithms.1 = "dpo" is not allowed: give a table, { name = value }',
        "",
    ),
    "a number for a text": (HEAD + "data = 3\n" + DPO, "line 2: data = 3 is not allowed: give a text, in quotes", ""),
    "a list for an image setting": (
        HEAD + "images = { steps = [3] }\n" + DPO,
        "line 2: images.steps = [3] is not allowed: give a number, a text, or true or false",
        "",
    ),
    "a list for true or false": (HEAD + "placebo = [1]\n" + DPO, "line 2: placebo = [1] is not allowed: give true or false", ""),
    "a setting of the whole file": (
        HEAD + 'budget = { unit = "pairs", amount = 10 }\n' + DPO,
        "line 2: budget is a setting; write it below [settings], or in the settings = { ... } of one algorithm",
        "",
    ),
    "label of a grid": (HEAD + DPO + 'label = "b"\nsettings = { beta = [1, 2] }\n', "line 4: label 'b' names one", "a grid of 2"),
    "label that is no name": (HEAD + DPO + 'label = "a/b"\n', "line 4: the name 'a/b' cannot be used", ""),
    "no such data": (HEAD + 'data = "nowhere.parquet"\n' + DPO, "line 2: ", "'nowhere.parquet' does not exist"),
}  # fmt: skip


def planned(tmp_path: Path, text: str) -> None:
    file = read(tmp_path, text)
    plan_study(file.study({"runs": str(tmp_path / "runs")}), file.at)


def test_two_labellings_of_the_same_images_have_two_names(tmp_path: Path) -> None:
    names = []
    for preferred in (0, 1):
        columns = {"caption": ["a bee", "a cat"], "jpg_0": [picture(0)] * 2, "jpg_1": [picture(1)] * 2}
        pq.write_table(pa.table({**columns, "label_0": [float(preferred)] * 2}), tmp_path / "pairs.parquet")
        study = read(tmp_path, HEAD + f'data = "{tmp_path}/pairs.parquet"\n' + DPO).study(
            {"runs": str(tmp_path / "runs")}
        )
        names += [method.label for plan in plan_study(study) for method in plan.methods]
    assert len(set(names)) == 2


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_gets_one_sentence_with_line_and_name(tmp_path: Path, broken: str) -> None:
    text, *parts = BROKEN[broken]
    with pytest.raises(UserError) as caught:
        planned(tmp_path, text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(str(tmp_path / "experiment.toml"))
    assert sentence.count("experiment.toml") == 1
    for part in parts:
        assert part in sentence


def test_what_was_typed_is_not_looked_for_in_the_file(tmp_path: Path) -> None:
    file = read(tmp_path, HEAD + "[settings]\nbeta = 5\n" + DPO)
    with pytest.raises(UserError, match=r"^dpo: beta='-1' is not allowed"):
        plan_study(file.study({"settings": {"beta": "-1"}}), file.at)


def test_a_study_is_written_as_it_is_read(tmp_path: Path) -> None:
    study = read(tmp_path, WHOLE).study({"columns": {"a b": 'quo"te\\'}, "executor": {"name": "local", "jobs": 2}})
    text = toml_text(study)
    assert read(tmp_path, text).study({}) == study
    # a label stays with its algorithm, and lists with their types
    assert tomllib.loads(text)["algorithms"][0]["settings"]["beta"] == [100, 2000.5]


def test_numbers_that_were_typed_are_written_as_numbers_only_if_they_are_read_as_typed(tmp_path: Path) -> None:
    typed = {"beta": "500", "learning_rate": "1e-5", "weight_decay": "0.5", "compile": "true", "labels": "as given"}
    study = Study.model_validate({"model": "tiny", "algorithms": [{"name": "dpo"}], "settings": typed})
    text = toml_text(study)
    assert tomllib.loads(text)["settings"] == {
        "beta": 500, "learning_rate": "1e-5", "weight_decay": 0.5, "compile": True, "labels": "as given"
    }  # fmt: skip
    (before,), (after,) = study.configurations(), read(tmp_path, text).study({}).configurations()
    assert before == after


def test_a_text_that_is_spelled_like_a_number_is_written_as_what_its_field_holds(tmp_path: Path) -> None:
    stated = {
        "columns": {"label_0": "1", "caption": "true"},
        "images": {"negative_prompt": "7", "steps": "2", "guidance_scale": "3.5"},
        "executor": {"name": "slurm", "account": "1234", "memory": "64", "cpus": "4", "requeue": "false"},
    }
    study = Study.model_validate({"model": "tiny", "algorithms": [{"name": "dpo", "label": "8"}], **stated})
    text = toml_text(study)
    assert {field: tomllib.loads(text)[field] for field in stated} == {
        "columns": {"label_0": "1", "caption": "true"},
        "images": {"negative_prompt": "7", "steps": 2, "guidance_scale": 3.5},
        "executor": {"name": "slurm", "account": "1234", "memory": "64", "cpus": 4, "requeue": False},
    }
    again = read(tmp_path, text).study({})
    assert again.columns == study.columns
    assert make_executor(again.executor or {}) == make_executor(study.executor or {})


def test_the_label_of_every_row_may_be_a_number(tmp_path: Path) -> None:
    study = read(tmp_path, HEAD + 'columns = { jpg_0 = "chosen", label_0 = 1 }\n' + DPO).study({})
    assert study.columns == {"jpg_0": "chosen", "label_0": "1"}


def test_a_metric_of_a_folder_may_have_commas(tmp_path: Path) -> None:
    assert read(tmp_path, HEAD + 'metrics = ["gold", "fitted:a,b"]\n' + DPO).study({}).metrics == ("gold", "fitted:a,b")


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    file = read(tmp_path, HEAD + DPO)
    with pytest.raises(UserError, match="exists; give --save another name"):
        write_study(file.study({}), file.path)


def test_every_choice_can_be_stated() -> None:
    assert Choices.__annotations__.keys() <= Study.model_fields.keys()


def test_the_command_of_a_placebo_states_its_labels_once(tmp_path: Path) -> None:
    text = HEAD + 'limit = 4\nplacebo = true\nmetrics = "gold"\n[settings]\nsteps = 1\nlabels = "as given"\n' + DPO
    study = read(tmp_path, text).study({"runs": str(tmp_path / "runs")})
    _, run, twin = [" ".join(cell.words) for cell in cells_of(study, plan_study(study))]
    assert "--set labels=as given" in run
    assert "--labels shuffled" in twin
    assert "--set labels" not in twin


def test_the_published_schema_is_that_of_the_code() -> None:
    published = (DOCS / "experiment.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "bench run --schema > docs/experiment.schema.json"
    described = json.loads(published)["properties"]
    assert described.keys() == Study.model_fields.keys()
    assert all(each["description"] for each in described.values())
