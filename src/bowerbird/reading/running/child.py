"""The child: loads torch once, then forks for every execution that the parent asks for.

The process that listens never runs the user's code; its forks do, each with its own guards and limits, and without any
descriptor of the process that listens.  So a patched program costs only itself, not another import of torch.  When the
parent is gone, so are the forks.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys

import torch

from bowerbird.reading.running.request import Request

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main() -> None:
    """Reads one request per line from standard input, answers each with the exit status of its fork."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    warm()
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    while line := sys.stdin.readline():
        request = Request.from_json(json.loads(line))
        pid = os.fork()
        if pid == 0:
            _become(request)
        print(json.dumps({"started": pid}), file=answers, flush=True)
        status, cpu_s = _ended(pid)
        print(json.dumps({"ended": pid, "status": status, "cpu_s": cpu_s}), file=answers, flush=True)


def _ended(pid: int) -> tuple[int, float]:
    """Waits for a fork, or ends it where the parent is gone; its exit status, and the processor time that it took."""
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if any(event & select.POLLHUP for _, event in poll.poll(20)):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os._exit(1)


def warm() -> None:
    """Loads what every execution needs, so that forks share it; garbage is not looked for there."""
    from bowerbird.reading.running import session

    session.prepare()
    gc.collect()
    gc.freeze()


def cut_off(*kept: int) -> None:
    """A fork lets go of all descriptors that it inherited, dies with who forked it, and can print nowhere."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    for descriptor in range(3, os.sysconf("SC_OPEN_MAX") if sys.platform == "darwin" else _highest() + 1):
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _highest() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def _become(request: Request) -> None:
    """The fork: cuts itself off from the parent's streams and executes the request; never returns."""
    os.setsid()
    cut_off()
    status = 1
    try:
        module, _, name = request.session.partition(":")
        getattr(importlib.import_module(module), name)(request).execute()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
