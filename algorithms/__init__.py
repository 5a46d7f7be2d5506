"""One file per alignment algorithm: its loss, its hyper-parameters, its recipes, its citation."""
