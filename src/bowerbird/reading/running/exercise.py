"""Exercises what a program only defines: builds its modules from inferred arguments, calls them with inferred inputs.

Arguments are inferred from defaults, annotations and names; inputs from the first layer and from the parameters of
``forward``.  Candidates are tried until one works; what was tried is said.
"""

import inspect
import itertools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.building import Replace, candidates, module_for, said
from bowerbird.reading.running.calling import called, inputs, values
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.uses import Use, uses

MOST_SECONDS_EACH = 1.5
MOST_GUESSES = 12


_SIDES = re.compile(r"size|resolution|^(h|w|height|width)$", re.I)


def exercise(live: Live, wanted: str | None, replace: Replace) -> None:
    """Builds and calls every module class of the program that was not called while it ran."""
    classes = [k for k in live.classes().values() if issubclass(k, nn.Module) and not inspect.isabstract(k)]
    if wanted is not None:
        classes = [k for k in classes if k.__name__ == wanted] or classes
    for kind in sorted(classes, key=lambda k: -(live.line_of(k) or 0)):
        done = {type(m) for m in live.names.modules() if live.inputs(m) is not None}
        if kind in done:
            continue
        made = next((m for m in live.modules(kind.__name__).values()), None)
        if made is not None and _called(made, kind, live, replace) is None:
            continue
        _tried(kind, live, replace)
        live.roots = live.refreshed()
    for plain in [k for k in live.classes().values() if not issubclass(k, nn.Module)]:
        _made_plain(plain, live, replace)
    if wanted is None:
        _functions(live.functions(), live, replace)


def _functions(
    functions: dict[str, Callable[..., Any]], live: Live, replace: Replace, likely: tuple[tuple[Any, ...], ...] = ()
) -> None:
    """Calls those that nothing has reached: with what is ``likely``, as far as it fits, then with values by the names
    and uses of their parameters."""
    until = time.process_time() + MOST_SECONDS_EACH
    for name, function in functions.items():
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is None or name == "main" or "backward" in code.co_names or "argv" in code.co_names:
            continue
        lines = {line for _, _, line in code.co_lines() if line is not None and line != code.co_firstlineno}
        if not lines.isdisjoint(live.reached.get(code.co_filename, ())):
            continue
        guesses = itertools.chain((g for g in likely if _takes(function, g)), _arguments(function, live, replace))
        named = _named(function)
        live.recorder("run.tried", name, {}, line=code.co_firstlineno, file=code.co_filename)
        for arguments in itertools.islice(guesses, MOST_GUESSES):
            if time.process_time() > until:
                return
            before = {file: set(lines) for file, lines in live.reached.items()}
            try:
                torch.manual_seed(0)
                _backward(function(*arguments, **named))
            except Exception:  # the user's function, given guesses: others follow, and it did not run
                for file, lines in live.reached.items():
                    lines &= before.get(file, set())
                continue
            replace(f"{name}(…)", "nothing calls it; called with values by the names of its parameters")
            break


def _takes(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether a function can be called with so many arguments, and does not need fewer or more."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(needed) == len(arguments) or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _named(function: Callable[..., Any]) -> dict[str, Any]:
    """Values for what a function reads of its ``**kwargs`` by name."""
    used = uses(function)
    rest = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD]
    return {key: fragments.setting(key) for name in rest for key in used.get(name, Use()).keys if key.isidentifier()}


def _arguments(function: Callable[..., Any], live: Live, replace: Replace) -> Iterator[tuple[Any, ...]]:
    used = uses(function)
    options = []
    for p in inspect.signature(function).parameters.values():
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            options.append(list(itertools.islice(_guesses(p, used.get(p.name, Use()), live, replace), 4)))
    yield from zip(*options, strict=False) if options else ((),)
    yield from itertools.islice(itertools.product(*options), 40)


def _guesses(parameter: inspect.Parameter, use: Use, live: Live, replace: Replace) -> Iterator[Any]:
    """Values for a parameter of a function: numbers where only its name is known, tensors where its use says so."""
    name, note = parameter.name, str(parameter.annotation)
    if use.called and not use.is_tensor:
        yield module_for(name, live, replace, 0)
    elif use.is_settings:
        yield fragments.Options()
    elif use.iterated and not use.is_tensor:
        yield [torch.randn(4, 6), torch.randn(4, 6)]
        yield [nn.Parameter(torch.randn(4, 6))]
        yield ["a", "b"]
    elif not use.is_tensor and ("int" in note or "float" in note or "str" in note or fragments.known(name)):
        yield fragments.setting(name)
        yield from values(name, nn.Identity())
    else:
        yield from (torch.randn(4, 12), torch.randn(4, 3, 16, 16), torch.randint(0, 4, (4,)))
        yield fragments.setting(name)


