"""(Algorithm, settings, batches, policy) -> weights and a log: the interface of an algorithm, the policy, the loop, checkpoints.

`distributed` says how weights lie over several processes.
"""
