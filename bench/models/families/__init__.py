"""One file per diffusers pipeline class that can be trained and sampled."""
