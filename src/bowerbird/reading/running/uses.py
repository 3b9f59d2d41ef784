"""How a function uses its parameters: what its code reads of them, by which a value that fits can be made."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

_PLAIN = frozenset((*dir(torch.Tensor), *dir(nn.Module), *dir(list), *dir(str), *dir(dict)))
_OF_MODULES = frozenset("parameters named_parameters state_dict load_state_dict eval train modules zero_grad".split())
_OF_TENSORS = frozenset(
    "shape size view reshape dim ndim mean sum unsqueeze squeeze permute transpose contiguous detach backward device "
    "dtype float long clamp exp log pow new_zeros flatten new norm T numel expand expand_as argmax chunk to".split()
)
_OF_TORCH = ("torch", "F", "functional", "np")
_OF_NUMBERS = frozenset(
    "zeros ones full empty arange linspace logspace eye rand randn randint randperm tensor device manual_seed".split()
)
"""What of torch and numpy takes numbers."""


@dataclass
class Use:
    """What is read of a parameter."""

    attributes: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    """Entries by a name."""
    called: bool = False
    iterated: bool = False
    """Whether a loop goes over it, or it has a first entry, or a length."""
    holds: bool = False
    """Whether something is looked up in it (``i in indices``)."""
    sliced: bool = False
    """Whether it is indexed as only tensors and arrays are."""
    spread: bool = False
    """Whether it is given on as keyword arguments."""
    computed: bool = False
    """Whether a function of torch or numpy takes it."""
    tested: bool = False
    """Whether a condition is nothing but it."""
    unpacked: int = 0
    """Into how many values it is taken apart."""
    choices: list[Any] = field(default_factory=list)
    """Strings and whole numbers that it is compared with."""

    @property
    def is_settings(self) -> bool:
        """Whether it has attributes that neither tensors, modules nor containers have."""
        own = bool(self.attributes - _PLAIN) or self.spread
        return own and not self.called and not self.is_module

    @property
    def is_module(self) -> bool:
        return bool(self.attributes & _OF_MODULES)

    @property
    def is_tensor(self) -> bool:
        return bool(self.attributes & _OF_TENSORS) or self.sliced or self.computed


def uses(function: Callable[..., Any]) -> dict[str, Use]:
    """The uses of each parameter of a function; of a class, those of its constructor, through ``self`` as well."""
    return _uses(getattr(function, "__func__", function))


@functools.lru_cache(maxsize=512)
def _uses(function: Callable[..., Any]) -> dict[str, Use]:
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
    reader = _Reader(found, _kept(made, found) if kind is not None else {})
    for node in ast.walk(tree if kind is not None else made):
        reader.read(node)
    return found


def within(node: ast.AST, names: Iterable[str]) -> dict[str, Use]:
    """The uses of names within a piece of code."""
    found = {name: Use() for name in names}
    reader = _Reader(found, {})
    for part in ast.walk(node):
        reader.read(part)
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


@dataclass
class _Reader:
    """Notes what each node of the code reads of a parameter."""

    found: dict[str, Use]
    kept: dict[str, str]

    def of(self, value: ast.AST | None) -> Use | None:
        if isinstance(value, ast.Name):
            return self.found.get(value.id)
        own = isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "self"
        return self.found.get(self.kept.get(value.attr, "")) if own and isinstance(value, ast.Attribute) else None

    def read(self, node: ast.AST) -> None:
        match node:
            case ast.Attribute(value=value, attr=name) if use := self.of(value):
                use.attributes.add(name)
            case ast.Subscript(value=value, slice=key) if use := self.of(value):
                self._entry(use, key)
            case ast.For(iter=items) | ast.comprehension(iter=items) if use := self.of(items):
                use.iterated = True
            case ast.If(test=test) | ast.IfExp(test=test) | ast.UnaryOp(op=ast.Not(), operand=test) if use := self.of(
                test
            ):
                use.tested = True
            case ast.Call():
                self._call(node)
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[right]) if use := self.of(right):
                use.holds = True
            case ast.Compare(left=left, comparators=[right, *_]) if use := self.of(left):
                use.choices += _constants(right)
            case ast.Assign(targets=[ast.Tuple(elts=parts)], value=value) if use := self.of(value):
                use.unpacked = len(parts)

    @staticmethod
    def _entry(use: Use, key: ast.expr) -> None:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            use.keys.add(key.value)
        elif isinstance(key, ast.Tuple | ast.Slice):
            use.sliced = use.sliced or isinstance(key, ast.Tuple)
        else:
            use.iterated = use.iterated or isinstance(key, ast.Constant | ast.UnaryOp)

    def _call(self, node: ast.Call) -> None:
        if use := self.of(node.func):
            use.called = True
        for word in node.keywords:
            if word.arg is None and (use := self.of(word.value)):
                use.spread = True
        taken = [use for part in node.args if (use := self.of(part))]
        name = ast.unparse(node.func)
        of_tensors = name.partition(".")[0] in _OF_TORCH and name.rpartition(".")[2] not in _OF_NUMBERS
        for use in taken:
            use.computed = use.computed or of_tensors
            use.iterated = use.iterated or name in ("len", "zip", "enumerate", "tuple", "list")


def _constants(node: ast.expr) -> Iterator[Any]:
    parts = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]
    yield from (p.value for p in parts if isinstance(p, ast.Constant) and type(p.value) in (str, int) and p.value)
