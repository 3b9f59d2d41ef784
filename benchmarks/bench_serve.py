"""A server under load: many clients for a minute, and what batching is worth.

    python benchmarks/bench_serve.py RUN [--clients 64] [--seconds 60]

Every client asks for one picture, waits for it, and asks again at once.  Reported: requests per second, median and 95th
percentile of the seconds that a client waits, failures, and the server's memory at the start, middle and end.  The same
run is then served with batches of one (limits.together does not apply; ``PICTURES_AT_ONCE`` = 1), for the ratio.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ONE_AT_A_TIME = "import bowerbird.serve.workers as w; w.PICTURES_AT_ONCE = w.SEQUENCES_AT_ONCE = 1; "
MAIN = "import sys; from bowerbird.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Load:
    """What the clients saw."""

    waits_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    memory_mb: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def line(self) -> str:
        waits = sorted(self.waits_s)
        p95 = waits[int(0.95 * len(waits))]
        return (
            f"{len(waits) / self.seconds:6.1f} requests/s   p50 {statistics.median(waits):6.3f} s   p95 {p95:6.3f} s   "
            f"{self.cpu_seconds / len(waits) * 1000:6.1f} CPU ms each   statuses {dict(self.statuses)}   "
            f"memory {' → '.join(f'{mb:.0f}' for mb in self.memory_mb)} MB"
        )


async def client(host: str, port: int, body: bytes, until: float, load: Load) -> None:
    """Asks again and again over one connection."""
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection(host, port)
    while time.monotonic() < until:
        began = time.monotonic()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        headers = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(headers[b"content-length"]))
        load.statuses[status] += 1
        if status == 200:
            load.waits_s.append(time.monotonic() - began)
        elif status == 429:
            await asyncio.sleep(int(headers[b"retry-after"]))
    writer.close()


async def loaded(port: int, pid: int, clients: int, seconds: float, options: dict[str, Any]) -> Load:
    body = json.dumps({"prompt": "", "options": options}).encode()
    load = Load()
    await client("127.0.0.1", port, body, time.monotonic() + 2, Load())  # warm
    began, cpu = time.monotonic(), cpu_seconds(pid)
    load.memory_mb.append(memory_mb(pid))
    work = [client("127.0.0.1", port, body, began + seconds, load) for _ in range(clients)]
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(seconds / 2)
    load.memory_mb.append(memory_mb(pid))
    await asyncio.gather(*tasks)
    load.memory_mb.append(memory_mb(pid))
    load.seconds, load.cpu_seconds = time.monotonic() - began, cpu_seconds(pid) - cpu
    return load


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def measured(run: str, port: int, before: str, clients: int, seconds: float, options: dict[str, Any]) -> Load:
    """Starts a server, loads it, stops it."""
    words = ["serve", f"benched={run}", "--port", str(port), "--log-level", "ERROR"]
    process = subprocess.Popen(
        [sys.executable, "-c", before + MAIN, *words],
        env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
    )
    try:
        wait_until_ready(port)
        return asyncio.run(loaded(port, process.pid, clients, seconds, options))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, "the server did not end well"


def wait_until_ready(port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server did not start.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--port", type=int, default=8765)
    words = parser.parse_args()
    run = words.run or trained()
    options = {} if words.steps is None else {"steps": words.steps}
    together = measured(run, words.port, "", words.clients, words.seconds, options)
    print(f"batches        {together.line()}", flush=True)
    alone = measured(run, words.port, ONE_AT_A_TIME, words.clients, words.seconds, options)
    print(f"one at a time  {alone.line()}")
    rates = [len(load.waits_s) / load.seconds for load in (together, alone)]
    costs = [load.cpu_seconds / len(load.waits_s) for load in (together, alone)]
    print(f"batching answers {rates[0] / rates[1]:.1f} times as many a second, {costs[1] / costs[0]:.1f} a CPU second")


def trained() -> str:
    """A digit flow; how well it draws does not matter here."""
    from bowerbird import api

    folder = Path("runs") / "bench-serve"
    if not (folder / "model.safetensors").is_file():
        api.train("flow", folder, budget="20steps", quiet=True)
    return str(folder)


if __name__ == "__main__":
    main()
