"""What cannot share a table is refused with one sentence that says what to do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from lab import PROMPTS, Lab, variant

from bench.core.errors import UserError
from bench.core.files import keep_lines, write_json
from bench.records.protocol import Protocol, prompts_digest
from reports.report import FORMATS, format_of, make_report, write_report


def refusal(runs: Path, protocol: str | None = None) -> str:
    """The words with which a report is refused."""
    with pytest.raises(UserError) as caught:
        make_report(runs, protocol)
    return str(caught.value)


def with_steps(lab: Lab, steps: int) -> Protocol:
    """The laboratory's protocol with another number of sampling steps."""
    made = lab.protocol.generation.model_copy(update={"steps": steps})
    protocol: Protocol = lab.protocol.model_copy(update={"generation": made})
    return protocol


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_found(tmp_path: Path, exists: bool) -> None:
    runs = tmp_path / "runs"
    if exists:
        runs.mkdir()
    assert f"{runs} has no runs" in refusal(runs)


def test_nothing_finished(lab: Lab) -> None:
    run = lab.train()
    lab.judge(run, shift=0.2, done=False)
    assert "no evaluation under" in refusal(lab.runs)
    assert "dpo/default seed 0" in refusal(lab.runs)


def test_no_base(lab: Lab) -> None:
    lab.run()
    sentence = refusal(lab.runs)
    assert f"no finished evaluation of the base model under protocol {lab.protocol.signature}" in sentence
    assert "tiny/base" in sentence


def test_two_protocols_are_listed_and_their_difference_named(lab: Lab) -> None:
    base = lab.base()
    lab.run()
    one = lab.protocol
    lab.protocol = other = with_steps(lab, 50)
    lab.judge(base, shift=0.0)
    lab.train("sft", title="SFT")
    assert refusal(lab.runs) == (
        f"{lab.runs} has evaluations under 2 protocols: {one.signature} (tiny, 12 prompts, 20 steps, guidance 3, 64x64, 2 rows); "
        f"{other.signature} (tiny, 12 prompts, 50 steps, guidance 3, 64x64, 1 row). Their scores cannot share a table because they "
        f"differ in generation.steps (20 and 50); choose one, for example --protocol {one.signature}"
    )

    assert [row.label for row in make_report(lab.runs, one.signature).rows] == ["base", "Diffusion-DPO"]
    report = make_report(lab.runs, other.signature)
    assert [row.label for row in report.rows] == ["base"]
    assert report.notes == (
        "Not finished: sft/default seed 0 (evaluation under this protocol not started).",
        "Evaluated only under a different protocol, so not shown: dpo/default seed 0.",
    )


def test_three_protocols_are_compared_all_together(lab: Lab) -> None:
    base = lab.base()
    lab.protocol = with_steps(lab, 50)
    lab.judge(base, shift=0.0)
    made = lab.protocol.generation.model_copy(update={"guidance_scale": 5.5})
    lab.protocol = lab.protocol.model_copy(update={"generation": made})
    lab.judge(base, shift=0.0)
    words = refusal(lab.runs)
    assert "under 3 protocols" in words
    assert sorted(words.partition(" differ in ")[2].partition(";")[0].split(", ")) == [
        "generation.guidance_scale (3.0 and 5.5)",
        "generation.steps (20 and 50)",
    ]
    assert f"{lab.protocol.signature} (tiny, 12 prompts, 50 steps, guidance 5.5, 64x64, 1 row)" in words


def test_rows_of_a_protocol_are_those_of_its_table(lab: Lab) -> None:
    """Seeds share a row, a run judged with other guidance has another, and a run that still trains has none."""
    base = lab.base()
    for seed in (0, 1):
        run = lab.run("dpo", seed)
    guided = variant(run, guidance_scale=5)
    lab.judge(run, shift=0.4, place=run.evaluation_of(lab.protocol.signature, guided), variant=guided)
    (lab.run("sft", title="SFT").folder / "DONE").unlink()
    one = lab.protocol.signature
    lab.protocol = with_steps(lab, 50)
    lab.judge(base, shift=0.0)
    assert f"{one} (tiny, 12 prompts, 20 steps, guidance 3, 64x64, 3 rows)" in refusal(lab.runs)
    assert len(make_report(lab.runs, one).rows) == 3


