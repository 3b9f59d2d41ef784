"""Whether a number that the program reports depends on how its examples are batched.

A function of the program that walks a loader and returns or prints numbers is called twice on the same examples, in
batches of six and of three; where it trains, its steps do nothing.  A number that doubles or halves with them is a sum
of means, or a mean of sums.
"""

import contextlib
import inspect
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe

EXAMPLES, SIZES = 12, (6, 3)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?")


class _Few(Dataset[Any]):
    """The first examples of a data set; ``asked`` counts them."""

    def __init__(self, whole: Any) -> None:
        self.whole, self.asked = whole, 0

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, place: int) -> Any:
        self.asked += 1
        return self.whole[place]


@probe("batch_size")
def batch_size(live: Live) -> None:
    """Records ``property.batch size`` for each function that evaluates on a loader."""
    for name, values in (*live.locals.items(), *live.measured.items()):
        function = live.namespace.get(name)
        code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        if function is None or code is None or not live.recorder.is_user_code(code):
            continue
        given = {p: values[p] for p in code.co_varnames[: code.co_argcount] if p in values}
        loaders = {p: v for p, v in given.items() if _walks(v)}
        common = {n: live.namespace[n] for n in code.co_names if _walks(live.namespace.get(n))}
        if len(given) < code.co_argcount or len({**loaders, **common}) != 1:
            continue
        (name_of_loader,) = {**loaders, **common}
        numbers = [_called(live, function, given, common, name_of_loader, size) for size in SIZES]
        if all(numbers) and len(numbers[0]) == len(numbers[1]):
            _told(live, name, code.co_firstlineno, code.co_filename, numbers)


def _walks(value: Any) -> bool:
    try:
        return isinstance(value, DataLoader) and len(value.dataset) >= EXAMPLES  # type: ignore[arg-type]
    except TypeError:
        return False


def _called(
    live: Live, function: Callable[..., Any], given: dict[str, Any], common: dict[str, Any], name: str, size: int
) -> list[float]:
    """The numbers that a function returns or prints about the examples in batches of one size."""
    loader = {**given, **common}[name]
    few = _Few(loader.dataset)
    other: DataLoader[Any] = DataLoader(few, batch_size=size, collate_fn=loader.collate_fn)
    modules = [v for v in (*given.values(), *live.roots.values()) if isinstance(v, nn.Module)]
    printed = io.StringIO()
    with live.frozen(*modules), _still(live), torch.enable_grad(), contextlib.redirect_stdout(printed):
        live.seed(0)
        try:
            if name in common:
                live.namespace[name] = other
            out = live.call(function, **{**given, **({} if name in common else {name: other})})
        except Exception:  # it wants other arguments now
            return []
        finally:
            live.namespace.update(common)
    return list(_numbers(out, printed.getvalue())) if few.asked == EXAMPLES else []


@contextlib.contextmanager
def _still(live: Live) -> Iterator[None]:
    """Inside, no optimiser moves anything."""
    optimizers = list(live.optimizers.values())
    for optimizer in optimizers:
        optimizer.__dict__["step"] = lambda *_, **__: None
    try:
        yield
    finally:
        for optimizer in optimizers:
            optimizer.__dict__.pop("step", None)


def _numbers(out: Any, printed: str) -> Iterator[float]:
    """What was returned, and what the last line that was printed says."""
    for value in out if isinstance(out, tuple | list) else (out,):
        if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.numel() == 1):
            yield float(value)
    yield from map(float, _NUMBER.findall((["", *printed.split("\n")])[-2])[:8])


def _told(live: Live, name: str, line: int, file: str, numbers: list[list[float]]) -> None:
    factor = SIZES[0] / SIZES[1]
    ratios = [a / b if b else 1.0 for a, b in zip(*numbers, strict=True)]
    off = next((i for i, r in enumerate(ratios) if min(abs(r / factor - 1), abs(r * factor - 1)) < 0.05), None)
    if off is None and any(abs(r - 1) > 0.1 for r in ratios):
        return  # chance, or a batch's own statistics
    said = "what it reports does not depend on the batch size"
    if off is not None:
        a, b = numbers[0][off], numbers[1][off]
        said = (
            f"the same {EXAMPLES} examples give {a:.4g} in batches of {SIZES[0]} and {b:.4g} in batches of {SIZES[1]}"
        )
    live.record("property.batch size", name, {"holds": off is None, "said": said}, line=line, file=file)
