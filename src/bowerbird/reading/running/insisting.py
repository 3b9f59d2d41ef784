"""A second go at what guesses did not bring to run: switches are turned, and what fails is passed over."""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from bowerbird.reading.running.building import built, candidates, signature_of
from bowerbird.reading.running.exercise import MOST_SECONDS_EACH, Exercise, Patience, starts
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.uses import Use, uses


class Insisting(Exercise):
    """Exercise that goes on where every guess raised, and where a branch waits for another choice."""

    def insist(self) -> None:
        """Runs what has not run yet: branches behind other choices of its switches, then functions and classes that
        raised on every guess, with what fails in them passed over."""
        for name, function in self.live.functions().items():
            if self._unreached(function) or self._stopped(function):
                self.waiting.setdefault(name, function)
        for own in (True, False):  # what the file defines itself before what it imports
            self._insist(own)

    def _insist(self, own: bool) -> None:
        def among(thing: Any) -> bool:
            return (self.live.place_of(thing)[0] == self.live.main) is own

        starting = sorted(self.waiting.items(), key=lambda pair: not starts(pair[1]))
        for name, function in ((n, f) for n, f in starting if among(f)):
            if self._unreached(function) or self._stopped(function):
                self._passing(name, function)
        for kind in [kind for kind in self.unbuilt if among(kind)]:
            self._forced(kind)
        for name, (function, given, named) in [row for row in self.answered.items() if among(row[1][0])]:
            self._varied(name, function, given, named)
        for kind in (k for k in self.live.classes().values() if among(k) and k not in self.unbuilt):
            if not inspect.isabstract(kind):
                self._switched(kind, self.built.get(kind) or next(candidates(kind, self.guesses), {}))

    def _varied(self, name: str, function: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Calls a function anew with one switch turned after another, as long as lines of it have not run."""
        code = inspect.unwrap(function).__code__
        patience, turned = Patience(MOST_SECONDS_EACH), _turned(function, given, self)
        for more in itertools.takewhile(lambda _: patience.left and self.live.missing(code), turned):
            try:
                self._tried(code, partial(function, *given, **{**named, **more}))
            except Exception as raised:  # the user's function, given guesses
                patience.met(raised)

    def _switched(self, kind: type, arguments: dict[str, Any]) -> None:
        """Builds a class with one switch of its constructor turned after another, as long as lines of its methods have
        not run."""
        if not inspect.isfunction(vars(kind).get("__init__")):
            return
        for name, parameter in inspect.signature(kind).parameters.items():
            codes = [f.__code__ for f in vars(kind).values() if inspect.isfunction(f)]
            if not any(map(self.live.missing, codes)):
                return
            if not isinstance(parameter.default, bool) or name in arguments:
                continue
            with contextlib.suppress(Exception):  # the user's constructor, given another choice
                made, _ = built(kind, self.guesses, {**arguments, name: not parameter.default})
                if isinstance(made, nn.Module):
                    self._called(made, kind)
                else:
                    self.functions({n: f for n, f in self._methods(made, kind).items() if self._missing(f)}, anew=True)

    def _forced(self, kind: type) -> None:
        """An object of a class whose constructor raises, built all the same; its methods."""
        constructor = vars(kind).get("__init__")
        if not inspect.isfunction(constructor):
            return
        arguments = next(candidates(kind, self.guesses), {})
        with self.live.passing.over(constructor, self.by_name_and_use) as possible:
            made = None
            with contextlib.suppress(Exception):
                made = kind(**arguments) if possible else None
            self._tell(f"{kind.__name__}(…)", constructor)
        made = made if type(made) is kind else None
        self._of_object(made, kind)

    def _passing(self, name: str, function: Callable[..., Any]) -> None:
        """Calls a function with what brought it furthest, and passes over what fails."""
        _, given = self.furthest.get(name) or (0, next(self._arguments(function), ()))
        named = self._by_name(function)
        with self.live.passing.over(function, self.by_name_and_use) as possible:
            if possible:
                with contextlib.suppress(Exception, SystemExit):
                    self._watched(partial(function, *given, **named))
                self._varied(name, function, given, named)
                self._tell(f"{name}(…)", function)

    def by_name_and_use(self, name: str, use: Use) -> Any:
        """A value for a name that nothing could be bound to."""
        return next(self._values(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD), use), None)

    def _tell(self, name: str, function: Callable[..., Any]) -> None:
        """Says what was passed over in a call that has ended."""
        passed, code = self.live.passing.passed, inspect.unwrap(function).__code__
        if passed:
            line, first = next(iter(passed.items()))
            said = f"{len(passed)} of its statements failed and were passed over (first line {line}: {first[:80]})"
            self.replace(name, f"called with values by the names of its parameters; {said}")
            value = {"failed": first[:300], "passed": sorted(passed)}
            self.live.recorder("run.tried", name[:-3], value, line=code.co_firstlineno, file=code.co_filename)


def _turned(function: Callable[..., Any], given: tuple[Any, ...], work: Insisting) -> Iterator[dict[str, Any]]:
    """Other choices: of what a function takes and need not be given, then of switches among settings that it reads."""
    used = uses(function)
    for p in signature_of(function).parameters.values():
        use = used.get(p.name, Use())
        if isinstance(p.default, bool):
            yield {p.name: not p.default}
        elif p.default is None or (p.default is not p.empty and use.choices):
            yield from ({p.name: v} for v in itertools.islice(work._values(p, use), 2) if v is not None)
    names = inspect.unwrap(function).__code__.co_names
    for options in (value for value in given if isinstance(value, fragments.Options)):
        for name in (n for n in names if isinstance(vars(options).get(n), bool | int | str)):
            value = vars(options)[name]
            setattr(options, name, not value)
            yield {}
            setattr(options, name, value)
