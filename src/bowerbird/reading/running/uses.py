"""How a function uses its parameters: what its code reads of them, by which a value that fits can be made."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

_PLAIN = frozenset((*dir(torch.Tensor), *dir(nn.Module), *dir(list), *dir(str), *dir(dict)))


@dataclass
class Use:
    """What is read of a parameter: its attributes, its entries by a name, and whether it is called."""

    attributes: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    called: bool = False
    iterated: bool = False

    @property
    def is_settings(self) -> bool:
        """Whether it has attributes that neither tensors, modules nor containers have."""
        return bool(self.attributes - _PLAIN) and not self.called and not self.is_module

    @property
    def is_module(self) -> bool:
        return bool(self.attributes & _OF_MODULES)

    @property
    def is_tensor(self) -> bool:
        return bool(self.attributes & _OF_TENSORS)


_OF_MODULES = frozenset("parameters named_parameters state_dict load_state_dict eval train modules zero_grad".split())
_OF_TENSORS = frozenset(
    "shape size view reshape dim ndim mean sum unsqueeze squeeze permute transpose contiguous detach backward device "
    "dtype float long clamp exp log pow new_zeros flatten new norm".split()
)


def uses(function: Callable[..., Any]) -> dict[str, Use]:
    """The uses of each parameter of a function; of a class, those of its constructor, through ``self`` as well."""
    kind = function if isinstance(function, type) else None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind if kind is not None else inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return {}
    defined = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    made = next((n for n in defined if kind is None or n.name == "__init__"), None)
    if made is None:
        return {}
    rest = [a for a in (made.args.vararg, made.args.kwarg) if a is not None]
    found = {a.arg: Use() for a in (*made.args.posonlyargs, *made.args.args, *made.args.kwonlyargs, *rest)}
    kept = _kept(made, found) if kind is not None else {}
    for node in ast.walk(tree if kind is not None else made):
        _read(node, found, kept)
    return found


def _kept(made: ast.FunctionDef, found: dict[str, Use]) -> dict[str, str]:
    """Attributes of ``self`` that hold a parameter as it is."""
    return {
        target.attr: node.value.id
        for node in ast.walk(made)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in found
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }


def _read(node: ast.AST, found: dict[str, Use], kept: dict[str, str]) -> None:
    def of(value: ast.AST) -> Use | None:
        if isinstance(value, ast.Name):
            return found.get(value.id)
        own = isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "self"
        return found.get(kept.get(value.attr, "")) if own and isinstance(value, ast.Attribute) else None

    if isinstance(node, ast.Attribute) and (use := of(node.value)) is not None:
        use.attributes.add(node.attr)
    elif isinstance(node, ast.Subscript) and (use := of(node.value)) is not None:
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            use.keys.add(node.slice.value)
    elif isinstance(node, ast.Call) and (use := of(node.func)) is not None:
        use.called = True
    elif isinstance(node, ast.For | ast.comprehension) and (use := of(node.iter)) is not None:
        use.iterated = True
