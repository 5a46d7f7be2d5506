"""What every algorithm and every metric promises, as functions that run on an installed one, without a test framework.

A contract is a function with one sentence; `bench check` prints it for a plug-in, and our own tests call the same function
for every registered part.
"""
