"""The worker process: runs a scorer file for `bench.scoring.isolated.worker`, in an environment without this package.

Standard library only, Python 3.8 or later.  Requests and answers are lines of JSON on a separate socket; whatever
the scorer prints goes to a log.

    {"load": {...}}                             ->  {"ready": true}
    {"images": [paths], "prompts": [texts]}     ->  {"scores": [numbers]}
    any request that raises an exception        ->  {"error": traceback}, and the process ends
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import socket
import sys
import threading
import traceback


def main(scorer_file: str, descriptor: int) -> None:
    """Answer requests until the other side closes the socket."""
    with socket.socket(fileno=descriptor) as channel:
        channel.set_inheritable(False)  # processes that the scorer starts must not inherit the socket
        threading.Thread(target=end_with_the_other_side, args=(descriptor,), daemon=True).start()
        with channel.makefile("rw", encoding="utf-8") as stream:
            score = None
            for line in stream:
                request = json.loads(line)
                answer: dict[str, object]
                try:
                    if score is None:
                        score = load_function(scorer_file)(**request["load"])
                        answer = {"ready": True}
                    else:
                        answer = {"scores": [float(each) for each in score(request["images"], request["prompts"])]}
                except Exception:  # noqa: BLE001 (the other side raises it)
                    answer = {"error": traceback.format_exc()}
                stream.write(json.dumps(answer) + "\n")
                stream.flush()
                if "error" in answer:
                    return


def end_with_the_other_side(descriptor: int) -> None:
    """End the process, busy or not, when the other side closes the socket or dies."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    hangup.poll()
    os._exit(1)


def load_function(scorer_file: str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """The function ``load`` of a scorer file."""
    spec = importlib.util.spec_from_file_location("scorer", scorer_file)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules["scorer"] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module.load


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
