"""Bad input to every endpoint: a sentence and a status below 500, whatever is sent and however slowly."""

import asyncio
import base64
import io
import json
import socket
import time
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asking import KEY, ask
from PIL import Image

from bowerbird.serve.app import ENDPOINTS, Impatient, served
from bowerbird.serve.gate import Keys
from bowerbird.serve.limits import Limits
from bowerbird.serve.service import Engine

BODIES = {
    "nothing": b"",
    "half": b'{"model": "text", "prompt": "the',
    "a list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"model": "\xff"}',
    "NaN": b'{"model": "classes", "prompt": "", "seed": NaN}',
    "wrong types": b'{"model": 3, "prompt": {}, "messages": 7, "instances": 7, "inputs": {"a": {}}, "input": []}',
    "unknown field": b'{"model": "classes", "unheard_of": 1}',
    "huge number": b'{"model": "classes", "prompt": "upper", "n": 1' + b"0" * 400 + b"}",
}
POSTS = [one.path for one in ENDPOINTS if one.method == "POST" and one.path != "/v2/repository/index"]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", POSTS)
def test_a_broken_body_is_refused_in_a_sentence(address: str, path: str, body: str) -> None:
    kind = "multipart/form-data; boundary=x" if path.endswith("edits") else "application/json"
    where = path.replace("{name}", "classes").replace("{version}", "1")
    status, answer, _ = ask(address, "POST", where, BODIES[body], {"content-type": kind})
    assert 400 <= status < 500, answer
    said = json.loads(answer)["error"]
    assert len(said if isinstance(said, str) else said["message"]) > 10


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if not one.is_open], ids=lambda one: one.path)
def test_every_address_needs_a_key(address: str, endpoint: Any) -> None:
    where = endpoint.path.replace("{name}", "classes").replace("{version}", "1")
    status, answer, headers = ask(address, endpoint.method, where, b"{}", {"authorization": "Bearer wrong"})
    assert status == 401 and "key" in answer.decode() and headers["www-authenticate"] == "Bearer"


def test_health_needs_no_key(address: str) -> None:
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
        assert ask(address, "GET", path, None, {"authorization": ""})[0] == 200


def test_requests_of_other_sites_and_names_are_refused(address: str) -> None:
    assert ask(address, "GET", "/v1/models", None, {"origin": "http://evil.example"})[0] == 403
    assert ask(address, "GET", "/v1/models", None, {"host": "evil.example"})[0] == 421
    assert ask(address, "GET", "/v1/models", None, {"origin": address})[0] == 200
    assert ask(address, "GET", "/v1/models", None, {"origin": "http://["})[0] == 403
    assert ask(address, "GET", "/v1/models", None, {"host": "["})[0] == 421
    text = json.dumps({"model": "classes", "prompt": ""}).encode()
    assert ask(address, "POST", "/v1/images/generations", text, {"content-type": "text/plain"})[0] == 415


def test_a_megabyte_is_read_and_more_is_not(address: str) -> None:
    prompt = json.dumps({"model": "text", "prompt": "a" * 1_000_000}).encode()
    status, answer, _ = ask(address, "POST", "/v1/completions", prompt)
    assert status == 400 and b"the limit is 65536 characters" in answer
    status, answer, _ = ask(address, "POST", "/v1/completions", b" " * 5_000_000)
    assert status == 413 and b"the limit is 4 MB" in answer


def test_tensors_that_do_not_fit_are_refused(address: str) -> None:
    good: dict[str, Any] = {"name": "seed", "shape": [1], "datatype": "INT64", "data": [1]}
    for change, said in (
        ({"shape": [2]}, "do not fit its shape"),
        ({"shape": [-1]}, "whole numbers"),
        ({"shape": [10**12] * 8}, "whole numbers"),
        ({"datatype": "FP8"}, "datatype of 'seed'"),
        ({"data": ["x"]}, "are not of the datatype INT64"),
        ({"data": [10**30]}, "are not of the datatype INT64"),
        ({"parameters": {"binary_data_size": 99}}, "the body ends before"),
        ({"name": "sead"}, "no input 'sead'"),
    ):
        body = json.dumps({"inputs": [good | change]}).encode()
        status, answer, _ = ask(address, "POST", "/v2/models/classes/infer", body)
        assert status == 400 and said in json.loads(answer)["error"], answer
    for name, expected in (("classes", 200), ("text", 400)):  # KServe's client says it in the body, too
        body = json.dumps({"inputs": [good], "model_name": name}).encode()
        assert ask(address, "POST", "/v2/models/classes/infer", body)[0] == expected
    length = {"inference-header-content-length": "5000"}
    assert ask(address, "POST", "/v2/models/classes/infer", b"{}", length)[0] == 400
    bomb = zlib.compress(b" " * 50_000_000)
    status, answer, _ = ask(address, "POST", "/v2/models/classes/infer", bomb, {"content-encoding": "deflate"})
    assert status == 413
    elements = json.dumps({"inputs": [{"name": "label", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}]}).encode()  # fmt: skip # noqa: E501
    length = {"inference-header-content-length": str(len(elements))}
    status, answer, _ = ask(address, "POST", "/v2/models/classes/infer", elements + b"\xff\xff\xff\xff\0\0", length)
    assert status == 400 and "past the end of its data" in json.loads(answer)["error"]


