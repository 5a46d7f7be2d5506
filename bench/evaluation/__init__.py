"""(Weights in the slots of guidance, protocol, prompts) -> images and scores in an evaluation folder.

Never knows an algorithm.
"""
