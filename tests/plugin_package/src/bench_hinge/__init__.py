"""A third-party plug-in: one algorithm, one metric, one model."""
