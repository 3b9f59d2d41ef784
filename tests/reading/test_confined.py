"""What a hostile program may not do, tried with the hook of Python disarmed: the kernel refuses, the parent believes
nothing that is not in form."""

import json
import os
import signal
import site
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import bowerbird
from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import as_text, check
from bowerbird.reading.explain.read import _within
from bowerbird.reading.facts import FactStore
from bowerbird.reading.learn import exercise
from bowerbird.reading.learn.running import _seen, check_answer
from bowerbird.reading.running import kernel, launch
from bowerbird.reading.running.guards import scrubbed
from bowerbird.reading.running.launch import Child, received
from bowerbird.reading.running.reach import Reach
from bowerbird.reading.running.request import Request
from bowerbird.reading.source import printable

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="what is confined is Linux on x86-64"
)

PRELUDE = """
import ctypes, errno, os, struct, sys
from pathlib import Path
from bowerbird.reading.running import kernel
libc = ctypes.CDLL(None, use_errno=True)
parent, scratch = os.getppid(), Path(sys.argv[1])
os.chdir(scratch)
buffer = ctypes.create_string_buffer(4096)
against = kernel.confine(scratch, kernel.packages())
assert not against, against
def call(*arguments):
    ctypes.set_errno(0)
    given = libc.syscall(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return "done" if given >= 0 else errno.errorcode[ctypes.get_errno()]
def tried(attempt):
    try:
        attempt()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def confined(scratch: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that the kernel confines and no hook watches."""
    environment = os.environ | {"PYTHONPATH": str(Path(bowerbird.__file__).parents[1])}
    scratch.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(scratch)],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip


CALLS = {
    "programs": {
        "execve": "59, b'/bin/true', None, None", "execveat": "322, -100, b'/bin/true', None, None, 0", "fork": "57",
        "vfork": "58", "clone": "56, 17, 0, 0, 0, 0", "clone3": "435, buffer, 88", "ptrace": "101, 16, parent, 0, 0",
        "process_vm_readv": "310, parent, buffer, 1, buffer, 1, 0",
        "process_vm_writev": "311, parent, buffer, 1, buffer, 1, 0", "kcmp": "312, parent, parent, 0, 0, 0",
    },
    "signals": {
        "kill": "62, parent, 0", "kill all": "62, -1, 0", "kill the group": "62, 0, 0",
        "tgkill": "234, parent, parent, 0",
        "tkill": "200, parent, 0", "rt_sigqueueinfo": "129, parent, 0, buffer",
        "rt_tgsigqueueinfo": "297, parent, parent, 0, buffer", "pidfd_open": "434, parent, 0",
        "pidfd_send_signal": "424, 3, 0, 0, 0", "pidfd_getfd": "438, 3, 0, 0", "owner of signals": "72, 2, 8, parent",
    },
    "memory": {
        "shmget": "29, 0, 1 << 20, 0o1600", "shmat": "30, 0, 0, 0", "memfd_create": "319, b'x', 0",
        "memfd_secret": "447, 0",
        "msgget": "68, 0, 0o1600", "semget": "64, 0, 1, 0o1600",
        "mq_open": "240, b'x', 66, 384, 0",
        "userfaultfd": "323, 0", "add_key": "248, b'user', b'x', b'y', 1, -3", "mbind": "237, 0, 0, 0, 0, 0, 0",
    },
    "io_uring": {
        "io_uring_setup": "425, 8, buffer", "io_uring_enter": "426, 3, 1, 0, 0, 0, 0",
        "io_uring_register": "427, 3, 0, 0, 0",
        "io_setup": "206, 1, buffer", "io_submit": "209, 0, 1, buffer", "splice": "275, 0, 0, 1, 0, 1, 0",
        "vmsplice": "278, 1, buffer, 1, 0", "tee": "276, 0, 1, 1, 0",
    },
    "connections": {
        "TCP": "41, 2, 1, 0", "UDP": "41, 2, 2, 0", "IPv6": "41, 10, 1, 0", "unix": "41, 1, 1, 0",
        "netlink": "41, 16, 3, 0",
        "packets": "41, 17, 3, 0", "socketpair": "53, 1, 1, 0, buffer", "connect": "42, 3, buffer, 16",
    },
    "the system": {
        "unshare": "272, 0x10000000", "setns": "308, 3, 0", "mount": "165, 0, 0, 0, 0, 0", "chroot": "161, b'/'",
        "pivot_root": "155, b'.', b'.'", "bpf": "321, 0, buffer, 64", "perf_event_open": "298, buffer, 0, -1, -1, 0",
        "keyctl": "250, 0, -3, 0", "reboot": "169, 0, 0, 0, 0",
        "init_module": "175, buffer, 8, b''", "acct": "163, b'x'",
        "fanotify_init": "300, 0, 0", "name_to_handle_at": "303, -100, b'.', buffer, buffer, 0", "setsid": "112",
        "seccomp": "317, 1, 0, buffer", "another Landlock": "444, buffer, 8, 0",
    },
    "limits": {
        "prlimit of another": "302, parent, 7, buffer, 0", "priority of another": "141, 0, parent, 19",
        "affinity of another": "203, parent, 8, buffer", "scheduler": "144, parent, 0, buffer",
        "ioprio_set": "251, 1, parent, 0",
        "no death with the parent": "157, 1, 0, 0, 0, 0", "a subreaper": "157, 36, 1, 0, 0, 0",
        "ptracer": "157, 0x59616d61, -1",
        "nice": "141, 0, 0, -20", "terminal input": "16, 0, 0x5412, buffer",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLS)
def test_system_calls_that_reach_beyond_are_refused(tmp_path: Path, kind: str) -> None:
    attempts = ", ".join(f"{name!r}: call({arguments})" for name, arguments in CALLS[kind].items())
    done = confined(tmp_path / "s", f"import json; print(json.dumps({{{attempts}}}))")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) >= 8 and set(answers.values()) <= {"EPERM", "ENOSYS"}, answers


