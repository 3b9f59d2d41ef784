"""The energy that a run takes: from the machine's own counters where they can be read, else an estimate that says so.

    processor   RAPL, the packages' counters under /sys/class/powercap (all processes of the machine together)
    NVIDIA      NVML's counter of the board since the driver started

Without a readable counter of the processor its energy is its busy time · ``WATTS_PER_CORE``, a round number that may be
wrong by a factor of two or three: good enough to see that one run costs ten times as much as another, and no more.
"""

import ctypes
import os
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
WATTS_PER_CORE = 10.0
MEASURED, ESTIMATED = "measured", "estimated"
HOW = {
    MEASURED: "by the machine's counters, other processes included",
    ESTIMATED: f"an estimate: {WATTS_PER_CORE:g} W for each busy core",
}
"""In words, for a report."""


class EnergyMeter:
    """Joules since it was made."""

    def __init__(self, device_type: str):
        self.device_type = device_type
        self._packages = {path: value for path in _packages() if (value := _read(path)) is not None}
        self._board = _board_joules() if device_type == "cuda" else None
        self._busy = _busy_seconds()
        self.source = MEASURED if self._packages and (device_type != "cuda" or self._board is not None) else ESTIMATED

    def joules(self) -> float:
        """Of the processor (of all processes, where it is measured) and of the accelerator, where it has a counter."""
        total = (_busy_seconds() - self._busy) * WATTS_PER_CORE
        if self._packages:
            total = sum(_advance(path, before) for path, before in self._packages.items())
        now = _board_joules() if self._board is not None else None
        return total + (now - self._board if now is not None and self._board is not None else 0.0)


def _packages() -> list[Path]:
    """The counter of each processor package; its parts (core, uncore, memory) lie below it and are not added."""
    return sorted(POWERCAP.glob("intel-rapl:[0-9]*/energy_uj")) if POWERCAP.is_dir() else []


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # since 2020 the counters are readable by root alone on most systems
        return None


def _advance(path: Path, before: int) -> float:
    """Joules since ``before``; the counter starts again at its range."""
    now = _read(path)
    if now is None:
        return 0.0
    span = _read(path.with_name("max_energy_range_uj")) or 0
    return (now - before if now >= before else now - before + span) / 1e6


def _busy_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _board_joules() -> float | None:
    """NVML's counter of the first board, in joules."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    answers = (
        nvml.nvmlInit_v2(),
        nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)),
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)),
    )
    return millijoules.value / 1e3 if answers == (0, 0, 0) else None
