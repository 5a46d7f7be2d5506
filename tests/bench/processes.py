"""Trains the micro model, on as many processes as it is started on: ``python processes.py WORKSHOP OUTPUT SETTINGS``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from workshop import Workshop

from algorithms.dpo import DPO

if __name__ == "__main__":
    Workshop(Path(sys.argv[1])).train(Path(sys.argv[2]), DPO(), **json.loads(sys.argv[3]))
