"""The flow model of the tiny world by the command line."""

from __future__ import annotations

import json

from tests.cli.conftest import CommandLine


def test_an_online_method_trains_it_by_the_sampler_of_flows(command: CommandLine) -> None:
    settings = (
        "rewards=aesthetic",
        "steps=2",
        "group=2",
        "global_batch_size=4",
        "micro_batch_size=4",
        "sampling_steps=4",
        "within=2",
        "trained=1",
    )
    done = command.run(
        command.arguments(
            "run", "--algo", "flow-grpo", "--model", "tiny-flow", "--limit", "2", "--metrics", "gold", "--name", "trial", "--evaluate-every", "2",
            *(word for setting in settings for word in ("--set", setting)),
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "settings are tiny's recipe for flow-grpo" in done.stderr
    run = command.folder / "runs/tiny-flow/flow-grpo/trial/seed-0"
    assert (run / "DONE").exists()
    curve = json.loads((run / "curve.json").read_text())
    assert curve["generation"]["scheduler"] == "FlowMatchEulerDiscreteScheduler"
    assert {rule["rule"] for rule in curve["training_sampler"]["rules"]} == {"FlowSde"}
