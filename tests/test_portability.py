"""Systems without POSIX and devices without float64: modules are blocked, and the source is searched for traps."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "bowerbird"
BLOCKED = """
import importlib.abc, os, signal, sys
REFUSED = {"resource", "fcntl", "pwd", "grp", "termios"}
class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in REFUSED:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Refusing())
for name in REFUSED:
    sys.modules.pop(name, None)
for holder, names in ((os, "sched_getaffinity sysconf getloadavg fork setsid killpg getuid mkfifo"),
                      (signal, "SIGKILL SIGHUP SIGPROF SIGALRM SIGXCPU SIGSYS SIGUSR1 setitimer ITIMER_PROF")):
    for name in names.split():
        if hasattr(holder, name):
            delattr(holder, name)
os.cpu_count = lambda: 1
from bowerbird.cli import main
for line in sys.stdin:
    print("STATUS", main(line.split()), line.strip(), flush=True)
"""
TINY = "--train.batch-size 4 --train.threads 1 --train.precision fp32 --quiet"
WORK = f"""info
recipes
data list
train vae --data digits --train.steps 2 {TINY} --out run
resume run --quiet
sample run -n 2
measure run --n-samples 128 --n-reference 128 --metrics coverage
diagnose run
compare vae --data digits --budget 1steps --n-samples 128 --metrics coverage --out comparison
learn
"""
PROGRAMS = """check x.py
read x.py
ask x.py why?
"""


def test_every_verb_works_without_posix_and_what_runs_a_program_says_that_it_cannot(tmp_path):
    (tmp_path / "blocked.py").write_text(BLOCKED)
    (tmp_path / "x.py").write_text("x = 1\n")
    done = subprocess.run(
        [sys.executable, "blocked.py"], input=WORK + PROGRAMS, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    statuses, complaints = [line for line in done.stdout.splitlines() if line.startswith("STATUS")], done.stderr
    expected = {line: 1 if line.startswith("diagnose") else 0 for line in WORK.splitlines()}  # 2 steps: barely trained
    expected |= dict.fromkeys(PROGRAMS.splitlines(), 2)
    assert statuses == [f"STATUS {status} {line}" for line, status in expected.items()], complaints
    assert (
        complaints.count("cannot be run under observation on this system") == 3 and "Internal error" not in complaints
    )


# --------------------------------------------------------------------------------------- traps of other devices

ON_DEVICES = ("models", "nets", "samplers", "training", "diagnosis", "measuring", "media")
"""Rooms whose tensors may lie on any device.  Metrics get theirs on the CPU."""
ON_THE_CPU = {
    "samplers/schedule.py": "coefficients of a schedule stay on the CPU in float64",
    "diagnosis/samples.py": "compares on CUDA or on the CPU, see reference()",
    "diagnosis/facts.py": "one number of a schedule",
    "measuring/extractors.py": "a share of labels that were read on the CPU",
    "measuring/shipped/memorising.py": "results of metrics",
    "nets/conditioning.py": "frequencies of classes, for draws on the CPU",
    "models/diffusion.py": "times of a schedule",
    "models/distillation.py": "times of a schedule",
    "models/lossy.py": "a code is written and read by a copy of the model on the CPU",
    "samplers/bitsback.py": "what is coded on one machine must be decoded alike on another, so on the CPU",
    "media/image/pixels.py": "an array of numpy",
    "media/speech/spectrogram.py": "the triangles of the mel filters, made once on the CPU",
}


def traps(tree: ast.AST) -> list[tuple[int, str]]:
    """float64 and generators on a device, and transfers that MPS may not have finished when they are read."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "float64":
            found.append((node.lineno, "float64"))
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        keywords = {keyword.arg for keyword in node.keywords}
        if node.func.attr == "double" and ".cpu()" not in ast.unparse(node.func.value):
            found.append((node.lineno, "double"))
        if node.func.attr == "Generator" and (node.args or keywords):
            found.append((node.lineno, "generator on a device"))
        if "non_blocking" in keywords or "pin_memory" in keywords or node.func.attr == "pin_memory":
            found.append((node.lineno, "transfer that is not waited for"))
    return found


def test_the_search_finds_each_trap():
    code = "a.double()\nb.to(d, torch.float64)\ntorch.Generator(d)\nx.to(d, non_blocking=True)\nc.cpu().double()\n"
    assert sorted(line for line, _ in traps(ast.parse(code))) == [1, 2, 3, 4]


def test_no_float64_and_no_generator_on_a_device():
    files = [path for room in ON_DEVICES for path in sorted((SRC / room).rglob("*.py"))]
    found = [
        f"{name}:{line} {trap}"
        for path in files
        if (name := path.relative_to(SRC).as_posix()) not in ON_THE_CPU
        for line, trap in traps(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("name", sorted(ON_THE_CPU))
def test_every_exception_is_still_needed(name):
    assert traps(ast.parse((SRC / name).read_text(encoding="utf-8")))


def test_posix_alone_is_imported_where_a_program_is_run_and_nowhere_else():
    posix = {"resource", "fcntl", "pwd", "grp", "termios"}
    found = []
    for path in SRC.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body if any(name in text for name in posix) else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.relative_to(SRC)}: {name}" for name in names if name in posix]
    assert found == []
