"""How it is built: data and networks, then block by block, with shapes, parameters, cost and equations."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain import layers
from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.text import Piece, Ref, Text, general, joined, large, name, number, shape, shapes
from bowerbird.reading.explain.writer import MOST_LINES, Writer
from bowerbird.reading.facts import Fact

MOST_ROWS, MOST_NETWORKS, MOST_ROOTS, MOST_UNUSED, MOST_SHOWN, LONGEST = 60, 8, 6, 8, 4, 62
_SILENT = ("Sequential", "ModuleList", "ModuleDict", "Identity")
"""Containers, and what does nothing."""
_CARDS = {r"LSTM.*": "lstm-gates", r"LayerNorm|RMSNorm": "layernorm", r"MultiheadAttention": "attention-softmax"}


def write(w: Writer) -> Iterator[Block]:
    yield from w.items([*_data(w), *(_made(w, tree) for tree in w.study.networks[:MOST_NETWORKS])])
    for fact in w.study.facts.of("probe.schedule")[:1]:
        for key in [k for k in ("T", "steps", "length") if isinstance(fact[k], int)][:1]:
            yield w.said("data.schedule", steps=number(fact, key))
    told: dict[str, Fact] = {}
    for tree in w.study.roots[:MOST_ROOTS]:
        same = told.setdefault(repr(tree["modules"]), tree)
        yield w.heading("block.title", tree)
        yield from [w.said("block.alike", other=name(same))] if same is not tree else _network(w, tree)
    yield from _layers(w)
    yield from _classes(w)
    yield from _cards(w)


def _data(w: Writer) -> Iterator[Text]:
    for fact in w.study.facts.of("data.loader")[:MOST_SHOWN]:
        yield w.say("data.loader", fact)
    for fact in w.study.facts.of("data.batch")[:MOST_SHOWN]:
        for i, part in enumerate(fact["parts"] or []):
            if isinstance(part, dict) and part.get("min") is not None and part.get("shape"):
                ends = {key: number(fact, "parts", i, key) for key in ("min", "max")}
                yield w.say("data.batch", fact, shape=shape(fact, "parts", i, "shape"), **ends)


def _made(w: Writer, tree: Fact) -> Text:
    io = w.study.facts.first("module.io", tree.subject)
    said = w.say("net.made" if tree.line else "net.built", tree)
    if tree["trainable"] != tree["parameters"]:
        said += w.say("net.trainable", tree)
    if io is None:
        return said + w.say("net.uncalled")
    return said + (w.say("net.io", io) if shapes(io, "in") and shapes(io, "out") else w.say("net.end"))


# ------------------------------------------------------------------------------------------------------- the networks


def _network(w: Writer, tree: Fact) -> Iterator[Block]:
    cost = w.study.facts.first("network.cost", tree.subject)
    counted = cost is not None and cost["shape"]
    yield w.said("block.cost", cost, parameters=number(tree, "parameters")) if counted else w.said("block.size", tree)
    for fact in w.study.facts.of("probe.tied", tree.subject):
        if fact["one"]:
            yield w.said("block.tied", fact)
    rows = list(_rows(w, tree))
    yield from w.table("network", rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        value = {"rows": len(rows) - MOST_ROWS}
        yield w.said("block.left_out", w.study.add("block.left_out", tree.subject, value, like=tree))
    unused = [f for f in w.study.facts.of("module.calls", f"{tree.subject}.*") if not f["calls"] and f["own"]]
    if unused and w.study.facts.first("module.io", tree.subject) is not None:
        yield w.said("block.unused", unused=[name(f) for f in unused[:MOST_UNUSED]])


def _rows(w: Writer, tree: Fact) -> Iterator[list[Piece]]:
    """One row for each block; of blocks that are built alike, the first."""
    rows: list[dict[str, Any]] = tree["modules"] or []
    skipped: set[str] = set()
    for i, row in enumerate(rows):
        path = row["path"]
        inside = any(path == s or path.startswith(f"{s}.") for s in skipped)
        if inside or (not path and len(rows) > 1) or row["class"] in _SILENT:
            continue
        repeats = _repeats(rows, i)
        skipped |= set(repeats)
        yield _row(w, tree, row, repeats)


def _row(w: Writer, tree: Fact, row: dict[str, Any], repeats: list[str]) -> list[Piece]:
    path, facts = row["path"], w.study.facts
    whole = f"{tree.subject}.{path}" if path else tree.subject
    label = Text((Ref(path or tree.subject, tree.id, "name", path),))
    if repeats:
        value = {"times": len(repeats) + 1, "last": repeats[-1]}
        label += w.say("block.repeat", w.study.add("block.repeat", whole, value, like=tree))
    io, cost = facts.first("module.io", whole), facts.first("block.cost", whole)
    at = facts.first("module.calls", whole) or facts.first("module.parameters", whole)
    sides = [joined(shapes(io, side)[:3], w.lang) if io is not None else Text() for side in ("in", "out")]
    size = Text((Ref(f"{row['parameters']:,}", tree.id, "number", row["parameters"]),)) if row["parameters"] else Text()
    kind = Ref(_short(row["repr"]), tree.id, "name", row["repr"])
    made = Text((w.line(at),)) if at is not None and at.line else Text()
    return [label, kind, *sides, size, large(cost, "operations") if cost is not None else Text(), made]


_DEFAULTS = re.compile(
    r", (?:eps=1e-0?5|momentum=0\.1|affine=True|track_running_stats=True|bias=True|elementwise_affine=True"
    r"|stride=\(1, 1\)|"
    r"inplace=(?:True|False))|inplace=(?:True|False)|(?<=[(, ])in_features=|(?<=[ ])out_features=|negative_slope="
)


def _short(text: str) -> str:
    """A module as PyTorch prints it, without what is the default anyway."""
    text = _DEFAULTS.sub("", text).replace("kernel_size=", "kernel=").replace("(, ", "(")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _repeats(rows: list[dict[str, Any]], at: int) -> list[str]:
    """The paths of the blocks after this one that are built alike, for blocks of more than one module."""
    path = rows[at]["path"]
    head, _, last = path.rpartition(".")
    own = _shape(rows, path) if last.isdigit() else []
    found: list[str] = []
    while len(own) > 1:
        following = f"{head}.{int(last) + 1 + len(found)}".removeprefix(".")
        if _shape(rows, following) != own:
            break
        found.append(following)
    return found


def _shape(rows: list[dict[str, Any]], path: str) -> list[tuple[str, str, int]]:
    below = [r for r in rows if r["path"] == path or r["path"].startswith(f"{path}.")]
    return [(r["path"][len(path) :], r["repr"], r["parameters"]) for r in below]


# --------------------------------------------------------------------------------------------- layers and own classes


def _layers(w: Writer) -> Iterator[Block]:
    """The usual layers that occur, each once, with their equation; not the program's own, whose text is shown."""
    own = {f.subject for f in w.study.facts.of("define.class")}
    trees = {row["class"]: tree for tree in reversed(w.study.roots[:MOST_ROOTS]) for row in tree["modules"] or []}
    found = [(kind, tree, known) for kind, tree in trees.items() if kind not in own and (known := layers.known(kind))]
    if found:
        yield w.heading("block.layers")
        yield from w.table("layer", [
            (Ref(kind, tree.id, "name", kind), general(tree, layer["equation"]), general(tree, layer[w.lang]))
            for kind, tree, layer in found
        ])  # fmt: skip


