"""The language model: any endpoint that speaks OpenAI's chat protocol, and what was asked of it and answered before.

Nothing is sent unless an address was given, and then to that address alone: a redirection is refused.  The key comes
from the environment, $BOWERBIRD_LLM_KEY or else $OPENAI_API_KEY; it is sent to no address without encryption, except on
this machine, and is masked wherever the endpoint repeats it.  A question has one deadline from its first byte to the
last of the answer, everything that is read has a limit, and what is no whole answer in the protocol is one sentence.
Answers are kept on disk under $BOWERBIRD_CACHE by the hash of all that they depend on; verdicts are never kept.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from bowerbird.errors import BowerbirdError, RunFailed

_LOCAL = {"localhost", "127.0.0.1", "::1"}
LONGEST_ANSWER = 200_000
"""Characters of an answer: no honest one is so long."""
LONGEST_LINE = 1_000_000
MOST_BYTES = 8_000_000
"""Of all that an endpoint says to one question, events that hold no text included."""


class Message(TypedDict):
    role: str
    content: str


@dataclass
class Usage:
    """Tokens of all calls of one answer.  ``counted`` is False where the endpoint did not say and we estimated."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    cached_calls: int = 0
    counted: bool = True

    def add(self, prompt: int, completion: int, *, counted: bool) -> None:
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.calls += 1
        self.counted = self.counted and counted

    def cost(self, price: tuple[float, float]) -> float:
        """What it cost, for prices per million tokens of prompt and of answer."""
        return (self.prompt_tokens * price[0] + self.completion_tokens * price[1]) / 1e6


def tokens(text: str) -> int:
    """About how many tokens a text has: one per Chinese character, one per four others."""
    wide = sum("\u2e80" <= c <= "\uffef" for c in text)
    return wide + (len(text) - wide + 3) // 4


def address(url: str) -> str:
    """The base address of an endpoint; a host alone means its /v1."""
    wrong = BowerbirdError(f"'{url}' is no address of an endpoint; write it as http://localhost:8000/v1.")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise wrong from None
    if not known or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise wrong
    if "@" in parts.netloc:
        raise BowerbirdError("Put no password into the address of an endpoint; the key belongs into BOWERBIRD_LLM_KEY.")
    path = re.sub(r"/chat/completions/?$", "", parts.path).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


class _Refused(Exception):
    """The endpoint does not want the request as it is (400, 422); ``str()`` is what it said."""


