"""Exercises what a program only defines: builds its modules from inferred arguments, calls them with inferred inputs.

Arguments are inferred from defaults, annotations and names; inputs from the first layer and from the parameters of
``forward``.  Candidates are tried until one works; what was tried is said.
"""

import contextlib
import inspect
import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.shrinking import smaller
from bowerbird.reading.running.standins import fragments

MOST_SECONDS_EACH = 1.5
BATCH, LENGTH = 4, 12


def exercise(live: Live, wanted: str | None, replace: Callable[[str, str], None]) -> None:
    """Builds and calls every module class of the program that was not called while it ran."""
    classes = [k for k in live.classes().values() if issubclass(k, nn.Module) and not inspect.isabstract(k)]
    if wanted is not None:
        classes = [k for k in classes if k.__name__ == wanted] or classes
    for kind in sorted(classes, key=lambda k: -(live.line_of(k) or 0)):
        called = {type(m) for m in live.names.modules() if live.inputs(m) is not None}
        if kind in called and kind.__name__ != wanted:
            continue
        made = next((m for m in live.modules(kind.__name__).values()), None)
        if made is not None and _called(made, kind, live, replace) is None:
            continue
        _tried(kind, live, replace)
        live.roots = live.refreshed()
    for plain in [k for k in live.classes().values() if not issubclass(k, nn.Module)]:
        _made_plain(plain, live, replace)


def _made_plain(kind: type, live: Live, replace: Callable[[str, str], None]) -> None:
    """An instance of a class that is no module (a diffusion process, a schedule), and its loss if it has one."""
    public = {name for name in vars(kind) if not name.startswith("_")}
    if not public & _PROCESSES or any(isinstance(value, kind) for value in live.namespace.values()):
        return
    for arguments in itertools.islice(candidates(kind, live, replace), 4):
        try:
            made = kind(**arguments)
        except Exception:  # the user's constructor, given guesses: others follow
            continue
        given = ", ".join(f"{k}={_said(v)}" for k, v in arguments.items())
        replace(f"{kind.__name__}({given})", "the program only defines it; built with these arguments")
        live.namespace[_variable(kind)] = made
        for name in ("loss", "p_losses", "training_loss", "training_losses", "forward", "__call__"):
            if name in vars(kind) and _method(getattr(made, name)):
                break
        return


_PROCESSES = frozenset(
    "loss p_losses q_sample p_sample sample forward add_noise training_loss training_losses step q_xt_x0 "
    "sample_timesteps noise_images p_mean_variance q_posterior".split()
)


