"""The contracts of algorithms and metrics, as functions that check an installed one without a test framework.

A contract is a function whose docstring is one sentence; `bench check` prints it for a plug-in, and the tests of this project
call the same function for every registered algorithm and metric.
"""