MACHINE_CODE = """
    import mmap
    def machine(code):
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    """


@pytest.mark.parametrize(
    ("number", "name"),
    [(11, "execve"), (2, "fork"), (5, "open"), (10, "unlink"), (37, "kill"), (102, "socketcall"), (20, "getpid"),
     (120, "clone")],
)  # fmt: skip
def test_calls_in_the_convention_of_another_architecture_kill(tmp_path: Path, number: int, name: str) -> None:
    code = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3"  # mov eax, number; int 0x80; ret
    done = confined(tmp_path / "s", MACHINE_CODE + f"\n    print(machine({code!r}))\n")
    assert done.returncode == -signal.SIGSYS, (name, done)


def test_calls_of_x32_are_refused(tmp_path: Path) -> None:
    numbers = [0, 1, 2, 39, 57, 59, 62, 520, 521, 524]
    done = confined(tmp_path / "s", f"print({{call(0x40000000 | n, 0, 0, 0) for n in {numbers}}})")
    assert done.stdout.strip() == "{'EPERM'}", done


def test_files_elsewhere_are_neither_changed_nor_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = outside / "kept.txt"
    kept.write_text("kept")
    kept.chmod(0o640)
    os.utime(kept, (1000, 1000))
    program = f"""
        kept, outside = {str(kept)!r}, {str(outside)!r}
        print([
            tried(lambda: open(kept)), tried(lambda: open(kept, "w")), tried(lambda: open(kept, "a")),
            tried(lambda: os.open(kept, os.O_RDONLY | os.O_TRUNC)), tried(lambda: os.truncate(kept, 0)),
            tried(lambda: os.unlink(kept)), tried(lambda: os.rename(kept, outside + "/x")),
            tried(lambda: os.rename(kept, "mine")), tried(lambda: os.link(kept, "mine")),
            tried(lambda: open(outside + "/new", "w")), tried(lambda: os.mkdir(outside + "/new")),
            tried(lambda: os.symlink("x", outside + "/new")), tried(lambda: os.listdir(outside)),
            tried(lambda: os.mkfifo("pipe")), tried(lambda: os.mknod("device", 0o020600, os.makedev(1, 3))),
            tried(lambda: os.rmdir(outside)), tried(lambda: os.setxattr(kept, "user.x", b"y")),
            tried(lambda: open("/etc/passwd")), tried(lambda: open("/etc/hosts")), tried(lambda: os.listdir("/")),
            tried(lambda: open(f"/proc/{{parent}}/environ")), tried(lambda: open(f"/proc/{{parent}}/cmdline")),
            tried(lambda: open(f"/proc/{{parent}}/mem", "rb")), tried(lambda: os.listdir(f"/proc/{{parent}}/fd")),
            tried(lambda: os.listdir(os.path.expanduser("~"))), tried(lambda: open("/dev/shm/x", "w")),
        ])
        os.symlink(kept, "link")
        print(tried(lambda: open("link")))
        os.chmod(kept, 0o777), os.utime(kept, (5, 5)), os.chown(kept, 1, 1)
        """
    done = confined(tmp_path / "s", program)
    assert done.returncode == 0, done.stderr
    assert "done" not in done.stdout and done.stdout.count("EACCES") + done.stdout.count("EXDEV") >= 22, done.stdout
    status = kept.stat()
    assert kept.read_text() == "kept" and list(outside.iterdir()) == [kept]
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_uid) == (0o640, 1000, os.getuid())


