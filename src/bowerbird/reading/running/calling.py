"""Inputs for modules that a program never calls: by name and first layer, then corrected by what PyTorch says.

A call that fails names what it wanted (``expected 64 channels, but got 3``); the input is changed accordingly and
tried again, a few times.
"""

import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

BATCH, LENGTH = 4, 12
MOST_REPAIRS = 5
LARGEST_SIDE = 256
_LATENTS = r"^(z_?dim|nz|n_?z|latent_?(dim|size)|noise_?(dim|size)|dim_?z|input_dim)$"
_SIDES = r"^((img|image|input)_?(size|dim|res|resolution)|size|resolution)$"
_LABELS = re.compile(r"^(targets?|labels?|y|tgt_ids|target_ids)$")


def needed(module: nn.Module) -> list[inspect.Parameter]:
    """The arguments that ``forward`` cannot do without, keyword-only ones last."""
    forward = inspect.unwrap(type(module).forward)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = list(inspect.signature(forward).parameters.values())[1:]
    return [p for p in found if p.default is inspect.Parameter.empty and p.kind in kinds]


def called(
    module: nn.Module, inputs: tuple[Any, ...], forget: Callable[[nn.Module], None]
) -> tuple[Any, tuple[Any, ...]]:  # fmt: skip
    """The module's answer and the inputs that were taken in the end; raises the first failure."""
    names = [p.name for p in needed(module) if p.kind is p.KEYWORD_ONLY]
    first: Exception | None = None
    masks: dict[str, Any] = {}
    for _ in range(MOST_REPAIRS):
        plain, named = inputs[: len(inputs) - len(names)], inputs[len(inputs) - len(names) :]
        try:
            torch.manual_seed(0)
            return module(*plain, **dict(zip(names, named, strict=True)), **_targets(module, plain), **masks), inputs
        except Exception as raised:  # the user's forward, given guesses
            first = first or raised
            forget(module)
            if "NoneType" in str(raised) and not masks:
                masks = _masks(module, plain)
                if masks:
                    continue
            other = repaired(inputs, raised)
            if other is None:
                break
            inputs = other
    assert first is not None
    raise first


