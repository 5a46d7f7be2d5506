"""(Algorithm, settings, batches, policy) -> weights and a log: the algorithm interface, the policy, the loop, checkpoints.

`distributed` decides how weights are laid out over several processes.
"""
