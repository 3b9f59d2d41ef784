"""What an operation refused, and what it wanted instead: inputs are made up, and PyTorch says what would have fitted.

While ``Followed`` is entered, every tensor is followed from the inputs on.  An operation that refuses its operands says
what it wanted (a linear layer the length of the last axis), and the input that the operand came from is changed: the
axis that has the refused length, or one of which that is a multiple.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

MOST_REPAIRS = 8
LARGEST = 2**22
LONGEST = 8192
LARGEST_SIDE = 256
SHAPES = {1: (4,), 2: (4, 64), 3: (4, 12, 64), 4: (4, 4, 12, 16), 5: (4, 4, 12, 4, 16)}
"""What is tried for so many axes."""


@dataclass(frozen=True)
class Demand:
    """What a tensor should have been: one axis of another length, another number of axes, another type, larger."""

    operand: torch.Tensor
    axis: int = 0
    length: int = 0
    axes: int = 0
    dtype: torch.dtype | None = None
    below: int = 0
    larger: bool = False
    plain: bool = False
    """It should have been no tensor, but a plain truth."""


@dataclass
class Refusal:
    """The innermost operation that raised."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Followed(TorchFunctionMode):
    """Follows tensors from the inputs on; ``refusal`` is the operation that raised, ``asked`` the tensor whose shape
    was asked for last."""

    def __init__(self, leaves: list[Any]) -> None:
        super().__init__()
        self.origins = {id(t): frozenset((i,)) for i, t in enumerate(leaves) if isinstance(t, torch.Tensor)}
        self.kept: list[Any] = [leaves]
        self.refusal: Refusal | None = None
        self.asked: torch.Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        try:
            out = func(*args, **kwargs)
        except Exception:
            self.refusal = self.refusal or Refusal(name, tuple(args), dict(kwargs))
            raise
        if name in ("__get__", "size", "dim", "ndimension", "__len__") and args and isinstance(args[0], torch.Tensor):
            self.asked = args[0] if not isinstance(out, torch.Tensor) else self.asked
        given = [self.origins[id(t)] for t in tree_flatten((args, kwargs))[0] if id(t) in self.origins]
        if given:
            union = frozenset().union(*given)
            made = [t for t in (tree_flatten(out)[0]) if isinstance(t, torch.Tensor)]
            self.origins |= {id(t): union for t in made if id(t) not in self.origins}
            self.kept += made
        return out


def fitted(
    call: Callable[..., Any], inputs: tuple[Any, ...], mend: Callable[[Exception], bool] = lambda error: False
) -> tuple[Any, tuple[Any, ...]]:  # fmt: skip
    """What a call answers, and the inputs that it took in the end; raises the first failure where none is found.

    ``mend`` may change what the call takes beside its inputs, and says whether it did.
    """
    first: Exception | None = None
    seen = {_form(inputs)}
    for _ in range(MOST_REPAIRS):
        leaves, form = tree_flatten(inputs)
        try:
            with Followed(leaves) as followed:
                return call(*inputs), inputs
        except Exception as raised:  # the user's code, given guesses
            first = first or raised
            if mend(raised):
                continue
            others = (tree_unflatten(new, form) for new in repairs(leaves, followed, raised))
            inputs = next((o for o in others if _form(o) not in seen), ())
            if not inputs:
                break
            seen.add(_form(inputs))
    assert first is not None
    raise first


def _form(inputs: Any) -> tuple[Any, ...]:
    leaves = tree_flatten(inputs)[0]
    return tuple((tuple(t.shape), t.dtype, t.numel() and not t.is_floating_point() and int(t.max()))
                 if isinstance(t, torch.Tensor) and not t.is_complex() else None for t in leaves)  # fmt: skip


def repairs(leaves: list[Any], followed: Followed, error: Exception) -> Iterator[list[Any]]:
    """The inputs changed as a failure asks for, most telling change first."""
    demands = list(_demands(leaves, followed, str(error)))
    for exact in (True, False):
        for demand in demands:
            for place in sorted(followed.origins.get(id(demand.operand), ())):
                changed = _changed(leaves[place], demand, exact)
                if changed is not None:
                    yield [*leaves[:place], changed, *leaves[place + 1 :]]


