"""Matched random numbers: every draw comes from a stream of its own, so that versions that draw in another order agree.

A draw is known by its kind (normal, uniform, …), how many numbers it gives, and how often that was asked before.  Two
versions of one algorithm then see the same noise although one of them draws its noise earlier, builds its networks in
another order, or samples a picture in between.  Seeds that the user sets are renamed by order of appearance: a loop
that seeds again and again keeps its meaning, another seed is no other algorithm.
"""

import random
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bowerbird.reading.running.putting import put
from bowerbird.reading.running.recorder import Recorder

_KINDS = {
    "randn": "normal", "rand": "uniform", "native_dropout": "bernoulli", "randint": "random",
    "standard_normal": "normal", "gauss": "normal", "normalvariate": "normal", "randrange": "randint",
    "random_sample": "uniform",
}  # fmt: skip
_NUMPY = (
    "normal uniform randn rand random random_sample standard_normal randint choice permutation shuffle exponential "
    "beta binomial poisson"
).split()
_PYTHON = "random uniform randint randrange choice choices shuffle sample gauss normalvariate betavariate".split()


class Streams(TorchDispatchMode):
    """The mode for torch; ``install`` does the same for numpy and ``random``.

    ``by_step`` numbers the draws within one optimiser step, and those with gradient apart from those without: what one
    step draws more does not shift the next.  Without it they are numbered over the whole run.
    """

    def __init__(self, recorder: Recorder, seed: int, by_step: bool) -> None:
        super().__init__()
        self.recorder, self.seed, self.by_step = recorder, seed, by_step
        self.counts: Counter[tuple[Any, ...]] = Counter()
        self.labels: dict[Any, int] = {}
        self.label = 0
        self._random: dict[Any, str] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler to keep it out of here; nothing is compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = self._random.get(func)
        if kind is None:
            kind = self._random[func] = _kind(func)
        if kind and kwargs.get("generator") in (None, torch.default_generator):
            torch.default_generator.manual_seed(self.next_seed(kind, _numbers(args)))
        return func(*args, **kwargs)

    def next_seed(self, kind: str, count: int) -> int:
        """The seed of the next draw of this kind and size."""
        key: tuple[Any, ...] = (kind, count, self.label)
        if self.by_step:
            key += (self.recorder.steps, torch.is_grad_enabled())
        self.counts[key] += 1
        return zlib.crc32(repr((self.seed, key, self.counts[key])).encode())

    def seeded(self, seed: Any = None) -> None:
        """The user sets a seed: the first time it changes nothing, later the streams start again under its label."""
        first = not self.labels
        self.label = self.labels.setdefault(str(seed), len(self.labels))
        if not first:
            self.counts = Counter({key: n for key, n in self.counts.items() if key[2] != self.label})

    def install(self) -> None:
        """Puts numpy and ``random`` on streams too, and lets nobody seed by the clock."""
        seed_numpy, seed_python, create = np.random.seed, random.seed, np.random.default_rng
        for name in _NUMPY:
            put(np.random, **{name: self._streamed(name, getattr(np.random, name), seed_numpy, "numpy")})
        for name in _PYTHON:
            put(random, **{name: self._streamed(name, getattr(random, name), seed_python, "random")})

        def seeded(seed: Any = None, *_: Any, **__: Any) -> Any:
            self.seeded(seed)
            return torch.default_generator

        def generator(seed: Any = None) -> np.random.Generator:
            label = self.labels.setdefault(f"generator {seed}", len(self.labels))
            return create(self.next_seed("generator", label))

        put(torch, manual_seed=seeded, seed=lambda: 0)
        put(torch.random, manual_seed=seeded, seed=lambda: 0)
        put(np.random, seed=lambda *_: None, default_rng=generator)
        put(random, seed=lambda *_, **__: None)

    def _streamed(self, name: str, draw: Callable[..., Any], seed: Callable[[int], Any], source: str) -> Any:
        kind = f"{source} {_KINDS.get(name, name)}"

        def drawn(*args: Any, **kwargs: Any) -> Any:
            seed(self.next_seed(kind, zlib.crc32(repr(kwargs.get("size", "")).encode())))
            return draw(*args, **kwargs)

        return drawn


def _kind(func: Any) -> str:
    """The distribution that an operation draws from, empty for one that draws nothing."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return ""
    name = func.overloadpacket.__name__.rstrip("_").removesuffix("_like")
    return _KINDS.get(name, name)


def _numbers(args: Any) -> int:
    """How many numbers a draw gives, from its arguments."""
    for value in args:
        if isinstance(value, torch.Tensor):
            return value.numel()
    for value in args:
        if isinstance(value, list | tuple | torch.Size):
            return int(np.prod([int(n) for n in value])) if value else 1
    return int(args[0]) if args and isinstance(args[0], int) else 1
