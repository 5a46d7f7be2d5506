"""What was wrong with the outcome of a case."""

from __future__ import annotations

import re

from tests.fuzz.worker import Outcome

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, colour it or turn text around; rich draws nothing with them where it is no terminal."""


def findings(outcome: Outcome) -> list[str]:
    """Each defect in a few words; empty for a right outcome."""
    expect, found = outcome.expect, []
    assert expect is not None
    printed = outcome.out + outcome.err
    flat = " ".join(printed.split())
    if outcome.code is None:
        return ["hang"]
    if "Traceback (most recent call last)" in printed:
        found.append(f"traceback: {_last(outcome.err)}")
    elif outcome.code not in (0, 2):
        found.append(f"exit code {outcome.code}: {_last(outcome.err)}")
    elif outcome.code not in expect.outcomes:
        found.append(f"exit code {outcome.code}, not {expect.outcomes}: {_last(outcome.err)}")
    if outcome.code == 2:
        errors = [line for line in outcome.err.splitlines() if line.lower().startswith(("error:", "usage:"))]
        if len(errors) != 1:
            found.append(f"{len(errors)} error lines: {_last(outcome.err)}")
        found += [f"does not say {text!r}: {_last(outcome.err)}" for text in expect.refusal_says if text not in flat]
    found += [f"does not say {text!r}" for text in expect.says if text not in flat]
    found += [f"says {text!r}" for text in expect.never if text in flat]
    found += [f"writes outside: {path}" for path in outcome.outside]
    if outcome.started:
        found.append(f"program started: {outcome.started.strip()}")
    if CONTROL.search(printed.replace("\r", "") if outcome.code == 0 else printed):
        found.append("control characters in what it prints")
    return found


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "(silent)"
