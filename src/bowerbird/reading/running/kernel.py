"""Confines the process by the kernel itself: Landlock for files, a seccomp filter for processes and sockets.

Both are for Linux and apply from the call to the end of the process, also to code that goes around Python.  Where the
kernel knows neither, the audit hook of ``guards.py`` stands alone.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = (1 << 0) | (1 << 2) | (1 << 3)  # execute, read file, read directory
_WRITE = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14))  # write, remove, make, refer, truncate
_CONNECT = 0b11  # bind and connect of TCP
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/opt", "/etc", "/dev", "/proc", "/sys")
# numbers of the x86-64 table: fork vfork execve execveat ptrace; socket connect; kill is compared with the own process
_DENIED = {"x86_64": (57, 58, 59, 322, 101, 41, 53, 42, 49, 165, 166, 175, 176, 169)}
_CLONE, _CLONE3, _KILL = 56, 435, 62
_CLONE_THREAD = 0x00010000


def confine(scratch: Path, readable: Path) -> tuple[bool, bool]:
    """Confines this process for good; says which of the two layers hold (files, processes)."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False, False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return _landlock(libc, scratch, readable), _seccomp(libc)


def _landlock(libc: ctypes.CDLL, scratch: Path, readable: Path) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    write = _WRITE & ~((1 << 13) if version < 2 else 0) & ~((1 << 14) if version < 3 else 0)
    handled = struct.pack("QQ", _READ | write, _CONNECT if version >= 4 else 0)
    buffer = ctypes.create_string_buffer(handled, len(handled))
    ruleset = libc.syscall(_CREATE_RULESET, buffer, len(handled) if version >= 4 else 8, 0)
    if ruleset < 0:
        return False
    package = Path(__file__).parents[3]
    allowed = [*map(Path, _SYSTEM), Path(sys.prefix), Path(sys.base_prefix), package, readable]
    for path in {os.path.realpath(p) for p in allowed}:
        _allow(libc, ruleset, path, _READ)
    _allow(libc, ruleset, str(scratch), _READ | write)
    _allow(libc, ruleset, os.devnull, (1 << 1) | (1 << 2))
    held = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(held)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        access &= (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)
    libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
    os.close(descriptor)


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Refuses new processes (threads stay possible), execution of programs, sockets, and signals to others."""
    load, equal, bits, give = 0x20, 0x15, 0x45, 0x06
    allow, deny = 0x7FFF0000, 0x00050000 | errno.EPERM
    missing = 0x00050000 | errno.ENOSYS
    code: list[tuple[int, int, int, int]] = [(load, 0, 0, 0)]
    for number in _DENIED["x86_64"]:
        code += [(equal, 0, 1, number), (give, 0, 0, deny)]
    code += [(equal, 0, 1, _CLONE3), (give, 0, 0, missing)]  # the C library then uses clone, whose flags can be read
    code += [
        (equal, 0, 4, _CLONE),
        (load, 0, 0, 16),
        (bits, 0, 1, _CLONE_THREAD),
        (give, 0, 0, allow),
        (give, 0, 0, deny),
    ]
    code += [
        (equal, 0, 4, _KILL),
        (load, 0, 0, 16),
        (equal, 0, 1, os.getpid()),
        (give, 0, 0, allow),
        (give, 0, 0, deny),
    ]
    code.append((give, 0, 0, allow))
    raw = b"".join(struct.pack("HBBI", *row) for row in code)
    program = ctypes.create_string_buffer(raw, len(raw))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)), 16)
    return libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, head, 0, 0) == 0
