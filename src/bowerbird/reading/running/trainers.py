"""Runs the training that a program only defines: a class with a method that trains, or a function that does.

What it takes is made up by name: settings, a loader of pictures or tokens, networks of the program's own classes, an
optimiser of each, a loss.  Several shapes of pictures are tried until an optimiser has stepped.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType
from typing import Any

from torch import nn

from bowerbird.reading.running.building import built, candidates, mended
from bowerbird.reading.running.guesses import Guesses, Replace
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.standins.data import Loader
from bowerbird.reading.running.standins.lightning import Trainer
from bowerbird.reading.running.uses import Use, uses

SHAPES = ((1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64), (1, 64, 64), (32,))
"""Of pictures; the last is a row of tokens."""
MOST_TRAINERS = 3
MOST_MENDED = 4
Started = Callable[[Guesses], None]


def exercise(live: Live, replace: Replace, steps: Callable[[], int]) -> None:
    """Calls what trains, outermost first, until an optimiser has stepped: with one shape of pictures after another."""
    for name, start in itertools.islice(_trainers(live), MOST_TRAINERS):
        failure: Exception | None = None
        known = len(live.names.created)
        for shape in SHAPES:
            live.names.forget_after(known)
            try:
                start(Guesses(live, replace, shape))
            except Exception as raised:  # the user's training, given guesses: another shape may do
                failure = raised
            if steps():
                replace(name, f"the program only defines it; called with {_said(shape)}")
                return
        if failure is not None:
            live.recorder.exception(failure, phase="exercise")
        live.roots = live.refreshed()


def _said(shape: tuple[int, ...]) -> str:
    return f"pictures of {shape}" if len(shape) > 1 else f"rows of {shape[0]} tokens"


def _trainers(live: Live) -> Iterator[tuple[str, Started]]:
    for kind in live.classes().values():
        if hasattr(kind, "training_step"):
            yield f"{kind.__name__}(…).training_step(…)", partial(_by_steps, kind)
        methods = {n: f for n, f in vars(kind).items() if inspect.isfunction(f)}
        for name in _outermost(methods)[:2] if not issubclass(kind, nn.Module) else ():
            yield f"{kind.__name__}(…).{name}(…)", partial(_by_class, kind, name)
    functions = live.functions()
    for name in _outermost(functions):
        yield f"{name}(…)", partial(_call, functions[name])


def _outermost(functions: dict[str, Any]) -> list[str]:
    """The functions that train, by themselves or through another of them; first those that none of them calls."""
    plain = {name: inspect.unwrap(function) for name, function in functions.items()}
    words = {name: _words(function.__code__) for name, function in plain.items() if inspect.isfunction(function)}
    training = {name for name, said in words.items() if "backward" in said}
    while more := {name for name, said in words.items() if name not in training and said & training}:
        training |= more
    inner = {callee for name in training for callee in words[name] & training if callee != name}
    return sorted(training - {"__init__"}, key=lambda name: (name in inner, "train" not in name.lower(), name))


def _words(code: CodeType) -> set[str]:
    inner = [_words(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _by_class(kind: type, name: str, guesses: Guesses) -> None:
    """Builds a class and calls its training method; pictures come in batches of the size that it keeps."""
    arguments = {n: guesses.sized(value) for n, value in next(candidates(kind, guesses)).items()}
    trainer, _ = built(kind, guesses, arguments)
    guesses.live.namespace[kind.__name__.lower()] = trainer
    kept = (getattr(trainer, n, None) for n in ("batch_size", "bs"))
    sizes = (size for size in kept if isinstance(size, int) and not isinstance(size, bool) and size > 0)
    guesses.batch = min(next(sizes, guesses.batch), 64)
    _call(getattr(trainer, name), guesses)


def _by_steps(kind: type, guesses: Guesses) -> None:
    """Builds a module of Lightning and takes a few of its training steps."""
    module, _ = built(kind, guesses, next(candidates(kind, guesses)))
    guesses.live.namespace[kind.__name__.lower()] = module
    loader = Loader(guesses.shape, guesses.batch)
    for _ in range(MOST_MENDED):
        try:
            Trainer().fit(module, loader)
            return
        except Exception as error:  # the user's training step, given pictures
            if not mended(error):
                raise


def _call(function: Callable[..., Any], guesses: Guesses) -> None:
    used = uses(function)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.default is p.empty]
    for _ in range(MOST_MENDED):
        try:
            function(*[guesses.of_training(p, used.get(p.name, Use())) for p in wanted])
            return
        except Exception as error:  # the user's training, given guesses
            if not mended(error):
                raise
