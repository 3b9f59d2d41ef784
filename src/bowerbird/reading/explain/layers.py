"""What the usual layers compute (``layers.toml``, general knowledge) and cost, and what a forward is seen to compute.

A multiplication and an addition count as two operations, bias and activations as none (they are a thousandth of it):

    linear        2 · outputs · in_features
    convolution   2 · outputs · in_channels/groups · kernel
    transposed    2 · inputs · out_channels/groups · kernel
    attention     4 · batch · length² · width of nn.MultiheadAttention, besides its projections
"""

import ast
import math
import re
import textwrap
from pathlib import Path

from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact, first_shape, shape_of
from bowerbird.reading.wording import table

Values = dict[str, list[ast.expr]]
"""What each name of a function was assigned."""


def known(kind: str) -> dict[str, str] | None:
    """The equation of a layer's class, and what it is for in both languages; None for others."""
    rows = table(Path(__file__).with_name("layers.toml"))["layer"]
    return next((row for row in rows if re.fullmatch(row["class"], kind)), None)


def residual(code: str) -> bool:
    """Whether code adds something that was computed from a value to that value: ``x + f(x)``."""
    tree = ast.parse(textwrap.dedent(code))
    values = _assigned(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pairs = [(node.left, node.right), (node.right, node.left)]
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            pairs = [(node.target, node.value)]
        else:
            continue
        if any(kept and _computed(other, kept, values) for one, other in pairs for kept in _kept(one, values)):
            return True
    return False


def _assigned(tree: ast.AST) -> Values:
    found: Values = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]:
                    found.setdefault(name, []).append(node.value)
    return found


def _kept(node: ast.expr, values: Values) -> set[str]:
    """The names whose value an expression passes on: itself, another name for it, a shortcut of it."""
    if isinstance(node, ast.Name):
        others = {v.id for v in values.get(node.id, []) if isinstance(v, ast.Name)}
        return {node.id} | others
    if isinstance(node, ast.Call) and re.search(r"res|skip|shortcut|identity|downsample", ast.unparse(node.func)):
        return {n.id for a in node.args for n in ast.walk(a) if isinstance(n, ast.Name)}
    return set()


def _computed(node: ast.expr, name: str, values: Values) -> bool:
    """Whether a call that was given ``name`` enters an expression."""
    calls = [n for e in _sources(node, values, but=name) for n in ast.walk(e) if isinstance(n, ast.Call)]
    return any(isinstance(n, ast.Name) and n.id == name for c in calls for a in c.args for n in ast.walk(a))


def _sources(node: ast.expr, values: Values, but: str = "") -> list[ast.expr]:
    """An expression and all that its names were assigned, and the names in that; not what ``but`` was assigned."""
    found, seen = [node], {but}
    for expression in found:
        for name in {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)} - seen:
            seen.add(name)
            found += values.get(name, [])
    return found


def attention(code: str) -> bool:
    """Whether code takes the softmax of a product, or has PyTorch do so: attention written out."""
    tree = ast.parse(textwrap.dedent(code))
    values = _assigned(tree)
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        called = ast.unparse(call.func).rpartition(".")[2]
        if called == "scaled_dot_product_attention":
            return True
        if called in ("softmax", "Softmax"):
            inner = [*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
            if any(_product(part, values) for part in inner):
                return True
    return False


def _product(node: ast.expr, values: Values) -> bool:
    """Whether an expression is a product of two tensors, scaled or masked."""
    parts = [part for e in _sources(node, values) for part in ast.walk(e)]
    named = [ast.unparse(part.func).rpartition(".")[2] for part in parts if isinstance(part, ast.Call)]
    return bool({"matmul", "bmm", "einsum", "baddbmm"} & set(named)) or any(
        isinstance(part, ast.BinOp) and isinstance(part.op, ast.MatMult) for part in parts
    )


# --------------------------------------------------------------------------------------------------------- costs

_NUMBERS = re.compile(r"-?\d+")


def note(study: Study) -> None:
    """Adds ``block.cost`` of each layer that was called, and ``network.cost`` of each network."""
    for tree in study.roots:
        total, rows = 0, []
        for row in tree["modules"] or []:
            path = f"{tree.subject}.{row['path']}" if row["path"] else tree.subject
            io = study.facts.first("module.io", path)
            operations = None if io is None else of_layer(row["class"], row["repr"], io)
            if operations and io is not None:
                study.add("block.cost", path, {"operations": operations, "shape": shape_of(io["out"])}, like=io)
                total += operations
                rows.append((operations, path))
        if total:
            io = study.facts.first("module.io", tree.subject)
            taken = first_shape(io["in"]) if io is not None else None
            largest, name = max(rows)
            value = {"operations": total, "shape": taken, "largest": name, "share": round(largest / total, 3)}
            study.add("network.cost", tree.subject, value, like=tree)


def of_layer(kind: str, settings: str, io: Fact) -> int | None:
    """Operations of one call, None for layers whose cost is not counted."""
    taken, given = first_shape(io["in"]), shape_of(io["out"])
    if not taken or not given:
        return None
    numbers = [int(n) for n in _NUMBERS.findall(settings)]
    if kind == "Linear":
        return 2 * math.prod(given) * taken[-1]
    if re.fullmatch(r"Conv[123]d", kind) and len(numbers) > 2:
        return 2 * math.prod(given) * taken[1] * _kernel(settings) // _groups(settings)
    if re.fullmatch(r"ConvTranspose[123]d", kind) and len(given) > 1:
        return 2 * math.prod(taken) * given[1] * _kernel(settings) // _groups(settings)
    if kind == "MultiheadAttention" and len(taken) == 3:
        batch_first = "batch_first=True" in settings
        batch, length = (taken[0], taken[1]) if batch_first else (taken[1], taken[0])
        return 8 * batch * length * taken[2] ** 2 + 4 * batch * length**2 * taken[2]
    return None


def _kernel(settings: str) -> int:
    found = re.search(r"kernel_size=\(([\d, ]+)\)", settings)
    return math.prod(int(n) for n in _NUMBERS.findall(found[1])) if found else 1


def _groups(settings: str) -> int:
    found = re.search(r"groups=(\d+)", settings)
    return int(found[1]) if found else 1
