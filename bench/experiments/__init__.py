"""One model with its data, prompts and scorers: trains methods over seeds, evaluates them, and skips finished work.

Takes resolved values and returns run folders.
"""
