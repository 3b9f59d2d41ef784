"""Grounds: the numbers that a claim may rest on, each with what it is a number of.

0.5 in ``Adam(G.parameters(), lr=0.0002, betas=(0.5, 0.999))`` is a beta of that optimiser and nothing else, so that "a
learning rate of 0.5" does not hold although 0.5 stands on the cited line.  Comments and docstrings ground nothing.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.program import Unit, dotted, last_name, targets_of
from bowerbird.reading.tutor.names import Names
from bowerbird.reading.tutor.quantities import quantities
from bowerbird.reading.tutor.wording import code_concepts, concept_of, name_parts

_POSITIONAL = {
    "Linear": ("in_features input", "out_features output hidden"),
    "Bilinear": ("input", "input", "output"),
    "Conv1d": ("in_channels input", "out_channels output", "kernel_size", "stride", "padding"),
    "Embedding": ("vocabulary token entry", "embedding dim"),
    "Dropout": ("dropout probability rate",),
    "Dropout2d": ("dropout probability rate",),
    "LeakyReLU": ("slope negative",),
    "BatchNorm1d": ("feature channel", "eps"),
    "BatchNorm2d": ("feature channel", "eps"),
    "LayerNorm": ("feature shape",),
    "LSTM": ("input", "hidden"),
    "GRU": ("input", "hidden"),
    "RNN": ("input", "hidden"),
    "MultiheadAttention": ("embedding dim", "head"),
    "manual_seed": ("seed",),
    "clamp": ("clip min lower", "clip max upper"),
    "clamp_": ("clip min lower", "clip max upper"),
    "Adam": ("parameter", "learning_rate lr"),
    "SGD": ("parameter", "learning_rate lr"),
    "range": ("loop times",),
    "randn": ("noise batch", "noise feature dimension"),
    "pow": ("power",),
    "rand": ("batch", "feature dimension"),
    "randint": ("min lower", "max upper"),
    "zeros": ("zero",),
    "ones": ("one",),
}
for _same in ("Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"):
    _POSITIONAL[_same] = _POSITIONAL["Conv1d"]
_TOPICS = {
    "parameters": "parameter trainable",
    "trainable": "trainable parameter",
    "own": "parameter own",
    "out": "output shape feature dimension channel",
    "in": "input shape feature dimension channel",
    "shape": "shape feature dimension",
    "shapes": "shape",
    "lr": "learning_rate",
    "n": "step",
    "calls": "call forward",
    "steps": "step",
    "iterations": "loop step batch",
    "batch_size": "batch",
    "value": "loss",
    "delta": "delta move change",
    "grad_norm": "gradient norm",
    "norm": "norm gradient",
    "tensors": "tensor parameter",
    "elements": "parameter",
    "loss": "loss value",
    "buffers": "buffer",
    "cpu_s": "second cpu time",
    "min": "min minimum smallest lowest",
    "max": "max maximum largest highest",
    "mean": "mean average",
    "std": "std",
    "betas": "beta",
    "weight_decay": "decay weight",
    "reduction": "reduction",
}
_OPERATORS: dict[type, str] = {
    ast.Mult: "multiply",
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Div: "divide",
    ast.Pow: "power",
}
_WEAK = {"size", "number", "dim", "n", "num", "n_", "value", "seq", "of", "kind"}


@dataclass(frozen=True)
class Ground:
    value: float | tuple[float, ...]
    roles: frozenset[str]
    """What it is a number of, strongest reading."""
    context: frozenset[str]
    """What else stands with it."""
    subjects: frozenset[str]
    where: str
    measured: bool = False


def of_fact(fact: Fact, names: Names) -> Iterator[Ground]:
    topic = fact.topic.rpartition(".")[2]
    subjects = names.keys_of(fact.subject)
    context = frozenset({*_words(fact.topic), *_words(fact.subject), *code_concepts(str(fact.value))})
    yield from _leaves(fact.value, frozenset(_roles(topic)), subjects, context, fact.id, fact.kind != "static", names)


def _leaves(
    value: Any,
    roles: frozenset[str],
    subjects: frozenset[str],
    context: frozenset[str],
    where: str,
    measured: bool,
    names: Names,
) -> Iterator[Ground]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield Ground(float(value), roles, context, subjects, where, measured and isinstance(value, float))
    elif isinstance(value, str):
        for quantity in quantities(value) if len(value) < 200 else ():
            yield Ground(quantity.value, roles | frozenset(code_concepts(value)), context, subjects, where, True)
    elif isinstance(value, list):
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and len(numbers) == len(value) and "shape" in roles:
            yield Ground(tuple(map(float, numbers)), roles, context, subjects, where)
            for place, number in enumerate(numbers):
                alone = {"only batch"} if place == 0 and len(numbers) > 1 else set()
                named = roles | {"batch"} if place == 0 else roles
                yield Ground(float(number), named, context | alone, subjects, where)
        else:
            if len(numbers) == len(value) > 1:
                yield Ground(tuple(map(float, numbers)), roles, context, subjects, where, measured)
            for one in value:
                yield from _leaves(one, roles, subjects, context, where, measured, names)
    elif isinstance(value, dict):
        path = value.get("path") or value.get("module")
        inner = names.keys_of(str(path)) if path else subjects
        for key, one in value.items():
            if key in ("seq", "position", "line", "lines", "stack"):
                continue
            own = names.keys_of(str(key)) or inner
            above = roles & {"input", "output", "gradient", "loss", "target"}
            yield from _leaves(one, frozenset(_roles(key)) | above, own, context, where, measured, names)


def _roles(key: str) -> set[str]:
    return {*_TOPICS.get(key, "").split(), *_words(key)} - _WEAK


def _words(name: str) -> set[str]:
    """The concepts of a name, whole and in parts: ``weight_decay`` → weight_decay, weight, decay."""
    return code_concepts(name) | {concept_of(p) for p in name_parts(name)}


def of_lines(unit: Unit, first: int, last: int, names: Names) -> Iterator[Ground]:
    """The constants of the code of some lines."""
    for node in unit.nodes:
        if isinstance(node, ast.expr) and first <= node.lineno <= last:
            value = unit.constant(node)
            if isinstance(value, bool) or not isinstance(value, int | float | tuple):
                continue
            if isinstance(value, tuple) and not all(isinstance(v, int | float) for v in value):
                continue
            if isinstance(unit.parents.get(node), ast.Attribute | ast.UnaryOp):
                continue
            roles, context = _place(node, unit)
            shown = tuple(map(float, value)) if isinstance(value, tuple) else float(value)
            yield Ground(
                shown, frozenset(roles), frozenset(context), _subjects(node, unit, names), f"line {node.lineno}"
            )


def _place(node: ast.expr, unit: Unit) -> tuple[set[str], set[str]]:
    """What the place of a constant says of it: the keyword, the position in a known call, the name it is bound to."""
    roles: set[str] = set(_words(name) - _WEAK) if (name := dotted(node)) else set()
    context: set[str] = set()
    inner: ast.AST = node
    for outer in unit.ancestors(node):
        if isinstance(outer, ast.BinOp) and (inner is node or isinstance(inner, ast.UnaryOp)):
            roles |= {_OPERATORS.get(type(outer.op), "")} - {""}
        elif isinstance(outer, ast.keyword) and outer.arg:
            roles |= _roles(outer.arg)
        elif isinstance(outer, ast.Call):
            if inner in outer.args and not roles & {"beta"}:
                known = _POSITIONAL.get(last_name(outer), ())
                place = outer.args.index(inner)
                if place < len(known):
                    roles |= {concept_of(w) for w in known[place].split()}
            context |= code_concepts(dotted(outer.func) or "")
            if last_name(outer) == "add_argument":
                flags = [a.value for a in outer.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                roles = set().union(*(_roles(flag.lstrip("-").replace("-", "_")) for flag in flags)) if flags else roles
        elif isinstance(outer, ast.stmt):
            targets = {t for target in targets_of(outer) if (t := dotted(target))}
            direct = isinstance(outer, ast.Assign | ast.AnnAssign) and outer.value is not None and (
                inner is outer.value or isinstance(inner, ast.BinOp | ast.UnaryOp))  # fmt: skip
            bound = set().union(*(_roles(t) for t in targets)) if targets else set()
            if direct or (isinstance(outer, ast.For) and inner is outer.iter):
                roles |= bound
            context |= bound | code_concepts(" ".join(targets))
            break
        inner = outer
    return roles, context


def _subjects(node: ast.expr, unit: Unit, names: Names) -> frozenset[str]:
    """The entities that a constant belongs to: what its statement builds, else what the statement stands in."""
    statement = unit.statement(node)
    if statement is None:
        return frozenset()
    bound = frozenset().union(*(names.keys_of(d) for t in targets_of(statement) if (d := dotted(t))))
    around = unit.class_around(statement)
    owner = names.keys_of(around.name) if around is not None else frozenset()
    if bound:
        return frozenset(bound | owner) if around is not None else bound
    function = unit.function(statement)
    return owner or (names.keys_of(function.name) if function is not None else frozenset())
