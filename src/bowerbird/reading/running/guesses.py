"""Values for parameters that nobody gives: by what ran, by what the code reads of them, by annotation and by name.

First comes what the program's own code called so while it ran, then what its use says (settings, a module, a tensor),
then what its name says.  Values that belong together are made to fit elsewhere (``building``, ``refusals``).
"""

import argparse
import enum
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.shrinking import smaller
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.standins.anything import Anything
from bowerbird.reading.running.standins.data import TOKENS, Loader
from bowerbird.reading.running.standins.modules import StandInLoss, StandInNet
from bowerbird.reading.running.uses import Use

Replace = Callable[[str, str], None]
Shape = tuple[int, ...]
BATCH, LENGTH = 4, 12
MOST_SEEN = 3
_MODULES = (
    "model net network encoder decoder generator discriminator fn layer sublayer unet denoise_fn eps_model embed "
    "src_embed tgt_embed self_attn src_attn feed_forward backbone module block attn critic prior nn_model denoiser"
).split()
_WIDTHS = ("d_model", "dim_model", "n_model")
_SETTINGS = re.compile(r"^(config|cfg|args|opts?|hparams|hps?|params|conf|options)$")
_LOADERS = re.compile(r"loader|batches|iterator|^dl$|_dl$|data_?(set|iter)?$", re.I)
_NETWORKS = re.compile(
    r"model|net|generator|discriminator|critic|encoder|decoder|^[gd]$|_[gd]$|^(gen|disc|vae|rnn)$", re.I
)
_LOSSES = re.compile(r"criterion|loss|^bce$|^mse$|objective", re.I)
_OPTIMISERS = re.compile(r"optim|^(opt|[gd])_(g|d|opt)$")
_ROWS = re.compile(r"data$|corpus|tokens?$|ids$|^text|seq(uence)?s?$", re.I)
"""What may be one long row of tokens."""
_LOGGERS = ("writer", "logger", "scheduler", "lr_scheduler", "wandb", "ema", "callback")
_SIDES = r"^((img|image|input)_?(size|dim|res|resolution)|size|resolution)$"
_LATENTS = r"^(z_?dim|nz|n_?z|latent_?(dim|size)|noise_?(dim|size)|dim_?z|input_dim)$"
_TIMES = ("t", "time", "timestep", "timesteps", "step", "noise_level", "sigma", "ts", "t_steps")
_LABELS = ("label", "labels", "y", "c", "cls", "classes", "class_labels", "target", "targets")
_STATES = ("hidden", "state", "h", "hx", "prev_state")
_LATENT = ("z", "noise", "latent", "latents", "z_noise")
_HEADS = ("q", "k", "v", "query", "key", "value", "queries", "keys", "values")
_TOKENS = ("idx", "tokens", "input_ids", "src", "tgt", "trg", "ids", "inputs", "x", "input", "text", "token_ids")
_FIRST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear, nn.Embedding, nn.RNNBase,
    nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d,
)  # fmt: skip


