"""The line that a paper prints below a table."""

from __future__ import annotations

import io
import json
from importlib.metadata import version

import pytest
from lab import Lab
from rich.console import Console

from reports.citation import citation
from reports.latex import latex
from reports.render import as_json, markdown, print_report
from reports.report import make_report

SIGNATURES = "Gold {gold}, PickScore (tiny) {pickscore}, Distance_% {distance}"


def test_the_line_names_everything_that_decides_the_numbers(full_lab: Lab) -> None:
    protocol = full_lab.protocol
    metrics = SIGNATURES.format(
        **{name: protocol.metric_signature(name, identity) for name, identity in full_lab.identities.items()}
    )
    assert citation(make_report(full_lab.runs)) == (
        f"bench {version('diffusion-alignment-bench')} | protocol {protocol.signature} | tiny@abc | 12 prompts x 2 | "
        f"DDIMScheduler-20, guidance 3 | {metrics} | base-paired 95 % intervals"
    )


def test_it_is_the_last_line_of_the_tables(full_lab: Lab) -> None:
    report = make_report(full_lab.runs)
    line = citation(report)
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=1000))
    assert stream.getvalue().splitlines()[-1] == line
    assert markdown(report).splitlines()[-1].replace("\\", "") == f"- {line}"
    assert json.loads(as_json(report))["citation"] == line
    # a bar in the roman fonts of LaTeX is a dash
    *_, printed = [text for text in latex(report).splitlines() if text not in ("", "}")]
    assert printed.startswith(f"bench {version('diffusion-alignment-bench')} \\textbar{{}} protocol ")
    assert "|" not in printed


@pytest.mark.parametrize("change", ["version of a metric", "prompts"])
def test_another_metric_or_protocol_has_another_line(full_lab: Lab, lab: Lab, change: str) -> None:
    before = citation(make_report(full_lab.runs))
    other = Lab(full_lab.runs.parent / "other")
    if change == "prompts":
        generation = other.protocol.generation.model_copy(update={"seed": 1})
        other.protocol = other.protocol.model_copy(update={"generation": generation})
    else:
        other.identities["gold"] = {"version": 2}
    other.base()
    after = citation(make_report(other.runs))
    assert after != before
    assert (f"protocol {full_lab.protocol.signature}" in after) == (change != "prompts")
