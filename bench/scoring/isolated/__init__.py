"""Scorers that run in an environment of their own, as worker processes."""