class Guesses:
    """What parameters are given, with pictures of one shape; networks before their optimisers."""

    def __init__(self, live: Live, replace: Replace, shape: Shape = (3, 64, 64), batch: int = 8) -> None:
        self.live, self.replace, self.shape, self.batch = live, replace, shape, batch
        self.training = False
        """Whether what is made takes part in training, and so counts among the program's objects."""
        self.networks: dict[str, nn.Module] = {}
        self.seen: dict[str, list[Any]] = {}
        """What the program's own code called so while it ran, the latest first."""

    def see(self, names: dict[str, Any]) -> None:
        """Remembers values under the names that the program's code has for them."""
        for name, value in names.items():
            if isinstance(value, torch.Tensor | nn.Module | list | dict | int | float | np.ndarray) and name != "self":
                kept = value.detach() if isinstance(value, torch.Tensor) else value
                self.seen[name] = [kept, *self.seen.get(name, ())][:MOST_SEEN]

    # ------------------------------------------------------------------------------------- one value, or the likely

    def of_call(self, parameter: inspect.Parameter, use: Use) -> Iterator[Any]:
        """Values for a parameter of a function or method, likely ones first."""
        name, note = parameter.name, str(parameter.annotation)
        yield from self.seen.get(name, ())
        yield from use.choices[:2]
        if use.unpacked:
            yield batch(use.unpacked)
        thing = self.thing(parameter, use)
        if thing is not None:
            yield thing
        elif use.called and not use.is_tensor:
            yield self.network(name)
        elif "bool" in note or (use.tested and not use.is_tensor):
            yield from (True, False)
        elif re.search(r"shape|size$", name) and not use.is_tensor:
            yield from ((BATCH, 3, 16, 16), (BATCH, 8), fragments.setting(name))
        elif use.spread:
            yield fragments.Options()
        elif use.iterated and not use.is_tensor:
            tensors = [torch.randn(4, 6), torch.randn(4, 6)]
            yield from (tensors, [nn.Parameter(torch.randn(4, 6))], ["a", "b"], torch.randn(4, 12))
        elif not use.is_tensor and ("int" in note or "float" in note or "str" in note or fragments.known(name)):
            yield from (fragments.setting(name), 32)
            yield from _tensors(name.lower(), nn.Identity(), ())
        else:
            yield torch.randn(4, 12)
            if _ROWS.search(name):
                yield torch.randint(0, TOKENS, (256,))
            yield from (torch.randn(4, 3, 16, 16), torch.randint(0, 4, (4,)), fragments.setting(name))

    def of_training(self, parameter: inspect.Parameter, use: Use) -> Any:
        """The one value for a parameter of code that trains."""
        self.training = True
        thing = self.thing(parameter, use)
        return fragments.setting(parameter.name) if thing is None else thing

    def of_constructor(self, parameter: inspect.Parameter, use: Use, module: Callable[..., nn.Module]) -> Any:
        """The usual value for a parameter of a constructor; ``module`` makes one for a name."""
        name, note = parameter.name, str(parameter.annotation)
        kind = parameter.annotation
        if re.search(r"loader|batches$", name, re.I):
            return Loader(self.shape, self.batch)
        if "optim" in name.lower():
            return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module:
            return module(name, kind)
        if (use.is_settings or use.keys) and not _is_module(name):
            return self.settings(note)
        if (member := self._member(name)) is not None:
            return member
        if words := [choice for choice in use.choices if isinstance(choice, str)]:
            return words[0]
        if name == "betas" and "tuple" not in note.lower():
            return np.linspace(1e-4, 0.02, 1000)
        bound = self.live.namespace.get(name)
        if isinstance(bound, int | float | tuple) and not isinstance(bound, bool):
            return bound
        return self._of_constructor(name, note, use, module)

    def _of_constructor(self, name: str, note: str, use: Use, module: Callable[..., nn.Module]) -> Any:
        if _SETTINGS.match(name.lower()):
            return self.settings(note)
        if "Module" in note or ((_is_module(name) or use.is_module) and "int" not in note):
            return module(name)
        if any(k.__name__ == note.rpartition(".")[2].strip("'>") for k in self.live.classes().values()):
            return self.settings(note)
        if name in ("act", "activation", "nonlinearity", "act_fn", "norm_layer"):
            return nn.ReLU()
        if use.called and not use.is_tensor and "int" not in note:
            return module(name)
        if use.holds and not use.is_tensor and "str" not in note:
            return [0, 1]
        if "List" in note or "list" in note or "Sequence" in note:
            return [16, 32]
        if name.endswith(("_mults", "_mult", "dims", "sizes", "channels_list", "widths")):
            return [1, 2]
        if (use.sliced or use.attributes & {"shape", "size", "device", "dtype"}) and not fragments.known(name):
            return torch.randn(BATCH, 8, 16, 16)
        value = fragments.setting(name)
        whole = re.fullmatch(r"int|<class 'int'>", note) and isinstance(value, float)
        return False if "bool" in note else max(round(value), 4) if whole else value

    def thing(self, parameter: inspect.Parameter, use: Use) -> Any:
        """An object that a name or a use asks for: settings, a loader, a network, its optimiser, a loss; None of
        numbers and tensors."""
        lower = parameter.name.lower()
        objects = any(p.search(lower) for p in (_LOADERS, _NETWORKS, _LOSSES, _OPTIMISERS)) or lower in _LOGGERS
        if use.attributes & {"backward", "item"} and not use.called:
            return self._loss()
        if use.attributes & {"step", "zero_grad", "param_groups"}:
            return self._optimizer(lower)
        if (_SETTINGS.match(lower) and not use.iterated) or (use.is_settings and not objects):
            return self.sized(fragments.Options())
        if lower == "device":
            return torch.device("cpu")
        if lower == "scaler":
            return torch.cuda.amp.GradScaler()
        if _OPTIMISERS.search(lower):
            return self._optimizer(lower)
        if lower in _LOGGERS:
            return Anything(parameter.name)
        if _LOADERS.search(lower) and not use.is_tensor:
            return Loader(self.shape, self.batch)
        if _LOSSES.search(lower) and not use.is_tensor:
            return StandInLoss()
        number = "int" in str(parameter.annotation) or "str" in str(parameter.annotation)
        named = _NETWORKS.search(lower) and not use.is_tensor and not number and not re.search("dim|size|name", lower)
        if not (use.is_module or named):
            return None
        network = self.network(parameter.name)
        return StandInNet() if use.is_module and type(network) is nn.Identity else network

    # ------------------------------------------------------------------------------------------- things of each kind

    def of_kind(self, kind: type) -> Any:
        """An object of a library's class that training takes: an optimiser, a loader, settings, a device; else None."""
        if issubclass(kind, torch.optim.Optimizer):
            return self._optimizer("")
        if issubclass(kind, DataLoader):
            return Loader(self.shape, self.batch)
        if issubclass(kind, argparse.Namespace):
            return self.sized(fragments.Options())
        return torch.device("cpu") if kind is torch.device else None

    def settings(self, note: str) -> Any:
        """The program's own configuration class, with sizes that run quickly; settings that have every name without
        one."""
        kinds = [k for k in self.live.classes().values() if not issubclass(k, nn.Module)]
        named = [k for k in kinds if k.__name__ in note] or [k for k in kinds if "config" in k.__name__.lower()]
        for kind in named:
            try:
                made = kind()
            except Exception:  # a configuration that needs arguments: settings that have every name will do
                continue
            own = vars(made)
            for name, value in list(own.items()) if not any(hasattr(v, "__dict__") for v in own.values()) else ():
                if isinstance(value, int) and not isinstance(value, bool):
                    own[name] = smaller(name, value)
            return made
        return fragments.Options()

    def sized(self, value: Any) -> Any:
        """Settings and loaders that agree with the pictures."""
        if isinstance(value, Loader):
            return Loader(self.shape, self.batch)
        if isinstance(value, fragments.Options) and len(self.shape) == 3:
            channels, side, _ = self.shape
            vars(value).update(dict.fromkeys(("channels", "in_channels", "img_channels", "nc"), channels))
            vars(value).update(dict.fromkeys(("img_size", "image_size", "input_size", "imageSize"), side))
            value.batch_size = self.batch
        return value

    def network(self, name: str) -> nn.Module:
        """The program's module of this name, or one that is built of the class that fits the name best."""
        from bowerbird.reading.running.building import module_for

        bound = self.live.namespace.get(name)
        network = bound if isinstance(bound, nn.Module) else module_for(name, self)
        if len(self.shape) == 1 and type(network) in (StandInNet, nn.Identity):
            network = nn.Embedding(TOKENS, TOKENS)  # the smallest language model: scores of the next token
        self.networks[name] = network
        if self.training and all(network is not made for made in self.live.names.modules()):
            self.live.names.created.append((network, self.live.main, None))
        if self.training:
            self.live.namespace.setdefault(name, network)
        return network

    def _loss(self) -> torch.Tensor:
        """A loss that depends on all parameters that there are."""
        modules = list(self.networks.values()) or list(self.live.roots.values())
        parts = [p.square().mean() for m in modules for p in m.parameters() if p.is_floating_point()]
        return torch.stack(parts).sum() if parts else torch.zeros((), requires_grad=True)

    def _optimizer(self, lower: str) -> torch.optim.Optimizer:
        letters = re.sub(r"optim(izer)?|opt|_", " ", lower).split()
        own = [m for n, m in self.networks.items() if letters and n.lower()[:1] == letters[0][:1]]
        modules = own or list(self.networks.values()) or [m for m in self.live.roots.values() if any(m.parameters())]
        return torch.optim.Adam([p for m in modules for p in m.parameters()] or [nn.Parameter(torch.zeros(1))], lr=1e-3)

    def _member(self, name: str) -> Any:
        """A member of the enumeration whose name an argument has: the usual choice, or the first."""
        plain = name.lower().replace("_", "")
        kinds = [k for k in self.live.namespace.values() if isinstance(k, enum.EnumMeta)]
        for kind in (k for k in kinds if k.__name__.lower() == plain):
            members: list[enum.Enum] = list(kind)
            usual = [m for m in members if re.search(r"^(EPS|EPSILON|FIXED_LARGE|MSE|NOISE)$", m.name)]
            return next(iter(usual or members), None)
        return None


