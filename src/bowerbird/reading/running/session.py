"""One execution of the user's program, in a fork of the child: guards, stand-ins, observers, the program, probes."""

import ast
import builtins
import contextlib
import dis
import gc
import io
import linecache
import os
import random
import signal
import sys
import threading
import time
import types
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bowerbird.reading.running import compat, driving, imports, kernel, naming, rewrite, shrinking, trainers
from bowerbird.reading.running.guards import Guard, limit, soften
from bowerbird.reading.running.insisting import Insisting
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.loops import Loops
from bowerbird.reading.running.observe.functions import FunctionWatch, watch_numpy
from bowerbird.reading.running.observe.modules import ModuleWatch
from bowerbird.reading.running.observe.names import Names
from bowerbird.reading.running.observe.recurrent import RecurrentWatch
from bowerbird.reading.running.observe.training import TrainingWatch
from bowerbird.reading.running.passing import Guess, Passing
from bowerbird.reading.running.probes import all_probes
from bowerbird.reading.running.putting import put
from bowerbird.reading.running.reach import Reach
from bowerbird.reading.running.recorder import Recorder, summary
from bowerbird.reading.running.request import UNCONFINED, Request
from bowerbird.reading.running.standins import data, files, fragments
from bowerbird.reading.running.standins.torchvision import utils as pictures_saved
from bowerbird.reading.undefined import undefined_names

MOST_FAILURES = 8
MOST_OUTPUT = 20_000


class OutOfTime(BaseException):
    """The program's time is over; not an Exception, so that the program does not catch it by accident."""


def prepare() -> None:
    """Loads all that sessions need before the first fork."""
    all_probes()
    data.prepare()
    x = torch.randn(4, 4, requires_grad=True)
    torch.autograd.grad(x @ x, x, torch.ones(4, 4))  # which loads sympy
    compat.uncompiled_optimisers()


