"""A model card of a run: what the weights are, how they compare under the protocol, what they were trained on and at what cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.core.errors import UserError
from bench.core.escaping import line, markdown
from bench.records.config import RunConfig
from bench.records.lines import LedgerRecord
from bench.records.reading import read_record
from bench.records.runs import RunFolder
from reports.citation import citation
from reports.content import Report, Row
from reports.render import markdown as tables
from reports.report import make_report

ADAPTERS = "pytorch_lora_weights.safetensors"
"""diffusers' file of adapters, which the card says how to load."""


def model_card(run: RunFolder, *, protocol: str | None = None, base: str | None = None) -> str:
    """The card of a finished run in Markdown, with the metadata that the hub reads.

    Args:
        run: the run, in the folder of its model, beside the runs that it is compared with.
        protocol: signature of the protocol of the table; needed only if there are several.
        base: hub id of the base model, ``owner/name``; None if it is not on the hub.

    Raises:
        UserError: records are missing or damaged, or the run itself was not evaluated under the protocol, whatever other seeds of it were.
    """
    config = run.config()
    report = make_report(run.folder.absolute().parents[2], protocol)
    row = _own_row(config, report)
    if row is None:
        raise UserError(
            f"{run.folder} is not in the table of protocol {report.signature}; evaluate it there, or give another --protocol"
        )
    sections = (
        _metadata(config, base),
        _what(config, base),
        _use(run, base),
        _training(run, config),
        _data(config, run.ledger()),
    )
    return "\n\n".join([*sections, _results(report, row, config), _citation(report)]) + "\n"


def _metadata(config: RunConfig, base: str | None) -> str:
    """YAML between two lines; values are JSON strings, which are YAML."""
    fields: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["preference-alignment", config.algorithm],
        **({} if base is None else {"base_model": base}),
    }
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _what(config: RunConfig, base: str | None) -> str:
    model = markdown(config.model if base is None else f"{config.model} ({base})")
    placebo = "\n\nThis is a placebo: it was trained on shuffled preferences." if config.placebo_of is not None else ""
    trial = (
        f"\n\nThis is a trial (--limit {config.limit}), which says nothing about the method."
        if config.limit is not None
        else ""
    )
    title = f"# {markdown(config.model)}, {markdown(config.label)}"
    return f"{title}\n\n{markdown(config.title)} trained from {model}.{placebo}{trial}"


def _use(run: RunFolder, base: str | None) -> str:
    """How diffusers loads the weights."""
    place = base or "FOLDER"
    heading = "## Use" if base else "## Use\n\nFOLDER is where the base model is, which is not on the hub."
    if (run.trained_weights() / ADAPTERS).exists():
        load = f'pipeline = DiffusionPipeline.from_pretrained("{place}")\npipeline.load_lora_weights("this repository")'
        return f"{heading}\n\n```python\nfrom diffusers import DiffusionPipeline\n\n{load}\n```"
    stated = read_record(dict[str, Any], run.trained_weights() / "config.json")
    kind = str(stated.get("_class_name", ""))
    if not kind.isidentifier():
        raise UserError(
            f"{run.trained_weights() / 'config.json'} does not name the network's class; train the run again"
        )
    part = "unet" if "UNet" in kind else "transformer"
    load = f'{part} = {kind}.from_pretrained("this repository")\npipeline = DiffusionPipeline.from_pretrained("{place}", {part}={part})'
    return f"{heading}\n\n```python\nfrom diffusers import DiffusionPipeline, {kind}\n\n{load}\n```"


def _training(run: RunFolder, config: RunConfig) -> str:
    return "\n".join(["## Training", "", *(f"- {markdown(fact)}" for fact in _facts(run, config))])


def _facts(run: RunFolder, config: RunConfig) -> Iterator[str]:
    yield f"algorithm: {config.algorithm}, seed {config.seed}"
    yield f"recipe: {config.recipe or 'none published'}"
    if config.changed:
        yield "changed: " + ", ".join(f"{name}={value}" for name, value in config.changed.items())
    if config.resolved.training is not None:
        yield f"steps: {len(run.steps())}"
        if (rounds := config.resolved.training.rounds) is not None:
            yield f"rounds: {rounds.number}, each on images of its own for the data's captions"
    if config.trained_on:
        yield f"trained on the scores of: {', '.join(config.trained_on)}"
    if (ledger := run.ledger()) is not None:
        yield f"cost: {ledger['seconds'] / 3600:.2f} device hours, {ledger['peak_memory_bytes'] / 1e9:.1f} GB at most"
        yield f"{ledger['pairs']:,} pairs, {ledger['policy_forwards']:,} policy forwards, {ledger['reference_forwards']:,} reference forwards"


def _data(config: RunConfig, ledger: LedgerRecord | None) -> str:
    if config.data is None:
        return "## Data\n\nNo preference data."
    # Of a path on the machine that trained, the last part tells which file it was.
    source = Path(config.data.source).name if Path(config.data.source).is_absolute() else config.data.source
    facts = [f"source: {source}"]
    if samples := 0 if ledger is None else ledger.get("samples", 0):
        facts.append(f"captions, for {samples:,} images of its own")
    if not samples or config.fits_judge:
        use = ", to which the reward models of its rounds were fitted" if config.fits_judge else ""
        facts.append(
            f"{config.data.pairs:,} pairs of {config.data.rows:,} rows, {config.data.ties_dropped:,} ties left out{use}"
        )
    if config.resolved.data is not None:
        facts.append(f"digest: {config.resolved.data.digest}")
    if config.limit is not None:
        facts.append(f"a trial: at most {config.limit} prompts and pairs")
    return "\n".join(["## Data", "", *(f"- {markdown(fact)}" for fact in facts)])


def _own_row(config: RunConfig, report: Report) -> Row | None:
    """The row of a run's own result, with this run's seed in it."""
    for row, place in zip(report.rows, report.places, strict=True):
        same = (row.algorithm, row.name) == (config.algorithm, config.name) and config.seed in row.seeds
        if same and place and report.source.rows[place - 1].evaluation.own:
            return row
    return None


def _results(report: Report, row: Row, config: RunConfig) -> str:
    label = markdown(row.label)
    others = ", ".join(map(str, row.seeds))
    whose = (
        f"The row {label} is the result of these weights."
        if len(row.seeds) == 1
        else f"The row {label} is the mean of training seeds {others}; these weights are those of seed {config.seed}."
    )
    return f"## Results\n\n{whose}\n\n{tables(report).rstrip()}"


def _citation(report: Report) -> str:
    return f"## Citation\n\nNumbers are comparable with those of tables that have the same line:\n\n```text\n{line(citation(report)).replace('`', '')}\n```"
