"""A studio on a port of its own, and a client of it."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from bowerbird.studio.host import listen
from bowerbird.studio.site import application


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Site:
    """A running studio, and a client that is one of its own pages unless it says otherwise."""

    def __init__(self, port: int, runs: Path, app: Any):
        self.port, self.runs, self.app = port, runs, app
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = {"origin": self.address, **{name.replace("_", "-"): value for name, value in headers.items()}}
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, content, {name: value for name, value in sent.items() if value})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body if body is not None else {}, **headers)

    def made(self, run: str, **form: Any) -> Answer:
        return self.post(f"/make/{run}", {name.replace("__", "."): value for name, value in form.items()})

    def until(self, run: str, *states: str, step: int = 0, seconds: float = 120) -> dict[str, Any]:
        """Waits until a run is in one of these states, and has come so far."""
        until = time.monotonic() + seconds
        while True:
            now: dict[str, Any] = self.get(f"/live/{run}").json
            if now["state"] in states and now["step"] >= step:
                return now
            assert time.monotonic() < until, f"{run} did not become {states} within {seconds} s: {now}"
            time.sleep(0.2)


@contextlib.contextmanager
def running(runs: Path, shipped: dict[str, Path], *, local: bool = True) -> Iterator[Site]:
    """A studio in a thread; it ends with its trainings."""
    listening = listen("127.0.0.1", 0)
    app = application(runs, shipped, local=local)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield Site(listening.getsockname()[1], runs, app)
    finally:
        server.should_exit = True
        thread.join(30)
