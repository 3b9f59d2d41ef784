"""Exercises what a program only defines: builds its modules from inferred arguments and calls them with inferred inputs.

Arguments are inferred from defaults, annotations and names; inputs from the first layer and from the parameters of
``forward``.  Candidates are tried until one works; what was tried is said.
"""

import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.recorder import Recorder
from bowerbird.reading.running.standins import fragments

MOST_SECONDS_EACH = 1.5
BATCH, LENGTH = 4, 12


def exercise(live: Live, recorder: Recorder, wanted: str | None, replace: Callable[[str, str], None]) -> None:
    """Builds and calls every module class of the program that was not called while it ran."""
    used = {type(module) for path, module in live.modules().items() if live.inputs(module) is not None}
    classes = [k for k in live.classes().values() if issubclass(k, nn.Module) and k not in used]
    if wanted is not None:
        classes = [k for k in classes if k.__name__ == wanted] or classes
    held = live.namespace.setdefault("__bowerbird_exercised__", {})
    for kind in sorted(classes, key=lambda k: -(live.line_of(k) or 0)):
        if kind in {type(m) for path, m in live.modules().items() if live.inputs(m) is not None}:
            continue
        module = next((m for m in live.modules(kind.__name__).values()), None) or _built(kind, live, replace)
        if module is None:
            continue
        held[kind.__name__] = module
        live.namespace.setdefault(f"exercised_{kind.__name__}", module)
        _called(module, kind, live, recorder, replace)
        live.roots = live._modules.roots()


def _built(kind: type[nn.Module], live: Live, replace: Callable[[str, str], None]) -> nn.Module | None:
    try:
        signature = inspect.signature(kind)
    except (TypeError, ValueError):
        return None
    error: Exception | None = None
    for arguments in _candidates(signature, live):
        try:
            torch.manual_seed(0)
            module = kind(**arguments)
        except Exception as raised:  # the user's constructor, given guesses
            error = raised
            continue
        given = ", ".join(f"{k}={_said(v)}" for k, v in arguments.items())
        replace(f"{kind.__name__}({given})", "the program only defines it; built with these arguments")
        return module
    if error is not None:
        live.recorder.exception(error, phase="exercise")
    return None


def _said(value: Any) -> str:
    return type(value).__name__ if isinstance(value, nn.Module | fragments.Options) else repr(value)


def _candidates(signature: inspect.Signature, live: Live) -> Iterator[dict[str, Any]]:
    """Arguments for a constructor: the usual value of each name first, then all widths alike, then smaller ones."""
    needed = [
        p for p in signature.parameters.values()
        if p.default is inspect.Parameter.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    usual = {p.name: _usual(p, live) for p in needed}
    yield usual
    numbers = [name for name, value in usual.items() if isinstance(value, int) and not isinstance(value, bool)]
    for width in (64, 16, 8):
        yield {**usual, **{n: width for n in numbers if usual[n] > 12 and "vocab" not in n}}
    yield {**usual, **dict.fromkeys(numbers, 4)}
    yield {**usual, **dict.fromkeys(numbers, 8)}


def _usual(parameter: inspect.Parameter, live: Live) -> Any:
    name, note = parameter.name, str(parameter.annotation)
    bound = live.namespace.get(name)
    if isinstance(bound, int | float | tuple) and not isinstance(bound, bool):
        return bound
    for found in live.classes().values():
        if found.__name__ in note and not issubclass(found, nn.Module):
            try:
                return found()
            except Exception:  # a configuration that needs arguments: settings that have every name will do
                return fragments.Options()
    if name.lower() in ("config", "cfg", "args", "opt", "hparams"):
        return fragments.Options()
    if "Module" in note or name.lower() in (
        "model",
        "net",
        "encoder",
        "decoder",
        "generator",
        "fn",
        "layer",
        "sublayer",
    ):
        made = next((m for m in live.user_modules().values()), None)
        return made if made is not None else nn.Identity()
    if "List" in note or "list" in note or "Sequence" in note:
        return [16, 32]
    if name.endswith(("_mults", "_mult", "dims", "sizes", "channels_list", "widths")):
        return [1, 2]
    if "bool" in note:
        return False
    return fragments.option(name)


def _called(
    module: nn.Module, kind: type[nn.Module], live: Live, recorder: Recorder, replace: Callable[[str, str], None]
) -> None:
    """Tries inputs until a call works, with gradients back to the parameters."""
    error: Exception | None = None
    until = time.process_time() + MOST_SECONDS_EACH
    for inputs in _inputs(module):
        if time.process_time() > until:
            break
        try:
            torch.manual_seed(0)
            out = module(*inputs)
        except Exception as raised:  # the user's forward, given guesses
            error = error or raised
            live._modules.active.clear()
            live._modules.inputs.pop(module, None)
            continue
        shapes = ", ".join(str(list(x.shape)) if isinstance(x, torch.Tensor) else type(x).__name__ for x in inputs)
        replace(f"input of {kind.__name__}", f"the program does not call it; given tensors of shape {shapes}")
        _backward(out)
        return
    if error is not None:
        recorder.exception(error, phase="exercise")


def _backward(out: Any) -> None:
    from bowerbird.reading.running.observe.modules import tensors

    parts = [t.float().pow(2).mean() for t in tensors(out) if t.requires_grad and t.is_floating_point()]
    if parts:
        torch.stack(parts).sum().backward()


def _inputs(module: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Tuples of inputs for ``forward``, likely ones first."""
    forward = inspect.unwrap(type(module).forward)
    parameters = [
        p for p in list(inspect.signature(forward).parameters.values())[1:]
        if p.default is inspect.Parameter.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    options = [list(_values(p.name, module)) for p in parameters]
    if not options:
        yield ()
        return
    if len(options) > 1 and all(o and isinstance(o[0], torch.Tensor) for o in options):
        for alike in zip(*itertools.islice((itertools.repeat(v) for v in options[0]), 0), strict=False):
            yield alike
    for choice in itertools.islice(itertools.product(*options), 60):
        yield choice


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
