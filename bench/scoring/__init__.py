"""(Images, prompts) -> one float per image: the metric interface, the resumable scoring loop, isolated scorers, folders of images.

Does not depend on any diffusion model.
"""
