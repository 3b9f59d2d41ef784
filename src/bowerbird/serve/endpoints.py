"""What all endpoints share: how a body is read, how an answer is awaited, how an error is said, what OpenAPI says."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from bowerbird.errors import BowerbirdError
from bowerbird.serve.limits import Busy, Closing, Limits, TooLate, Unknown
from bowerbird.serve.served import Served
from bowerbird.serve.service import Engine

T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


class Body(BaseModel):
    """A request: every field is known, and none is converted into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Endpoint:
    """One address, what answers there, and what OpenAPI says about it."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: Mapping[str, Any] | None = None
    """Media type → JSON schema."""
    answer: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    """JSON schema of status 200."""
    answer_type: str = "application/json"
    streams: bool = False
    """Answers with server-sent events where it is asked to."""
    is_open: bool = False
    """Needs no key."""


class Refused(BowerbirdError):
    """A request that HTTP has its own status for."""

    def __init__(self, status: int, sentence: str, *, code: str | None = None, param: str | None = None):
        super().__init__(sentence)
        self.status, self.code, self.param = status, code, param


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


# ------------------------------------------------------------------------------------------------------- requests

READ_ON = 4
"""How often the largest body is received before the connection is closed."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body; Refused where it is too large, or comes too slowly.

    What is too large is read on for a while, and not kept: clients read no answer before they have sent everything.
    """
    most = int(limits.body_mb * 1e6)
    body, n = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                n += len(chunk)
                body += chunk if n <= most else b""
                if n > READ_ON * most:
                    break
    except TimeoutError:
        raise Refused(408, f"The request did not arrive within {limits.body_seconds:g} seconds.") from None
    if n > most:
        raise Refused(413, f"The request is too large; the limit is {limits.body_mb:g} MB.")
    return bytes(body)


def require_type(request: Request, wanted: str) -> None:
    """Refused unless the body is of this type: browsers send others from any page without asking."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != wanted:
        raise Refused(415, f"Send the header Content-Type: {wanted}.")


async def read_json(request: Request) -> bytes:
    require_type(request, "application/json")
    return await read_body(request, engine_of(request).limits)


async def parsed(request: Request, kind: type[B]) -> B:
    """The body as ``kind``; Refused with the first field that is wrong."""
    return checked(kind, await read_json(request))


def checked(kind: type[B], body: bytes | dict[str, Any]) -> B:
    try:
        return kind.model_validate_json(body) if isinstance(body, bytes) else kind.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Refused:
    """The first problem in one sentence."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return Refused(400, f"'{place}' is not a field of this request.", param=place)
    if first["type"] == "json_invalid":
        return Refused(400, "The body is not valid JSON.")
    return Refused(400, f"{place or 'The body'}: {first['msg']}.", param=place or None)


def any_json(body: bytes) -> Any:
    """A JSON value without NaN and infinities; Refused otherwise."""

    def refuse(word: str) -> Any:
        raise Refused(400, f"{word} is not a JSON number.")

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not valid JSON.") from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of work, which is cancelled when the client leaves."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def together(work: list[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; when one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


# ------------------------------------------------------------------------------------------------------- errors


KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def status_of(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, HTTPException):
        return error.status_code
    by_class = {Busy: 429, TooLate: 504, Unknown: 404, Closing: 503}
    found = next((status for kind, status in by_class.items() if isinstance(error, kind)), None)
    return found or (400 if isinstance(error, BowerbirdError) else 500)


def sentence_of(error: Exception, engine: Engine | None) -> str:
    """What a client is told: never a path of this machine, and of our own defects nothing."""
    if isinstance(error, HTTPException):
        return {404: "There is nothing at this address.", 405: "This address does not accept this method."}.get(
            error.status_code, str(error.detail)
        )
    if not isinstance(error, BowerbirdError):
        return "The server failed; its log says why."
    said = re.sub(r"--([a-z][\w.-]*)( [A-Z]+\b)?", r"'\1'", str(error))  # a flag of the command line is a field here
    for run in engine.runs.values() if engine else ():
        for path in (str(run.folder.resolve()), str(run.folder)):
            said = said.replace(path, run.name)
    return shortened(said)


QUOTED, SAID = 60, 1000
"""Most characters of what a client sent that an error repeats, and of an error."""


def shortened(said: str) -> str:
    """A sentence without control characters, and without what it quotes at length."""
    said = re.sub(rf"'([^']{{{QUOTED}}})[^']+'", r"'\1…'", said)
    said = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in said)
    return said if len(said) <= SAID else said[: SAID // 2] + " … " + said[-SAID // 4 :]


def as_openai(error: Exception, engine: Engine | None) -> dict[str, Any]:
    """The body of an error as OpenAI's clients read it."""
    status = status_of(error)
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = getattr(error, "code", None) or {404: "model_not_found" if isinstance(error, Unknown) else None}.get(status)
    param = None if (name := getattr(error, "param", None)) is None else shortened(name)[:QUOTED]
    return {"error": {"message": sentence_of(error, engine), "type": kind, "param": param, "code": code}}


def refusal(path: str, error: Exception, engine: Engine | None) -> Response:
    """The answer to a request that failed, in the form of the protocol that the path belongs to."""
    plain = path.startswith("/v2") or ":" in path.rpartition("/")[2]
    body = {"error": sentence_of(error, engine)} if plain else as_openai(error, engine)
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, Busy):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, Closing):
        headers |= {"retry-after": "1", "connection": "close"}
    if status_of(error) == 401:
        headers["www-authenticate"] = "Bearer"
    if status_of(error) in (408, 413):
        headers["connection"] = "close"
    return JSONResponse(body, status_of(error), headers)


async def events(pieces: AsyncIterator[dict[str, Any]], engine: Engine) -> AsyncIterator[bytes]:
    """Server-sent events as OpenAI's clients read them; an error under way is the last but one."""
    try:
        async for piece in pieces:
            yield f"data: {json.dumps(piece, ensure_ascii=False)}\n\n".encode()
    except BowerbirdError as error:
        yield f"data: {json.dumps(as_openai(error, engine))}\n\n".encode()
    yield b"data: [DONE]\n\n"


# ------------------------------------------------------------------------------------------------------- answers


def now() -> int:
    return int(time.time())


def any_seed() -> int:
    """For clients that name none; the answer says which it was."""
    return secrets.randbelow(2**31)


def require_medium(run: Served, medium: str, instead: str) -> None:
    if run.spec.medium != medium:
        raise Refused(400, f"The model '{run.name}' makes {run.spec.medium}; {instead}.", param="model")


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": kind.model_json_schema(ref_template="#/components/schemas/{model}")}


def answering(**properties: str) -> dict[str, Any]:
    """An object with at least these properties."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": {name: {"type": kind} for name, kind in properties.items()},
    }