def _method(method: Callable[..., Any]) -> bool:
    parameters = [
        p for p in inspect.signature(method).parameters.values()
        if p.default is inspect.Parameter.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    options = [list(_values(p.name, nn.Identity())) for p in parameters]
    for inputs in itertools.islice(itertools.product(*options), 8) if options else ():
        try:
            _backward(method(*inputs))
        except Exception:  # the user's method, given guesses: others follow
            continue
        return True
    return False


def _tried(kind: type[nn.Module], live: Live, replace: Callable[[str, str], None]) -> None:
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
        given = ", ".join(f"{k}={_said(v)}" for k, v in arguments.items())
        if kept is None:
            replace(f"{kind.__name__}({given})", "the program only defines it; built with these arguments")
        kept = module
        live.namespace[_variable(kind)] = module
        raised_by_call = _called(module, kind, live, replace)
        if raised_by_call is None:
            return
        failure = raised_by_call
    if failure is not None:
        live.recorder.exception(failure, phase="exercise")


def _variable(kind: type) -> str:
    """A name in the program's style for what was built: ``unet`` of ``Unet``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def module_for(name: str, live: Live, replace: Callable[[str, str], None], depth: int = 0) -> nn.Module:
    """A module for an argument that takes one: of the class whose name fits best."""
    kinds = [k for k in live.classes().values() if issubclass(k, nn.Module)]
    hints = (name.lower().replace("_", ""), *_NETWORKS)
    best = next((k for hint in hints for k in kinds if hint in k.__name__.lower()), None)
    if best is None or depth > 1:
        return StandInNet() if name.lower() in _PREDICTORS else nn.Identity()
    for arguments in candidates(best, live, replace, depth + 1):
        try:
            return best(**arguments)
        except Exception:  # the user's constructor, given guesses: others follow
            continue
    return StandInNet()


class StandInNet(nn.Module):
    """A network that scales what it is given, whatever else it is told: for classes that need one that is not there."""

    channels = out_dim = in_channels = out_channels = 3
    self_condition = random_or_learned_sinusoidal_cond = learned_sinusoidal_cond = False

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return x * self.scale


_PREDICTORS = ("model", "net", "network", "unet", "denoise_fn", "eps_model", "backbone")
_NETWORKS = ("unet", "denoiser", "epsnet", "noisepredictor", "unet2d", "generator", "transformer", "net", "model")


def _said(value: Any) -> str:
    return type(value).__name__ if isinstance(value, nn.Module | fragments.Options) else repr(value)


def candidates(
    kind: type, live: Live, replace: Callable[[str, str], None], depth: int = 0
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Arguments for a constructor: the usual value of each name first, then all widths alike, then smaller ones."""
    try:
        signature = inspect.signature(kind)
    except (TypeError, ValueError):
        return
    needed = [
        p for p in signature.parameters.values()
        if p.default is inspect.Parameter.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    usual = {p.name: _usual(p, live, replace, depth) for p in needed}
    yield usual
    for size in (32, 64):
        if any("size" in name for name in usual):
            yield {n: size if "image_size" in n or "img_size" in n else v for n, v in usual.items()}
    numbers = [name for name, value in usual.items() if isinstance(value, int) and not isinstance(value, bool)]
    for width in (64, 16, 8):
        yield {**usual, **{n: width for n in numbers if usual[n] > 12 and "vocab" not in n}}
    yield {**usual, **dict.fromkeys(numbers, 4)}
    yield {**usual, **dict.fromkeys(numbers, 8)}


def _usual(parameter: inspect.Parameter, live: Live, replace: Callable[[str, str], None], depth: int) -> Any:
    name, note = parameter.name, str(parameter.annotation)
    bound = live.namespace.get(name)
    if isinstance(bound, int | float | tuple) and not isinstance(bound, bool):
        return bound
    if name.lower() in ("config", "cfg", "args", "opt", "hparams", "conf"):
        return _settings(live, note)
    if name.lower() in _MODULES or "Module" in note:
        return module_for(name, live, replace, depth)
    if any(k.__name__ == note.rpartition(".")[2].strip("'>") for k in live.classes().values()):
        return _settings(live, note)
    if name in ("act", "activation", "nonlinearity", "act_fn", "norm_layer"):
        return nn.ReLU()
    if name.endswith(("_model", "_net")) and name not in ("d_model", "dim_model", "n_model") and "int" not in note:
        return module_for(name, live, replace, depth)
    if "List" in note or "list" in note or "Sequence" in note:
        return [16, 32]
    if name.endswith(("_mults", "_mult", "dims", "sizes", "channels_list", "widths")):
        return [1, 2]
    if "bool" in note:
        return False
    return fragments.option(name)


def _settings(live: Live, note: str) -> Any:
    """The program's own configuration class, with sizes that run quickly; settings that have every name without one."""
    kinds = [k for k in live.classes().values() if not issubclass(k, nn.Module)]
    named = [k for k in kinds if k.__name__ in note] or [k for k in kinds if "config" in k.__name__.lower()]
    for kind in named:
        try:
            settings = kind()
        except Exception:  # a configuration that needs arguments: settings that have every name will do
            continue
        for name, value in list(vars(settings).items()):
            if isinstance(value, int) and not isinstance(value, bool):
                with contextlib.suppress(AttributeError):
                    setattr(settings, name, smaller(name, value))
        return settings
    return fragments.Options()


_MODULES = (
    "model net network encoder decoder generator discriminator fn layer sublayer unet denoise_fn eps_model embed "
    "src_embed tgt_embed self_attn src_attn feed_forward backbone module block attn critic prior"
).split()


def _called(
    module: nn.Module, kind: type[nn.Module], live: Live, replace: Callable[[str, str], None]
) -> Exception | None:  # fmt: skip
    """Tries inputs until a call works, gradients back to the parameters; returns the first failure if none does."""
    error: Exception | None = None
    until = time.process_time() + MOST_SECONDS_EACH
    names = [p.name for p in _needed(module) if p.kind is p.KEYWORD_ONLY]
    for inputs in _inputs(module):
        if time.process_time() > until:
            break
        try:
            torch.manual_seed(0)
            out = module(
                *inputs[: len(inputs) - len(names)], **dict(zip(names, inputs[len(inputs) - len(names) :], strict=True))
            )
        except Exception as raised:  # the user's forward, given guesses
            error = error or raised
            live.forget_call(module)
            continue
        shapes = ", ".join(str(list(x.shape)) if isinstance(x, torch.Tensor) else type(x).__name__ for x in inputs)
        replace(f"input of {kind.__name__}", f"the program does not call it; given tensors of shape {shapes}")
        _backward(out)
        return None
    return error or RuntimeError("no input was tried in time")


def _backward(out: Any) -> None:
    from bowerbird.reading.running.observe.modules import tensors

    parts = [t.float().pow(2).mean() for t in tensors(out) if t.requires_grad and t.is_floating_point()]
    if parts:
        torch.stack(parts).sum().backward()


def _needed(module: nn.Module) -> list[inspect.Parameter]:
    """The arguments that ``forward`` cannot do without, keyword-only ones last."""
    forward = inspect.unwrap(type(module).forward)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = list(inspect.signature(forward).parameters.values())[1:]
    return [p for p in found if p.default is inspect.Parameter.empty and p.kind in kinds]


def _inputs(module: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Tuples of inputs for ``forward``, likely ones first."""
    parameters = _needed(module)
    options = [list(_values(p.name, module)) for p in parameters]
    if not options:
        yield ()
        return
    yield from zip(*options, strict=False)  # the same guess for every argument first
    yield from itertools.islice(itertools.product(*options), 60)


def _values(name: str, module: nn.Module) -> Iterator[Any]:
    """What an argument of this name may be, given the layers of the module."""
    lower = name.lower()
    if lower in ("t", "time", "timestep", "timesteps", "step", "noise_level", "sigma"):
        yield torch.randint(0, 10, (BATCH,))
        yield torch.rand(BATCH)
        yield torch.rand(BATCH, 1)
        return
    if "mask" in lower:
        yield None
        yield torch.ones(LENGTH, LENGTH).tril().bool()
        return
    if lower in ("label", "labels", "y", "c", "cls", "classes", "class_labels"):
        yield torch.arange(BATCH) % 4
    if lower in ("lengths", "x_len", "src_len", "seq_len", "seq_lens"):
        yield torch.full((BATCH,), LENGTH)
        return
    if lower in ("hidden", "state", "h", "hx", "prev_state"):
        yield None
    if lower in ("q", "k", "v", "query", "key", "value", "queries", "keys", "values"):
        width = next(
            (getattr(module, n) for n in ("d_model", "embed_dim", "dim", "embed_size") if hasattr(module, n)), 64
        )
        yield torch.randn(BATCH, LENGTH, width if isinstance(width, int) else 64)
        yield torch.randn(BATCH, 4, LENGTH, 16)
    yield from _tensors(lower, module)


def _tensors(lower: str, module: nn.Module) -> Iterator[torch.Tensor]:
    first = next((m for m in module.modules() if isinstance(m, _FIRST)), None)
    embeds = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    if embeds and (isinstance(first, nn.Embedding) or lower in _TOKENS):
        most = min(m.num_embeddings for m in embeds[:2])
        yield torch.randint(0, max(most, 2), (BATCH, LENGTH))
        yield torch.randint(0, max(most, 2), (LENGTH,))
    if isinstance(first, nn.Conv2d | nn.ConvTranspose2d):
        for size in (28, 32, 64, 16, 256):
            yield torch.randn(BATCH, first.in_channels, size, size)
    if isinstance(first, nn.Conv1d | nn.ConvTranspose1d):
        yield torch.randn(BATCH, first.in_channels, 32)
    if isinstance(first, nn.Linear):
        width = first.in_features
        yield torch.randn(BATCH, LENGTH, width) if _sequential(module) else torch.randn(BATCH, width)
        side = math.isqrt(width)
        if side * side == width:
            yield torch.randn(BATCH, 1, side, side)
        if width % 3 == 0 and math.isqrt(width // 3) ** 2 * 3 == width:
            yield torch.randn(BATCH, 3, math.isqrt(width // 3), math.isqrt(width // 3))
        yield torch.randn(BATCH, width)
        yield torch.randn(BATCH, LENGTH, width)
    if isinstance(first, nn.RNNBase):
        yield torch.randn(BATCH, LENGTH, first.input_size)
    if isinstance(first, nn.LayerNorm):
        yield torch.randn(BATCH, LENGTH, first.normalized_shape[-1])
    if isinstance(first, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d):
        yield torch.randn(BATCH, getattr(first, "num_features", getattr(first, "num_channels", 8)), 16, 16)
    for shape in ((BATCH, 1, 28, 28), (BATCH, 3, 32, 32), (BATCH, 784), (BATCH, 100), (BATCH, LENGTH, 64), (BATCH, 64)):
        yield torch.randn(*shape)
    yield torch.randint(0, 10, (BATCH, LENGTH))


_FIRST = (
    nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear, nn.Embedding, nn.RNNBase, nn.LayerNorm,
    nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d,
)  # fmt: skip
_TOKENS = ("idx", "tokens", "input_ids", "src", "tgt", "trg", "ids", "inputs", "x", "input", "text", "token_ids")


def _sequential(module: nn.Module) -> bool:
    text = type(module).__name__.lower()
    return any(
        word in text for word in ("attention", "transformer", "block", "encoderlayer", "decoderlayer", "feedforward")
    )
