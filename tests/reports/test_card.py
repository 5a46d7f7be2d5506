"""`bench export --card`: what the card says, that hostile names stay text, and what is uploaded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub import TOKEN, local_hub
from lab import Lab, fill, variant

from bench.cli.export import export
from bench.core.errors import UserError
from bench.records.runs import RunFolder
from reports.card import model_card
from reports.citation import citation
from reports.report import make_report


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("card") / "runs")
    fill(lab)
    return lab


def test_a_card_has_protocol_table_data_and_cost(filled: Lab) -> None:
    card = model_card(RunFolder(filled.runs / "tiny/dpo/default/seed-1"), base="owner/base")
    report = make_report(filled.runs)
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert dict(line.split(": ", 1) for line in head.splitlines()) == {
        "library_name": '"diffusers"', "pipeline_tag": '"text-to-image"', "tags": '["preference-alignment", "dpo"]',
        "base_model": '"owner/base"',
    }  # fmt: skip
    assert body.splitlines()[1] == "# tiny, Diffusion-DPO"
    assert f"```text\n{citation(report)}\n```" in body
    assert "- source: votes.parquet" in body  # without the folder on the machine that trained
    assert "- 2,000 pairs of 2,000 rows, 0 ties left out" in body
    assert "- cost: 0.00 device hours, 1.0 GB at most" in body
    assert "- 960 pairs, 1,920 policy forwards, 1,920 reference forwards" in body
    assert 'unet = UNet2DConditionModel.from_pretrained("this repository")' in body
    for row in report.rows:
        assert f"| {row.label} |" in body


def test_a_card_says_at_its_top_that_a_run_was_a_trial_and_what_to_put_in_for_a_base_that_is_not_on_the_hub(
    lab: Lab,
) -> None:
    lab.base()
    card = model_card(lab.run("dpo", config={"limit": 8}))
    assert "This is a trial (--limit 8), which says nothing about the method." in card.partition("## Use")[0]
    assert "FOLDER is where the base model is, which is not on the hub." in card
    assert 'DiffusionPipeline.from_pretrained("FOLDER", unet=unet)' in card


def test_a_card_of_a_run_that_sampled_claims_no_pairs(lab: Lab) -> None:
    lab.base()
    card = model_card(lab.run("ddpo", title="DDPO", samples=960))
    assert "- captions, for 960 images of its own" in card
    assert "pairs of" not in card


def test_a_card_of_a_run_whose_rounds_fit_their_judge_says_what_to(lab: Lab) -> None:
    lab.base()
    card = model_card(lab.run("apo", title="APO", samples=96, config={"fits_judge": True}))
    assert "- captions, for 96 images of its own" in card
    assert "- 2,000 pairs of 2,000 rows, 0 ties left out, to which the reward models of its rounds were fitted" in card


def test_names_from_records_stay_text(lab: Lab) -> None:
    lab.base()
    hostile = "[x](https://example.org)\n---\n# <script>"
    data = {"source": hostile, "rows": 1, "pairs": 1, "ties_dropped": 0, "undecodable": []}
    run = lab.run("dpo", config={"recipe": hostile, "data": data, "changed": {"beta": "`1`"}})
    card = model_card(run)
    assert "](https://" not in card
    assert "<script>" not in card.replace("\\<script", "")
    assert card.count("\n---\n") == 1  # the end of the metadata
    assert "changed: beta=\\`1\\`" in card


def test_a_run_without_a_place_in_the_table_is_refused(filled: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "runs")
    other.base()
    other.run("sft", title="SFT", shift=0.1)
    with pytest.raises(UserError, match="is not in the table of protocol"):
        model_card(other.train("dpo"))
    with pytest.raises(UserError, match="must end in .md"):
        export(Path("tiny/dpo/default/seed-0"), tmp_path / "card.txt", card=True, runs=filled.runs)
    with pytest.raises(UserError, match="add --card"):
        export(Path("tiny/dpo/default/seed-0"), tmp_path / "card.md", push="a/b", runs=filled.runs)
    (tmp_path / "mine.md").write_text("my own notes")
    with pytest.raises(UserError, match="exists and is not this card"):
        export(Path("tiny/dpo/default/seed-0"), tmp_path / "mine.md", card=True, runs=filled.runs)
    assert (tmp_path / "mine.md").read_text() == "my own notes"


def test_a_run_may_be_named_from_within_its_folder(filled: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(filled.runs / "tiny/dpo/default")
    assert model_card(RunFolder(Path("seed-0"))) == model_card(RunFolder(filled.runs / "tiny/dpo/default/seed-0"))


def test_a_card_says_which_of_the_row_s_seeds_the_weights_are_of(lab: Lab) -> None:
    lab.base()
    first, second = (lab.run("dpo", seed, shift=0.2) for seed in (0, 1))
    alone = lab.run("sft", 3, title="SFT", shift=0.1)
    sentence = "The row Diffusion-DPO is the mean of training seeds 0, 1; these weights are those of seed {}."
    for seed, run in enumerate((first, second)):
        assert sentence.format(seed) in model_card(run).splitlines()
    assert "The row SFT is the result of these weights." in model_card(alone).splitlines()


def test_a_seed_without_its_own_evaluation_is_not_given_another_seed_s_row(lab: Lab) -> None:
    base = lab.base()
    lab.run("dpo", 0, shift=0.2)
    second = lab.train("dpo", 1)
    with pytest.raises(UserError, match="seed-1 is not in the table of protocol"):
        model_card(second)
    # nor the row of its evaluation with another negative
    sampling = variant(second, base, alpha=0.5)
    lab.judge(second, shift=0.3, place=second.evaluation_of(lab.protocol.signature, sampling), variant=sampling)
    with pytest.raises(UserError, match="seed-1 is not in the table of protocol"):
        model_card(second)


@pytest.mark.slow
def test_the_hub_gets_the_card_and_the_weights(lab: Lab, tmp_path: Path) -> None:
    lab.base()
    run = lab.train("dpo")
    (run.weights / "diffusion_pytorch_model.safetensors").write_bytes(bytes(range(256)) * 40)
    run.finish()
    lab.judge(run, shift=0.2)
    program = "from bench.cli.main import main; main()"
    words = ["export", "tiny/dpo/default/seed-0", "card.md", "--card", "--push", "me/aligned"]
    hub = tmp_path / "hub"
    hub.mkdir()

    def push(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    with local_hub(hub, tmp_path / "cache") as environment:
        refused = push(environment)
        assert refused.returncode == 2
        assert "error: me/aligned cannot be uploaded to the hub: the hub answers 401; log in" in refused.stderr
        pushed = push({**environment, "HF_TOKEN": TOKEN})
        assert pushed.returncode == 0, pushed.stderr
    gone = push({**environment, "HF_TOKEN": TOKEN})
    assert gone.returncode == 2
    (sentence,) = [line for line in gone.stderr.splitlines() if line.startswith("error:")]
    assert sentence.startswith("error: me/aligned cannot be uploaded to the hub: ")
    assert sentence.endswith("check the name and the connection, then run the same command again")
    assert "Traceback" not in gone.stderr
    uploaded = {path.name: path.read_bytes() for path in (hub / "models/me/aligned").rglob("*") if path.is_file()}
    weights = {path.name: path.read_bytes() for path in run.weights.iterdir()}
    assert uploaded == {**weights, "README.md": (tmp_path / "card.md").read_bytes()}
    (large,) = (hub / "objects").iterdir()
    assert large.name == hashlib.sha256(weights["diffusion_pytorch_model.safetensors"]).hexdigest()
    assert json.loads(uploaded["config.json"]) == {"_class_name": "UNet2DConditionModel"}
