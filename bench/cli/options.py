"""Parsing the values of command-line options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.core.commas import split_commas
from bench.core.errors import UserError
from bench.models.find import find_metrics
from bench.records.protocol import MOST_GUIDANCE
from bench.scoring.loop import Judge
from bench.scoring.metric import METRICS
from bench.training.algorithm import ALGORITHMS


def choose_metrics(names: Sequence[str] | None, model: str | None, own: Mapping[str, str]) -> dict[str, Judge]:
    """Scorers by registered name.

    Args:
        names: which metrics; None means the model's own.
        model: a registered model, a folder or a hub id, whose metric checkpoints are used; None means the published ones.
        own: checkpoints by metric, which take precedence.

    Raises:
        UserError: an unknown name, no names, or a checkpoint for a metric that is not among the names.
    """
    judged_by = {} if model is None else find_metrics(model)
    chosen = list(judged_by) if names is None else names
    if not chosen:
        raise UserError(f"choose metrics: --metrics with one or more of {','.join(METRICS)}")
    for name in own:
        if name not in chosen:
            raise UserError(f"--checkpoint {name}=... is for a metric that is not in --metrics; add it there")
    return {name: Judge(METRICS.get(name), own.get(name, judged_by.get(name))) for name in chosen}


def parse_overrides(
    typed: Sequence[str], *, option: str = "--set", example: str = "beta=2000", empty: bool = False
) -> dict[str, str]:
    """``["beta=2000", "steps=50"]`` as a dict.

    Args:
        typed: the values of the option, item by item.
        option: the option's name, for messages.
        example: an example item, for messages.
        empty: whether a value may be empty, as a negative prompt may.

    Raises:
        UserError: an item is not of the form ``field=value``, or a field occurs twice.
    """
    overrides: dict[str, str] = {}
    for item in typed:
        field, equals, value = item.partition("=")
        if not equals or not field or not (value or empty):
            raise UserError(f"{option} {item!r} is not of the form field=value, for example {option} {example}")
        if field in overrides:
            raise UserError(f"{option} sets {field} twice; set it once")
        overrides[field] = value
    return overrides


def set_once(option: str, typed: Mapping[str, Any], **shorthands: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an option and of its shorthands together.

    Args:
        option: the option's name, for messages.
        typed: its settings, by field.
        shorthands: by the name of a shorthand with ``_`` for ``-``, its settings.

    Raises:
        UserError: two of them set the same field.
    """
    settings = dict(typed)
    for name, short in shorthands.items():
        if twice := sorted(settings.keys() & short.keys()):
            raise UserError(
                f"{option} {twice[0]}=... and --{name.replace('_', '-')} set the same field; use one of them"
            )
        settings |= short
    return settings


def image_settings(
    typed: Sequence[str] | None, *, guidance_scale: float | None = None, sampling_steps: int | None = None
) -> dict[str, Any]:
    """The values of ``--image`` and of its shorthands by field.

    Args:
        typed: the values of the option, item by item.
        guidance_scale: the value of the option of this name; None if it was not typed.
        sampling_steps: likewise.

    Raises:
        UserError: a field is set twice, or an item is not of the form ``field=value``.
    """
    return set_once(
        "--image",
        parse_overrides(typed or [], option="--image", example="precision=bf16", empty=True),
        guidance_scale={} if guidance_scale is None else {"guidance_scale": guidance_scale},
        sampling_steps={} if sampling_steps is None else {"steps": sampling_steps},
    )


def split_names(typed: str, option: str) -> list[str]:
    """``"dpo, smpo"`` as a list, without repeats.

    Args:
        typed: the value of an option.
        option: the option's name, for the message.

    Raises:
        UserError: there is no name in it.
    """
    names = list(dict.fromkeys(part.strip() for part in split_commas(typed) if part.strip()))
    if not names:
        raise UserError(f"{option} {typed!r} has no names; give one or more, separated by commas")
    return names


def algorithm_names(typed: str) -> list[str]:
    """The algorithms named by ``--algo``, separated by commas; ``all`` among them is left as it is.

    Raises:
        UserError: no name was typed.
    """
    try:
        return split_names(typed, "--algo")
    except UserError as error:
        raise UserError(f"choose algorithms: --algo all, or one or more of {', '.join(ALGORITHMS)}") from error


def parse_budget(typed: str | None) -> dict[str, str]:
    """``forwards=20000`` as overrides; None as none.

    Raises:
        UserError: it is not of the form unit=amount.
    """
    if typed is None:
        return {}
    unit, equals, amount = typed.partition("=")
    if not equals or not amount:
        raise UserError(f"--budget {typed!r} is not of the form unit=amount, for example --budget forwards=20000")
    return {"budget.unit": unit, "budget.amount": amount}


def stop_settings(rule: str | None, every: int | None) -> dict[str, str]:
    """``--stop-when`` as overrides, which say how often it looks too; None as none.

    Args:
        rule: the option's value; None if it was not typed.
        every: the value of ``--evaluate-every``.

    Raises:
        UserError: the rule needs a number of steps.
    """
    if rule is None:
        return {}
    if every is None:
        raise UserError(f"--stop-when {rule} needs --evaluate-every N, the steps between two measurements")
    return {"stop_when.rule": rule, "stop_when.every": str(every)}


def parse_columns(typed: str | None) -> dict[str, str]:
    """``"caption=text,jpg_0=chosen"`` as a dict; None as an empty one.

    Raises:
        UserError: a part is not of the form name=column, or a name occurs twice.
    """
    example = r"caption=text,jpg_0=chosen; a comma in a column's name is written \,"
    return parse_overrides(split_commas(typed) if typed else [], option="--columns", example=example)


def parse_seeds(typed: str) -> list[int]:
    """``"0,1,2"`` as numbers.

    Raises:
        UserError: it is not a list of distinct non-negative integers.
    """
    try:
        seeds = [int(part) for part in typed.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {typed!r} is not a list of distinct non-negative integers, for example 0,1,2")
    return seeds


def parse_scales(typed: str | None) -> list[float]:
    """``"1,3,5"`` as numbers; None as an empty list.

    Raises:
        UserError: it is not a list of numbers from 1 to `MOST_GUIDANCE`.
    """
    if typed is None:
        return []
    try:
        scales = [float(part) for part in typed.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(1 <= scale <= MOST_GUIDANCE for scale in scales):
        raise UserError(
            f"--guidance-scale {typed!r} is not a list of numbers from 1 to {MOST_GUIDANCE:g}, for example 1,3,5"
        )
    return scales
