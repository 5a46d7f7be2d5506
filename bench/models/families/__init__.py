"""One file for each diffusers pipeline class that can be trained and sampled."""
