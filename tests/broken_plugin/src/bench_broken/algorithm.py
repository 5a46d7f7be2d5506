"""Needs a package that nobody has."""

import flux_capacitor  # noqa: F401
