"""Image scorers: one file per metric, each a `bench.metric.Metric`."""
