"""Confines the process by the kernel itself: no capabilities, Landlock for files, a seccomp filter for everything else.

What is listed is allowed, what is not is refused, from the call to the end of the process and also for code that goes
around Python.  The filter holds for the system calls of x86-64; a call in the convention of another architecture (``int
0x80``, x32) kills the process.  Where a kernel can do less, ``confine`` says so and nothing may be run.

References: landlock(7), seccomp(2), and the table ``syscall_64.tbl`` of Linux.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_CAPSET, _SECCOMP, _CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 126, 317, 444, 445, 446
_FILTER_MODE, _ALL_THREADS = 1, 1
LEAST_LANDLOCK = 3
"""The first version under which truncating a file counts as writing it (Linux 6.2)."""

_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEVICE = 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_HANDLED = (1 << 15) - 1
"""Every right of version 3: executing, reading, writing, removing, making, moving, truncating."""
_SCRATCH = sum(1 << bit for bit in (1, 2, 3, 4, 5, 7, 8, 12, 13, 14))  # no execution, no devices, sockets or pipes
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/fonts", "/dev/zero",
    "/dev/urandom", "/dev/random", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system",
)  # fmt: skip

# ------------------------------------------------------------------------------------------------- system calls
# Numbers of the x86-64 table, by what they are for.

_ALLOWED = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 22, 23, 32, 33, 40),  # read write open close stat … dup sendfile
    *(9, 10, 11, 12, 25, 26, 27, 28, 149, 150, 239, 329, 330, 331),  # memory: mmap mprotect munmap brk mremap madvise …
    *(13, 14, 15, 34, 127, 128, 130, 131),  # handlers and masks of its own signals
    *(24, 35, 36, 37, 38, 96, 100, 201, 228, 229, 230),  # yield, sleep, clocks, interval timers
    *(39, 102, 104, 107, 108, 110, 111, 115, 118, 120, 121, 124, 125, 186),  # who am I
    *(60, 61, 231, 247),  # exit, wait
    *(63, 95, 97, 98, 99, 137, 138, 140, 143, 145, 146, 147, 204, 309),  # uname umask limits usage statfs scheduling
    *(74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89),  # sync truncate getdents … rename mkdir link
    *(158, 202, 218, 219, 273, 274, 324, 334, 449),  # threads: futex robust lists membarrier rseq
    *(187, 191, 192, 193, 194, 195, 196, 213, 217, 221, 232, 233, 270, 271, 281, 284, 285, 290, 291, 441),  # waiting
    *(257, 258, 262, 263, 264, 265, 266, 267, 269, 292, 293, 295, 296, 316, 326, 327, 328, 332, 439),  # …at
    318,  # getrandom
)
_NOTHING = (73, 90, 91, 92, 93, 94, 132, 235, 260, 261, 268, 280, 452)
"""Locks, modes, owners, times: they change files without writing them, so they succeed and do nothing."""
_UNSUPPORTED = {188: 95, 189: 95, 190: 95, 197: 95, 198: 95, 199: 95, 435: errno.ENOSYS, 437: errno.ENOSYS}
"""Attributes (ENOTSUP); clone3 and openat2, instead of which the C library calls what can be looked into."""
_BY_ARGUMENT: dict[int, tuple[int, tuple[int, ...]]] = {
    16: (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),  # ioctl: is it a terminal, how much waits, close on exec
    72: (1, (0, 1, 2, 3, 4, 1030)),  # fcntl: duplicates and flags; no owner of signals, no leases, no locks
    157: (0, (3, 15, 16, 21, 23, 29, 0x53564D41)),  # prctl: names, questions
    203: (0, (0,)),  # sched_setaffinity, of itself
}
"""Calls of which one argument must have one of these values."""
_OF_ITSELF = (62, 234, 302)  # kill, tgkill, prlimit64: the first argument is the process itself (prlimit64: or zero)
_CLONE, _CLONE_THREAD = 56, 0x00010000

_LOAD, _EQUAL, _BITS, _GIVE = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X86_64 = 0xC000003E
Row = tuple[int, int, int, int]


def confine(scratch: Path, readable: Iterable[Path]) -> str:
    """Confines this process for good; says what stands against it, in which case it is not confined.

    It can then write in ``scratch``, read there, in ``readable`` and in a few places of the system, and nothing else.
    """
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return f"{platform.system()} on {platform.machine()} has no confinement that is known here"
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < LEAST_LANDLOCK:
        return f"its Landlock has version {max(version, 0)}; version {LEAST_LANDLOCK} is needed (Linux 6.2)"
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not _landlock(libc, version, scratch, readable):
        return "its Landlock refuses the rules"
    _without_capabilities(libc)
    return "" if _seccomp(libc, rows(os.getpid())) else "its seccomp refuses the filter"


def packages() -> list[Path]:
    """Where the interpreter and its packages lie: its folders, those of ``.pth`` files, of ``--user``, of editables.

    A home folder, or one around it, is no package, whatever the path says.
    """
    import site

    finders = [module for name, module in sys.modules.items() if name.startswith("__editable__")]
    editable = [place for module in finders for place in getattr(module, "MAPPING", {}).values()]
    ours = str(Path(__file__).parents[3])
    found = [sys.prefix, sys.base_prefix, sys.exec_prefix, ours, *site.getsitepackages(), site.getusersitepackages()]
    paths = [Path(os.path.realpath(place)) for place in (*found, *sys.path, *editable) if place]
    return [path for path in dict.fromkeys(paths) if path.exists() and not around_home(path)]


def around_home(path: Path) -> bool:
    """Whether a folder is the user's home, or lies above it."""
    home = _home()
    return home == path or path in home.parents


