"""The server: all endpoints as one Starlette application, and how it is run.

``create_app(engine)`` may be mounted in another application, which then stands behind no gate of ours unless it asks
for one.
"""

import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from bowerbird import __version__
from bowerbird.errors import BowerbirdError
from bowerbird.serve import inference, openai, predict
from bowerbird.serve.endpoints import Endpoint, answering, engine_of, refusal
from bowerbird.serve.gate import Gate, Keys, Metrics, log_as_json
from bowerbird.serve.openapi import document
from bowerbird.serve.service import Engine

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


async def health(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok", "version": __version__})


async def metrics(request: Request) -> Response:
    return PlainTextResponse(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4")


async def openapi(request: Request) -> Response:
    return JSONResponse(document(ENDPOINTS, list(engine_of(request).runs)))


READY = answering(ready="boolean")
OWN = [
    Endpoint("GET", "/health", health, "Is the process alive", answer=answering(status="string"), is_open=True),
    Endpoint("GET", "/ready", inference.ready, "Is the server taking requests", answer=READY, is_open=True),
    Endpoint("GET", "/metrics", metrics, "For Prometheus", answer={"type": "string"}, answer_type="text/plain"),
    Endpoint("GET", "/openapi.json", openapi, "This description", answer=answering(openapi="string")),
]  # fmt: skip
ENDPOINTS = [*OWN, *predict.ENDPOINTS, *openai.ENDPOINTS, *inference.ENDPOINTS]


def routes() -> list[BaseRoute]:
    return [Route(one.path, one.handler, methods=[one.method]) for one in ENDPOINTS]


def create_app(
    engine: Engine,
    *,
    keys: Keys | None = None,
    hosts: frozenset[str] | None = None,
    closes_engine: bool = False,
    more_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Everything that serves this engine.

    ``hosts``: the names under which it may be called (None: any).  ``closes_engine``: the engine ends with it.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        if closes_engine:
            engine.close()

    async def explain(request: Request, error: Exception) -> Response:
        return refusal(request.url.path, error, engine_of(request))

    counted = Metrics(engine)
    open_paths = frozenset(one.path for one in ENDPOINTS if one.is_open)
    gate: Any = Middleware(Gate, engine, counted, keys or Keys(), open_paths, hosts)
    app = Starlette(routes=[*routes(), *more_routes], middleware=[gate], lifespan=lifespan)
    app.add_exception_handler(HTTPException, explain)
    app.router.redirect_slashes = False
    app.state.engine, app.state.metrics = engine, counted
    return app


# ------------------------------------------------------------------------------------------------------- the process


class Impatient(H11Protocol):
    """Closes a connection on which no request has begun for so long: whose headers come too slowly, or never."""

    SECONDS = 10.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(self.SECONDS, self._look, None)

    def _look(self, seen: Any) -> None:
        """``seen`` is the request that the connection had at the last look."""
        if self.transport.is_closing():
            return
        if self.cycle is seen and (seen is None or seen.response_complete):
            self.transport.close()
        else:
            self.loop.call_later(self.SECONDS, self._look, self.cycle)


class Server(uvicorn.Server):
    """Stops when it is told to, after what is under way, as a process that did its work."""

    def __init__(self, config: uvicorn.Config, engine: Engine):
        super().__init__(config)
        self.engine = engine

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Uvicorn's would raise the signal again at the end, and the process would die of it."""
        self.engine.draining = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


@contextlib.contextmanager
def served(engine: Engine, *, port: int = 0, keys: Keys | None = None, log_level: str = "ERROR") -> Iterator[str]:
    """Serves inside, from a thread of this process, on a free port unless one is given; gives the address."""
    running = server(engine, port=port, keys=keys, log_level=log_level)
    thread = threading.Thread(target=running.run, name="bowerbird server", daemon=True)
    thread.start()
    try:
        while not running.started:
            if not thread.is_alive():
                raise BowerbirdError(f"The server could not start on port {port}; choose another.")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


def server(
    engine: Engine, *, host: str = "127.0.0.1", port: int = 8000, keys: Keys | None = None, log_level: str = "INFO"
) -> Server:
    """A server that is ready to run.  On loopback it answers under loopback's names alone."""
    log_as_json(log_level)
    app = create_app(engine, keys=keys, hosts=LOOPBACK if host in LOOPBACK else None, closes_engine=True)
    settings = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Impatient,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(engine.limits.drain_seconds)),
    )
    return Server(settings, engine)
