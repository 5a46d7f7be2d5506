"""How the assets of the tiny world are made; used only by ``python -m bench.tiny.build``."""
