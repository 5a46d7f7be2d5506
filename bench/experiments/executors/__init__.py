"""Where the cells of a study run: in processes of this machine, or elsewhere.  Registered under ``bench.executors``."""
