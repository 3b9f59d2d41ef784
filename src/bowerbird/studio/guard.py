"""What every request passes: only this machine's names, only our own pages may post, nothing large, nothing foreign."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from bowerbird.studio.language import Refusal, words_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
LARGEST_BODY = 1 << 20
"""Bytes of a request; uploads have limits of their own."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class TooLarge(Refusal):
    """A body is longer than its limit, in bytes."""

    def __init__(self, limit: int):
        super().__init__("refused.large", limit=f"{limit / 1e6:,.0f}")


class Guard:
    """Wraps an application.  ``open_host``: the user chose the address to listen on, so that any name may lead here."""

    def __init__(self, app: App, *, open_host: bool, uploads: dict[str, int]):
        self.app, self.open_host, self.uploads = app, open_host, uploads

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        words = words_of(Request(scope))
        if refusal := self._refusal(scope, headers):
            await PlainTextResponse(words(refusal[1]), refusal[0])(scope, receive, send)
            return
        limit = self.uploads.get(scope["path"], LARGEST_BODY)
        if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > limit:
            await PlainTextResponse(words.told(TooLarge(limit)), 413)(scope, receive, send)
            return
        await self.app(scope, limited(receive, limit), with_headers(send))

    def _refusal(self, scope: Any, headers: Headers) -> tuple[int, str] | None:
        """The status of what is refused, and the name of its sentence."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if not self.open_host and name not in LOOPBACK:
            return 421, "refused.host"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "refused.method"
        if scope["method"] == "POST" and headers.get("origin") not in (f"http://{host}", f"https://{host}"):
            return 403, "refused.origin"
        return None


def limited(receive: Receive, limit: int) -> Receive:
    """Reading that stops with TooLarge beyond the limit, whatever length was announced."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise TooLarge(limit)
        return message

    return counted


def with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