def _classes(w: Writer) -> Iterator[Block]:
    """The program's own blocks: their text, and what is recognised in their forward."""
    for fact in w.study.facts.of("define.class"):
        unit = w.study.program.units.get(fact.file)
        info = unit.classes.get(fact.subject) if unit is not None else None
        if info is None or not fact["module"]:
            continue
        yield w.heading("block.class", fact)
        if fact["docstring"]:
            yield w.said("block.words", fact)
        forward = info.methods.get("forward")
        first, last = fact["first"], fact["last"]
        if last - first >= MOST_LINES and forward is not None:
            first, last = forward.lineno, forward.end_lineno or forward.lineno
        yield from w.excerpt(fact.file, first, last)
        if forward is not None:
            yield from _recognised(w, fact, ast.unparse(forward))


def _recognised(w: Writer, fact: Fact, code: str) -> Iterator[Block]:
    mask = " + mask" if re.search(r"mask|causal|tril|-inf", code) else ""
    drawn = "randn_like" in code and re.search(r"exp\(.*(?:var|sigma|std)|\bstd\b", code)
    straight = re.search(r"(\w+) \+ \(.+ - \1\)\.detach\(\)", code)
    for key, holds, equation in (
        ("straight", straight, "z_q = z + sg[e − z],  ∂z_q/∂z = 1"),
        ("attention", layers.attention(code), f"softmax(Q Kᵀ / √d_k{mask}) V"),
        ("residual", layers.residual(code) and not straight, "y = x + f(x)"),
        ("sampled", "reparam" in code or drawn, "z = μ + σ ⊙ ε,  ε ~ N(0, I)"),
    ):
        if holds:
            yield w.said(f"block.{key}")
            yield w.formula(fact, equation)


def _cards(w: Writer) -> Iterator[Block]:
    for tree in w.study.roots:
        kinds = {row["class"] for row in tree["modules"] or []}
        found = [card for kind, card in _CARDS.items() if any(re.fullmatch(kind, k) for k in kinds)]
        yield from w.questions(found, tree)
    softmax = w.study.facts.first("softmax.call")
    if softmax is not None and len(softmax["shape"] or []) == 4:
        yield from w.questions(["sqrt-dk", "causal-mask"], softmax)
    shared = w.study.facts.first("module.shared") or w.study.facts.first("probe.tied")
    yield from w.question("weight-tying", shared)
