"""What stands before every endpoint: keys, pages of other sites, metrics, logs, errors that tell no secrets."""

import asyncio
import hashlib
import hmac
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bowerbird.errors import BowerbirdError
from bowerbird.serve.endpoints import Refused, refusal, status_of
from bowerbird.serve.limits import Closing
from bowerbird.serve.served import LOG
from bowerbird.serve.service import Engine

HOST = re.compile(r":\d+$")
"""The port behind a host name."""
CLIENT_LEFT = 499
"""The status that logs and metrics give to a request whose client did not wait."""
READING = 2.0
"""Times the seconds that an answer may take: when a connection ends whose client does not read."""


# ------------------------------------------------------------------------------------------------------- keys


class Keys:
    """Keys of clients, kept as hashes; none: everybody may ask."""

    def __init__(self, keys: Iterable[str] = ()):
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    @staticmethod
    def read(file: Path) -> tuple[str, ...]:
        """The keys of a file, one per line; empty lines and lines that begin with # are left out."""
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise BowerbirdError(f"The keys cannot be read from {file}: {error}.") from None
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise BowerbirdError(f"{file} holds no key; write one per line.")
        return tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def admit(self, headers: Headers) -> bool:
        """Whether the request has one of the keys: compared in constant time, with all of them."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        hashed = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        equal = [hmac.compare_digest(hashed, one) for one in self._hashes]  # all of them, also after the right one
        return any(equal)


# ------------------------------------------------------------------------------------------------------- metrics


class Metrics:
    """Counters for Prometheus, in a registry of their own."""

    def __init__(self, engine: Engine):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "bowerbird_requests", "Requests that were answered.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "bowerbird_request_seconds", "Seconds from the request to the end of its answer.", ("path",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120), registry=self.registry,
        )  # fmt: skip
        self._engine = engine
        self.registry.register(self)

    def collect(self) -> Iterable[Any]:
        """What the workers have counted."""
        waiting = GaugeMetricFamily("bowerbird_waiting", "Samples that wait for their turn.", labels=["run"])
        under_way = GaugeMetricFamily("bowerbird_under_way", "Samples that are being drawn.", labels=["run"])
        counters = {
            name: CounterMetricFamily(f"bowerbird_{name}", said, labels=["run"])
            for name, said in (
                ("samples", "Samples that were drawn."),
                ("batches", "Batches that were drawn."),
                ("tokens", "Tokens that were added."),
                ("sampling_seconds", "Seconds that were spent on drawing."),
            )
        }
        for name, worker in list(self._engine.workers.items()):
            tally = worker.tally
            waiting.add_metric([name], worker.waiting)
            under_way.add_metric([name], tally.under_way)
            values = {"samples": tally.samples, "batches": tally.batches, "tokens": tally.tokens}
            for counter, value in (values | {"sampling_seconds": tally.seconds}).items():
                counters[counter].add_metric([name], value)
        return [waiting, under_way, *counters.values()]

    def text(self) -> bytes:
        return generate_latest(self.registry)


# ------------------------------------------------------------------------------------------------------- logs


class JsonLines(logging.Formatter):
    """One JSON object per event."""

    FIELDS = ("run", "error", "request", "method", "path", "status", "seconds")

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        row |= {"event": record.getMessage()}
        row |= {name: value for name in self.FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


class ToStandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is at that moment: whoever redirected it earlier may have closed that since."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """What the handler begins with is not kept."""


def log_as_json(level: str = "INFO") -> None:
    """Writes the logs of the server, and uvicorn's, as JSON lines to standard error."""
    handler = ToStandardError()
    handler.setFormatter(JsonLines())
    for name in (LOG.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


# ------------------------------------------------------------------------------------------------------- the gate


class Gate:
    """ASGI middleware: decides who may pass, and records what became of it."""

    def __init__(
        self,
        app: ASGIApp,
        engine: Engine,
        metrics: Metrics,
        keys: Keys,
        open_paths: frozenset[str],
        hosts: frozenset[str] | None,
    ):
        """``hosts``: the names under which the server may be called (None: any)."""
        self.app, self.engine, self.metrics, self.keys = app, engine, metrics, keys
        self.open_paths, self.hosts = open_paths, hosts
        self._most_seconds = READING * (engine.limits.seconds + engine.limits.body_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), CLIENT_LEFT
        number = secrets.token_hex(8)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", number.encode())]
            await send(message)

        try:
            self._check(scope)
            async with asyncio.timeout(self._most_seconds):
                await self.app(scope, receive, noting)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except asyncio.CancelledError:  # the time to drain is over
            if status == CLIENT_LEFT:
                await refusal(scope["path"], Closing(), self.engine)(scope, receive, noting)
            raise
        except TimeoutError:  # somebody does not read what is sent, and the connection ends
            LOG.warning("a client read too slowly", extra={"request": number})
        except Exception as error:
            if status_of(error) >= 500 and not isinstance(error, BowerbirdError):
                LOG.error("request failed", exc_info=error, extra={"request": number})
            if status == CLIENT_LEFT:  # nothing was answered yet
                await refusal(scope["path"], error, self.engine)(scope, receive, noting)
        finally:
            self._record(scope, number, status, time.monotonic() - began)

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not host and path in self.open_paths:  # HTTP/1.0, as simple probes speak it
            return
        if self.hosts is not None and HOST.sub("", host).strip("[]") not in self.hosts:
            raise Refused(421, "This server does not answer under this host name.")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "Pages of other sites may not use this server.")
        if path in self.open_paths:
            return
        if self.keys and not self.keys.admit(headers):
            raise Refused(401, "Send one of this server's keys: Authorization: Bearer KEY.", code="invalid_api_key")
        if self.engine.draining:
            raise Closing

    def _record(self, scope: MutableMapping[str, Any], number: str, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        about = {"request": number, "method": scope["method"], "path": path, "status": status}
        LOG.info("request", extra=about | {"seconds": round(seconds, 4)})
