"""(Grid of noise levels, a rule per step, a denoiser, noise) -> trajectories with log-probabilities, and their replay.

Sampling and replay are one function, `bench.rollouts.sampler.take_step`: it draws the next latents, or is told them.  Knows no
policy, no algorithm and no data.
"""
