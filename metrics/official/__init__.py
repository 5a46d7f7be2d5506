"""The authors' own packages as scorers, each in its own environment."""
