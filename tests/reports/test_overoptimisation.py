"""What was measured along the training, in the tables and on the page."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from lab import INFOS, Lab

from bench.core.files import append_lines, write_json
from bench.records.runs import RunFolder
from reports.footnotes import footnotes
from reports.page import page
from reports.render import as_json
from reports.report import make_report
from reports.result_tables import report_tables

PROMPTS = ["a", "b", "c", "d"]


def watch(
    run: RunFolder,
    gold: Sequence[float],
    diversity: Sequence[float],
    *,
    signature: str = "s",
    prompts: Sequence[str] = PROMPTS,
    every: int = 10,
) -> None:
    """Measurements every so many steps: gold and PickScore of prompts that differ by thousandths, and the looks."""
    record = {
        "prompts": list(prompts), "images_per_prompt": 2, "generation": {}, "signatures": {"gold": signature, "looks": "l"},
        "titles": {name: INFOS[name].title for name in ("gold", "pickscore")}, "lower_is_better": [], "trained_on": ["pickscore"],
    }  # fmt: skip
    write_json(run.folder / "curve.json", record)
    for place, (judge, spread) in enumerate(zip(gold, diversity, strict=True)):
        by_prompt = {
            "gold": judge,
            "pickscore": 0.1 * place,
            "diversity": spread,
            "dark": 0.1,
            "saturation": 0.2,
            "edges": 0.3,
        }
        scores = {
            name: [value + p / 1000 for p in range(len(prompts)) for _ in range(2)] for name, value in by_prompt.items()
        }
        line = {
            "step": every * place,
            "pairs": 32 * every * place,
            "signal": None if place == 0 else 0.1,
            "scores": scores,
        }
        append_lines(run.folder / "curve.jsonl", [json.dumps(line)])
    run.finish()


def sample(run: RunFolder, pickscore: Sequence[float]) -> None:
    """Makes a measured run one that samples, on captions held out from training, with scores of its own images."""
    record = json.loads((run.folder / "curve.json").read_text())
    write_json(run.folder / "curve.json", {**record, "held_out": True, "training_sampler": {"sampling_steps": 10}})
    lines = [json.loads(line) for line in (run.folder / "curve.jsonl").read_text().splitlines()]
    for line, score in zip(lines, pickscore, strict=True):
        line["training_sampler"] = {"gold": [0.5] * 8, "pickscore": [score] * 8}
    (run.folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.finish()


def test_diversity_stands_beside_every_win_rate(full_lab: Lab) -> None:
    for seed, last in enumerate((0.3, 0.2, 0.1)):
        run = RunFolder(full_lab.runs / f"tiny/dpo/default/seed-{seed}")
        watch(run, (0.2, 0.5, 0.4), (0.3985, 0.39, last - 0.0015))
    wins = next(grid for grid in report_tables(make_report(full_lab.runs)) if "diversity, %" in grid.columns)
    place = wins.columns.index("diversity, %")
    cells = {label: row[place] for label, row in wins.rows}
    # From 0.4 to 0.3, 0.2 and 0.1: -50 % on average; seeds have a deviation of 25, / sqrt(3), and t(2, 97.5 %) is 4.30: 62.
    assert (cells["Diffusion-DPO"].value, cells["Diffusion-DPO"].detail) == ("-50", "[-112, +12]")
    assert cells["SFT"].value == "-"


def test_the_finding_of_every_seed_is_a_sentence_below_the_tables(full_lab: Lab) -> None:
    watch(RunFolder(full_lab.runs / "tiny/smpo/default/seed-0"), (0.2, 0.5, 0.4), (0.4, 0.4, 0.4))
    report = make_report(full_lab.runs)
    sentence = "Over-optimised: training reward up, 1 of 1 held-out judges down since step 10 (Gold)"
    assert f"SmPO, seed 0, on training prompts: {sentence}." in footnotes(report)
    text = page(report)
    assert sentence in text
    assert "PickScore (tiny) (trained on)" in text
    assert "Gold (held out)" in text
    value = json.loads(as_json(report))
    assert value["rows"][3]["panel"]["curves"]["gold"]["mean"] == pytest.approx([0.2015, 0.5015, 0.4015])


def test_the_gain_of_an_online_run_is_told_by_its_own_sampler_and_by_the_protocol(full_lab: Lab) -> None:
    run = RunFolder(full_lab.runs / "tiny/smpo/default/seed-0")
    watch(run, (0.2, 0.3), (0.4, 0.4))
    sample(run, (0.0, 0.25))
    report = make_report(full_lab.runs)
    (panel,) = [row.panel for row in report.rows if row.panel is not None]
    gain = panel.gains["pickscore"]
    # The same for every prompt: from 0 to 0.25 by the training's sampler, from 0 to 0.1 under the protocol.
    assert (gain.training_sampler.mean, gain.protocol.mean) == (pytest.approx(0.25), pytest.approx(0.1))
    assert panel.sampler_curves["pickscore"].mean == (0.0, 0.25)
    (told,) = [line for line in footnotes(report) if "own sampler" in line]
    assert told.startswith("SmPO: PickScore (tiny) changed by +0.25 on images")  # without an interval: nothing varies
    assert told.endswith("from the first measurement to the last, on 4 captions held out from training.")
    assert "training's sampler" in page(report)


@pytest.mark.parametrize(("every", "drawn"), [((10, 10), 2), ((57, 61), 0)], ids=["two common", "only the first"])
def test_seeds_that_ended_at_different_steps_count_with_their_own_last_measurement(
    lab: Lab, every: tuple[int, int], drawn: int
) -> None:
    """As runs do that a rule stopped, or a budget in seconds: the weights of the table are those of the last step."""
    lab.base()
    for seed, (diversity, pickscore) in enumerate((((0.4, 0.3), (0.0, 0.5)), ((0.4, 0.39, 0.1), (0.0, 0.1, 0.7)))):
        run = lab.run("smpo", seed, title="SmPO", trained_on=["pickscore"])
        spread = [value - 0.0015 for value in diversity]  # of the mean over prompts
        watch(run, [0.2] * len(spread), spread, every=every[seed])
        sample(run, pickscore)
    report = make_report(lab.runs)
    panel = report.rows[1].panel
    assert panel is not None
    assert panel.diversity is not None
    # by -25 % and -75 %; PickScore by 0.5 and 0.7 on the training's own images, and by 0.1 and 0.2 under the protocol
    assert panel.diversity.mean == pytest.approx(-50)
    gain = panel.gains["pickscore"]
    assert (gain.training_sampler.mean, gain.protocol.mean) == (pytest.approx(0.6), pytest.approx(0.15))
    assert {len(curve.pairs) for curve in panel.curves.values()} == ({drawn} if drawn else set())
    assert ("no curve is drawn" in page(report)) == (not drawn)


def test_rows_that_were_watched_on_other_captions_are_named(full_lab: Lab) -> None:
    for folder in (*full_lab.runs.glob("tiny/smpo/*/seed-*"), *full_lab.runs.glob("tiny/sft/*/seed-*")):
        watch(RunFolder(folder), (0.2, 0.3), (0.4, 0.4))
    run = RunFolder(full_lab.runs / "tiny/smpo/default/seed-0")
    write_json(run.folder / "curve.json", {**json.loads((run.folder / "curve.json").read_text()), "held_out": True})
    run.finish()
    (line,) = [line for line in footnotes(make_report(full_lab.runs)) if line.startswith("diversity: ")]
    assert (
        "on 4 training prompts with 2 images each (SFT); 4 captions held out from training with 2 images each (SmPO)."
        in line
    )


def test_seeds_that_other_scorers_measured_share_no_panel(full_lab: Lab) -> None:
    for seed, signature in enumerate(("one", "one", "other")):
        watch(RunFolder(full_lab.runs / f"tiny/dpo/default/seed-{seed}"), (0.2, 0.5), (0.4, 0.4), signature=signature)
    report = make_report(full_lab.runs)
    assert report.rows[1].panel is None
    assert all("diversity, %" not in grid.columns for grid in report_tables(report))


def test_one_prompt_is_a_note_and_does_not_stop_the_report(full_lab: Lab) -> None:
    watch(RunFolder(full_lab.runs / "tiny/smpo/default/seed-0"), (0.2, 0.5), (0.4, 0.4), prompts=["a"])
    report = make_report(full_lab.runs)
    assert report.rows[3].panel is None
    note = "Measured along the training with one prompt, too few for an interval, so not shown: smpo/default seed 0."
    assert note in footnotes(report)


def test_images_without_any_diversity_do_not_stop_the_report(full_lab: Lab) -> None:
    watch(RunFolder(full_lab.runs / "tiny/smpo/default/seed-0"), (0.2, 0.5), (0.0, 0.4))
    lines = RunFolder(full_lab.runs / "tiny/smpo/default/seed-0").folder / "curve.jsonl"
    same = [json.loads(line) for line in lines.read_text().splitlines()]
    same[0]["scores"]["diversity"] = [0.0] * 8  # all black, for example
    lines.write_text("".join(json.dumps(line) + "\n" for line in same))
    RunFolder(full_lab.runs / "tiny/smpo/default/seed-0").finish()
    report = make_report(full_lab.runs)
    wins = next(grid for grid in report_tables(report) if "diversity, %" in grid.columns)
    assert dict(wins.rows)["SmPO"][wins.columns.index("diversity, %")].value == "-"
    json.loads(as_json(report))


def test_a_placebo_that_stopped_elsewhere_is_named(lab: Lab) -> None:
    lab.base()
    shuffled = {"labels": "shuffled", "steps": 30}
    for seed, steps in enumerate((12, 30)):
        lab.run("dpo", seed, steps=30)
        lab.run("dpo", seed, steps=steps, name="default-placebo", config={"placebo_of": "default"}, training=shuffled)
    lines = footnotes(make_report(lab.runs))
    assert (
        "Diffusion-DPO and its placebo were trained for different numbers of steps (seed 0: 30 and 12), so over placebo also "
        "reflects the different lengths of training."
    ) in lines