def _targets(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Tokens for an optional argument that takes labels, where the first input is tokens: then all scores are given."""
    if not inputs or not _is_tokens(inputs[0]):
        return {}
    forward = inspect.unwrap(type(module).forward)
    optional = [p for p in inspect.signature(forward).parameters.values() if p.default is None]
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(inputs[0].numel(), generator=generator)
    return {p.name: inputs[0].flatten()[order].view_as(inputs[0]) for p in optional if _LABELS.match(p.name)}


def _masks(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Masks that hide nothing, for optional arguments that the code takes for granted."""
    first = next((x for x in inputs if isinstance(x, torch.Tensor) and x.ndim >= 2), None)
    forward = inspect.unwrap(type(module).forward)
    optional = [p.name for p in inspect.signature(forward).parameters.values() if p.default is None]
    if first is None:
        return {}
    length = first.shape[-2] if first.is_floating_point() else first.shape[-1]
    visible = torch.zeros(first.shape[0], length, length, dtype=torch.bool)
    return {name: visible.clone() for name in optional if "mask" in name.lower()}


def _is_tokens(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.long and value.ndim == 2


def repaired(inputs: tuple[Any, ...], error: Exception) -> tuple[Any, ...] | None:
    """The inputs as the message of a failure asks for them; None where it does not say."""
    message = str(error)
    for pattern, change in _REPAIRS:
        found = re.search(pattern, message)
        if found is None:
            continue
        changed = tuple(change(x, *map(int, found.groups())) if isinstance(x, torch.Tensor) else x for x in inputs)
        if any(a is not b for a, b in zip(changed, inputs, strict=True)):
            return changed
    return None


def _last(x: torch.Tensor, have: int, want: int) -> torch.Tensor:
    return torch.randn(*x.shape[:-1], want) if x.is_floating_point() and x.shape[-1:] == (have,) else x


def _channels(x: torch.Tensor, want: int, have: int) -> torch.Tensor:
    fits = x.is_floating_point() and x.ndim in (3, 4) and x.shape[1] == have
    return torch.randn(x.shape[0], want, *x.shape[2:]) if fits else x


def _normalised(x: torch.Tensor, want: int) -> torch.Tensor:
    return torch.randn(*x.shape[:-1], want) if x.is_floating_point() and x.ndim >= 2 and x.shape[-1] != want else x


def _larger(x: torch.Tensor) -> torch.Tensor:
    fits = x.is_floating_point() and x.ndim >= 3 and x.shape[-1] < LARGEST_SIDE
    return torch.randn(*x.shape[:2], *(4 * side for side in x.shape[2:])) if fits else x


def _tokens(x: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 10, (BATCH, LENGTH)) if x.is_floating_point() else x


def _fewer(x: torch.Tensor) -> torch.Tensor:
    return x % 2 if not x.is_floating_point() and x.numel() and int(x.max()) > 1 else x


def _below(x: torch.Tensor, most: int) -> torch.Tensor:
    return x % most if not x.is_floating_point() and x.numel() and int(x.max()) >= most else x


def _axes(x: torch.Tensor, want: int) -> torch.Tensor:
    shapes = {2: (BATCH, 64), 3: (BATCH, LENGTH, 64), 4: (BATCH, 4, LENGTH, 16), 5: (BATCH, 4, LENGTH, 4, 16)}
    return torch.randn(*shapes[want]) if x.is_floating_point() and x.ndim != want and want in shapes else x


def _size(x: torch.Tensor, want: int) -> torch.Tensor:
    square = x.ndim == 4 and x.shape[-1] == x.shape[-2] and x.shape[-1] != want and 4 <= want <= 256
    return torch.randn(*x.shape[:2], want, want) if square else x


_REPAIRS: tuple[tuple[str, Callable[..., torch.Tensor]], ...] = (
    (r"size can't be greater than actual input size|output size is too small", _larger),
    (r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", _last),
    (r"expected input\[[^\]]*\] to have (\d+) channels, but got (\d+) channels", _channels),
    (r"Expected number of channels in input to be divisible|num_channels", lambda x: x),
    (r"expected input with shape \[(?:\*, )*(\d+)\]", _normalised),
    (r"embed_dim.*?(\d+)", _normalised),
    (r"indices.*scalar types?: Long", _tokens),
    (r"index out of range", _fewer),
    (r"index \d+ is out of bounds for dimension \d+ with size (\d+)", _below),
    (r"not enough values to unpack \(expected (\d+)", _axes),
    (r"too many values to unpack \(expected (\d+)", _axes),
    (r"(?:height and width|image|size).*?must be (\d+)", _size),
)


def inputs(module: nn.Module, sides: tuple[int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Tuples of inputs for ``forward``, likely ones first; ``sides`` are those of pictures that it was built for."""
    options = [list(values(p.name, module, sides)) for p in needed(module)]
    if not options:
        yield ()
        return
    yield from zip(*options, strict=False)  # the same guess for every argument first
    yield from itertools.islice(itertools.product(*options), 60)


def values(name: str, module: nn.Module, sides: tuple[int, ...] = ()) -> Iterator[Any]:
    """What an argument of this name may be, given the layers of the module, and the ``sides`` of pictures."""
    lower = name.lower()
    if lower in ("t", "time", "timestep", "timesteps", "step", "noise_level", "sigma"):
        yield torch.randint(0, 10, (BATCH,))
        yield torch.rand(BATCH)
        yield torch.rand(BATCH, 1)
        return
    if "mask" in lower:
        yield None
        yield torch.ones(LENGTH, LENGTH).tril().bool()
        yield from (torch.ones(BATCH, 1, 32), torch.ones(BATCH, 1, LENGTH), torch.ones(BATCH, LENGTH))
        return
    if lower in ("label", "labels", "y", "c", "cls", "classes", "class_labels"):
        yield torch.arange(BATCH) % 4
    if lower.endswith(("lengths", "_len", "_lens", "seq_length")):
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
    yield from _tensors(lower, module, (*sides, *_own(module, _SIDES)))


def _own(module: nn.Module, pattern: str) -> list[int]:
    """The whole numbers that a module keeps under such names."""
    kept = [value for name, value in vars(module).items() if re.search(pattern, name, re.I)]
    return [value for value in kept if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 4096]


def _tensors(lower: str, module: nn.Module, sides: tuple[int, ...]) -> Iterator[torch.Tensor]:
    if lower in ("z", "noise", "latent", "latents", "z_noise"):
        yield from (torch.randn(BATCH, width) for width in _own(module, _LATENTS))
    first = next((m for m in module.modules() if isinstance(m, _FIRST)), None)
    embeds = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    if embeds and (isinstance(first, nn.Embedding) or lower in _TOKENS):
        most = min(m.num_embeddings for m in embeds[:2])
        yield torch.randint(1, max(most, 2), (BATCH, LENGTH))  # 0 is often padding
        yield torch.randint(1, max(most, 2), (LENGTH,))
    conv = next((m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)), None)
    if conv is not None and (sides or isinstance(first, nn.Conv2d | nn.ConvTranspose2d)):
        for size in dict.fromkeys((*sides, 28, 32, 64, 16, 256)):
            yield torch.randn(BATCH, conv.in_channels, size, size)
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
    weight = next(iter(module.parameters(recurse=False)), None)
    if weight is not None and weight.ndim:
        yield torch.randn(BATCH, weight.shape[-1])
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
