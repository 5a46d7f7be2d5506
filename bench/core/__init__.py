"""What every stage stands on: errors, files, values, randomness, the registry mechanism, progress, processes.

Imports nothing else of bench.
"""
