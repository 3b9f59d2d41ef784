"""What a command does not load: each of these costs between a tenth of a second and a second and a half."""

import json
import subprocess
import sys

HEAVY = (
    "torch._dynamo", "sympy", "matplotlib", "scipy.signal", "scipy.stats", "scipy.optimize", "sacrebleu", "rouge_score",
    "bowerbird.reading.check", "bowerbird.comparing",
)  # fmt: skip
SCRIPT = """
import json, sys
from bowerbird import config
from bowerbird.api import training
from bowerbird.cli import main
training._write_report = lambda folder: None
statuses = [main(words.split()) for words in json.loads(sys.argv[1])]
print(json.dumps([statuses, sorted(name for name in json.loads(sys.argv[2]) if name in sys.modules)]))
"""


def test_neither_training_nor_sampling_loads_a_compiler_or_plots(tmp_path):
    settings = "--train.steps 2 --train.batch-size 4 --train.threads 1 --train.precision fp32 --quiet"
    commands = [
        f"train vae --data digits {settings} --out vae", "sample vae -n 1",
        f"train gan --data digits {settings} --out gan", "sample gan -n 1",
    ]  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, json.dumps(commands), json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    statuses, found = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [0, 0, 0, 0], done.stderr
    assert found == []


def test_looking_for_idle_cores_waits_once(monkeypatch):
    from bowerbird import machine

    moments = iter([machine._Seen(100.0, 50.0, 3.0), machine._Seen(102.0, 52.0, 4.0), machine._Seen(103.0, 53.0, 4.5)])
    monkeypatch.setattr(machine, "_first_look", machine._Seen(100.0, 50.0, 3.0))
    monkeypatch.setattr(machine, "_look", lambda: next(moments))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: range(4), raising=False)
    slept: list[float] = []
    monkeypatch.setattr(machine.time, "sleep", slept.append)
    machine.idle_cores()  # the first look was just now: waits
    assert slept == [machine.WATCH_S]
    # in 3 s four cores had 12 s; 3 s were idle and 1.5 s were ours, so others kept 2.5 cores busy
    assert machine.idle_cores() == 2
    assert len(slept) == 1
