"""Malformed inputs for every command that reads a file: ``python -m tests.fuzz --cases 2000 --seed 1``.

`kinds` registers the generators, one per kind of malformed input; `place` is the folder in which a case is built; `worker` runs the
command line in a fork; `verdict` says what was wrong with the outcome.
"""
