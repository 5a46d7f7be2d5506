"""What numbers a record may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MOST = 10**30
"""Largest number of a record, beyond all that is counted, whose square and quotients are floats."""
LEAST = 1e-9
"""Least part of a budget that a run can have spent."""
Count = Annotated[int, Field(ge=0, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
