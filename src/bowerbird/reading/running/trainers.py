"""Runs the training that a program only defines: a class with a method that trains, or a function that does.

What it takes is made up by name: settings, a loader of pictures, networks of the program's own classes, an optimiser of
each, a loss.  Several shapes of pictures are tried until an optimiser has stepped.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.building import BATCH, candidates, module_for
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.standins.anything import Anything
from bowerbird.reading.running.standins.data import Loader
from bowerbird.reading.running.uses import Use, uses

Replace = Callable[[str, str], None]
SHAPES = ((1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64), (1, 64, 64))
MOST_TRAINERS = 3


def exercise(live: Live, replace: Replace, steps: Callable[[], int]) -> None:
    """Calls what trains, outermost first, until an optimiser has stepped."""
    for trainer in itertools.islice(_trainers(live), MOST_TRAINERS):
        if steps():
            return
        trainer(live, replace, steps)
        live.roots = live.refreshed()


Trainer = Callable[[Live, Replace, Callable[[], int]], None]


def _trainers(live: Live) -> Iterator[Trainer]:
    for kind in live.classes().values():
        if issubclass(kind, nn.Module):
            continue
        methods = _outermost({n: f for n, f in vars(kind).items() if inspect.isfunction(f)})
        for name in methods[:2]:
            yield lambda *told, kind=kind, name=name: _by_class(kind, name, *told)
    functions = live.functions()
    for name in _outermost(functions):
        yield lambda *told, name=name: _by_function(name, functions[name], *told)


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
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _words(constant)
    return found


def _by_class(kind: type, name: str, live: Live, replace: Replace, steps: Callable[[], int]) -> None:
    """Builds a class and calls its training method, with one shape of pictures after another."""
    failure: Exception | None = None
    known = len(live.names.created)
    for shape in SHAPES:
        live.names.forget_after(known)
        try:
            arguments = next(candidates(kind, live, replace))
            trainer = kind(**{n: _settings(value, shape) for n, value in arguments.items()})
        except Exception as raised:  # the user's constructor, given guesses
            failure = failure or raised
            continue
        live.namespace[kind.__name__.lower()] = trainer
        size = next((getattr(trainer, n) for n in ("batch_size", "bs") if _whole(getattr(trainer, n, None))), BATCH)
        method = getattr(trainer, name)
        failure = _attempt(method, _Guesses(live, replace, shape, min(size, 64)), steps) or failure
        if steps():
            replace(f"{kind.__name__}(…).{name}(…)", f"the program only defines it; called with pictures of {shape}")
            return
    if failure is not None:
        live.recorder.exception(failure, phase="exercise")


def _by_function(name: str, function: Any, live: Live, replace: Replace, steps: Callable[[], int]) -> None:
    failure: Exception | None = None
    known = len(live.names.created)
    for shape in SHAPES:
        live.names.forget_after(known)
        failure = _attempt(function, _Guesses(live, replace, shape, BATCH), steps) or failure
        if steps():
            replace(f"{name}(…)", f"the program only defines it; called with pictures of {shape}")
            return
    if failure is not None:
        live.recorder.exception(failure, phase="exercise")


def _attempt(function: Callable[..., Any], guesses: "_Guesses", steps: Callable[[], int]) -> Exception | None:
    try:
        guesses.used = uses(function)
        given = [guesses.value(p) for p in _needed(function)]
        function(*given)
    except Exception as raised:  # the user's training, given guesses: another shape may do
        return None if steps() else raised
    return None


def _needed(function: Callable[..., Any]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return [p for p in found if p.kind in kinds and p.default is inspect.Parameter.empty]


def _settings(value: Any, shape: tuple[int, int, int]) -> Any:
    """Settings and loaders that agree with the pictures."""
    if isinstance(value, Loader):
        return Loader(shape, BATCH)
    if isinstance(value, fragments.Options):
        value.channels = value.in_channels = value.img_channels = value.nc = shape[0]
        value.img_size = value.image_size = value.input_size = value.imageSize = shape[1]
        value.batch_size = BATCH
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class StandInLoss(nn.Module):
    """A loss of whatever it is given, for training that takes its criterion from elsewhere."""

    def forward(self, output: torch.Tensor, *targets: Any) -> torch.Tensor:
        target = targets[0] if targets else None
        if isinstance(target, torch.Tensor) and target.shape == output.shape:
            output = output - target
        return output.float().pow(2).mean()


_LOADERS = re.compile(r"loader|batches|iterator|^dl$|_dl$|data_?(set|iter)?$", re.I)
_NETWORKS = re.compile(
    r"model|net|generator|discriminator|critic|encoder|decoder|^[gd]$|_[gd]$|^(gen|disc|vae|rnn)$", re.I
)
_LOSSES = re.compile(r"criterion|loss|^bce$|^mse$|objective", re.I)


_OBJECTS = re.compile(rf"{_LOADERS.pattern}|{_NETWORKS.pattern}|{_LOSSES.pattern}|optim|sched|scaler|logg|writer", re.I)


class _Guesses:
    """What a training function is given, by the names of its arguments; networks before their optimisers."""

    def __init__(self, live: Live, replace: Replace, shape: tuple[int, int, int], batch: int) -> None:
        self.live, self.replace, self.shape, self.batch = live, replace, shape, batch
        self.networks: dict[str, nn.Module] = {}
        self.used: dict[str, Use] = {}

    def _loss(self) -> torch.Tensor:
        """A loss that depends on all parameters that there are."""
        modules = list(self.networks.values()) or list(self.live.roots.values())
        parts = [p.square().mean() for m in modules for p in m.parameters() if p.is_floating_point()]
        return torch.stack(parts).sum() if parts else torch.zeros((), requires_grad=True)

    def value(self, parameter: inspect.Parameter) -> Any:
        name = parameter.name
        lower = name.lower()
        use = self.used.get(name, Use())
        if "backward" in use.attributes:
            return self._loss()
        if use.is_settings and not _OBJECTS.search(lower):
            return _settings(fragments.Options(), self.shape)
        if lower in ("args", "opt", "config", "cfg", "hparams", "params", "conf", "options"):
            return _settings(fragments.Options(), self.shape)
        if lower == "device":
            return torch.device("cpu")
        if "optim" in lower or lower in ("opt_g", "opt_d", "g_opt", "d_opt"):
            return self._optimizer(lower)
        if lower in ("scaler", "writer", "logger", "scheduler", "lr_scheduler", "wandb", "ema"):
            return torch.cuda.amp.GradScaler() if lower == "scaler" else Anything(name)
        if _LOADERS.search(lower):
            return Loader(self.shape, self.batch)
        if _LOSSES.search(lower):
            return StandInLoss()
        if _NETWORKS.search(lower):
            return self._network(name)
        return fragments.setting(name)

    def _network(self, name: str) -> nn.Module:
        bound = self.live.namespace.get(name)
        network = bound if isinstance(bound, nn.Module) else module_for(name, self.live, self.replace, 0)
        if all(network is not made for made in self.live.names.modules()):
            self.live.names.created.append((network, self.live.main, None))
        self.networks[name] = network
        self.live.namespace.setdefault(name, network)
        return network

    def _optimizer(self, lower: str) -> torch.optim.Optimizer:
        letters = re.sub(r"optim(izer)?|opt|_", " ", lower).split()
        own = [m for n, m in self.networks.items() if letters and n.lower()[:1] == letters[0][:1]]
        modules = own or list(self.networks.values()) or [m for m in self.live.roots.values() if any(m.parameters())]
        return torch.optim.Adam([p for m in modules for p in m.parameters()] or [nn.Parameter(torch.zeros(1))], lr=1e-3)
