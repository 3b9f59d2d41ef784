"""Exercises what a program only defines: builds its modules from inferred arguments, calls them with inferred inputs.

Candidates are tried until one works; a call that fails is changed as its failure asks for.  What ran teaches names: a
method that is called later is given what the code that ran called so.  What was tried is said.
"""

import contextlib
import inspect
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.building import (
    annotated,
    built,
    candidates,
    mended,
    missed,
    said,
    signature_of,
)
from bowerbird.reading.running.calling import POSITIONAL, called, entry, needed
from bowerbird.reading.running.guesses import BATCH, Guesses, Replace, batch, combined, values
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.refusals import fitted
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.uses import Use, uses

LEAST_SECONDS_EACH, MOST_SECONDS_EACH = 0.4, 1.5
MOST_GUESSES = 12
MOST_INPUTS = 60
MOST_ALIKE = 4
MOST_NAMED = 6
MOST_ITEMS = 2
_SIDES = re.compile(r"size|resolution|^(h|w|height|width)$", re.I)
_STATE = re.compile(r"state|hidden|^h\d?$|memory|cache")
_BEGINNING = re.compile(r"(get_)?(init|initial|zero|begin)_?(state|states|hidden|memory|cache)")
_PROCESSES = frozenset(
    "loss p_losses q_sample p_sample sample forward add_noise training_loss training_losses step q_xt_x0 "
    "sample_timesteps noise_images p_mean_variance q_posterior update_model_average update_average step_ema".split()
)
_UNIMPLEMENTED = nn.Module.forward
Functions = dict[str, Callable[..., Any]]
Given = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Exercise:
    """``guesses`` remembers what ran; ``waiting`` are functions that raised on every guess, to be tried once more."""

    def __init__(self, live: Live, replace: Replace) -> None:
        self.live, self.replace = live, replace
        self.guesses = Guesses(live, replace)
        self.waiting: Functions = {}
        self.seconds = MOST_SECONDS_EACH
        self.answered: dict[str, Given] = {}
        self.furthest: dict[str, tuple[int, tuple[Any, ...]]] = {}
        """Of what raised on every guess: how many lines ran at most, and with which arguments."""
        self.lines = 0
        """How many lines the last call that raised had run that had not run before."""
        self.unbuilt: dict[type, Exception] = {}
        self.built: dict[type, dict[str, Any]] = {}

    def exercise(self, wanted: str | None) -> None:
        """Calls every part of the program that nothing has reached."""
        live = self.live
        Path(fragments.setting("data_dir")).mkdir(parents=True, exist_ok=True)  # a folder of ours, by its usual name
        every = [kind for kind in live.classes().values() if not inspect.isabstract(kind)]
        classes = [kind for kind in every if issubclass(kind, nn.Module)]
        if wanted is not None:
            classes = [k for k in classes if k.__name__ == wanted] or classes
        waiting = sorted(classes, key=lambda k: (live.place_of(k)[0] != live.main, -(live.line_of(k) or 0)))
        for seconds in (LEAST_SECONDS_EACH, MOST_SECONDS_EACH):  # one that is slow takes no time from the others
            failed = [(kind, self.module(kind, seconds)) for kind in waiting]
            waiting = [kind for kind, failure in failed if failure is not None]
        for _, failure in failed:
            if failure is not None:
                live.recorder.exception(failure, phase="exercise")
        for kind in every:
            if not issubclass(kind, nn.Module):
                self.plain(kind)
        if wanted is None:
            self.functions(live.functions())
        self.again()

    # --------------------------------------------------------------------------------------------------- modules

    def module(self, kind: type[nn.Module], seconds: float) -> Exception | None:
        """Calls a module of a class, one that the program has made or one that is built here, and its methods; the
        first failure where none could be called."""
        try:
            return self._module(kind, seconds)
        finally:
            self.live.roots = self.live.refreshed()

    def _module(self, kind: type[nn.Module], seconds: float) -> Exception | None:
        self.seconds = seconds
        ran = next((m for m in self.live.names.modules() if type(m) is kind and self.live.inputs(m) is not None), None)
        if ran is not None:
            self._methods_of(ran, kind)
            return None
        made = next(iter(self.live.modules(kind.__name__).values()), None)
        return self._built(kind) if made is None or self._called(made, kind) is not None else None

    def _methods_of(self, module: nn.Module, kind: type[nn.Module]) -> None:
        """Calls the methods that nothing has reached of a module that ran, after what it was given first."""
        waiting = {n: f for n, f in self._methods(module, kind).items() if self._unreached(f)}
        given = self.live.inputs(module)
        if waiting and given is not None:
            try:
                with torch.no_grad(), self.live.frozen(module):
                    out = self._watched(lambda: module(*given[0], **given[1]))
            except Exception:  # the user's forward, in another state than when it ran
                out = ()
            self._after(waiting, out, given[0])

    def _built(self, kind: type[nn.Module]) -> Exception | None:
        """Builds a class with one set of arguments after another until a call works; keeps the last that could be."""
        patience = Patience(self.seconds * 2)
        failure: Exception | None = None
        kept: nn.Module | None = None
        for guess in itertools.takewhile(lambda _: patience.left, candidates(kind, self.guesses)):
            try:
                module, arguments = built(kind, self.guesses, guess)
            except Exception as raised:  # the user's constructor, given guesses
                failure = failure or raised
                continue
            if kept is None:
                self._told(kind, arguments)
            self.built[kind] = arguments
            kept = module
            self.live.namespace[_variable(kind)] = module
            sides = (v for n, v in arguments.items() if _SIDES.search(n) and isinstance(v, int) and 3 < v <= 256)
            failure = self._called(module, kind, tuple(sides))
            if failure is None:
                return None
        if kept is None and failure is not None:
            self.unbuilt[kind] = failure
        return failure

    def _told(self, kind: type, arguments: dict[str, Any]) -> None:
        given = ", ".join(f"{k}={said(v)}" for k, v in arguments.items())
        self.replace(f"{kind.__name__}({given})", "the program only defines it; built with these arguments")

    def _called(
        self, module: nn.Module, kind: type[nn.Module], sides: tuple[int, ...] = (), more: frozenset[str] = frozenset()
    ) -> Exception | None:
        """Tries inputs until a call works, gradients back to the parameters; returns the first failure if none does.
        A name that ``**kwargs`` lacks is given from then on (``more``)."""
        if entry(module) is _UNIMPLEMENTED:
            self.functions(self._methods(module, kind))
            return None
        error: Exception | None = None
        patience = Patience(self.seconds)
        for guess in itertools.takewhile(lambda _: patience.left, self._inputs(module, sides, more)):
            try:
                out, given = self._watched(partial(called, module, guess, self.live.forget_call, more))
            except KeyError as raised:
                lacks = frozenset(str(key) for key in raised.args) - more
                if lacks and len(more) < MOST_NAMED and len(needed(module, more | lacks)) > len(needed(module, more)):
                    return self._called(module, kind, sides, more | lacks)
                error = error or patience.met(raised)
                continue
            except Exception as raised:  # the user's forward, given guesses
                error = error or patience.met(raised)
                continue
            shapes = ", ".join(str(list(x.shape)) if isinstance(x, torch.Tensor) else type(x).__name__ for x in given)
            self.replace(f"input of {kind.__name__}", f"the program does not call it; given tensors of shape {shapes}")
            _backward(out)
            self._after(self._methods(module, kind), out, given)
            return None
        return error or RuntimeError("no input was tried in time")

    def _inputs(self, module: nn.Module, sides: tuple[int, ...], more: frozenset[str]) -> Iterator[tuple[Any, ...]]:
        """Tuples of inputs for a call, likely ones first."""
        used = uses(entry(module))
        wanted = needed(module, more)
        options = [list(self._input(p, used.get(p.name, Use()), module, sides)) for p in wanted]
        yield from combined(options, MOST_INPUTS)

    def _input(self, p: inspect.Parameter, use: Use, module: nn.Module, sides: tuple[int, ...]) -> Iterator[Any]:
        note = str(p.annotation)
        begin = [name for name in dir(type(module)) if _BEGINNING.fullmatch(name)] if _STATE.search(p.name) else []
        with contextlib.suppress(Exception):  # the user's method, given a guess
            yield from (getattr(module, name)(BATCH) for name in begin)
        if use.called and not use.is_tensor:
            yield self.guesses.network(p.name)
        elif use.keys and not use.is_tensor:
            yield {key: next(values(key, module, sides)) for key in use.keys}
        elif "bool" in note or (use.tested and not use.is_tensor):
            yield from (True, False)
        elif use.unpacked:
            yield batch(use.unpacked)
        elif use.is_settings:
            yield self.guesses.settings(note)
        elif use.iterated and not use.is_tensor and p.name not in ("x", "input", "inputs"):
            yield from ([t, t] for t in itertools.islice(values(p.name, module, sides), 3))
        if "int" in note or "float" in note or "str" in note:
            yield fragments.setting(p.name)
        likely = values(p.name, module, sides)
        yield from itertools.islice(likely, 1)
        yield from self.guesses.seen.get(p.name, ())
        yield from likely

    # ------------------------------------------------------------------------------------ functions and other classes

    def plain(self, kind: type) -> None:
        """An instance of a class that is no module (a diffusion process, a schedule), its loss if it has one, and what
        else can be called with guesses."""
        if issubclass(kind, BaseException):
            return
        made = next((v for v in self.live.namespace.values() if type(v) is kind), None)
        for guess in itertools.islice(candidates(kind, self.guesses), 4) if made is None else ():
            try:
                made, arguments = built(kind, self.guesses, guess)
            except Exception as raised:  # the user's constructor, given guesses: others follow
                self.unbuilt.setdefault(kind, raised)
                continue
            if type(made) is not kind:  # a data set without its data
                self.unbuilt.setdefault(kind, FileNotFoundError())
                made = None
                break
            self._told(kind, arguments)
            self.built[kind] = arguments
            if _PROCESSES & set(vars(kind)):
                self.live.namespace[_variable(kind)] = made
            break
        self._of_object(made, kind)

    def _of_object(self, made: Any, kind: type) -> None:
        """Calls the methods of an object; of a class of which there is none, those that need none."""
        if made is not None:
            self.unbuilt.pop(kind, None)
            self.guesses.see(vars(made) if hasattr(made, "__dict__") else {})
            self.functions(self._methods(made, kind))
        else:
            free = {n for n, f in vars(kind).items() if isinstance(f, staticmethod | classmethod)}
            methods = self._methods(kind, kind)
            self.functions({name: f for name, f in methods.items() if name.rpartition(".")[2] in free})

    def _methods(self, made: Any, kind: type) -> Functions:
        """What can be called of an object, by the names that its classes give it, public ones first."""
        own = [k for k in kind.__mro__ if k is kind or self.live.line_of(k) is not None]
        names = dict.fromkeys(
            name for k in own for name, f in vars(k).items()
            if (inspect.isfunction(f) or isinstance(f, staticmethod | classmethod))
            and (not name.startswith("__") or name == "__call__") and name not in ("forward", "training_step")
        )  # fmt: skip
        return {f"{kind.__name__}.{name}": getattr(made, name) for name in sorted(names, key=lambda n: n[0] == "_")}

    def _after(self, methods: Functions, out: Any, given: tuple[Any, ...]) -> None:
        answer = tuple(out) if isinstance(out, tuple | list) else (out,)
        self.functions(methods, (answer, given, answer[:1], given[:1]))

    def functions(
        self, functions: Functions, likely: tuple[tuple[Any, ...], ...] = (), anew: bool = False
    ) -> None:  # fmt: skip
        """Calls those that nothing has reached: with what is ``likely``, as far as it fits, then with values by the
        names and uses of their parameters."""
        until = time.process_time() + MOST_SECONDS_EACH
        for name, function in functions.items():
            late = time.process_time() > until or starts(function)
            wanted = anew or self._unreached(function) or self._stopped(function)
            if wanted and (late or not self._ran(name, function, likely)):
                self.waiting[name] = function

    def again(self) -> None:
        """Tries once more what failed, modules in evaluation mode and without gradients: by now more is known of what
        the parameters are."""
        waiting = self.waiting
        owners = [f.__self__ for f in waiting.values() if inspect.ismethod(f) and isinstance(f.__self__, nn.Module)]
        training = [module for owner in owners for module in owner.modules() if module.training]
        for owner in owners:
            owner.eval()
        waiting, self.waiting = self.waiting, {}
        with torch.no_grad():
            self.functions(waiting)
        for module in training:
            module.training = True

    def _tried(self, code: CodeType, call: Callable[[], Any]) -> Any:
        """What a call answers; where it raises, the lines that ran count as before."""
        before = {file: set(lines) for file, lines in self.live.reached.items()}
        torch.manual_seed(0)
        try:
            out = self._watched(call)
            out = list(itertools.islice(out, MOST_ITEMS)) if inspect.isgenerator(out) else out
            _backward(out)
            return out
        except Exception:
            self.lines = len(self.live.reached[code.co_filename] - before.get(code.co_filename, set()))
            for file, lines in self.live.reached.items():
                lines &= before.get(file, set())
            raise

    def _missing(self, function: Callable[..., Any]) -> bool:
        code = getattr(inspect.unwrap(function), "__code__", None)
        return code is not None and self.live.recorder.is_user_code(code) and bool(self.live.missing(code))

    def _stopped(self, function: Callable[..., Any]) -> bool:
        """Whether a function that trains has begun, and has not come to a step."""
        return not self.live.recorder.steps and starts(function) and self._missing(function)

    def _unreached(self, function: Callable[..., Any]) -> bool:
        """Whether a function of the program's never ran."""
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is None or not self.live.recorder.is_user_code(code):
            return False
        lines = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
        return lines.isdisjoint(self.live.reached.get(code.co_filename, ()))

    def _ran(self, name: str, function: Callable[..., Any], likely: tuple[tuple[Any, ...], ...]) -> bool:
        """Whether a function came to its end on one of several guesses; the lines of one that raised did not run."""
        code = inspect.unwrap(function).__code__
        guesses = itertools.chain((g for g in likely if _takes(function, g)), self._arguments(function))
        named, failed, patience = self._by_name(function), "", Patience(MOST_SECONDS_EACH / 2)
        for arguments in itertools.takewhile(lambda _: patience.left, itertools.islice(guesses, MOST_GUESSES)):

            def mend(error: Exception) -> bool:
                return mended(error) or missed(function, error, named, self.guesses)

            try:
                call = partial(fitted, lambda *a: function(*a, **named), arguments, mend)
                self._tried(code, partial(_answer_of, call))
            except Exception as raised:  # the user's function, given guesses: others follow
                failed = failed or f"{type(patience.met(raised)).__name__}: {raised}"
                if self.lines > self.furthest.get(name, (0,))[0]:
                    self.furthest[name] = self.lines, arguments
                continue
            self.replace(f"{name}(…)", "nothing calls it; called with values by the names of its parameters")
            self.answered[name] = function, arguments, named
            failed = ""
            break
        value = {"failed": failed[:300]}
        self.live.recorder("run.tried", name, value, line=code.co_firstlineno, file=code.co_filename)
        return not failed

    def _arguments(self, function: Callable[..., Any]) -> Iterator[tuple[Any, ...]]:
        used = uses(function)
        wanted = [p for p in signature_of(function).parameters.values()
                  if p.default is p.empty and p.kind in POSITIONAL]  # fmt: skip
        options = [list(itertools.islice(self._values(p, used.get(p.name, Use())), 5)) for p in wanted]
        yield from combined(options, 40)

    def _values(self, p: inspect.Parameter, use: Use) -> Iterator[Any]:
        return itertools.chain(annotated(p.annotation, self.guesses), self.guesses.of_call(p, use))

    def _by_name(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Values for what a function takes by name alone, and for what it reads of its ``**kwargs``."""
        used = uses(function)
        own = [
            p for p in signature_of(function).parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        ]
        likely = {p.name: self._values(p, used.get(p.name, Use())) for p in own}
        return {name: next(values, None) for name, values in likely.items()} | _named(function)

    def _watched(self, call: Callable[[], Any]) -> Any:
        """What a call answers; where it comes to its end, the names of the program's functions in it are remembered."""
        met: list[dict[str, Any]] = []
        before = sys.getprofile()

        def watch(frame: FrameType, event: Any, value: Any) -> None:
            if before is not None:  # who watches already goes on
                before(frame, event, value)
            if event == "return" and frame.f_code.co_filename in self.live.files and len(met) < 200:
                met.append(dict(frame.f_locals))

        sys.setprofile(watch)
        try:
            out = call()
        finally:
            sys.setprofile(before)
        for names in met:
            self.guesses.see(names)
        return out


def _answer_of(call: Callable[[], tuple[Any, Any]]) -> Any:
    return call()[0]


def starts(function: Callable[..., Any]) -> bool:
    """Whether a function is where a program starts: it trains, or reads a command line."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and (code.co_name == "main" or bool({"backward", "argv"} & set(code.co_names)))


class Patience:
    """How long guesses go on: for some seconds, and until they have met one and the same failure several times."""

    def __init__(self, seconds: float) -> None:
        self.until = time.process_time() + seconds
        self.failures: Counter[str] = Counter()

    @property
    def left(self) -> bool:
        return time.process_time() < self.until and max(self.failures.values(), default=0) < MOST_ALIKE

    def met(self, error: Exception) -> Exception:
        """Notes a failure; numbers in its message do not make it another."""
        self.failures[f"{type(error).__name__}{re.sub(r'[0-9]+', '', str(error))}"] += 1
        return error


def _takes(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether a function can be called with so many arguments, and does not need fewer or more."""
    parameters = inspect.signature(function).parameters.values()
    wanted = [p for p in parameters if p.default is p.empty and p.kind in POSITIONAL]
    return len(wanted) == len(arguments) or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _named(function: Callable[..., Any]) -> dict[str, Any]:
    """Values for what a function reads of its ``**kwargs`` by name."""
    used = uses(function)
    rest = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD]
    return {key: fragments.setting(key) for name in rest for key in used.get(name, Use()).keys if key.isidentifier()}


def _variable(kind: type) -> str:
    """A name in the program's style for what was built: ``unet`` of ``Unet``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def _backward(out: Any) -> None:
    from bowerbird.reading.running.observe.modules import tensors

    parts = [t.float().pow(2).mean() for t in tensors(out) if t.requires_grad and t.is_floating_point()]
    if parts:
        torch.stack(parts).sum().backward()
