"""Runs drivers: short programs that use what the program defines, in the session in which it was defined.

A driver imports the program under its usual name and gets the very objects that were defined.  It is kept when it
called a module that had not run before, or came to its end and reached new lines; else what it made is forgotten, so
that it misleads nobody.
"""

import ast
import builtins
import contextlib
import linecache
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bowerbird.reading.running import imports, naming, rewrite
from bowerbird.reading.running.passing import Guess, Passing
from bowerbird.reading.running.request import Driver
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.undefined import undefined_names

if TYPE_CHECKING:
    from bowerbird.reading.running.session import Session

Replace = Callable[[str, str], None]
MOST_FAILURES = 4
MOST_PROVIDED = 6
LEAST_SECONDS = 0.5
LONGEST_FAILURE = 300


def drive(session: "Session", seconds: float) -> None:
    """Tries the drivers of the request one after another, until every module has run or the time is spent."""
    _importable(session)
    until = time.process_time() + seconds
    for driver in (d for d in session.request.drivers if not d.asked):
        left = until - time.process_time()
        if left < LEAST_SECONDS or not waiting(session):
            return
        with session.clock(min(left, max(left / 3, 1.5)), "driver"):
            _tried(session, driver)


def drive_asked(session: "Session") -> None:
    """Runs the drivers that a user or a model brings, whatever the program did by itself, with time of their own."""
    _importable(session)
    for driver in (d for d in session.request.drivers if d.asked):
        session.loops.started = time.process_time()
        with session.clock(session.request.seconds, "driver"):
            _tried(session, driver)


def _importable(session: "Session") -> None:
    """The program under its usual names: importing it gives what was defined when it ran."""
    for name in naming.names_of(session.request):
        sys.modules[name] = sys.modules["__main__"]


def waiting(session: "Session") -> set[str]:
    """The module classes of the program that have not run yet; its functions, where it has no such class."""
    live = session.live()
    kinds = {name for name, kind in live.classes().items() if issubclass(kind, nn.Module)}
    if kinds:
        return kinds - set(session.modules.ran())
    return {name for name, function in live.functions().items() if not _reached(session, function.__code__)}


def _reached(session: "Session", code: types.CodeType) -> bool:
    own = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
    return not session.reached[code.co_filename].isdisjoint(own)


def _tried(session: "Session", driver: Driver) -> None:
    before, lines, made = waiting(session), _lines(session), len(session.names.created)
    space = _space(session)
    said: dict[str, str] = {}
    failures: list[str] = []
    try:
        _executed(session, driver, space, said, failures)
    except BaseException as error:
        failures.append("its time was over" if type(error).__name__ == "OutOfTime" else type(error).__name__)
        raise
    finally:
        ran = sorted(before - waiting(session))
        kept = bool(ran) or (_lines(session) > lines and (driver.asked or not failures))
        value = {"ran": ran, "kept": kept, "failures": failures[:MOST_FAILURES], "lines": _lines(session) - lines}
        session.recorder("run.driver", driver.place, value, line=None, file="")
        if kept:
            _keep(session, space, said)
            session.made |= space if driver.asked else {}
        else:
            session.names.forget_after(made)
            session.names.namespaces.remove(space)


def _lines(session: "Session") -> int:
    """How many lines of the program have run."""
    return sum(len(session.reached[file]) for file in session.request.texts)


def _space(session: "Session") -> dict[str, Any]:
    """The driver's own names: those that the program defines at first, as in an interactive session."""
    own = {name: value for name, value in session.namespace.items() if not name.startswith("_")}
    module = types.ModuleType("__main__")
    module.__dict__.update(own)
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    session.names.namespaces.append(module.__dict__)
    return module.__dict__


def _executed(
    session: "Session", driver: Driver, space: dict[str, Any], said: dict[str, str], failures: list[str]
) -> None:  # fmt: skip
    tree = ast.parse(driver.text)
    file = driver.file if driver.file not in session.files else f"<{driver.place}>"
    session.recorder.guests.add(file)
    linecache.cache[file] = (len(driver.text), None, driver.text.splitlines(True), file)
    space["__file__"], sys.argv = driver.file, [driver.file]
    around = fragments.Surroundings(
        tree, space, lambda what, why: said.update({what: why}), session.request.image_shape
    )
    for name, line in undefined_names(driver.text, tree, file).items() if driver.by != "model" else ():
        around.provide(name, line)
    for line, code in rewrite.statements(tree, file):
        if len(failures) >= MOST_FAILURES:
            return
        error = attempted(code, space, partial(_provided, driver, around, line), session.replace)
        if isinstance(error, SystemExit):
            return
        if error is not None:
            failures.append(_said(session, error, line))
            session.stopped += _within_own(code, error, space, file)
            if driver.asked:
                session.recorder.exception(error, statement=line, phase="driver")


def _within_own(
    code: types.CodeType, error: BaseException, space: dict[str, Any], file: str
) -> list[Callable[[Passing, Guess], None]]:  # fmt: skip
    """A second attempt at a statement that raised within a function of the driver's, which passes over what fails."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != file:
        trace = trace.tb_next
    inner = trace.tb_next.tb_frame.f_code if trace is not None and trace.tb_next is not None else None
    function = space.get(inner.co_name) if inner is not None else None
    if not isinstance(function, types.FunctionType) or function.__code__ is not inner:
        return []

    def again(passing: Passing, guess: Guess) -> None:
        with passing.over(function, guess) as possible, contextlib.suppress(Exception, SystemExit):
            if possible:
                exec(code, space)

    return [again]


def _provided(driver: Driver, around: fragments.Surroundings, line: int, error: NameError) -> bool:
    """A stand-in for a name; a model is told which names it did not define, and given none."""
    return driver.by != "model" and around.provide(error.name or "", line)


def attempted(
    code: types.CodeType, space: dict[str, Any], provided: Callable[[NameError], bool], replace: Replace
) -> BaseException | None:  # fmt: skip
    """Executes one statement of a stranger's, again where a name could be provided; what it raised in the end."""
    for _ in range(MOST_PROVIDED):
        try:
            exec(code, space)
            return None
        except NameError as error:
            if not provided(error):
                return error
        except ImportError as error:
            if not imports.supplied(error, replace):
                return error
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            return error
    return None


def _said(session: "Session", error: BaseException, line: int) -> str:
    """A failure and the way through the program to it: ``line 3: TypeError: … (nets.py line 31 in forward)``."""
    way = [f"{Path(file).name} line {n} in {name}" for file, n, name in session.recorder.stack(error.__traceback__)]
    said = f"line {line}: {type(error).__name__}: {error}"[:LONGEST_FAILURE]
    return f"{said} ({' > '.join(way[-4:])})" if way else said


def _keep(session: "Session", space: dict[str, Any], said: dict[str, str]) -> None:
    """What the driver made of the program's classes is among the program's objects from now on."""
    kinds = tuple(session.live().classes().values())
    for name, value in space.items():
        if isinstance(value, nn.Module) or (kinds and isinstance(value, kinds)):
            session.namespace.setdefault(name, value)
    for name, reason in said.items():
        session.replace(name, reason)
