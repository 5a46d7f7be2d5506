"""The tiny world's off-policy pairs by the command line."""

from __future__ import annotations

from bench.tiny import ASSETS
from tests.cli.conftest import CommandLine


def test_they_train_dpo_and_the_report_names_them(command: CommandLine) -> None:
    done = command.run(
        command.arguments(
            "run", "--algo", "dpo", "--model", "tiny", "--data", str(ASSETS / "off-policy.parquet"), "--set", "steps=2", "--limit", "4",
            "--metrics", "gold", "--name", "trial",
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (command.folder / "runs/tiny/dpo/trial/seed-0/DONE").exists()
    report = command.run(command.arguments("report"))
    assert "off-policy.parquet" in report.stdout
