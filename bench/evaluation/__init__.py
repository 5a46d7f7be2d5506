"""(Weights for both branches of guidance, protocol, prompts) -> images and scores in an evaluation folder.

Knows nothing about algorithms.
"""
