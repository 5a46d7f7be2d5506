"""Image scorers: one file per metric, each a `bench.scoring.metric.Metric`."""