@dataclass
class Endpoint:
    """``timeout_s`` bounds a question as a whole: connecting, waiting and every piece of the answer."""

    url: str
    model: str
    timeout_s: float = 300.0
    use_cache: bool = True
    usage: Usage = field(default_factory=Usage)
    _plain: bool = False
    """Whether the endpoint refused a request with options (JSON, temperature, a limit), and is asked without any."""

    def __post_init__(self) -> None:
        self.url = address(self.url)

    def stream(
        self, messages: Sequence[Message], *, json_wanted: bool, max_tokens: int, about: str = ""
    ) -> Iterator[str]:
        """The answer piece by piece, from the cache if the same was asked before; ``about`` names the facts it rests
        on.  An answer that does not come to its end raises RunFailed after its last piece, and is not kept."""
        kept = _Kept.of(self.url, self.model, messages, about)
        if self.use_cache and (known := kept.read()) is not None:
            self.usage.cached_calls += 1
            yield known
            return
        answer = ""
        for piece in self._ask(messages, json_wanted, max_tokens):
            answer += piece
            yield piece
            if len(answer) > LONGEST_ANSWER:
                raise RunFailed(f"The answer of {self.url} has no end: more than {LONGEST_ANSWER:,} characters came.")
        if not answer.strip():
            raise RunFailed(f"The model at {self.url} gave an empty answer.")
        if self.use_cache:
            kept.write(answer)

    def _ask(self, messages: Sequence[Message], json_wanted: bool, max_tokens: int) -> Iterator[str]:
        options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens}
        options["stream_options"] = {"include_usage": True}
        if json_wanted:
            options["response_format"] = {"type": "json_object"}
        body = {"model": self.model, "messages": list(messages), "stream": True}
        key = self._key()
        with _Exchange(self.url, key, self.timeout_s) as exchange:
            try:
                answer = exchange.answer(body if self._plain else body | options)
            except _Refused as refused:
                if self._plain:
                    raise RunFailed(f"The model at {self.url} refused the question: {refused}.") from None
                self._plain = True
                yield from self._ask(messages, False, max_tokens)
                return
            said, mask = "", _Mask(key)
            for piece in answer:
                said += piece
                yield from mask.feed(piece)
            yield from mask.rest()
        self._account(messages, said, exchange.counts)

    def _account(self, messages: Sequence[Message], said: str, counts: Any) -> None:
        names = ("prompt_tokens", "completion_tokens") if isinstance(counts, dict) else ()
        told = [n for name in names if isinstance(n := counts.get(name), int) and 0 <= n < 10**9]
        if len(told) == 2 and any(told):
            self.usage.add(told[0], told[1], counted=True)
        else:
            self.usage.add(sum(tokens(m["content"]) for m in messages), tokens(said), counted=False)

    def _key(self) -> str:
        key = (os.environ.get("BOWERBIRD_LLM_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
        parts = urlsplit(self.url)
        if key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise BowerbirdError(f"A key would be sent to {parts.hostname} unencrypted; use https, or unset the key.")
        if not key.isascii() or not key.isprintable():
            raise BowerbirdError("The key in the environment holds characters that cannot be sent; set it anew.")
        return key


# -------------------------------------------------------------------------------------------------------- exchange


_BROKEN: tuple[tuple[Any, str], ...] = (
    (ssl.SSLError, "The connection to {url} cannot be encrypted: {error}."),
    (ConnectionRefusedError, "Nothing answers at {url}; is the server running?"),
    ((http.client.IncompleteRead, ConnectionError), "{url} broke off before its answer was whole."),
    (TimeoutError, ""),
    (socket.gaierror, "There is no such host as in {url}; is the address right?"),
    (Exception, "{url} does not answer in HTTP: {error}."),
)
"""What a connection raises, and the sentence that says it; the first that fits."""
_STATUS: dict[int, tuple[type[BowerbirdError], str]] = {
    401: (BowerbirdError, "{url} wants a key; put it in BOWERBIRD_LLM_KEY or OPENAI_API_KEY."),
    403: (BowerbirdError, "{url} wants a key; put it in BOWERBIRD_LLM_KEY or OPENAI_API_KEY."),
    404: (BowerbirdError, "{url} has no model '{model}' or is no such endpoint; see --model."),
    429: (RunFailed, "{url} takes no more questions for now: {said}."),
}


class _Exchange:
    """One question and its answer over one connection; whatever goes wrong is one sentence.

    A timer closes the socket at the deadline, so that nothing that the endpoint does, however slowly, lasts longer.
    """

    def __init__(self, url: str, key: str, timeout_s: float) -> None:
        self.url, self.key, self.timeout_s = url, key, timeout_s
        self.counts: Any = None
        self._late = self._whole = False
        self._connection: http.client.HTTPConnection | None = None
        self._timer = threading.Timer(timeout_s, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> "_Exchange":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._close()

    def _expire(self) -> None:
        self._late = True
        sock = getattr(self._connection, "sock", None) or self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    _socket: socket.socket | None = None
    """The connection's socket: http.client lets go of it once the answer has begun."""

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()

    def answer(self, body: dict[str, Any]) -> Iterator[str]:
        """Sends a request and returns the pieces of its answer; raises _Refused where it is not wanted in this form."""
        with self._told():
            self._close()
            self._connection = _connection(self.url, self.timeout_s)
            self._connection.connect()
            self._socket = self._connection.sock
            headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
            path = urlsplit(self.url).path + "/chat/completions"
            self._connection.request("POST", path, json.dumps(body).encode(), headers)
            response = self._connection.getresponse()
            self._status(response, str(body["model"]))
        return self._pieces(response)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns whatever the connection raises into a sentence."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._late = self._late or isinstance(error, TimeoutError)
            sentence = next(words for kinds, words in _BROKEN if isinstance(error, kinds))
            raise self._failed(sentence.format(url=self.url, error=self._short(error))) from None

    def _failed(self, sentence: str) -> RunFailed:
        if self._late:
            return RunFailed(f"{self.url} had not answered in full after {self.timeout_s:g} s, and was left.")
        return RunFailed(sentence)

    def _status(self, response: http.client.HTTPResponse, model: str) -> None:
        status = response.status
        if status == 200:
            return
        if 300 <= status < 400:
            where = urlsplit(response.headers.get("Location") or "").hostname or "another address"
            raise RunFailed(f"{self.url} sends on to {self._short(where)}; questions go only to the address you name.")
        said = self._short(_message(response.read(4096).decode(errors="replace"))) or response.reason
        if status in (400, 422):
            raise _Refused(said)
        kind, words = _STATUS.get(status, (RunFailed, "The model at {url} failed ({status}): {said}."))
        raise kind(words.format(url=self.url, model=model, status=status, said=said))

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[str]:
        kind = response.headers.get_content_type()
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity" or kind not in ("text/event-stream", "application/json", "text/plain"):
            raise RunFailed(f"{self.url} is no chat endpoint: it answers with {self._short(f'{kind} {encoding}')}.")
        if kind == "application/json":
            with self._told():
                data = response.read(MOST_BYTES + 1)
            yield from self._piece(self._json(data), "message")
            self._must_be_whole()
            return
        for data in self._events(response):
            if data == b"[DONE]":
                return
            yield from self._piece(self._json(data), "delta")
        self._must_be_whole()

    def _must_be_whole(self) -> None:
        if not self._whole:
            raise self._failed(f"{self.url} broke off before its answer was whole.")

    def _events(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """The data of server-sent events, line by line, within the limits."""
        read = 0
        while True:
            with self._told():
                line = response.readline(LONGEST_LINE + 1)
            read += len(line)
            if len(line) > LONGEST_LINE or read > MOST_BYTES:
                raise RunFailed(f"{self.url} says more than an answer can hold; it was left.")
            if not line.endswith(b"\n"):
                return  # the end, or what is left of a line that was cut off
            if line.startswith(b"data:") and (data := line[5:].strip()):
                yield data

    def _json(self, data: bytes) -> dict[str, Any]:
        try:
            row = json.loads(data)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise self._failed(f"{self.url} does not keep to the protocol: it says {self._quoted(data)}.")
        if row.get("error"):
            raise RunFailed(f"The model at {self.url} failed: {self._short(_message(data.decode(errors='replace')))}.")
        return row

    def _piece(self, row: dict[str, Any], part: str) -> Iterator[str]:
        """The text of one event; notes the end of the answer and the tokens that it took."""
        self.counts = row.get("usage") or self.counts
        choices = row.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        held = (choice.get(part) or {}) if isinstance(choice, dict) else None
        content = held.get("content") if isinstance(held, dict) else held
        if not isinstance(choices, list | None) or not isinstance(held, dict) or not isinstance(content, str | None):
            raise RunFailed(f"{self.url} does not keep to the protocol: it says {self._quoted(json.dumps(row))}.")
        if content:
            yield content
        if choice.get("finish_reason") == "content_filter":
            raise RunFailed(f"The filter of {self.url} withheld the answer.")
        self._whole = self._whole or bool(choice.get("finish_reason")) or part == "message"

    def _quoted(self, data: bytes | str) -> str:
        return f"“{self._short(data.decode(errors='replace') if isinstance(data, bytes) else data)[:60]}”"

    def _short(self, said: object) -> str:
        """At most 200 printable characters of what an endpoint said, without the key."""
        text = str(said).replace(self.key, "•••") if self.key else str(said)
        return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()[:200].rstrip(".")


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection that is not yet made; one that is encrypted goes through the proxy of the environment, if any."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https")
    if not proxy:
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s)
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    tunnel = http.client.HTTPSConnection(through.hostname or "", through.port or 80, timeout=timeout_s)
    tunnel.set_tunnel(host, parts.port or 443)
    return tunnel


def _message(text: str) -> str:
    """What an error says: its message where it is in the usual form, else the text."""
    try:
        told = json.loads(text)["error"]
        return str(told["message"] if isinstance(told, dict) else told)
    except (ValueError, KeyError, TypeError, RecursionError):
        return re.sub(r"<[^>]*>", " ", text)


class _Mask:
    """Replaces a key in a text that comes in pieces; the beginning of a key waits until it is known not to be one."""

    def __init__(self, key: str) -> None:
        self.key, self.waiting = key, ""

    def feed(self, piece: str) -> Iterator[str]:
        text = self.waiting + piece
        if self.key:
            text = text.replace(self.key, "•••")
        kept = next((n for n in range(min(len(self.key) - 1, len(text)), 0, -1) if self.key.startswith(text[-n:])), 0)
        self.waiting = text[len(text) - kept :]
        if shown := text[: len(text) - kept]:
            yield shown

    def rest(self) -> Iterator[str]:
        if self.waiting:
            yield self.waiting


# ----------------------------------------------------------------------------------------------------------- cache


@dataclass(frozen=True)
class _Kept:
    """One answer on disk."""

    path: Path

    @classmethod
    def of(cls, url: str, model: str, messages: Sequence[Message], about: str) -> "_Kept":
        key = hashlib.sha256(json.dumps([url, model, list(messages), about], ensure_ascii=False).encode()).hexdigest()
        folder = Path(os.environ.get("BOWERBIRD_CACHE") or "~/.cache/bowerbird").expanduser()
        return cls(folder / "answers" / f"{key}.json")

    def read(self) -> str | None:
        try:
            answer = json.loads(self.path.read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def write(self, answer: str) -> None:
        """Keeps an answer; a full or read-only disk is no reason to fail."""
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"answer": answer}, ensure_ascii=False), encoding="utf-8")
            part.replace(self.path)
        except OSError:
            part.unlink(missing_ok=True)
