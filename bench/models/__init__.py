"""Weights on disk -> a denoiser with its forward process, sampler, guidance and inversion.

`families` has one file for each pipeline class, `checkpoints` reads and checks what is on disk.
"""
