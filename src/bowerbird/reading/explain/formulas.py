"""Losses that a program writes out by hand: sums of means of what networks answered, as an equation of its own names.

    -torch.mean(real_validity) + torch.mean(fake_validity) + lambda_gp * gradient_penalty
    −E[D(x)] + E[D(G(z))] + lambda_gp · penalty

Every term must be understood, else there is no equation: half of one would be a wrong one.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bowerbird.reading.explain.answers import answer
from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact
from bowerbird.reading.program import Unit, dotted, last_name

DEEPEST = 8
_LIBRARIES = ("torch", "F", "nn.functional", "torch.nn.functional")
_SETTING = re.compile(r".*(lambda|weight|gamma|beta|alpha|coef|scale).*|gp|k|c", re.IGNORECASE)


def by_hand(
    study: Study, unit: Unit, backward: Fact, patterns: list[dict[str, Any]]
) -> tuple[str, list[dict[str, Any]]] | None:
    """The equation of a loss that is written out, with the patterns that are terms of it; None where it is not."""
    call = next((c for c in unit.calls("*.backward") if c.lineno == backward.line), None)
    if call is None or not isinstance(call.func, ast.Attribute):
        return None
    terms = [p for p in patterns if p["formula"]]

    def network(asked: ast.Call) -> str:
        word = last_name(asked)
        seen = [
            f for f in study.facts.of("event.forward")
            if f.file == unit.file and f.line == asked.lineno and (f["seq"] or 0) < (backward["seq"] or 0)
        ]  # fmt: skip
        named = [f for f in seen if f.subject.rpartition(".")[2] == word] or seen
        return answer(study, named[-1]) if named and len({f.subject for f in named}) == 1 else ""

    def term(asked: ast.Call) -> str:
        function = unit.functions.get(last_name(asked))
        last = (function.end_lineno or 0) if function is not None else 0
        for pattern in terms:
            inside = function is not None and function.lineno <= pattern["line"] <= last
            if pattern["file"] == unit.file and (inside or pattern["line"] == asked.lineno):
                return str(pattern["formula"]).partition(" = ")[0]
        return ""

    try:
        equation = Writer(unit, backward.line or 0, network, term).loss(call.func.value)
    except Unknown:
        return None
    line = call.func.value.lineno
    if isinstance(call.func.value, ast.Name):
        line = max(s.lineno for _, s in unit.assignments[call.func.value.id] if s.lineno <= call.lineno)
    whole = {"name": "written out", "equation": equation, "line": line, "file": unit.file, "formula": ""}
    return equation, [whole, *terms]


class Unknown(Exception):
    """A term that is not understood."""


@dataclass
class Writer:
    """``network(call)`` is how a call of a network reads, ``D(G(z))``; ``penalty(call)`` whether a call is a penalty.

    Both answer "" for other calls.  ``line`` is that of the backward pass: a name is what it was assigned before it.
    """

    unit: Unit
    line: int
    network: Callable[[ast.Call], str]
    penalty: Callable[[ast.Call], str]

    def loss(self, node: ast.expr, depth: int = 0) -> str:
        """A number: terms that are added, scaled by constants, each of them a mean or a penalty."""
        if depth > DEEPEST:
            raise Unknown
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return f"−{self._bracketed(inner, depth)}"
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return f"{self.loss(left, depth + 1)} + {self.loss(right, depth + 1)}".replace("+ −", "− ")
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return f"{self.loss(left, depth + 1)} − {self._bracketed(right, depth)}"
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                factor, rest = (left, right) if _plain(left) else (right, left)
                if not _plain(factor):
                    raise Unknown
                return f"{ast.unparse(factor)} · {self._bracketed(rest, depth)}"
            case ast.BinOp(left=left, op=ast.Div(), right=ast.Constant(value=int() | float() as number)):
                return f"{self._bracketed(left, depth)} / {number}"
            case ast.Name():
                return self.loss(self._value(node), depth + 1)
            case ast.Call():
                return self._mean(node, depth)
        raise Unknown

    def _bracketed(self, node: ast.expr, depth: int) -> str:
        words = self.loss(node, depth + 1)
        return f"({words})" if " + " in words or " − " in words or words.startswith("−") else words

    def _mean(self, call: ast.Call, depth: int) -> str:
        told = self.penalty(call)
        if told:
            return told
        if last_name(call) not in ("mean", "sum") or len(call.args) > 1 or call.keywords:
            raise Unknown
        word = "E" if last_name(call) == "mean" else "Σ"
        if call.args:
            return f"{word}[{self.entry(call.args[0], depth + 1)}]"
        if isinstance(call.func, ast.Attribute):
            return f"{word}[{self.entry(call.func.value, depth + 1)}]"
        raise Unknown

    def entry(self, node: ast.expr, depth: int) -> str:
        """What is averaged, for one example."""
        if depth > DEEPEST:
            raise Unknown
        match node:
            case ast.Constant(value=int() | float() as number):
                return f"{number:g}"
            case ast.Name():
                return self.entry(self._value(node), depth + 1)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return f"−{self.entry(inner, depth + 1)}"
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                sign = "+" if isinstance(op, ast.Add) else "−"
                return f"{self.entry(left, depth + 1)} {sign} {self.entry(right, depth + 1)}"
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=2)):
                return f"({self.entry(left, depth + 1)})²"
            case ast.Call():
                return self._applied(node, depth)
        raise Unknown

    def _applied(self, call: ast.Call, depth: int) -> str:
        network = self.network(call)
        if network:
            return network
        inner = call.args[0] if call.args else None
        if isinstance(call.func, ast.Attribute) and dotted(call.func.value) not in _LIBRARIES:
            inner = call.func.value
        if inner is None:
            raise Unknown
        word = self.entry(inner, depth + 1)
        match last_name(call):
            case "relu" | "ReLU":
                return f"max(0, {word})"
            case "softplus":
                return f"softplus({word})"
            case "logsigmoid":
                return f"log σ({word})"
            case "sigmoid":
                return f"σ({word})"
            case "log":
                return f"log {word}" if word.endswith(")") and " " not in word else f"log({word})"
            case "square":
                return f"({word})²"
            case "pow" if [ast.unparse(a) for a in call.args[-1:]] == ["2"]:
                return f"({word})²"
            case "view" | "squeeze" | "reshape" | "flatten":
                return word
        raise Unknown

    def _value(self, name: ast.Name) -> ast.expr:
        """What a name was assigned last before the backward pass, by one assignment to it alone."""
        found = [(s.lineno, v, s) for v, s in self.unit.assignments.get(name.id, []) if s.lineno <= self.line]
        if not found:
            raise Unknown
        _, value, statement = max(found, key=lambda row: row[0])
        single = isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets)
        added = [s for s in self.unit.all(ast.AugAssign) if dotted(s.target) == name.id and s.lineno <= self.line]
        if not single or added:
            raise Unknown
        return value


def _plain(node: ast.expr) -> bool:
    """A number or a setting by name: what may scale a term."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    return isinstance(node, ast.Name | ast.Attribute) and bool(_SETTING.fullmatch(last_name(node)))
