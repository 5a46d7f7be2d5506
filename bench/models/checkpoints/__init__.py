"""Weights and configurations on disk: pipeline folders, components, adapters, released weights, and whether they fit a model."""
