"""The child: loads torch once, then forks for every execution that the parent asks for.

The process that listens never runs the user's code; its forks do, each with its own guards and limits.  So a patched
program costs only itself, not another import of torch.
"""

import importlib
import json
import os
import signal
import sys

import torch

from bowerbird.reading.running.request import Request


def main() -> None:
    """Reads one request per line from standard input, answers each with the exit status of its fork."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    warm()
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    for line in sys.stdin:
        request = Request.from_json(json.loads(line))
        pid = os.fork()
        if pid == 0:
            _become(request)
        print(json.dumps({"started": pid}), file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


def warm() -> None:
    """Loads what every execution needs, so that forks share it."""
    from bowerbird.reading.running import session

    session.prepare()


def _become(request: Request) -> None:
    """The fork: cuts itself off from the parent's streams and executes the request; never returns."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    status = 1
    try:
        module, _, name = request.session.partition(":")
        getattr(importlib.import_module(module), name)(request).execute()
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
