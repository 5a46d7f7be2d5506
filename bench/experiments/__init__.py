"""One model with its data, prompts and scorers: trains methods by seeds, judges them, and skips what is already there.

Takes resolved values and returns run folders.
"""