def test_what_a_program_needs_still_works(tmp_path: Path) -> None:
    program = """
        import threading, tempfile, shutil, json, decimal, random, time
        done = []
        thread = threading.Thread(target=lambda: done.append(1)); thread.start(); thread.join()
        open("a", "w").write("text"); shutil.copy("a", "b"); os.makedirs("x/y"); os.rename("b", "x/y/b")
        os.symlink("a", "c"); os.chmod("a", 0o600); time.sleep(0.01)
        print(done, open("x/y/b").read(), open("c").read(), sorted(os.listdir(".")),
            os.kill(os.getpid(), 0), os.cpu_count() > 0)
        """
    done = confined(tmp_path / "s", program)
    assert done.stdout.strip() == "[1] text text ['a', 'c', 'x'] None True", done


def test_a_confined_root_cannot_raise_its_limits(tmp_path: Path) -> None:
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
            print("done")
        except (ValueError, OSError):
            print("refused")
        """
    assert confined(tmp_path / "s", program).stdout.strip() == "refused"


# ------------------------------------------------------------------------------------------- through the whole path


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """A child whose executions may be of the session without a hook."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before])
    with Child() as warm:
        warm.start()
        yield warm
    os.environ["PYTHONPATH"] = before


def executed(child: Child, folder: Path, code: str, wall_s: float = 60.0) -> tuple[FactStore, str, Path]:
    folder.mkdir(exist_ok=True)
    main, scratch = folder / "program.py", child.scratch()
    text = textwrap.dedent(code)
    main.write_text(text)
    request = Request(
        str(main), {str(main): text}, str(folder), str(scratch), str(scratch.with_suffix(".facts")), seconds=3.0,
        probes=False, session="unguarded:Unguarded",
    )  # fmt: skip
    return *child.execute(request, wall_s), scratch


def printed(facts: FactStore) -> str:
    output = facts.first("run.output")
    return "" if output is None else str(output["text"])


def test_only_what_the_program_imports_or_names_is_readable(child: Child, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "lib" / "deep").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "lib" / "deep" / "sizes.py").write_text("from .more import WIDTH\n")
    (folder / "lib" / "deep" / "more.py").write_text("WIDTH = 6\n")
    (folder / "data" / "a.txt").write_text("data")
    for name in ("tokens.txt", ".env", "other.py"):
        (folder / name).write_text("secret")
    (tmp_path / "beside.txt").write_text("secret")
    facts, why, _ = executed(
        child,
        folder,
        """
        import os
        from lib.deep.sizes import WIDTH
        here = os.path.dirname(__file__)
        print(WIDTH, open(os.path.join(here, "data", "a.txt")).read())
        for name in ("tok" + "ens.txt", "." + "env", "ot" + "her.py", ".." + "/beside.txt", ".env", "../beside.txt"):
            try:
                print(open(os.path.join(here, name)).read())
            except PermissionError:
                print("refused")
        """,
    )
    assert why == "" and printed(facts).split() == ["6", "data", *["refused"] * 6], facts.of("run.exception")


def test_packages_are_readable_wherever_they_are_installed(tmp_path: Path) -> None:
    for name in ("linked", "user", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_package.py").write_text("import torch\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "linked.pth").write_text(f"{tmp_path / 'linked'}\n")
    start = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); site.USER_SITE = {str(tmp_path / 'user')!r}\n"
    code = (
        start
        + textwrap.dedent(PRELUDE)
        + textwrap.dedent(
            f"""
        where = {str(tmp_path)!r}
        print([tried(lambda: open(f"{{where}}/{{n}}/{{n}}_package.py")) for n in ("linked", "user", "secret")])
        """
        )
    )
    environment = os.environ | {"PYTHONPATH": str(Path(bowerbird.__file__).parents[1])}
    (tmp_path / "s").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.stdout.strip() == "['done', 'done', 'EACCES']", done
    assert scrubbed({})["PYTHONUSERBASE"] == site.getuserbase()