class Session:
    """``execute`` does everything; what it finds goes to the recorder's descriptor as it happens."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.files = set(request.texts)
        descriptor = os.open(request.results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.recorder = Recorder(descriptor, self.files, request.run)
        self.stand_ins: dict[str, str] = {}
        self.names = Names(self.recorder)
        self.modules = ModuleWatch(self.recorder, self.names)
        self.training = TrainingWatch(self.recorder, self.names, self.modules)
        self.recurrent = RecurrentWatch(self.recorder, self.modules, self.training)
        self.functions = FunctionWatch(self.recorder, self.training, self.replace)
        self.loops = Loops(self.recorder, request.seconds, request.steps, self.training.laggards)
        self.namespace: dict[str, Any] = {}
        self.locals: dict[str, dict[str, Any]] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.measured: dict[str, dict[str, Any]] = {}
        self.reached: defaultdict[str, set[int]] = defaultdict(set)
        self.own: dict[str, frozenset[int]] = {}
        """The lines that ran before anything was called with made-up arguments."""
        self.passing = Passing(self.reached, (self.training, self.functions), request.shrink)
        self.stopped: list[Callable[[Passing, Guess], None]] = []
        """Second attempts at what drivers could not bring to its end."""
        self.lost: dict[str, int] = {}
        self.output = _Output()
        self.finished = False
        self.executed = self.own_steps = 0
        self.made: dict[str, Any] = {}
        """The names of drivers that were asked for."""
        self.guessed: list[str] = []
        """What no driver called, so that arguments were made up for it."""
        self.failures = 0

    def replace(self, name: str, reason: str) -> None:
        """Says once that something was replaced by a stand-in."""
        if name not in self.stand_ins:
            self.stand_ins[name] = reason
            self.recorder("run.stand_in", name, {"reason": reason})

    def execute(self) -> None:
        """Runs the program, then what it only defined, then the probes."""
        self._install()
        if self.request.count:
            return self._count()
        started = self.loops.started = time.process_time()
        with self.clock(self.request.seconds, "program"):
            self._program()
        self.own_steps = self.recorder.steps
        self._note_reached("program")
        live = None
        if self.request.probes:
            self.exercise(started)
            live = self.live()
        self._report(time.process_time() - started)
        if live is not None:
            self._probes(live)
        self.recorder.flush()

    def exercise(self, started: float) -> None:
        """Runs what the program by itself did not: by its drivers first, then with arguments that are made up."""
        left = self.request.seconds - (time.process_time() - started)
        trained = bool(self.recorder.steps and self.modules.number)
        asked = any(driver.asked for driver in self.request.drivers)
        self.functions.flow.outside = asked or not trained
        with self.functions:
            self.recorder.safely(driving.drive_asked, self)
            if not trained:
                self.recorder.safely(driving.drive, self, left)
            self.own = {file: frozenset(lines) for file, lines in self.reached.items()}
            self._note_reached("own")
            if trained:
                return
            if self.request.wanted is None and not self.recorder.steps:
                left = self.request.seconds - (time.process_time() - started)
                with self.clock(max(left, 1.0), "exercise"):
                    self.recorder.safely(trainers.exercise, self.live(), self.replace, lambda: self.recorder.steps)
            self.guessed = sorted(driving.waiting(self))
            work = Insisting(self.live(), self.replace)
            with self.clock(self.request.probe_seconds, "exercise"):
                self.recorder.safely(work.exercise, self.request.wanted)
            for part, insist in ((1 / 3, partial(self._drivers_again, work)), (2 / 3, work.insist)):
                with self.clock(part * self.request.insisting_seconds, "insisting"):
                    self.recorder.safely(insist)

    def _drivers_again(self, work: Insisting) -> None:
        """What stopped within a function of a driver, with what fails there passed over."""
        for again in self.stopped if self.guessed else ():
            again(self.passing, work.by_name_and_use)

    def _count(self) -> None:
        """Builds the networks on the meta device and counts them; what the program does beyond that may fail there."""
        put(nn.Module, to=lambda module, *args, **kwargs: module)
        put(torch.Tensor, to=lambda tensor, *args, **kwargs: tensor)
        with self.clock(self.request.seconds, "program"), torch.device("meta"):
            self._program()
        self.modules.trees()
        self.recorder.flush()

    def _install(self) -> None:
        request = self.request
        scratch = Path(request.scratch)
        reach, packages = Reach(request), kernel.packages()
        fragments.Options.project = request.settings
        os.chdir(scratch)
        random.seed(request.seed)
        np.random.seed(request.seed)
        torch.manual_seed(request.seed)
        limit(request.memory_bytes, request.cpu_s)
        self.modules.install()
        self.training.install()
        self.recurrent.install()
        watch_numpy(self.recorder)
        soften(scratch)
        compat.install(self.replace)
        data.install(self.recorder, self.replace, self.names, request.image_shape)
        files.install(self.recorder, self.replace, Path(request.root))
        imports.install(request, self.recorder, self.replace, reach.files)
        pictures_saved.watch(self._pictured)
        setattr(builtins, rewrite.FOR, self.loops.loop_for)
        setattr(builtins, rewrite.WHILE, self.loops.loop_while)
        setattr(builtins, rewrite.LEAVE, self._left)
        setattr(builtins, rewrite.LINES, self.reached)
        warnings.showwarning = self._warned
        warnings.simplefilter("default")
        sys.stdout = sys.stderr = self.output
        sys.argv = [request.main]
        sys.setrecursionlimit(2000)
        guard = Guard(scratch, self._refused)
        against = kernel.confine(scratch, [*packages, *reach.readable()])
        if against:
            self.recorder("run.unconfined", "kernel", {"why": against}, line=None, file="")
            self.recorder.flush()
            if not request.unconfined:
                raise SystemExit(UNCONFINED)
        guard.arm()

    def _left(self, function: str, values: dict[str, Any]) -> None:
        """A function has ended: what it called things stays known, where it trained also as names of modules."""
        if function.startswith("."):
            self.tables[function[1:]] = values
            return
        if function.startswith("="):
            self.measured[function[1:]] = values
            return
        self.locals[function] = values
        self.names.namespaces.append(values)
        del self.names.namespaces[8:]

    def _refused(self, what: str, detail: str) -> None:
        self.recorder("run.refused", what, {"detail": detail})

    def _pictured(self, function: str, pictures: Any, settings: dict[str, Any]) -> None:
        if not self.modules.quiet:
            if isinstance(pictures, np.ndarray) and pictures.dtype.kind in "fiub":
                pictures = torch.from_numpy(np.ascontiguousarray(pictures))
            self.recorder("image.saved", function, {**self.recorder.tick(), "input": summary(pictures), **settings})

    def _warned(self, message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:
        if not self.modules.quiet:
            file, line = self.recorder.here()
            self.recorder("run.warning", category.__name__, {"message": str(message)[:400]}, file=file, line=line)

    @contextlib.contextmanager
    def clock(self, seconds: float, phase: str) -> Iterator[None]:
        """Raises OutOfTime in the program when its CPU time is over, again and again until it gives in."""

        def ring(*_: Any) -> None:
            raise OutOfTime

        signal.signal(signal.SIGPROF, ring)
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)
        try:
            yield
        except OutOfTime:
            self.recorder("run.cut", "time", {"seconds": round(seconds, 1), "phase": phase})
        finally:
            for _ in range(3):
                with contextlib.suppress(OutOfTime):
                    signal.setitimer(signal.ITIMER_PROF, 0)
                    break

    def _program(self) -> None:
        request = self.request
        text = request.texts[request.main]
        linecache.cache[request.main] = (len(text), None, text.splitlines(True), request.main)
        tree = ast.parse(text)
        if request.shrink:
            for what in shrinking.shrink(tree):
                self.replace(what, "smaller, so that it runs within the time")
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        module.__file__ = request.main
        module.__package__ = naming.package_of(request)
        module.__builtins__ = builtins  # type: ignore[attr-defined]
        self.namespace = module.__dict__
        self.names.namespaces.append(self.namespace)
        surroundings = fragments.Surroundings(tree, self.namespace, self.replace, request.image_shape)
        for name, line in undefined_names(text, tree, request.main).items():
            surroundings.provide(name, line)
        with self.functions:
            whole = rewrite.defining(tree) if request.defining else tree
            for line, code in rewrite.statements(whole, request.main):
                before = self.failures
                if not self._statement(line, code, surroundings) or self.failures >= MOST_FAILURES:
                    return
                if self.failures > before:
                    self.lost |= dict.fromkeys(_bound_by(code), line)
        self.finished = True

    def _note_reached(self, phase: str) -> None:
        """Which lines have run so far, by file."""
        for file in sorted(self.files):
            self.recorder("run.reached", phase, sorted(self.reached[file]), line=None, file=file)
        self.recorder.flush()

    def _statement(self, line: int, code: types.CodeType, surroundings: fragments.Surroundings) -> bool:
        """Executes one statement; False when the program has ended itself."""

        def provided(error: NameError) -> bool:
            name = error.name or ""
            return name not in self.lost and surroundings.provide(name, line, self._globals_of(error))

        error = driving.attempted(code, self.namespace, provided, self.replace)
        if isinstance(error, SystemExit):
            self.recorder("run.exit", "exit", {"code": str(error.code)})
            self.finished = True
        elif error is not None:
            self._failed(error, line)
        self.executed += error is None
        return not isinstance(error, SystemExit)

    def _globals_of(self, error: BaseException) -> dict[str, Any]:
        """The global names of the user's file in which something was raised."""
        trace, found = error.__traceback__, self.namespace
        while trace is not None:
            if self.recorder.is_user_code(trace.tb_frame.f_code):
                found = trace.tb_frame.f_globals
            trace = trace.tb_next
        return found

    def _failed(self, error: BaseException, line: int) -> None:
        self.failures += 1
        self.training.within_step = False
        self.modules.active.clear()
        name = (error.name or "") if isinstance(error, NameError) else ""
        self.recorder.exception(error, statement=line, follows=self.lost.get(name))
        error.__traceback__ = None

    def live(self) -> Live:
        optimizers = {self.names.of(optimizer): optimizer for optimizer in self.training.optimizers}
        live = Live(self.recorder, self.names, self.modules, self.namespace, self.files, optimizers)
        live.locals = self.locals
        live.tables, live.measured = self.tables, self.measured
        live.losses = self.functions.losses
        flow = self.functions.flow
        live.unused, live.used, live.graphs, live.lent = flow.thrown_away(), flow.used, flow.graphs, flow.lent
        live.passing = self.passing
        live.reached, live.own, live.carried = self.reached, self.own, self.modules.carried
        return live

    def _report(self, cpu_s: float) -> None:
        with torch._C.DisableTorchFunction():
            self.recorder.safely(self.loops.report)
            self.recorder.safely(self.functions.report)
            self.recorder.safely(self.modules.report, self.training.reached, self.training.owned)
            self.recorder.safely(self.training.report)
        self._note_reached("all")
        files.report(self.recorder, Path(self.request.scratch))
        self.recorder("run.output", "stdout", {"text": self.output.text()}, line=None, file=self.request.main)
        value = {
            "ran": bool(self.executed), "own_steps": self.own_steps, "guessed": self.guessed, "finished": self.finished,
            "steps": self.recorder.steps,
            "cpu_s": round(cpu_s, 2),
            "forwards": self.modules.number, "failures": self.failures, "statements": self.executed,
            "shrink": self.request.shrink, "image_shape": self.request.image_shape,
        }  # fmt: skip
        self.recorder("run.program", "program", value, file=self.request.main)
        self.recorder.flush()

    def _probes(self, live: Live, only: tuple[str, ...] = ()) -> None:
        self.modules.quiet = self.training.quiet = self.functions.quiet = True
        gc.collect()
        started = time.process_time()
        for name, experiment in all_probes().items():
            if only and name not in only:
                continue
            left = self.request.probe_seconds - (time.process_time() - started)
            if left <= 0.2:
                self.recorder("probe.failed", name, {"message": "no time was left"}, file=self.request.main)
                continue
            torch.default_generator.manual_seed(self.request.seed)
            try:
                with self.clock(min(left, 3.0), "probe"), self.functions:
                    experiment(live)
            except Exception as error:  # a probe meets a stranger's objects: whatever it raises is a fact
                message = f"{type(error).__name__}: {str(error)[:300]}"
                self.recorder("probe.failed", name, {"message": message}, file=self.request.main)
            self.recorder.flush()


def _bound_by(code: types.CodeType) -> set[str]:
    """The global names that a statement would have bound."""
    return {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}


class _Output(io.TextIOBase):
    """Keeps the beginning and the end of what the program prints."""

    def __init__(self) -> None:
        self.head, self.tail = "", ""

    def write(self, text: str) -> int:
        if threading.current_thread() is threading.main_thread():
            if len(self.head) < MOST_OUTPUT // 2:
                self.head += text
            else:
                self.tail = (self.tail + text)[-MOST_OUTPUT // 2 :]
        return len(text)

    def text(self) -> str:
        return self.head + self.tail

    def isatty(self) -> bool:
        return False
