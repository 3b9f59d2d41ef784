"""Ray Serve: two replicas, one is killed, and every request is answered in the end, by a retry where it was lost.

Opt-in, since Ray is large and slow to start: BOWERBIRD_RAY=1, in an environment that has ray[serve].
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asking import ask
from test_life import free_port

from bowerbird import api, cli
from bowerbird.serve.replicas import Replicas


def test_replicas_are_counted_sensibly(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="must be at least replicas.least = 3"):
        Replicas(least=3, most=2)
    assert cli.main(["serve", str(runs["classes"] / "nothing"), "--engine", "ray"]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("BOWERBIRD_RAY"), reason="starts a Ray cluster; set BOWERBIRD_RAY=1")
def test_one_of_two_replicas_is_killed(runs: dict[str, Path]) -> None:
    pytest.importorskip("ray.serve")
    port, mark = free_port(), f"BOWERBIRD_TEST={uuid.uuid4().hex}"
    program = "import sys; from bowerbird.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["serve", str(runs["classes"]), "--engine", "ray", "--port", str(port)]
    words += ["--replicas.least", "2", "--replicas.most", "2", "--replicas.cpus-each", "0.5"]
    environment = os.environ | dict([mark.split("=")]) | {"RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen([sys.executable, "-c", program, *words], env=environment, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: len(replicas(mark)) == 2 and answer(address, 0)[0] == 200, 400)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(answered, address, seed) for seed in range(60)]
            until(lambda: sum(one.done() for one in asked) >= 10, 60)
            os.kill(replicas(mark)[0], signal.SIGKILL)
            answers = [one.result() for one in asked]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    print(f"{sum(tries > 1 for tries, _ in answers)} of 60 requests were sent again")
    for seed, (_, data) in enumerate(answers):
        if seed % 10 == 0:
            assert data == api.generate(runs["classes"], 1, seed=seed).files()[0][".png"]


def replicas(mark: str) -> list[int]:
    """The processes of replicas that this test has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        except OSError:
            continue
    return found


def answer(address: str, seed: int) -> tuple[int, bytes]:
    try:
        return ask(address, "POST", "/v1/images/generations", json.dumps({"prompt": "", "seed": seed}).encode())[:2]
    except OSError as error:
        return 0, str(error).encode()


def answered(address: str, seed: int) -> tuple[int, bytes]:
    """How often the request was sent, and the picture."""
    for tries in range(1, 60):
        status, body = answer(address, seed)
        if status == 200:
            return tries, base64.b64decode(json.loads(body)["data"][0]["b64_json"])
        time.sleep(1)
    raise AssertionError(f"seed {seed} was never answered: {status} {body[:200]!r}")


def until(done: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)