def test_a_name_with_places_for_others_names_the_files_that_match_it(tmp_path: Path) -> None:
    for name in ("data/part.a.txt", "data/part.b.txt", "data/other.txt", "rest/part.a.txt", "data/.part.c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    main = tmp_path / "program.py"
    text = "for name in 'ab':\n    open('data/part.{}.txt'.format(name))\n    print('{}' % name, '%s.txt')\n"
    main.write_text(text)
    request = Request(str(main), {str(main): text}, str(tmp_path), "", "")
    named = [tmp_path / "data" / "part.a.txt", tmp_path / "data" / "part.b.txt"]
    assert sorted(Reach(request).readable()) == sorted([main, *named])


def test_a_program_in_a_home_folder_names_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passwords.txt").write_text("secret")
    (tmp_path / "mine.py").write_text("X = 1\n")
    main = tmp_path / "program.py"
    text = "import mine\nopen('passwords.txt')\n"
    main.write_text(text)
    request = Request(str(main), {str(main): text}, str(tmp_path), "", "")
    assert tmp_path / "passwords.txt" in Reach(request).readable()
    monkeypatch.setattr("pwd.getpwuid", lambda uid: type("Entry", (), {"pw_dir": str(tmp_path)}))
    assert Reach(request).readable() == [main, tmp_path / "mine.py"]
    assert kernel.around_home(tmp_path) and kernel.around_home(Path("/")) and not kernel.around_home(tmp_path / "x")


def test_no_descriptor_of_the_process_that_listens_is_inherited(child: Child, tmp_path: Path) -> None:
    facts, _, scratch = executed(
        child,
        tmp_path / "code",
        """
        import os
        for descriptor in sorted(map(int, os.listdir("/proc/self/fd"))):
            try:
                print(descriptor, os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:
                pass
        for descriptor in range(64):
            try:
                os.write(descriptor, b'{"started": 1}\\n{"ended": 1, "status": 0}\\n')
            except OSError:
                pass
        """,
    )
    targets = {line.split()[1] for line in printed(facts).splitlines()}
    assert targets <= {"/dev/null", str(scratch.with_suffix(".facts"))}, targets
    facts, why, _ = executed(child, tmp_path / "code", "print('next')\n")
    assert (printed(facts), why) == ("next\n", ""), "nobody else was believed"


def test_what_fills_the_disk_is_stopped(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LARGEST_SCRATCH", 20_000_000)
    code = "import time\nfor i in range(40):\n    open(f'f{i}', 'wb').write(bytes(1_000_000))\nwhile True:\n    pass\n"
    started = time.monotonic()
    _, why, _ = executed(child, tmp_path / "code", code, wall_s=100.0)
    assert why == "it was stopped: it wrote too much" or "time or memory" in why
    monkeypatch.setattr(launch, "LARGEST_SCRATCH", 2**40)
    monkeypatch.setattr(launch, "MOST_FILES", 10)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(11):
        (folder / str(number)).write_text("")
    assert launch._overflows(folder) and time.monotonic() - started < 60


def test_a_fork_dies_with_whoever_asked_for_it(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from bowerbird.reading.running.launch import Child
        from bowerbird.reading.running.request import Request
        folder = Path(sys.argv[1])
        text = "import os\\nopen('pid', 'w').write(str(os.getpid()))\\nwhile True:\\n    os.stat('.')\\n"
        (folder / "endless.py").write_text(text)
        child = Child()
        scratch = folder / "scratch"
        scratch.mkdir()
        main = str(folder / "endless.py")
        request = Request(main, {main: text}, str(folder), str(scratch), str(folder / "facts"), seconds=90.0)
        child.execute(request, 200.0)
        """
    environment = os.environ | {"PYTHONPATH": str(Path(bowerbird.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    process = subprocess.Popen(command, env=environment)
    mark = tmp_path / "scratch" / "pid"
    until = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    fork = int(mark.read_text())
    process.kill()
    process.wait()
    while Path(f"/proc/{fork}").exists() and time.monotonic() < until + 30:
        if "Z" in Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[0]:
            break
        time.sleep(0.1)
    else:
        assert not Path(f"/proc/{fork}").exists()


FORGED = [
    b"[1, 2]", b"null", b'"text"', b"{", b"[" * 100_000, b'{"kind": "observed"}', b'{"kind": "sworn", "topic": "x"}',
    b'{"kind": "observed", "topic": 3, "subject": "s", "value": 1, "file": "", "line": 1}',
    b'{"kind": "observed", "topic": "t", "subject": "s", "value": 1, "file": "", "line": "x"}',
    b'{"kind": "observed", "topic": "t", "subject": "s", "value": 1, "file": "", "line": true}',
    b'{"kind": "observed", "topic": "t", "subject": "s", "value": 1, "file": "", "line": -4}',
    b'{"kind": "observed", "topic": "t", "subject": "s", "value": 1, "file": ["x"], "line": 1}',
    b'{"kind": ["observed"], "topic": "t", "subject": "s", "value": 1, "file": "", "line": 1}',
    b'{"kind": "observed", "topic": "t", "subject": "s", "file": "", "line": 1}', b"\xff\xfe",
]  # fmt: skip


def test_facts_that_are_not_in_form_are_left_out(tmp_path: Path) -> None:
    good = {
        "kind": "observed",
        "topic": "t",
        "subject": "a\x1b[2Jb",
        "value": {"k\x07": ["\x9b31m\u202e", 1]},
        "file": "f",
        "line": 2,
    }
    path = tmp_path / "facts"
    path.write_bytes(b"".join(row + b"\n" for row in (*FORGED, json.dumps(good).encode(), b'{"kind": "obs')))
    request = Request("m", {}, "", "", "", run="run")
    (fact,) = received(path, request)
    assert (fact.subject, fact.value, fact.run) == ("a\ufffd[2Jb", {"k\ufffd": ["\ufffd31m\ufffd", 1]}, "run")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert len(received(link, request)) == 0
    assert printable("tab\tand\nline stay, 中文 too") == "tab\tand\nline stay, 中文 too"


def test_a_group_that_is_named_falsely_is_not_ended(child: Child) -> None:
    assert child.process is not None
    for forged in (os.getpid(), 1, 0, -1, True, "12", None, os.getppid(), child.process.pid):
        assert child._fork({"started": forged}) == 0
    assert child._fork(None) == 0


def test_pictures_are_plain_files_of_the_scratch_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.png").write_bytes(b"\x89PNG\r\nsecret")
    scratch = tmp_path / "scratch"
    (scratch / "out").mkdir(parents=True)
    (scratch / "out" / "a.png").write_bytes(b"\x89PNG\r\nmine")
    (scratch / "link.png").symlink_to(secret / "key.png")
    (scratch / "way").symlink_to(secret)
    os.mkfifo(scratch / "pipe.png")
    assert _within(scratch, "out/a.png") == b"\x89PNG\r\nmine"
    for name in (
        "link.png",
        "way/key.png",
        "pipe.png",
        "out",
        "../secret/key.png",
        str(secret / "key.png"),
        "none.png",
        "",
    ):
        assert _within(scratch, name) is None, name


def test_a_command_of_the_terminal_in_a_program_stays_in_it(child: Child, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(
        "import torch\nx = torch.ones(2) @ torch.ones(3)  # \x1b[2J\nraise RuntimeError('\\x1b]0;title\\x07')\n"
    )
    lines = list(as_text(check(file, child=child)))
    assert lines and all(line.isprintable() for line in lines), lines


def test_a_machine_that_cannot_confine_runs_nothing_unless_told(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "program.py"
    file.write_text("print('ran')\n")
    monkeypatch.setattr(kernel, "LEAST_LANDLOCK", 1000)
    monkeypatch.delenv("BOWERBIRD_UNCONFINED", raising=False)
    request = Request(str(file), {str(file): file.read_text()}, str(tmp_path), "", "", session="unconfinable:Session")
    scratch = child.scratch()
    request = replace(request, scratch=str(scratch), results=str(scratch.with_suffix(".facts")))
    with pytest.raises(BowerbirdError, match="cannot confine.*BOWERBIRD_UNCONFINED=1"):
        child.execute(request, 60.0)
    monkeypatch.setenv("BOWERBIRD_UNCONFINED", "1")
    facts, why = child.execute(request, 60.0)
    assert (printed(facts), why) == ("ran\n", "") and facts.first("run.unconfined") is not None


def test_answers_to_exercises_are_confined_alike(tmp_path: Path) -> None:
    found = exercise.exercise("top-k")
    victim = tmp_path / "victim.txt"
    victim.write_text("kept")
    code = f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        got = [libc.unlink({str(victim)!r}.encode()), libc.open({str(victim)!r}.encode(), 0), libc.syscall(425, 8, 0)]
        raise RuntimeError(str(got))
        """.replace("import ctypes", "import sys\n        sys.addaudithook = None\n        import ctypes")
    verdict = check_answer(found, textwrap.dedent(code))
    assert not verdict.passed and victim.read_text() == "kept"
    assert "Refused" in verdict.observations[-1].en or "[-1, -1, -1]" in verdict.observations[-1].en
    forged = FactStore()
    forged.add("observed", "learn.seen", "x", {"ok": "yes", "en": "", "zh": ""})
    assert [seen.ok for seen in _seen(forged)] == [False, False] and [seen.ok for seen in _seen(FactStore())] == [False]
