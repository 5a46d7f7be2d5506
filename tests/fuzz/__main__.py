"""``python -m tests.fuzz``: run the campaign; exit code 1 if anything was found."""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="how many cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to go on with a campaign")
    parser.add_argument("--seed", type=int, default=0, help="of the generator")
    parser.add_argument("--only", default="", help="kinds whose names contain this text")
    parser.add_argument(
        "--root", type=Path, default=Path.cwd(), help="checkout to test, with the Python of its environment"
    )
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MPLBACKEND="agg")
    sys.path.insert(0, str(options.root.resolve()))
    from tests.fuzz import kinds, verdict, worker
    from tests.fuzz.finished import finish_run
    from tests.fuzz.place import KINDS

    assert kinds
    worker.import_all()
    from bench.tiny import ASSETS

    assert options.root.resolve() in ASSETS.parents, f"bench comes from {ASSETS}"
    chosen = [each for each in KINDS if options.only in each.name]
    kept = Path(tempfile.mkdtemp(prefix="fuzz-finished-"))
    finished = finish_run(kept, ASSETS)
    rng, counts, bad = random.Random(options.seed), collections.Counter[str](), 0
    for number in range(options.cases):
        (each,) = rng.choices(chosen, [one.weight for one in chosen])
        if number < options.first:
            continue
        outcome = worker.run_case(each.make, f"{options.seed}-{number}", ASSETS, finished)
        found = verdict.findings(outcome)
        bad += bool(found)
        counts[each.name] += bool(found)
        if found or options.verbose:
            words = " ".join(outcome.expect.words) if outcome.expect else ""
            print(f"{number} line {each.line} {each.name}: {words!r}: {'; '.join(found) or outcome.code}", flush=True)
    shutil.rmtree(kept)
    ran = options.cases - options.first
    print(f"{bad} of {ran} cases found a defect ({100 * bad / max(1, ran):.1f} %); "
          f"by kind: {dict(counts.most_common())}")  # fmt: skip
    return bool(bad)


if __name__ == "__main__":
    raise SystemExit(main())
