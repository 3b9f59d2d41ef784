"""An endpoint that misbehaves: each thing it may do ends in an answer or in one sentence, and soon.

The server is a socket on loopback that says exactly the bytes of its script, whatever it is asked.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.reading.tutor import endpoint as module
from bowerbird.reading.tutor.endpoint import Endpoint, Message, address

ASKED: list[Message] = [{"role": "user", "content": "Who updates what?"}]
KEY = "sk-abc-123-secret"
Part = bytes | float | None
"""What the script says; a number waits so many seconds, None repeats the part before it for ever."""


def event(content: object = "word ", **more: object) -> bytes:
    row = {"choices": [{"index": 0, "delta": {"content": content}, **more}]}
    return f"data: {json.dumps(row)}\n\n".encode()


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"
END = event("end.", finish_reason="stop")


def status(number: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {number} Something", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*parts: bytes) -> bytes:
    head = OK.replace(b"Connection: close\r\n", b"Connection: close\r\nTransfer-Encoding: chunked\r\n")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


class Server:
    """Answers each connection with the next script, the last one for ever; ``heard`` holds what it was sent."""

    def __init__(self) -> None:
        self.scripts: list[list[Part]] = []
        self.heard: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Also wakes the thread that waits for connections."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.heard.append(_request(connection))
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                before = b""
                for part in script:
                    if part is None:
                        while True:
                            connection.sendall(before)
                            time.sleep(0.02)
                    if isinstance(part, float | int):
                        time.sleep(part)
                    else:
                        connection.sendall(part)
                        before = part
            except OSError:
                return


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += _received(connection)
    return head + b"\r\n\r\n" + body


def _received(connection: socket.socket) -> bytes:
    """OSError where the other side has gone, or this would ask for ever."""
    if data := connection.recv(65536):
        return data
    raise ConnectionResetError


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BOWERBIRD_LLM_KEY", KEY)
    made = Server()
    yield made
    made.close()


def asked(server: Server, *script: Part, timeout_s: float = 1.0) -> str:
    server.scripts = server.scripts or [list(script)]
    endpoint = Endpoint(server.url, "m", timeout_s=timeout_s)
    return "".join(endpoint.stream(ASKED, json_wanted=True, max_tokens=50))


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ([OK, event("one "), END, DONE], "one end."),
        ([OK, event("one "), END], "one end."),  # it says that it has finished, and forgets the last event
        ([OK, event("one "), DONE], "one "),
        ([OK, event("one ")[:9], 0.1, event("one ")[9:], END, DONE], "one end."),
        ([OK, b": a comment\n\nid: 3\nevent: x\n", event("one "), b"data:\n\n", END, DONE], "one end."),
        ([OK.replace(b"\r\n", b"\n"), event("one "), END, DONE], "one end."),
        ([OK, event(None), event("one "), b'data: {"choices": []}\n\n', END, DONE], "one end."),
        ([chunked(event("one ")[:20], event("one ")[20:], END, DONE), b"0\r\n\r\n"], "one end."),
        ([JSON, b'{"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}'], "whole"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK, END, DONE], "end."),
        ([OK, event("e\u0301\U0001f600 "), END, DONE], "e\u0301\U0001f600 end."),
    ],
)  # fmt: skip
def test_an_answer_is_read_in_every_form_that_the_protocol_has(server: Server, script: list[Part], answer: str) -> None:
    assert asked(server, *script) == answer


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ([OK, event("one "), event("two ")], "broke off before its answer was whole"),
        ([OK, event("one "), END[:-9]], "broke off"),
        ([OK], "broke off"),
        ([b""], "broke off"),
        ([chunked(event("one "))], "broke off"),
        ([chunked(event("one ")), b"zz\r\n"], "broke off|does not answer in HTTP"),
        ([JSON, b'{"choices": [{"message": {"content": "who'], "does not keep to the protocol"),
        ([b"SSH-2.0-OpenSSH_9.7\r\n"], "does not answer in HTTP"),
        ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n"], "does not answer in HTTP"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"], "does not answer in HTTP"),
        ([OK.replace(b"text/event-stream", b"text/html"), b"<html>hello</html>"], "no chat endpoint.*text/html"),
        ([OK.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"), END], "no chat endpoint.*gzip"),
        ([OK, b"data: hello\n\n", END, DONE], "does not keep to the protocol: it says “hello”"),
        ([OK, b"data: [1, 2]\n\n", END, DONE], "does not keep to the protocol"),
        ([OK, b"data: " + b"[" * 50_000 + b"\n\n", END, DONE], "does not keep to the protocol"),
        ([OK, b'data: {"choices": 3}\n\n', END, DONE], "does not keep to the protocol"),
        ([OK, b'data: {"choices": ["x"]}\n\n', END, DONE], "does not keep to the protocol"),
        ([OK, b'data: {"choices": [{"delta": "x"}]}\n\n', END, DONE], "does not keep to the protocol"),
        ([OK, event(["a", "list"]), END, DONE], "does not keep to the protocol"),
        ([OK, b"data: \xff\xfe\n\n", END, DONE], "does not keep to the protocol"),
        ([OK, b'data: {"error": {"message": "out of memory"}}\n\n'], "failed: out of memory"),
        ([JSON, b'{"error": "no such luck"}'], "failed: no such luck"),
        ([OK, event("one ", finish_reason="content_filter"), DONE], "filter .* withheld"),
        ([OK, END.replace(b"end.", b"  "), DONE], "empty answer"),
        ([status(500, b'{"error": {"message": "cuda"}}')], r"failed \(500\): cuda\."),
        ([status(429, b'{"error": {"message": "slow down"}}')], "no more questions for now: slow down"),
        ([status(400, b'{"error": {"message": "too long"}}')], "refused the question: too long"),
        ([status(302, b"", "Location: http://elsewhere.example/v1")], "sends on to elsewhere.example"),
        ([status(307, b"", "Location: /other")], "sends on to another address"),
        ([status(204)], r"failed \(204\)"),
        ([OK, b"data: " + b"x" * 1_500_000 + b"\n\n"], "more than an answer can hold"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_one_sentence(server: Server, script: list[Part], sentence: str) -> None:
    with pytest.raises(RunFailed, match=sentence) as raised:
        asked(server, *script, timeout_s=20.0)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "script",
    [
        [30.0],
        [OK, 30.0],
        [OK, event("one "), 30.0],
        [b"H", None],
        [b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 30.0],
        [OK, b": keep-alive\n\n", None],
        [OK, b" ", None],
        [OK, event("a"), None],
        [chunked(), b"1\r\n:\r\n", None],
        [JSON, b" ", None],
        [b"HTTP/1.1 100 Continue\r\n\r\n", None],
        [status(500)[:-4] + b"1\r\n\r\n", 30.0],
    ],
)  # fmt: skip
def test_one_deadline_ends_whatever_it_does(server: Server, script: list[Part]) -> None:
    started = time.monotonic()
    with pytest.raises(RunFailed, match="not answered in full after 0.5 s|does not answer in HTTP|failed"):
        asked(server, *script, timeout_s=0.5)
    assert time.monotonic() - started < 10, "thirty seconds, or for ever, is what it would have taken"


@pytest.mark.parametrize("part", [event("a" * 50_000), b": nothing\n" * 5_000])
def test_what_has_no_end_is_left(server: Server, part: bytes) -> None:
    with pytest.raises(RunFailed, match="has no end|more than an answer can hold"):
        asked(server, OK, part, None, timeout_s=60.0)


def test_an_answer_that_was_cut_is_not_kept(server: Server) -> None:
    with pytest.raises(RunFailed):
        asked(server, OK, event("half "))
    server.scripts = [[OK, event("all "), END, DONE]]
    assert asked(server) == "all end."
    server.scripts = [[OK, event("another "), END, DONE]]
    assert asked(server) == "all end.", "the whole one is"


def test_a_redirection_takes_neither_question_nor_key(server: Server) -> None:
    other = Server()
    other.scripts = [[OK, END, DONE]]
    with pytest.raises(RunFailed, match="sends on to 127.0.0.1"):
        asked(server, status(308, b"", f"Location: {other.url}/chat/completions"))
    assert other.heard == []
    other.close()


@pytest.mark.parametrize("size", [1, 3, len(KEY) - 1, len(KEY), 100])
def test_a_key_that_is_echoed_is_masked(server: Server, size: int) -> None:
    text = f"{KEY[:6]} your key is {KEY}{KEY}, {KEY[:-1]} sk-"
    pieces = [event(text[i : i + size]) for i in range(0, len(text), size)]
    assert asked(server, OK, *pieces, END, DONE) == text.replace(KEY, "•••") + "end."
    assert f"Bearer {KEY}".encode() in server.heard[0]


@pytest.mark.parametrize("number", [400, 500, 429])
def test_a_key_and_control_characters_do_not_come_back_in_errors(server: Server, number: int) -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY} \x1b[2J\x07\nsecond line"}}).encode()
    with pytest.raises(RunFailed) as raised:
        asked(server, status(number, body))
    assert KEY not in str(raised.value) and "bad key •••" in str(raised.value)
    assert str(raised.value).isprintable()


def test_numbers_of_tokens_that_make_no_sense_are_estimated(server: Server) -> None:
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": "many"}}\n\n'
    server.scripts = [[OK, END, usage, DONE]]
    endpoint = Endpoint(server.url, "m", timeout_s=5.0)
    assert list(endpoint.stream(ASKED, json_wanted=False, max_tokens=5)) == ["end."]
    assert not endpoint.usage.counted and endpoint.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    "url",
    ["ftp://there", "http://", "http://host:port/v1", "http://host:99999/v1", "http://a b/v1", "http://me:pw@host/v1",
     "http://host/v1\r\nX: y"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BowerbirdError):
        address(url)


def test_a_key_that_no_header_can_carry_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOWERBIRD_LLM_KEY", "sk-\r\nX-Other: 1")
    with pytest.raises(BowerbirdError, match="cannot be sent"):
        asked(server, OK, END, DONE)
    assert server.heard == []


def test_a_certificate_that_is_wrong_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.scripts = [[b""]]
    made: Callable[..., object] = module._connection
    monkeypatch.setattr(module, "_connection", lambda url, s: made(url.replace("http:", "https:"), s))
    started = time.monotonic()
    with pytest.raises(RunFailed, match="cannot be encrypted|broke off|after"):
        asked(server, timeout_s=2.0)
    assert time.monotonic() - started < 10
