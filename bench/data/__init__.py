"""A file, folder or hub id -> `PreferenceData`; data and a model -> latents and embeddings on disk; data and a scorer -> scores.

`prepare.py` is what algorithms may use in their `prepare`.
"""
