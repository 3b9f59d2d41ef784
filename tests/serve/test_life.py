"""A server from start to end: what the command refuses, what it logs and counts, new weights, SIGTERM."""

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import KEY, ask

from bowerbird import api, cli, config
from bowerbird.serve import served as served_runs
from bowerbird.serve.app import served
from bowerbird.serve.gate import Keys, log_as_json
from bowerbird.serve.limits import Limits
from bowerbird.serve.service import Engine


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Say what to serve"),
        (["nowhere"], "nowhere is not a run folder"),
        (["{classes}", "--host", "0.0.0.0"], "give --api-key-file FILE, or --without-keys"),
        (["{classes}", "--api-key-file", "missing"], "The keys cannot be read"),
        (["{classes}", "--api-key-file", "{empty}"], "holds no key"),
        (["{classes}", "classes={text}"], "Two runs are named classes"),
        (["{classes}", "--limits.samples", "0"], "samples = 0 must be at least 1"),
    ],
)
def test_the_command_refuses(
    words: list[str], said: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("# none yet\n")
    paths = {name: str(path) for name, path in runs.items()} | {"empty": str(tmp_path / "empty")}
    assert cli.main(["serve", *(word.format(**paths) for word in words)]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_new_weights_are_served_without_a_restart(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_runs, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("bowerbird.api.training._write_report", lambda folder: None)
    for name in ("classes", "text"):
        first = Path(shutil.copytree(runs[name], tmp_path / name))
        run = config.load(str(first / "run.toml"))
        second = api.train(config.with_settings(run, {"train.seed": 9}), tmp_path / f"{name}-2", quiet=True)
        engine = Engine({name: first})
        try:
            before = asyncio.run(engine.submit(name, 2, seed=3))
            (second / "model.safetensors").rename(first / "model.safetensors")
            after = asyncio.run(engine.submit(name, 2, seed=3))
            (first / "model.safetensors").write_bytes(b"damaged")
            still = asyncio.run(engine.submit(name, 2, seed=3))
        finally:
            engine.close()
        assert before.x.shape != after.x.shape or not torch.equal(before.x, after.x)
        assert torch.equal(still.x, after.x), "a damaged file leaves the model in use"


def test_requests_are_counted_and_logged_without_what_was_asked(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with served(Engine({"text": runs["text"]}), keys=Keys([KEY]), log_level="INFO") as address:
        body = json.dumps({"model": "text", "prompt": "the cat", "max_tokens": 3}).encode()
        answer = ask(address, "POST", "/v1/completions", body)
        assert answer[0] == 200
        ask(address, "GET", "/v1/models/nothing")
        counted = ask(address, "GET", "/metrics")[1].decode()
    assert 'bowerbird_requests_total{path="/v1/completions",status="200"} 1.0' in counted
    assert 'bowerbird_requests_total{path="/v1/models/{name}",status="404"} 1.0' in counted
    assert 'bowerbird_samples_total{run="text"} 1.0' in counted
    logged = capsys.readouterr().err
    rows = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    request = next(row for row in rows if row.get("path") == "/v1/completions")
    assert request["status"] == 200 and request["request"] == answer[2]["x-request-id"]
    assert "the cat" not in logged and KEY not in logged


def test_sigterm_lets_requests_end(runs: dict[str, Path], tmp_path: Path) -> None:
    port, program = free_port(), "import sys; from bowerbird.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["serve", str(runs["classes"]), "--port", str(port), "--limits.drain-seconds", "100"]
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
    address, answers = f"http://127.0.0.1:{port}", []
    try:
        wait_until_ready(address)
        ask(address, "POST", "/v1/images/generations", json.dumps({"prompt": "upper"}).encode())  # the first is slower
        asking = threading.Thread(
            target=lambda: answers.append(ask(address, "POST", "/v1/images/generations", long_body())[0])
        )
        asking.start()
        while b'under_way{run="classes"} 1.0' not in ask(address, "GET", "/metrics")[1]:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        asking.join(timeout=100)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert answers == [200]
    assert process.stderr is not None
    lines = [line for line in process.stderr.read().splitlines() if not line.startswith("Serving ")]
    assert all(json.loads(line)["level"] == "info" for line in lines)


def long_body() -> bytes:
    return json.dumps({"prompt": "upper", "options": {"steps": 400}}).encode()


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until_ready(address: str) -> None:
    for _ in range(600):
        try:
            if ask(address, "GET", "/ready")[0] == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")


def test_the_command_line_loads_neither_torch_nor_starlette() -> None:
    program = "import sys, bowerbird.cli; print([n for n in ('torch', 'starlette', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"


def test_an_engine_takes_runs_in_and_gives_them_up(runs: dict[str, Path]) -> None:
    engine = Engine({}, limits=Limits())
    try:
        engine.add("one", runs["edits"])
        picture = np.zeros((16, 16, 3), np.uint8)
        assert len(asyncio.run(engine.submit("one", given={"source": [picture, picture]}))) == 2
        engine.remove("one")
        with pytest.raises(Exception, match="There is no model 'one' here; known: none"):
            asyncio.run(engine.submit("one"))
    finally:
        engine.close()


def test_logs_go_to_what_standard_error_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was made while standard error was redirected outlives the file that it led to."""
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    log_as_json("INFO")
    first.close()
    monkeypatch.setattr(sys, "stderr", second)
    served_runs.LOG.info("hello")
    assert json.loads(second.getvalue())["event"] == "hello"