def batch(parts: int) -> tuple[torch.Tensor, ...]:
    """A batch as a loader of pictures gives it: pictures, their classes, and more pictures where more is wanted."""
    return tuple(torch.arange(BATCH) % 4 if part == 1 else torch.randn(BATCH, 3, 32, 32) for part in range(parts))


def _is_module(name: str) -> bool:
    return name.lower() in _MODULES or (name.endswith(("_model", "_net")) and name not in _WIDTHS)


# ------------------------------------------------------------------------------------------------ inputs of modules


def values(name: str, module: nn.Module, sides: tuple[int, ...] = ()) -> Iterator[Any]:
    """What an argument of ``forward`` may be, given the layers of the module, and the ``sides`` of pictures."""
    lower = name.lower()
    if lower in _TIMES:
        yield from (torch.randint(0, 10, (BATCH,)), torch.rand(BATCH), torch.rand(BATCH, 1))
        return
    if "mask" in lower:
        yield None
        yield torch.ones(LENGTH, LENGTH).tril().bool()
        yield from (torch.ones(BATCH, 1, 32), torch.ones(BATCH, 1, LENGTH), torch.ones(BATCH, LENGTH))
        return
    if lower.endswith(("lengths", "_len", "_lens", "seq_length")):
        yield torch.full((BATCH,), LENGTH)
        return
    if lower in _LABELS:
        yield torch.arange(BATCH) % 4
    if lower in _STATES:
        yield None
    if lower in _HEADS:
        widths = (getattr(module, n) for n in ("d_model", "embed_dim", "dim", "embed_size") if hasattr(module, n))
        width = next(widths, 64)
        yield torch.randn(BATCH, LENGTH, width if isinstance(width, int) else 64)
        yield torch.randn(BATCH, 4, LENGTH, 16)
    yield from _tensors(lower, module, (*sides, *_own(module, _SIDES)))


