"""Weights on disk -> a denoiser with its forward process, sampler, guidance and inversion.

`families` has one file per pipeline class, `checkpoints` reads and checks what is on disk.
"""