def test_pictures_that_are_none_or_too_large_are_refused(address: str) -> None:
    large = io.BytesIO()
    Image.new("1", (3000, 3000)).save(large, "PNG")
    for data, said in (
        (b"not a picture", "must be a PNG, JPEG, GIF or WebP"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be read"),
        (large.getvalue()[: len(large.getvalue()) // 2], "9000000 pixels"),
        (large.getvalue(), "9000000 pixels"),
        (b"<svg/>", "must be a PNG"),
    ):
        given = {"source": base64.b64encode(data).decode()}
        body = json.dumps({"model": "edits", "prompt": "", "given": given}).encode()
        status, answer, _ = ask(address, "POST", "/v1/images/generations", body)
        assert status == 400 and said in json.loads(answer)["error"]["message"], answer


def test_a_body_that_comes_too_slowly_is_not_waited_for(address: str) -> None:
    with connected(address) as line:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        line.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert line.recv(65536).startswith(b"HTTP/1.1 408")
    with connected(address) as line:  # half a body, and the client leaves
        line.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert ask(address, "GET", "/v1/models")[0] == 200


def test_a_connection_on_which_nothing_comes_is_closed(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "SECONDS", 0.2)
    with served(Engine({"classes": runs["classes"]})) as address:
        for beginning in (b"", b"GET /health HTTP/1.1\r\nHost: "):
            with connected(address) as line:
                line.sendall(beginning)
                assert line.recv(10) == b""
        with connected(address) as line:  # one that sends a request and then half of another
            line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
            answer = b""
            while piece := line.recv(65536):
                answer += piece
            assert answer.count(b"HTTP/1.1") == 1 and b'"ok"' in answer


def connected(address: str) -> socket.socket:
    where = urlsplit(address)
    return socket.create_connection((where.hostname, where.port), timeout=20)


# ----------------------------------------------------------------------------- many clients, clients that leave


def test_more_than_may_wait_is_told_when_to_ask_again(runs: dict[str, Path]) -> None:
    async def many(engine: Engine) -> list[Any]:
        work = (engine.submit("classes", 4, seed=i, options={"steps": 60}) for i in range(8))
        return await asyncio.gather(*work, return_exceptions=True)

    engine = Engine({"classes": runs["classes"]}, limits=Limits(waiting=8))
    try:
        answers = asyncio.run(many(engine))
    finally:
        engine.close()
    busy = [one for one in answers if type(one).__name__ == "Busy"]
    assert busy and all(1 <= one.retry_after_s <= 60 for one in busy)
    assert len(busy) < 8 and all(len(one) == 4 for one in answers if one not in busy)


def test_429_has_retry_after(runs: dict[str, Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    body = json.dumps({"model": "classes", "prompt": "upper", "n": 4, "options": {"steps": 60}}).encode()
    with served(Engine({"classes": runs["classes"]}, limits=Limits(waiting=4)), keys=Keys([KEY])) as address:
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, address, "POST", "/v1/images/generations", body) for _ in range(8)]
            answers = [one.result() for one in asked]
    assert {status for status, _, _ in answers} == {200, 429}
    refused = next(headers for status, _, headers in answers if status == 429)
    assert 1 <= int(refused["retry-after"]) <= 60


def test_what_takes_too_long_is_given_up(runs: dict[str, Path]) -> None:
    engine = Engine({"classes": runs["classes"], "text": runs["text"]}, limits=Limits(seconds=0.3, steps=100_000))
    try:
        for run, options in (("classes", {"steps": 100_000}),):
            with pytest.raises(Exception, match="not finished within 0.3 seconds"):
                asyncio.run(engine.submit(run, 8, options=options))
        deadline = time.monotonic() + 10
        while engine.workers["classes"].tally.under_way and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.workers["classes"].tally.under_way == 0
    finally:
        engine.close()


def test_a_client_that_leaves_frees_the_model(runs: dict[str, Path]) -> None:
    async def leave(engine: Engine) -> None:
        task = asyncio.create_task(engine.submit("classes", 8, options={"steps": 100_000}))
        while not engine.workers["classes"].tally.under_way:
            await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(20):
            while engine.workers["classes"].tally.under_way:
                await asyncio.sleep(0.01)
        writing = engine.stream("text", "the cat", options={"n_tokens": 1000, "temperature": 2.0})
        async for _ in writing:
            break
        async with asyncio.timeout(20):
            while engine.workers["text"].tally.under_way:
                await asyncio.sleep(0.01)

    engine = Engine({name: runs[name] for name in ("classes", "text")}, limits=Limits(steps=100_000))
    try:
        asyncio.run(leave(engine))
    finally:
        engine.close()