def _home() -> Path:
    """As the system knows it, whatever the environment says; where it has no list of users, as that says."""
    try:
        import pwd
    except ImportError:  # Windows
        return Path(os.path.realpath(Path.home()))
    return Path(os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir))


def _without_capabilities(libc: ctypes.CDLL) -> None:
    """Root is no more than any user: limits cannot be raised, other people's files not be opened."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    libc.syscall(_CAPSET, header, ctypes.create_string_buffer(bytes(24), 24))


def _landlock(libc: ctypes.CDLL, version: int, scratch: Path, readable: Iterable[Path]) -> bool:
    files = _HANDLED | (_IOCTL_DEVICE if version >= 5 else 0)
    connections, signals = 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0
    length = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = ctypes.create_string_buffer(struct.pack("QQQ", files, connections, signals), 24)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, length, 0)
    if ruleset < 0:
        return False
    for path in {os.path.realpath(p) for p in (*map(Path, _SYSTEM), *readable)}:
        _allow(libc, ruleset, path, _READ_FILE | _READ_DIR)
    _allow(libc, ruleset, os.path.realpath(scratch), _SCRATCH)
    _allow(libc, ruleset, os.devnull, _WRITE_FILE | _READ_FILE | _TRUNCATE)
    held = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(held)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        access &= _WRITE_FILE | _READ_FILE | _TRUNCATE
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)
    libc.syscall(_ADD_RULE, ruleset, 1, rule, 0)
    os.close(descriptor)


def rows(pid: int) -> list[Row]:
    """The filter: the architecture, then one small block for each call that is not refused."""
    code: list[Row] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _X86_64), (_GIVE, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for number in _ALLOWED:
        code += [(_EQUAL, 0, 1, number), (_GIVE, 0, 0, _ALLOW)]
    for number in _NOTHING:
        code += [(_EQUAL, 0, 1, number), (_GIVE, 0, 0, _ERRNO)]
    for number, failure in _UNSUPPORTED.items():
        code += [(_EQUAL, 0, 1, number), (_GIVE, 0, 0, _ERRNO | failure)]
    for number, (argument, values) in _BY_ARGUMENT.items():
        code += _if_argument(number, argument, values)
    for number in _OF_ITSELF:
        code += _if_argument(number, 0, (pid, 0) if number == 302 else (pid,))
    refuse = (_GIVE, 0, 0, _ERRNO | errno.EPERM)
    code += [(_EQUAL, 0, 4, _CLONE), (_LOAD, 0, 0, 16), (_BITS, 0, 1, _CLONE_THREAD), (_GIVE, 0, 0, _ALLOW), refuse]
    return [*code, refuse]


def _if_argument(number: int, argument: int, values: tuple[int, ...]) -> list[Row]:
    """A call is allowed where the low half of an argument has one of some values, else refused."""
    block: list[Row] = [(_LOAD, 0, 0, 16 + 8 * argument)]
    for value in values:
        block += [(_EQUAL, 0, 1, value), (_GIVE, 0, 0, _ALLOW)]
    block.append((_GIVE, 0, 0, _ERRNO | errno.EPERM))
    return [(_EQUAL, 0, len(block), number), *block]


def _seccomp(libc: ctypes.CDLL, code: list[Row]) -> bool:
    raw = b"".join(struct.pack("HBBI", *row) for row in code)
    program = ctypes.create_string_buffer(raw, len(raw))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)), 16)
    return bool(libc.syscall(_SECCOMP, _FILTER_MODE, _ALL_THREADS, head) == 0)
