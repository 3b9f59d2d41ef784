"""One call of a module: what it needs, what is taken for granted, and its answer."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.building import last_line, mended
from bowerbird.reading.running.guesses import values
from bowerbird.reading.running.refusals import fitted
from bowerbird.reading.running.uses import Use, uses

_LABELS = re.compile(r"^(targets?|labels?|y|tgt_ids|target_ids)$")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def entry(module: nn.Module) -> Callable[..., Any]:
    """What runs when a module is called: ``forward``, or a ``__call__`` of its own class."""
    kind = type(module)
    return inspect.unwrap(kind.forward if kind.__call__ is nn.Module.__call__ else kind.__call__)


def needed(module: nn.Module, more: frozenset[str] = frozenset()) -> list[inspect.Parameter]:
    """The arguments that a call cannot do without, keyword-only ones last; ``more`` are names that were missed in what
    it takes by ``**kwargs``."""
    found = list(inspect.signature(entry(module)).parameters.values())[1:]
    rest = next((p.name for p in found if p.kind is p.VAR_KEYWORD), "")
    keys = sorted({*uses(entry(module)).get(rest, Use()).keys, *more}) if rest else []
    named = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in keys if key.isidentifier()]
    return [p for p in found if p.default is p.empty and p.kind in (*POSITIONAL, p.KEYWORD_ONLY)] + named


def called(
    module: nn.Module, inputs: tuple[Any, ...], forget: Callable[[nn.Module], None],
    more: frozenset[str] = frozenset(),
) -> tuple[Any, tuple[Any, ...]]:  # fmt: skip
    """The module's answer and the inputs that were taken in the end; raises the first failure."""
    names = [p.name for p in needed(module, more) if p.kind is p.KEYWORD_ONLY]
    extra: dict[str, Any] = {}

    def call(*given: Any) -> Any:
        plain, named = given[: len(given) - len(names)], given[len(given) - len(names) :]
        torch.manual_seed(0)
        try:
            return module(*plain, **dict(zip(names, named, strict=True)), **_targets(module, plain), **extra)
        except Exception:
            forget(module)
            raise

    def mend(error: Exception) -> bool:
        new = {} if extra else _taken_for_granted(module, inputs, error)
        extra.update(new)
        return bool(new) or mended(error)

    return fitted(call, inputs, mend)


def _targets(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Tokens for an optional argument that takes labels, where the first input is tokens: then all scores are given."""
    first = inputs[0] if inputs else None
    if not isinstance(first, torch.Tensor) or first.dtype != torch.long or first.ndim != 2:
        return {}
    order = torch.randperm(first.numel(), generator=torch.Generator().manual_seed(1))
    return {name: first.flatten()[order].view_as(first) for name in _optional(module) if _LABELS.match(name)}


def _optional(module: nn.Module) -> list[str]:
    return [p.name for p in inspect.signature(entry(module)).parameters.values() if p.default is None]


def _taken_for_granted(module: nn.Module, inputs: tuple[Any, ...], error: Exception) -> dict[str, Any]:
    """Values for optional arguments that the failed line takes for granted; a mask hides nothing."""
    if "NoneType" not in str(error):
        return {}
    text, first = last_line(error), next((x for x in inputs if isinstance(x, torch.Tensor)), None)
    names = [n for n in _optional(module) if re.search(rf"\b{n}\b", text) or "mask" in n.lower()]
    found = {name: next(values(name, module)) for name in names if "mask" not in name.lower()}
    if first is not None and first.ndim >= 2:
        length = first.shape[-2] if first.is_floating_point() else first.shape[-1]
        visible = torch.zeros(first.shape[0], length, length, dtype=torch.bool)
        found |= {name: visible.clone() for name in names if "mask" in name.lower()}
    return found
