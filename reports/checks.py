"""Checks which runs may share a table; each refusal is one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.values import differing
from bench.records.config import BASE, UNRECORDED, Resolved, RunConfig, declared_same
from bench.records.evaluations import Evaluation
from bench.records.protocol import Protocol
from bench.records.runs import RunFolder
from bench.records.scores import MetricRecord
from reports.evaluations import grouped, read_judged


def run_label(run: RunFolder) -> str:
    """How messages name a run, for example ``dpo/default seed 0``."""
    config = run.config()
    if config.is_base:
        return BASE
    seed = "" if config.seed is None else f" seed {config.seed}"
    return f"{config.algorithm}/{config.name}{seed}"


def choose_protocol(runs: Path, found: Sequence[RunFolder], wanted: str | None) -> str:
    """Signature of the protocol to report: the wanted one, or the only one with finished evaluations.

    Raises:
        UserError: no evaluation is finished, none under the wanted protocol, or there are several protocols and none is wanted.
    """
    protocols: dict[str, Protocol] = {}
    for run in found:
        for evaluation in run.evaluations():
            if evaluation.done:
                protocols.setdefault(evaluation.protocol_signature, evaluation.protocol())
    if not protocols:
        raise UserError(
            f"no evaluation under {runs} is finished ({', '.join(map(run_label, found))}); repeat the `bench run` command"
        )
    if wanted is None and len(protocols) == 1:
        return next(iter(protocols))
    if wanted in protocols:
        return wanted
    shared = readable(found)
    rows = {signature: len(grouped(read_judged(shared, signature))) for signature in protocols}
    listed = sorted(protocols, key=lambda signature: -rows[signature])
    described = [f"{signature} ({_protocol_line(protocols[signature], rows[signature])})" for signature in listed]
    choose = f"choose one, for example --protocol {listed[0]}"
    if wanted is not None:
        begin, end = (
            f"{runs} has no finished evaluation under protocol {wanted}, but it has some under",
            choose.capitalize(),
        )
    else:
        fields = ", ".join(_varying(protocols.values()))
        begin = f"{runs} has evaluations under {len(protocols)} protocols"
        end = f"Their scores cannot share a table because they differ in {fields}; {choose}"
    raise UserError(f"{begin}: {'; '.join(described)}. {end}")


def readable(found: Iterable[RunFolder]) -> list[RunFolder]:
    """The runs that can be rows: those that have finished training, and the base model."""
    return [run for run in found if run.done or run.config().is_base]


def _protocol_line(protocol: Protocol, rows: int) -> str:
    made = protocol.generation
    parts = (
        protocol.model,
        f"{protocol.prompt_count} prompts",
        f"{made.steps} steps",
        f"guidance {made.guidance_scale:g}",
        f"{made.width}x{made.height}",
        f"{rows} row{'' if rows == 1 else 's'}",
    )
    return ", ".join(parts)


def _varying(protocols: Iterable[Protocol]) -> list[str]:
    """Dotted names of the fields that differ between protocols, with their values."""
    flat = [_flat(protocol.to_json()) for protocol in protocols]
    names = dict.fromkeys(name for fields in flat for name in fields)
    values = {
        name: dict.fromkeys(repr(fields[name]) if name in fields else UNRECORDED for fields in flat) for name in names
    }
    return [f"{name} ({' and '.join(found)})" for name, found in values.items() if len(found) > 1]


def _flat(value: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The fields of a JSON object, also of those inside it, by dotted names."""
    fields: dict[str, Any] = {}
    for name, inner in value.items():
        fields |= _flat(inner, f"{path}{name}.") if isinstance(inner, Mapping) else {f"{path}{name}": inner}
    return fields


def check_unique(judged: Iterable[RunFolder]) -> None:
    """Refuse two folders that hold the same run."""
    seen: dict[str, RunFolder] = {}
    for run in judged:
        first = seen.setdefault(run_label(run), run)
        if first is not run:
            raise UserError(f"{first.folder} and {run.folder} both hold {run_label(run)}; move one of them elsewhere")


def check_seeds(judged: Iterable[RunFolder]) -> None:
    """Refuse runs with the same name that differ in more than their training seed, and in code of which nobody declared it."""
    rows: dict[tuple[str, str], list[RunFolder]] = {}
    for run in judged:
        config = run.config()
        if config.seed is not None:
            rows.setdefault((config.algorithm, config.name), []).append(run)
    for first, *others in rows.values():
        configs = [run.config() for run in (first, *others)]
        one = configs[0].resolved
        for run, config in zip(others, configs[1:], strict=True):
            if fields := _different(one, config.resolved, configs):
                raise UserError(
                    f"{run_label(first)} and {run_label(run)} are not seeds of the same run: they differ in {', '.join(fields)}; "
                    "choose a different --name for one of them"
                )


def _different(one: Resolved, other: Resolved, configs: Sequence[RunConfig]) -> list[str]:
    """In what two runs differ besides code that one of some configurations declares to give the same results."""
    first, second = one.to_json(), other.to_json()
    if declared_same(configs, one.code_id, other.code_id):
        unknown = {"code", *(["model"] if UNRECORDED in (one.code_id, other.code_id) else [])}
        first, second = ({name: each[name] for name in each if name not in unknown} for each in (first, second))
    return differing(first, second)


def check_metrics(judged: Iterable[tuple[RunFolder, Evaluation]]) -> None:
    """Refuse two versions of the same metric."""
    seen: dict[str, tuple[RunFolder, MetricRecord]] = {}
    for run, evaluation in judged:
        for name, metric in evaluation.metrics().items():
            first, known = seen.setdefault(name, (run, metric))
            if known.signature != metric.signature:
                fields = ", ".join(differing(known.identity, metric.identity)) or "signature"
                raise UserError(
                    f"metric {name!r} of {run_label(first)} and of {run_label(run)} cannot share a table: they differ in {fields}; "
                    f"score the stored images again with one version of it: bench rescore --metrics {name}"
                )
