"""What this machine can do, found by asking or by a short measurement, never by hope."""

import ctypes
import mmap
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from bowerbird.errors import BowerbirdError


def resolve_device(name: str) -> torch.device:
    """``auto`` or a torch device name as a device that is really there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BowerbirdError(f"'{name}' is not a device; use auto, cpu, cuda, cuda:1 or mps.") from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        found = ", ".join(f"{kind} ({n})" for kind, n in there.items() if n)
        raise BowerbirdError(f"The device '{name}' is not on this machine (found: {found}); use auto.")
    return device


def seed(device: torch.device, seed: int) -> None:
    """The generators of the processor and of ``device`` alone.

    ``torch.manual_seed`` seeds every kind of device; each that is absent costs a printed stack of calls at every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed_all(seed)


class _Seen(NamedTuple):
    """The processor at one moment, in seconds."""

    at: float
    idle: float
    """Of all cores together, since the system started."""
    own: float
    """CPU time of this process."""


def _look() -> _Seen | None:
    """The processor now, or None where the system does not say."""
    try:
        with open("/proc/stat") as lines:
            fields = lines.readline().split()
        idle = (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")  # idle and waiting for input or output
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return _Seen(time.monotonic(), idle, time.process_time())


WATCH_S = 0.3
"""How long other processes are watched, at least, to see how many cores they keep busy …"""
FRESH_S = 10.0
"""… and at most: what was long ago says nothing of now."""
_first_look = _look()
"""When this module was imported: by the time that a command trains, enough was seen and nobody needs to wait."""


THREADS_PER_CORE = 8
"""More of them spend their time waiting for one another."""


def require_threads(n: int) -> None:
    """BowerbirdError for more threads than this machine can run to any use."""
    cores = _cores()
    if n > THREADS_PER_CORE * cores:
        raise BowerbirdError(
            f"train.threads = {n} is far more than the {cores} core(s) of this machine; use --train.threads {cores}."
        )


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def idle_cores() -> int:
    """Cores that nothing else is using now: a second thread on a busy core makes training slower, not faster."""
    allowed = _cores()
    return max(1, min(allowed, round(allowed - _busy_cores())))


def _busy_cores() -> float:
    """Cores' worth of work that all other processes do; the minute's load average as a fallback.

    The load average alone would count what has just ended, such as the installation of this package.
    """
    global _first_look
    before, now = _first_look, _look()
    if before is None or now is None:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if now.at - before.at > FRESH_S:
        before = _first_look = now
    if now.at - before.at < WATCH_S:
        time.sleep(WATCH_S - (now.at - before.at))
        now = _look() or now
    unused = now.idle - before.idle + now.own - before.own
    return (os.cpu_count() or 1) - unused / (now.at - before.at)


@cache
def bf16_is_faster(device_type: str) -> bool:
    """Whether a bf16 matrix product beats fp32 here (CPUs without bf16 instructions emulate it, 20 times slower)."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _bf16_over_fp32(128) < 2 and _bf16_over_fp32(512) < 0.8  # small first: an emulated 512 takes a second
    finally:
        torch.set_num_threads(threads)


def _bf16_over_fp32(n: int) -> float:
    """CPU seconds of the product of n×n matrices in bf16, over those in fp32."""
    a = torch.randn(n, n)
    b = a.bfloat16()
    return _fastest(lambda: b @ b) / _fastest(lambda: a @ a)


def _fastest(work: Callable[[], object], runs: int = 5) -> float:
    """CPU seconds of the fastest of a few runs, after one that is not counted.

    CPU time, because on a busy machine the wall clock of a millisecond says who else is running.
    """
    work()
    times = []
    for _ in range(runs):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


CONTAINER = Path("/sys/fs/cgroup")
"""What Linux allows a container, as it sees it from within (cgroup version 2)."""


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min(free, _left_in_container(free))


def _left_in_container(free: int) -> int:
    """What its container leaves to this process; ``free`` where there is no limit.  Cached files count as free."""
    try:
        limit, used = (int((CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        pages = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(pages["inactive_file"]))
    except (OSError, KeyError, ValueError):  # ValueError: the limit is "max"
        return free


BLOCK = 4096
"""Bytes that the smallest file takes up on a disk."""


def require_space(n: int, in_memory: int, on_disk: int, folder: Path) -> None:
    """BowerbirdError for n samples that memory has no room for, or the disk of a folder; bytes of each."""
    there = folder.resolve()
    disk = shutil.disk_usage(next(place for place in (there, *there.parents) if place.exists())).free
    memory = available_memory(torch.device("cpu"))
    for needed, free, where in ((n * in_memory, memory, "memory"), (n * on_disk, disk, "space on the disk")):
        if free is not None and needed > free:
            raise BowerbirdError(
                f"{n:,} samples take at least {needed / 1e6:,.2f} MB of {where}, of which {free / 1e6:,.2f} MB are "
                "free; draw fewer at once, each part with another --seed and --out."
            )


def synchronize(device: torch.device) -> None:
    """Waits until an accelerator has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def memory_in_use(device: torch.device) -> int:
    """Bytes in use now: allocated on an accelerator, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def keep_freed_memory() -> None:
    """Asks the C allocator to keep large blocks for the next step instead of returning them to the system.

    Every step allocates the same activations; without this, glibc maps and unmaps them each time and the kernel
    zeroes the pages again (measured: 1.1 to 1.3 times faster convolutional training).  Does nothing elsewhere.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, -1 & 0x7FFFFFFF)


def return_freed_memory() -> None:
    """Returns to the system what the C allocator keeps of freed blocks, in milliseconds; does nothing elsewhere."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def describe() -> dict[str, str | int | float | bool]:
    """This machine and the software on it, as a flat dictionary."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "idle_cores": idle_cores(),
        "memory_available_gb": round((available_memory(torch.device("cpu")) or 0) / 1e9, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "bf16_is_faster": bf16_is_faster(resolve_device("auto").type),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