# --------------------------------------------------------------------------------------------- what was wanted


def _demands(leaves: list[Any], followed: Followed, message: str) -> Iterator[Demand]:
    refusal = followed.refusal
    operands = (
        [t for t in tree_flatten((refusal.args, refusal.kwargs))[0] if isinstance(t, torch.Tensor)] if refusal else []
    )
    if refusal is not None:
        yield from _by_type(operands, message)
        for pattern, demands in _OPERATIONS:
            if re.fullmatch(pattern, refusal.name):
                yield from demands(refusal, message)
    asked = [followed.asked] if followed.asked is not None else []
    tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
    yield from _by_message([*operands[:1], *asked, *tensors], message)


_LONG = re.compile(r"indices.*(Long|int)|index tensor|must be long|expected.*(Long|Int)\b.*(but )?(found|got)", re.I)
_FLOAT = re.compile(
    r"same dtype|not implemented for '(Long|Int|Bool)'|floating point|result type Float can't be cast|expected.*Float",
    re.I,
)


def _by_type(operands: list[torch.Tensor], message: str) -> Iterator[Demand]:
    if _LONG.search(message):
        yield from (Demand(t, dtype=torch.long) for t in operands if t.is_floating_point())
    if _FLOAT.search(message):
        yield from (Demand(t, dtype=torch.float32) for t in operands if not t.is_floating_point())
    if "out of range in self" in message and len(operands) > 1:
        yield from (Demand(t, below=len(operands[-1])) for t in operands[:1])
    if found := re.search(r"out of bounds for dimension \d+ with size (\d+)", message):
        yield from (Demand(t, below=int(found.group(1))) for t in operands[1:])


def _by_message(likely: list[torch.Tensor], message: str) -> Iterator[Demand]:
    """What the words of a message say of the operand, else of the tensor whose shape was asked for, else of any."""
    for pattern, groups in _WORDS:
        found = re.search(pattern, message, re.S)
        if found is not None:
            numbers = dict(zip(groups, map(int, found.groups()), strict=True))
            yield from (d for t in likely for d in _told(t, numbers))
    if re.search(
        r"greater than actual input|output size|[Kk]ernel size|should be less than|too small|larger than", message
    ):
        yield from (Demand(t, larger=True) for t in likely)


_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"unpack \(expected (\d)", ("axes",)),
    (r"expected (\d)D", ("axes",)),
    (r"pattern names (\d) axes", ("axes",)),
    (r"number of sizes provided \((\d)\)", ("axes",)),
    (r"subscripts in the equation \((\d)\)", ("axes",)),
    (r"range of \[-\d, \d\], but got (\d)", ("last",)),
    (r"too many indices for tensor of dimension (\d)", ("last",)),
    (r"to have (\d+) channels, but got (\d+)", ("length", "have")),
    (r"[Ee]xpect\D*?(\d+)\D+?got\D*?(\d+)", ("length", "have")),
    (r"got\D*?(\d+)\D+?expect\D*?(\d+)", ("have", "length")),
    (r"\((\d+)\*\d+\) doesn't match \D*\((\d+)", ("have", "length")),
    (r"\b(\d+)\D*?must be divisible by \D*?(\d+)", ("have", "divisor")),
    (r"(?:height and width|image|size)\D*?must be (\d+)", ("side",)),
    (r"(\d+)\D+?(?:!=|must be|match)\D*?(\d+)", ("have", "length")),
)  # fmt: skip
"""Patterns of messages, and what their numbers are."""