def test_unknown_protocol(lab: Lab) -> None:
    lab.base()
    one = lab.protocol.signature
    assert refusal(lab.runs, "feedbeefcafe") == (
        f"{lab.runs} has no finished evaluation under protocol feedbeefcafe, but it has some under: {one} (tiny, 12 prompts, 20 steps, "
        f"guidance 3, 64x64, 1 row). Choose one, for example --protocol {one}"
    )


def test_another_version_of_a_metric(lab: Lab) -> None:
    lab.base()
    lab.run("dpo")
    lab.identities["pickscore"] = {"version": 2}
    lab.run("smpo", title="SmPO")
    sentence = refusal(lab.runs)
    assert "'pickscore'" in sentence
    assert "version (1 and 2)" in sentence
    assert "smpo/default seed 0" in sentence


def test_seeds_of_one_name_with_other_settings(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", 0)
    lab.run("dpo", 1, beta=500.0)
    assert "differ in algorithm.beta (1000.0 and 500.0)" in refusal(lab.runs)


def test_one_run_in_two_folders(lab: Lab) -> None:
    lab.base()
    run = lab.run("dpo", 0)
    shutil.copytree(run.folder, lab.runs / "copy")
    sentence = refusal(lab.runs)
    assert "both hold dpo/default seed 0" in sentence
    assert str(lab.runs / "copy") in sentence


def test_a_score_is_missing(lab: Lab) -> None:
    lab.base()
    evaluation = lab.run().evaluation(lab.protocol.signature)
    records = evaluation.score_records()
    records.remove(next(record for record in records if record["metric"] == "gold"))
    keep_lines(evaluation.scores, records)
    evaluation.finish()
    assert f"lacks 1 of {2 * len(PROMPTS)} 'gold' scores" in refusal(lab.runs)


def test_a_single_prompt(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.PROMPTS", PROMPTS[:1])
    lab.protocol = lab.protocol.model_copy(update={"prompts": prompts_digest(PROMPTS[:1]), "prompt_count": 1})
    lab.base()
    assert "single prompt" in refusal(lab.runs)


def test_records_of_another_version(lab: Lab) -> None:
    run = lab.base()
    write_json(run.folder / "config.json", {**run.config().to_json(), "schema": 99})
    assert "record schema 99" in refusal(lab.runs)


@pytest.mark.parametrize("text", ['{"schema": 2, "model": "ti', "", "[1]", b"\xff\xfe{}"])
def test_a_damaged_configuration_is_named(lab: Lab, text: str | bytes) -> None:
    lab.base()
    path = lab.run("dpo", 1).folder / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    sentence = refusal(lab.runs)
    assert sentence.startswith(f"{path} is damaged (")
    assert f"move {path.parent} away" in sentence


@pytest.mark.parametrize("name", ["protocol.json", "metrics.json", "prompts.json", "scores.jsonl", "in_training.json"])
def test_a_damaged_evaluation_is_named(lab: Lab, name: str) -> None:
    lab.base()
    evaluation = lab.run("dpo").evaluation(lab.protocol.signature)
    (evaluation.folder / name).write_text('{"a"\n')
    assert refusal(lab.runs).startswith(f"{evaluation.folder / name} is damaged (")


@pytest.mark.parametrize("name", ["ledger.json", "train.jsonl"])
def test_damaged_records_of_training_are_named(lab: Lab, name: str) -> None:
    lab.base()
    path = lab.run("dpo").folder / name
    path.write_text('{"a"\n')
    assert refusal(lab.runs).startswith(f"{path} is damaged (")


def test_unfinished_runs_are_listed(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", 0)
    halfway = lab.train("dpo", 1, steps=30)
    lines = halfway.steps()[:7]
    keep_lines(halfway.train_log, lines)
    (halfway.folder / "DONE").unlink()
    unjudged = lab.train("smpo", 0, title="SmPO")
    lab.judge(unjudged, shift=0.3, done=False)
    report = make_report(lab.runs)
    assert report.notes == (
        "Not finished: dpo/default seed 1 (training: step 7 of 30), smpo/default seed 0 (evaluation).",
    )
    assert [(row.algorithm, row.seeds) for row in report.rows] == [("base", ()), ("dpo", (0,))]


def test_other_models_are_named(lab: Lab) -> None:
    lab.base()
    tiny = lab.protocol
    lab.protocol = tiny.model_copy(update={"model": "sdxl"})
    lab.base(model="sdxl")
    assert "model ('sdxl' and 'tiny')" in refusal(lab.runs)
    assert make_report(lab.runs, tiny.signature).notes == ("Not in this table: runs of sdxl.",)


def test_a_base_that_nothing_was_done_with_is_no_run_of_another_model(lab: Lab) -> None:
    lab.base()
    lab.base_alone(model="sd3")
    assert make_report(lab.runs).notes == ()


def test_a_metric_that_some_seeds_lack_is_noted(lab: Lab) -> None:
    lab.base()
    lab.run("dpo", 0)
    del lab.identities["gold"]
    lab.run("dpo", 1)
    report = make_report(lab.runs)
    (note,) = report.notes
    assert note.startswith(
        "No Gold score: dpo/default seed 1. To add the first: bench eval --model tiny --run tiny/dpo/default/seed-1 --metrics gold "
    )
    assert sorted(report.rows[1].scores) == ["distance", "pickscore"]


def test_unknown_format(full_lab: Lab) -> None:
    with pytest.raises(UserError, match="markdown, csv, latex, json, html"):
        write_report(make_report(full_lab.runs), "pdf", None)


def test_the_name_of_a_file_says_its_format() -> None:
    names = ("r.md", "r.csv", "r.tex", "r.json", "r.html")
    assert [format_of(Path(name)) for name in names] == list(FORMATS)
    with pytest.raises(
        UserError, match=r"'r.pdf' must end in .md, .csv, .tex, .json, .html, or needs a format: markdown"
    ):
        format_of(Path("r.pdf"))


def test_unwritable_output(full_lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --output"):
        write_report(make_report(full_lab.runs), "csv", tmp_path / "file" / "table.csv")


def test_stale_scores_do_not_count(lab: Lab) -> None:
    """Scores that an older version of a metric left behind do not count as scores of the new one."""
    lab.base()
    run = lab.run("dpo", 0)
    before = make_report(lab.runs).rows[1].scores["gold"]
    with run.evaluation(lab.protocol.signature).scores.open("a") as stream:
        stale = {"prompt_index": 0, "image_index": 0, "metric": "gold", "score": 1e6, "signature": "old"}
        stream.write(json.dumps(stale) + "\n")
    run.evaluation(lab.protocol.signature).finish()
    assert dataclasses.asdict(make_report(lab.runs).rows[1].scores["gold"]) == dataclasses.asdict(before)


def test_many_runs_without_a_score_are_one_note(lab: Lab) -> None:
    lab.base()
    del lab.identities["gold"]
    for seed in range(5):
        lab.run("dpo", seed)
    lab.run("sft", title="SFT")
    (note,) = make_report(lab.runs).notes
    assert "dpo/default seed 0, dpo/default seed 1, dpo/default seed 2 and 3 more" in note
    assert "bench eval --model tiny --run tiny/dpo/default/seed-0 --metrics gold" in note


def test_a_base_without_a_score_has_a_command_without_a_run(lab: Lab) -> None:
    gold = lab.identities.pop("gold")
    lab.base()
    lab.identities["gold"] = gold
    lab.run("dpo")
    (note,) = make_report(lab.runs).notes
    assert "No Gold score: base. To add the first: bench eval --model tiny --metrics gold " in note


def test_the_command_that_adds_scores_is_the_one_that_made_the_run(lab: Lab) -> None:
    """With its prompts, its settings and its folder: without them it would make other images."""
    lab.base()
    del lab.identities["gold"]
    del lab.identities["pickscore"]
    typed = ["run", "--algo", "dpo", "--metrics", "distance", "--limit", "8", "--runs", "my runs"]
    lab.run("dpo", config={"typed": typed})
    (note,) = make_report(lab.runs).notes
    assert note == (
        "No Gold, PickScore (tiny) score: dpo/default seed 0. To add the first: bench run --algo dpo --limit 8 --runs 'my runs' "
        "--metrics gold,pickscore; existing images are reused."
    )
