"""Scorers that run as worker processes in their own Python environments."""