def _made_plain(kind: type, live: Live, replace: Replace) -> None:
    """An instance of a class that is no module (a diffusion process, a schedule), its loss if it has one, and what else
    can be called with guesses."""
    if any(isinstance(value, kind) for value in live.namespace.values()) or issubclass(kind, BaseException):
        return
    for arguments in itertools.islice(candidates(kind, live, replace), 4):
        try:
            made = kind(**arguments)
        except Exception:  # the user's constructor, given guesses: others follow
            continue
        given = ", ".join(f"{k}={said(v)}" for k, v in arguments.items())
        replace(f"{kind.__name__}({given})", "the program only defines it; built with these arguments")
        if _PROCESSES & set(vars(kind)):
            live.namespace[_variable(kind)] = made
        _functions(_methods(made, kind), live, replace)
        return


_PROCESSES = frozenset(
    "loss p_losses q_sample p_sample sample forward add_noise training_loss training_losses step q_xt_x0 "
    "sample_timesteps noise_images p_mean_variance q_posterior update_model_average update_average step_ema".split()
)


def _methods(made: Any, kind: type) -> dict[str, Callable[..., Any]]:
    """What can be called of an object, by the names that its class gives it."""
    names = [n for n, f in vars(kind).items() if inspect.isfunction(f) and (n[0] != "_" or n == "__call__")]
    return {
        f"{kind.__name__}.{name}": getattr(made, name) for name in names if name not in ("forward", "training_step")
    }


def _tried(kind: type[nn.Module], live: Live, replace: Replace) -> None:
    """Builds a class with one set of arguments after another until a call works; keeps the last that could be built."""
    until = time.process_time() + MOST_SECONDS_EACH * 2
    failure: Exception | None = None
    kept: nn.Module | None = None
    for arguments in candidates(kind, live, replace):
        if time.process_time() > until:
            break
        try:
            torch.manual_seed(0)
            module = kind(**arguments)
        except Exception as raised:  # the user's constructor, given guesses
            failure = failure or raised
            continue
        given = ", ".join(f"{k}={said(v)}" for k, v in arguments.items())
        if kept is None:
            replace(f"{kind.__name__}({given})", "the program only defines it; built with these arguments")
        kept = module
        live.namespace[_variable(kind)] = module
        sides = tuple(v for n, v in arguments.items() if re.search(_SIDES, n) and isinstance(v, int) and 3 < v <= 256)
        raised_by_call = _called(module, kind, live, replace, sides)
        if raised_by_call is None:
            return
        failure = raised_by_call
    if failure is not None:
        live.recorder.exception(failure, phase="exercise")


def _variable(kind: type) -> str:
    """A name in the program's style for what was built: ``unet`` of ``Unet``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def _called(
    module: nn.Module, kind: type[nn.Module], live: Live, replace: Replace, sides: tuple[int, ...] = ()
) -> Exception | None:
    """Tries inputs until a call works, gradients back to the parameters; returns the first failure if none does."""
    error: Exception | None = None
    until = time.process_time() + MOST_SECONDS_EACH
    for guess in inputs(module, sides):
        if time.process_time() > until:
            break
        try:
            out, given = called(module, guess, forget=live.forget_call)
        except Exception as raised:  # the user's forward, given guesses
            error = error or raised
            continue
        shapes = ", ".join(str(list(x.shape)) if isinstance(x, torch.Tensor) else type(x).__name__ for x in given)
        replace(f"input of {kind.__name__}", f"the program does not call it; given tensors of shape {shapes}")
        _backward(out)
        answer = tuple(out) if isinstance(out, tuple | list) else (out,)
        _functions(_methods(module, kind), live, replace, (answer, given, answer[:1]))
        return None
    return error or RuntimeError("no input was tried in time")


def _backward(out: Any) -> None:
    from bowerbird.reading.running.observe.modules import tensors

    parts = [t.float().pow(2).mean() for t in tensors(out) if t.requires_grad and t.is_floating_point()]
    if parts:
        torch.stack(parts).sum().backward()
