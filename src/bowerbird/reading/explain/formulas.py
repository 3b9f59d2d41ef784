"""A loss as an equation of the program's own names, derived from the lines that compute it.

    -torch.mean(real_validity) + torch.mean(fake_validity) + lambda_gp * gradient_penalty
    −E[D(x)] + E[D(G(z))] + lambda_gp · penalty

Names are followed through their assignments, and through what functions and forwards of the program return.  Every term
must be understood, else there is no equation: half of one would be a wrong one.  Where the values of all terms were
observed, so is that of the whole: then the equation is confirmed by number.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bowerbird.reading.program import Function, Unit, dotted, last_name, receiver, targets_of

DEEPEST = 10
_LIBRARIES = ("torch", "F", "nn.functional", "torch.nn.functional")
_SETTING = re.compile(r".*(lambda|weight|gamma|beta|alpha|coef|scale|cost).*|gp|k|c", re.IGNORECASE)
NAMED = {
    "mse_loss": "{r}[({f} − {y})²]", "l1_loss": "{r}[|{f} − {y}|]", "smooth_l1_loss": "{r}[huber({f} − {y})]",
    "huber_loss": "{r}[huber({f} − {y})]", "cross_entropy": "−{r}[log softmax({f})_{y}]", "nll_loss": "−{r}[{f}_{y}]",
    "kl_div": "{r}[{y} (log {y} − {f})]", "binary": "−{r}[{y} log {p} + (1 − {y}) log(1 − {p})]",
    "binary 1": "−{r}[log {p}]", "binary 0": "−{r}[log(1 − {p})]",
}  # fmt: skip
"""The losses of PyTorch: r the reduction, f what is judged, y the target, p a probability."""
_CLASSES = {
    "MSELoss": "mse_loss", "L1Loss": "l1_loss", "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss",
    "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll_loss", "KLDivLoss": "kl_div",
    "BCELoss": "binary_cross_entropy", "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
}  # fmt: skip
_APPLIED = {
    "relu": "max(0, {})", "ReLU": "max(0, {})", "softplus": "softplus({})", "logsigmoid": "log σ({})",
    "sigmoid": "σ({})", "log": "log({})", "square": "({})²", "abs": "|{}|", "exp": "exp({})",
}  # fmt: skip
_SHAPING = ("view", "squeeze", "unsqueeze", "reshape", "flatten", "contiguous", "float")
Known = Callable[[ast.Call], "Term | None"]


def named(function: str, reduction: str, judged: str, target: str) -> str:
    """What a loss of PyTorch computes."""
    reduced = {"mean": "E", "sum": "Σ", "none": ""}.get(reduction, "E")
    p = judged if function == "binary_cross_entropy" else f"σ({judged})"
    if function.startswith("binary_cross_entropy"):
        function = f"binary {target}" if target in ("0", "1") else "binary"
    written = NAMED.get(function, f"{{r}}[{function}({{f}}, {{y}})]")
    return written.format(r=reduced, f=judged, y=target, p=p)


class Unknown(Exception):
    """A term that is not understood."""


@dataclass(frozen=True)
class Term:
    """``value`` is what was observed of it, None where that is not known; ``halved``: its formula has the ½ in it."""

    words: str
    value: float | None = None
    halved: bool = False

    def scaled(self, sign: str, other: "Term | None" = None) -> "Term":
        """The sum or difference with another term, or minus this one."""
        own = replace(self, words=_bracketed(self.words)) if sign == "−" else self
        if other is None:
            return Term(f"−{own.words}", None if own.value is None else -own.value)
        factor = -1 if sign == "−" else 1
        value = None if other.value is None or own.value is None else other.value + factor * own.value
        return Term(f"{other.words} {sign} {own.words}".replace("+ −", "− "), value)


def _bracketed(words: str) -> str:
    outer = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", re.sub(r"\([^()]*\)", "", words))
    return f"({words})" if " + " in outer or " − " in outer or words.startswith("−") else words


@dataclass
class Derivation:
    """``network(call)`` is how a call of a network reads, ``D(G(z))``; ``known(call)`` a term that was observed there,
    a named loss or a penalty.  A name is what it was assigned last in ``scope`` before ``line``."""

    unit: Unit
    scope: ast.AST
    line: int
    network: Callable[[ast.Call], str]
    known: Known
    depth: int = 0
    lines: set[int] = field(default_factory=set)
    """The lines that were followed."""

    def _deeper(self, **changes: Any) -> "Derivation":
        if self.depth > DEEPEST:
            raise Unknown
        return replace(self, depth=self.depth + 1, **changes)

    # ------------------------------------------------------------------------------------------------ whole terms

    def loss(self, node: ast.expr) -> Term:
        """A number: terms that are added, scaled by constants, each of them a loss, a mean or a penalty."""
        inner = self._deeper()
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=part):
                return inner.loss(part).scaled("−")
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                return inner.loss(right).scaled("+" if isinstance(op, ast.Add) else "−", inner.loss(left))
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return inner._weighted(left, right) if self._plain(left) else inner._weighted(right, left)
            case ast.BinOp(left=left, op=ast.Div(), right=right) if self._plain(right):
                whole, by = inner.loss(left), self._number(right)
                value = whole.value / by if whole.value is not None and by else None
                return Term(f"{_bracketed(whole.words)} / {ast.unparse(right)}", value)
            case ast.Name() | ast.Subscript():
                return inner._followed(node)
            case ast.Call():
                return inner._call(node)
        raise Unknown

    def _weighted(self, factor: ast.expr, node: ast.expr) -> Term:
        if not self._plain(factor):
            raise Unknown
        part, by = self.loss(node), self._number(factor)
        if part.halved and by in (0.5, -0.5):
            return part
        value = part.value * by if part.value is not None and by is not None else None
        return Term(f"{ast.unparse(factor).removeprefix('self.')} · {_bracketed(part.words)}", value)

    def _plain(self, node: ast.expr) -> bool:
        """A number or a setting: what may scale a term."""
        if isinstance(node, ast.Name | ast.Attribute):
            return bool(_SETTING.fullmatch(last_name(node))) or self._number(node) is not None
        return self._number(node) is not None

    def _number(self, node: ast.expr) -> float | None:
        """The value of a setting: of ``self.beta`` that of the constant ``beta``."""
        own = ast.Name(node.attr) if isinstance(node, ast.Attribute) and dotted(node.value) == "self" else node
        value = self.unit.constant(own)
        return float(value) if isinstance(value, int | float) else None

    def _followed(self, node: ast.expr, key: int | str | None = None) -> Term:
        """What a name was assigned, or an entry of what it was assigned."""
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            index = node.slice.value
            return self._followed(node.value, index if isinstance(index, int) else str(index))
        if not isinstance(node, ast.Name):
            raise Unknown
        value, place = self._value(node)
        key = place if key is None else key
        if key is None:
            return self.loss(value)
        if isinstance(value, ast.Call):
            return self._returned(value, key)
        raise Unknown

    def _call(self, call: ast.Call) -> Term:
        observed = self.known(call)
        if observed is not None:
            return observed
        function = self._function(call)
        if function in NAMED or function.startswith("binary_cross_entropy"):
            return Term(self._named(function, call))
        word = last_name(call)
        if word in ("mean", "sum"):
            inner = call.args[0] if call.args and receiver_is_library(call) else receiver(call)
            if inner is None or len(call.args) > 1:
                raise Unknown
            return Term(f"{'E' if word == 'mean' else 'Σ'}[{self.entry(inner)}]")
        if word == "item" or word in _SHAPING:
            return self.loss(receiver(call) or call)
        return self._returned(call, None)

    def _function(self, call: ast.Call) -> str:
        """The named loss that a call is, under the name of its function: of ``criterion`` what it was built as."""
        kind = self.unit.modules.get(dotted(call.func) or "", "")
        built = last_name(call.func.func) if isinstance(call.func, ast.Call) else kind
        return _CLASSES.get(built, last_name(call))

    def _named(self, function: str, call: ast.Call) -> str:
        if len(call.args) < 2:
            raise Unknown
        given = next((k.value.value for k in call.keywords
                      if k.arg == "reduction" and isinstance(k.value, ast.Constant)), "mean")  # fmt: skip
        return named(function, str(given), *(self.shown(argument) for argument in call.args[:2]))

    def shown(self, node: ast.expr) -> str:
        """An argument in the program's own words: detached in sg[…], without what only changes its shape."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            inner = self.shown(node.func.value)
            if last_name(node) == "detach":
                return f"sg[{inner}]"
            if last_name(node) in _SHAPING:
                return inner
        return ast.unparse(node)

    # ------------------------------------------------------------------------------------------- through functions

    def _returned(self, call: ast.Call, key: int | str | None) -> Term:
        """What a function of the program returns, or the entry of it that is asked for."""
        function = self._own(call)
        returns = [n for n in self.unit.all(ast.Return, under=function) if n.value is not None] if function else []
        if not returns or function is None:
            raise Unknown
        value: ast.expr | None = returns[-1].value
        inner = self._deeper(scope=function, line=returns[-1].lineno)
        if isinstance(value, ast.Name) and key is not None:
            value, _ = inner._value(value)
        match value:
            case ast.Tuple() if isinstance(key, int) and key < len(value.elts):
                value = value.elts[key]
            case ast.Dict() if isinstance(key, str):
                keys = [k.value if isinstance(k, ast.Constant) else None for k in value.keys]
                value = value.values[keys.index(key)] if key in keys else None
            case ast.expr() if key is not None:
                raise Unknown
        if value is None:
            raise Unknown
        self.lines.update(range(function.lineno, (function.end_lineno or function.lineno) + 1))
        return inner.loss(value)

    def _own(self, call: ast.Call) -> Function | None:
        """The function or the forward of the program that a call runs."""
        functions, word = self.unit.functions, last_name(call)
        kind = self.unit.modules.get(dotted(call.func) or "")
        if kind is not None:
            return functions.get(f"{kind}.forward")
        methods = [f for name, f in functions.items() if name.endswith(f".{word}")]
        return functions.get(word) or (methods[0] if len(methods) == 1 else None)

    def _value(self, name: ast.Name) -> tuple[ast.expr, int | None]:
        """What a name was assigned last before the line, and which element of it where it was one of several names."""
        found = [
            (s.lineno, v, s) for v, s in self.unit.assignments.get(name.id, [])
            if s.lineno <= self.line and self.unit.scope(s) in (self.scope, self.unit.tree)
        ]  # fmt: skip
        added = [
            s for s in self.unit.all(ast.AugAssign)
            if dotted(s.target) == name.id and s.lineno <= self.line and self.unit.scope(s) is self.scope
        ]  # fmt: skip
        if not found or added:
            raise Unknown
        line, value, statement = max(found, key=lambda row: row[0])
        self.lines.add(line)
        targets = [dotted(target) for target in targets_of(statement)]
        unpacked = isinstance(statement, ast.Assign) and any(isinstance(t, ast.Tuple) for t in statement.targets)
        whole = isinstance(statement, ast.Assign) and value is statement.value  # of a, b = f(), g() it is an element
        return value, targets.index(name.id) if unpacked and whole else None

    # -------------------------------------------------------------------------------------------- for one example

    def entry(self, node: ast.expr) -> str:
        """What is averaged, for one example."""
        inner = self._deeper()
        match node:
            case ast.Constant(value=int() | float() as number):
                return f"{number:g}"
            case ast.Name():
                value, key = self._value(node)
                if key is not None:
                    raise Unknown
                return inner.entry(value)
            case ast.UnaryOp(op=ast.USub(), operand=part):
                return f"−{inner.entry(part)}"
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                return f"{inner.entry(left)} {'+' if isinstance(op, ast.Add) else '−'} {inner.entry(right)}"
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=2)):
                return f"({inner.entry(left)})²"
            case ast.Call():
                return self.network(node) or inner._applied(node)
        raise Unknown

    def _applied(self, call: ast.Call) -> str:
        inner = call.args[0] if call.args and receiver_is_library(call) else receiver(call)
        if inner is None:
            raise Unknown
        words, name = self.entry(inner), last_name(call)
        if name in _SHAPING:
            return words
        if name == "log" and words.endswith(")") and " " not in words:
            return f"log {words}"
        if name == "pow" and [ast.unparse(a) for a in call.args[-1:]] == ["2"]:
            return f"({words})²"
        if name not in _APPLIED:
            raise Unknown
        return _APPLIED[name].format(words)


def receiver_is_library(call: ast.Call) -> bool:
    """Whether what a call computes of is its argument, as in ``torch.mean(x)`` or ``nn.ReLU()(x)``."""
    return not isinstance(call.func, ast.Attribute) or dotted(call.func.value) in _LIBRARIES
