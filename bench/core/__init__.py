"""What every stage uses: errors, files, values, randomness, the registry mechanism, progress, processes.

Imports nothing else of bench.
"""
