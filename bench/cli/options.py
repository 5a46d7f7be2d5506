"""What was typed after an option -> values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.core.errors import UserError
from bench.models.registry import MODELS
from bench.scoring.loop import Judge
from bench.scoring.metric import METRICS
from bench.training.algorithm import ALGORITHMS


def choose_metrics(names: Sequence[str] | None, model: str | None, own: Mapping[str, str]) -> dict[str, Judge]:
    """Scorers by registered name.

    Args:
        names: which; None is all that the model is judged by.
        model: a registered model, whose checkpoints are used; None is the published ones.
        own: checkpoints by metric; they come first.

    Raises:
        UserError: an unknown name, no names, or a checkpoint for a metric that is not asked for.
    """
    judged_by = {} if model is None else MODELS.get(model).metrics
    chosen = list(judged_by) if names is None else names
    if not chosen:
        raise UserError(f"name the metrics: --metrics {','.join(METRICS)}, or some of these")
    for name in own:
        if name not in chosen:
            raise UserError(f"--checkpoint {name}=... is for a metric that is not asked for; add it to --metrics")
    return {name: Judge(METRICS.get(name), own.get(name, judged_by.get(name))) for name in chosen}


def parse_overrides(typed: Sequence[str], *, option: str = "--set", example: str = "beta=2000") -> dict[str, str]:
    """``["beta=2000", "steps=50"]`` as a dict.

    Args:
        typed: what was given to the option, item by item.
        option: its name, for messages.
        example: an item, for messages.

    Raises:
        UserError: an item is no ``field=value``, or a field comes twice.
    """
    overrides: dict[str, str] = {}
    for item in typed:
        field, equals, value = item.partition("=")
        if not equals or not field or not value:
            raise UserError(f"{option} {item!r} is not of the form field=value, for example {option} {example}")
        if field in overrides:
            raise UserError(f"{option} {field} is given twice; give it once")
        overrides[field] = value
    return overrides


def split_names(typed: str) -> list[str]:
    """``"dpo, smpo"`` as a list, repeats left out."""
    return list(dict.fromkeys(part.strip() for part in typed.split(",") if part.strip()))


def algorithm_names(typed: str) -> list[str]:
    """The algorithms of ``--algo``: names separated by commas, or ``all``.

    Raises:
        UserError: there is none.
    """
    names = list(ALGORITHMS) if typed == "all" else split_names(typed)
    if not names:
        raise UserError(f"name the algorithms: --algo all, or some of {', '.join(ALGORITHMS)}")
    return names


def parse_budget(typed: str) -> dict[str, str]:
    """``forwards=20000`` as overrides.

    Raises:
        UserError: it has another form.
    """
    unit, equals, amount = typed.partition("=")
    if not equals or not amount:
        raise UserError(f"--budget {typed!r} is not of the form unit=amount, for example --budget forwards=20000")
    return {"budget.unit": unit, "budget.amount": amount}


def check_label(name: str | None) -> None:
    """Raise a `UserError` when a configuration's name cannot be a folder's."""
    if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"--name {name!r} is no name: give letters, digits, '.', '_', '+' and '-', and begin with a letter or digit"
        )


def parse_columns(typed: str | None) -> dict[str, str]:
    """``"caption=text,jpg_0=chosen"`` as a dict; nothing typed is an empty one.

    Raises:
        UserError: a part is not of the form name=column, or a name comes twice.
    """
    return parse_overrides(typed.split(",") if typed else [], option="--columns", example="caption=text,jpg_0=chosen")


def parse_seeds(typed: str) -> list[int]:
    """``"0,1,2"`` as numbers.

    Raises:
        UserError: it is not a list of different whole numbers from 0 on.
    """
    try:
        seeds = [int(part) for part in typed.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {typed!r} is not a list of different whole numbers from 0 on, for example 0,1,2")
    return seeds


def parse_scales(typed: str | None) -> list[float]:
    """``"1,3,5"`` as numbers; nothing typed is an empty list.

    Raises:
        UserError: it is not a list of finite numbers from 1 on.
    """
    if typed is None:
        return []
    try:
        scales = [float(part) for part in typed.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(1 <= scale < float("inf") for scale in scales):
        raise UserError(f"--guidance-scale {typed!r} is not a list of numbers from 1 on, for example 1,3,5")
    return scales
