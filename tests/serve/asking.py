"""A server on a free port of this machine, and a plain HTTP client."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from bowerbird.serve.app import server
from bowerbird.serve.gate import Keys
from bowerbird.serve.service import Engine

KEY = "a-key"


def ask(
    address: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer; JSON and the right key unless ``headers`` say otherwise."""
    sent = {"content-type": "application/json", "authorization": f"Bearer {KEY}"} | (headers or {})
    request = urllib.request.Request(address + path, body, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {name.lower(): value for name, value in error.headers.items()}


@contextmanager
def serving(engine: Engine, keys: Keys | None = None, log_level: str = "ERROR") -> Iterator[str]:
    """Serves inside; gives the address."""
    running = server(engine, port=0, keys=keys, log_level=log_level)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(timeout=20)
