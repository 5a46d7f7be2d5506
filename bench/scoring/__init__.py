"""(Images, prompts) -> one float for each image: the metric interface, the resumable scoring loop, isolated scorers, folders of images.

Knows no diffusion model.
"""