def _told(t: torch.Tensor, numbers: dict[str, int]) -> Iterator[Demand]:
    have = numbers.get("have", 0)
    if axes := numbers.get("axes", numbers.get("last", -1) + 1):
        yield Demand(t, axes=axes)
    if side := numbers.get("side"):
        yield from (Demand(t, axis, side) for axis in range(2, t.ndim))
    length = numbers.get("length", 0)
    if divisor := numbers.get("divisor"):
        length = -(-have // divisor) * divisor
    yield from (Demand(t, axis, length) for axis, size in enumerate(t.shape) if size == have and length)


Demands = Callable[[Refusal, str], Iterator[Demand]]


def _linear(refusal: Refusal, message: str) -> Iterator[Demand]:
    x, weight = _operands(refusal)[:2]
    yield Demand(x, -1, weight.shape[-1])


def _convolution(refusal: Refusal, message: str) -> Iterator[Demand]:
    x, weight = _operands(refusal)[:2]
    groups = refusal.kwargs.get("groups", refusal.args[6] if len(refusal.args) > 6 else 1)
    across = "transpose" in refusal.name
    channels = weight.shape[0] if across else weight.shape[1] * (groups if isinstance(groups, int) else 1)
    if x.ndim not in (weight.ndim, weight.ndim - 1) or (x.ndim < weight.ndim and x.shape[0] != channels):
        yield Demand(x, axes=weight.ndim)
    yield Demand(x, 1 - weight.ndim, channels)


def _normalised(refusal: Refusal, message: str) -> Iterator[Demand]:
    x, weight = refusal.args[0], next((t for t in _operands(refusal)[1:] if t.ndim == 1), None)
    if "layer" in refusal.name or "rms" in refusal.name:
        shape = refusal.args[1] if len(refusal.args) > 1 else refusal.kwargs["normalized_shape"]
        yield from (Demand(x, i - len(shape), length) for i, length in enumerate(shape))
    elif weight is not None:
        yield Demand(x, 1, len(weight))


def _product(refusal: Refusal, message: str) -> Iterator[Demand]:
    axes = {"mm": 2, "addmm": 2, "bmm": 3, "baddbmm": 3}.get(refusal.name, 0)
    yield from (Demand(t, axes=axes) for t in _operands(refusal)[-2:] if axes and t.ndim != axes)
    pair = [t for t in _operands(refusal) if t.ndim][-2:]
    if len(pair) < 2:
        return
    left, right = pair
    yield Demand(left, -1, right.shape[max(right.ndim - 2, 0)])
    yield Demand(right, max(right.ndim - 2, 0), left.shape[-1])
    yield from _together(refusal, message)


def _together(refusal: Refusal, message: str) -> Iterator[Demand]:
    """Operands that should have had one shape, or shapes that extend to one."""
    given = _operands(refusal)
    for left, right in itertools.pairwise(given):
        for axis in range(-1, -min(left.ndim, right.ndim) - 1, -1):
            if left.shape[axis] != right.shape[axis] and (1 not in (left.shape[axis], right.shape[axis])):
                yield Demand(right, axis, left.shape[axis])
                yield Demand(left, axis, right.shape[axis])
        if left.ndim != right.ndim:
            yield Demand(right, axes=left.ndim)
            yield Demand(left, axes=right.ndim)


def _reshaped(refusal: Refusal, message: str) -> Iterator[Demand]:
    x = refusal.args[0]
    found = re.search(r"shape '\[([-\d, ]+)\]' is invalid", message)
    sizes = [int(n) for n in found.group(1).split(",")] if found else []
    wanted = math.prod(n for n in sizes if n > 0)
    if not wanted or not x.ndim:
        return
    total = wanted if -1 not in sizes else -(-x.numel() // wanted) * wanted
    for axis in (*range(1, x.ndim), 0)[::-1]:
        rest = x.numel() // max(x.shape[axis], 1)
        if rest and total % rest == 0:
            yield Demand(x, axis, total // rest)


_OPERATIONS: tuple[tuple[str, Demands], ...] = (
    (r"__bool__|__eq__|eq", lambda refusal, message: (Demand(t, plain=True) for t in _operands(refusal))),
    (r"linear", _linear),
    (r"conv(_transpose)?[123]d", _convolution),
    (r"(layer|rms|batch|group|instance)_norm", _normalised),
    (r"matmul|__matmul__|__rmatmul__|bmm|mm|mv|dot|addmm|baddbmm|scaled_dot_product_attention", _product),
    (r"reshape|view|unflatten", _reshaped),
    (r"_*(add|sub|mul|div|rsub|radd|rmul|truediv|rtruediv|pow|lt|gt|le|ge|eq|iadd|imul|cat|concat|stack|where|expand_as"
     r"|mse_loss|l1_loss|smooth_l1_loss|binary_cross_entropy|binary_cross_entropy_with_logits|kl_div|minimum|maximum"
     r"|cross_entropy|nll_loss|lerp|masked_fill|addcmul)_*", _together),
)  # fmt: skip


def _operands(refusal: Refusal) -> list[torch.Tensor]:
    return [t for t in tree_flatten((refusal.args, refusal.kwargs))[0] if isinstance(t, torch.Tensor)]


# -------------------------------------------------------------------------------------------- how it is changed


def _changed(x: torch.Tensor, demand: Demand, exact: bool) -> Any:
    """An input as a demand on what came of it wants it; None where that does not say how.  ``exact``: only where the
    input has the very axis."""
    t = demand.operand
    if demand.plain:
        return True if x is t else None
    if demand.dtype is not None:
        plain = demand.dtype == torch.long and x.ndim > 2
        return None if x.dtype == demand.dtype else _values((4, 12) if plain else x.shape, demand.dtype)
    if demand.below:
        most = int(x.max()) if x.numel() and not x.is_floating_point() else 0
        return x % demand.below if most >= demand.below else x % 2 if most > 1 else None
    if demand.larger:
        fits = x.is_floating_point() and x.ndim >= 3 and x.shape[-1] < (LARGEST_SIDE if x.ndim > 3 else LONGEST)
        return _like(x, (*x.shape[:2], *(4 * side for side in x.shape[2:]))) if fits else None
    if demand.axes:
        wanted = demand.axes + x.ndim - t.ndim
        return _like(x, SHAPES[wanted]) if wanted in SHAPES and wanted != x.ndim else None
    axis, length = demand.axis, demand.length
    if not t.ndim or not -t.ndim <= axis < t.ndim or not 0 < length <= LONGEST or t.shape[axis] == length:
        return None
    shape = _renamed(x.shape, t, axis, length) if exact else _scaled(x.shape, t, axis, length)
    return _like(x, shape) if shape else None


def _renamed(shape: tuple[int, ...], t: torch.Tensor, axis: int, length: int) -> tuple[int, ...]:
    """A shape with another length in the place of the axis of ``t``, the one of the same place from the end first."""
    place = len(shape) + axis % t.ndim - t.ndim
    found = sorted((i for i, side in enumerate(shape) if side == t.shape[axis]), key=lambda i: (i != place, -i))
    return (*shape[: found[0]], length, *shape[found[0] + 1 :]) if found else ()


def _scaled(shape: tuple[int, ...], t: torch.Tensor, axis: int, length: int) -> tuple[int, ...]:
    """A shape with an axis, not that of the batch, larger or smaller by as much as the axis of ``t`` should have been;
    square pictures stay square."""
    have = t.shape[axis]
    if len(shape) == 4 and shape[2] == shape[3] and have == math.prod(shape[1:]):
        squares = [(c, math.isqrt(length // c)) for c in (shape[1], 1, 3)]
        return next(((shape[0], c, side, side) for c, side in squares if c * side * side == length), ())
    for i in range(len(shape) - 1, 0, -1):
        new, rest = divmod(shape[i] * length, max(have, 1))
        if new and not rest and have and (have % max(shape[i], 1) == 0 or shape[i] % have == 0):
            return (*shape[:i], new, *shape[i + 1 :])
    return ()


def _like(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    return _values(shape, x.dtype, int(x.max()) if x.numel() and not x.is_complex() else 0)


def _values(shape: Any, dtype: torch.dtype, most: int = 1) -> torch.Tensor | None:
    if math.prod(shape) > LARGEST:
        return None
    if dtype.is_floating_point:
        return torch.randn(*shape, dtype=dtype)
    return (
        torch.randint(0, most + 1, tuple(shape)).to(dtype) if dtype != torch.bool else torch.ones(*shape, dtype=dtype)
    )
