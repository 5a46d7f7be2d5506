"""Refuses to be imported."""

raise RuntimeError("crooked needs CUDA 99")
