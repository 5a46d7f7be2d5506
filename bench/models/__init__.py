"""Model families: how a diffusers folder becomes something that can be trained and sampled."""