def _own(module: nn.Module, pattern: str) -> list[int]:
    """The whole numbers that a module keeps under such names."""
    kept = [value for name, value in vars(module).items() if re.search(pattern, name, re.I)]
    return [value for value in kept if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096]


def _tensors(lower: str, module: nn.Module, sides: tuple[int, ...]) -> Iterator[torch.Tensor]:
    if lower in _LATENT:
        yield from (torch.randn(BATCH, width) for width in _own(module, _LATENTS))
    layers = list(module.modules())
    first = next((m for m in layers if isinstance(m, _FIRST)), None)
    embeds = [m for m in layers if isinstance(m, nn.Embedding)]
    if embeds and (isinstance(first, nn.Embedding) or lower in _TOKENS):
        most = max(min(m.num_embeddings for m in embeds[:2]), 2)
        yield from (torch.randint(1, most, (BATCH, LENGTH)), torch.randint(1, most, (LENGTH,)))  # 0 is often padding
    conv = next((m for m in layers if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)), None)
    if conv is not None and (sides or isinstance(first, nn.Conv2d | nn.ConvTranspose2d)):
        for size in dict.fromkeys((*sides, 28, 32, 64, 16, 256)):
            yield torch.randn(BATCH, conv.in_channels, size, size)
    yield from _by_first(first, module)
    weight = next(iter(module.parameters(recurse=False)), None)
    if weight is not None and weight.ndim:
        yield torch.randn(BATCH, weight.shape[-1])
    for shape in ((BATCH, 1, 28, 28), (BATCH, 3, 32, 32), (BATCH, 784), (BATCH, 100), (BATCH, LENGTH, 64), (BATCH, 64)):
        yield torch.randn(*shape)
    yield torch.randint(0, 10, (BATCH, LENGTH))


def _by_first(first: nn.Module | None, module: nn.Module) -> Iterator[torch.Tensor]:
    """Inputs that the first layer of a module takes."""
    match first:
        case nn.Conv1d() | nn.ConvTranspose1d():
            yield torch.randn(BATCH, first.in_channels, 32)
        case nn.Conv3d():
            yield torch.randn(2, first.in_channels, 16, 16, 16)
        case nn.Linear(in_features=width):
            yield torch.randn(BATCH, LENGTH, width) if _sequential(module) else torch.randn(BATCH, width)
            for channels in (1, 3):
                side = math.isqrt(width // channels)
                if side * side * channels == width:
                    yield torch.randn(BATCH, channels, side, side)
            yield from (torch.randn(BATCH, width), torch.randn(BATCH, LENGTH, width))
        case nn.RNNBase():
            yield torch.randn(BATCH, LENGTH, first.input_size)
        case nn.LayerNorm():
            yield torch.randn(BATCH, LENGTH, first.normalized_shape[-1])
        case nn.BatchNorm2d() | nn.GroupNorm() | nn.InstanceNorm2d():
            yield torch.randn(BATCH, getattr(first, "num_features", getattr(first, "num_channels", 8)), 16, 16)


def _sequential(module: nn.Module) -> bool:
    text = type(module).__name__.lower()
    words = ("attention", "transformer", "block", "encoderlayer", "decoderlayer", "feedforward")
    return any(word in text for word in words)


def combined(options: list[list[Any]], most: int) -> Iterator[tuple[Any, ...]]:
    """Choices of one value from each list: the same place in each first, then every combination."""
    yield from zip(*options, strict=False) if options else ((),)
    yield from itertools.islice(itertools.product(*options), most)
