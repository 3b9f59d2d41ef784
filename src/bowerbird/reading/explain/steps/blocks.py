"""Step three: block by block, with shapes, parameters, cost and equations."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain import layers
from bowerbird.reading.explain.reading import Block, Formula
from bowerbird.reading.explain.steps.structure import _summaries
from bowerbird.reading.explain.text import Ref, Text, general, name, number, quote
from bowerbird.reading.explain.writer import MOST_LINES, Writer
from bowerbird.reading.facts import Fact

TITLE = ("Block by block", "逐块解读")
MOST_ROWS = 60
_SILENT = ("Sequential", "ModuleList", "ModuleDict", "Identity")
"""Containers, and what does nothing."""


def write(w: Writer) -> Iterator[Block]:
    told: dict[str, Fact] = {}
    for tree in w.study.roots[:6]:
        built = repr(tree["modules"])
        if built in told:
            yield w.heading("{n}, a {c}", "{n}（{c}）", n=name(tree), c=name(tree, "class"))
            yield w.said("It is built like {o}.", "与 {o} 的结构相同。", o=name(told[built]))
        else:
            told[built] = tree
            yield from _network(w, tree)
    yield from _layers(w)
    yield from _classes(w)
    yield from _cards(w)


def _network(w: Writer, tree: Fact) -> Iterator[Block]:
    yield w.heading("{n}, a {c}", "{n}（{c}）", n=name(tree), c=name(tree, "class"))
    cost = w.study.facts.first("network.cost", tree.subject)
    if cost is not None:
        batch = w.say(" of {b:example}", "（{b} 个样本）", b=number(cost, "batch")) if cost["batch"] else Text()
        yield w.said(
            "It has {p:parameter}. One forward pass of a batch{b} takes {o} operations in its layers of weights, {s} "
            "of them in {m}.",
            "共 {p} 个参数。一个批次{b}的前向计算在带权重的层上需要 {o} 次运算，其中 {s} 在 {m}。",
            p=number(tree, "parameters"), o=_large(cost), s=number(cost, "share", form="%"),
            m=name(cost, "largest"), b=batch,
        )  # fmt: skip
    else:
        yield w.said("It has {p:parameter}.", "共 {p} 个参数。", p=number(tree, "parameters"))
    yield from _tied(w, tree)
    rows = list(_rows(w, tree))
    head = (
        ("block", "块"), ("what", "类型"), ("in", "输入"), ("out", "输出"), ("parameters", "参数"),
        ("operations", "运算"), ("made at", "创建于"),
    )  # fmt: skip
    if rows:
        yield w.table(head, rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        left = w.study.add("block.left_out", tree.subject, {"rows": len(rows) - MOST_ROWS}, like=tree)
        yield w.said("{n:more block} are not listed.", "另有 {n} 个块未列出。", n=number(left, "rows"))
    unused = [f for f in w.study.facts.of("module.calls", f"{tree.subject}.*") if not f["calls"] and f["own"]]
    if unused and w.study.facts.first("module.io", tree.subject) is not None:
        yield w.said("Never called: {u}.", "从未被调用：{u}。", u=[name(f) for f in unused[:8]])


def _tied(w: Writer, tree: Fact) -> Iterator[Block]:
    for fact in w.study.facts.of("probe.tied", tree.subject):
        if fact["one"]:
            yield w.said(
                "{l}: {a} and {b} are one tensor, counted once.", "{l}：{a} 与 {b} 是同一个张量，只计一次。",
                l=w.line(fact), a=name(fact, "left"), b=name(fact, "right"),
            )  # fmt: skip


def _large(fact: Fact) -> Ref:
    value = fact["operations"]
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return Ref(f"{value / size:.3g} {unit}", fact.id, "number", value)
    return number(fact, "operations")


def _rows(w: Writer, tree: Fact) -> Iterator[list[Any]]:
    rows = tree["modules"] or []
    skipped: set[str] = set()
    for i, row in enumerate(rows):
        path = row["path"]
        if (not path and len(rows) > 1) or any(path == s or path.startswith(f"{s}.") for s in skipped):
            continue
        if row["class"] in _SILENT:
            continue
        whole = f"{tree.subject}.{path}" if path else tree.subject
        repeats = _repeats(rows, i)
        skipped |= set(repeats)
        label: Text = Text((Ref(path or tree.subject, tree.id, "name", path),))
        if repeats:
            many = w.study.add("block.repeat", whole, {"times": len(repeats) + 1, "last": repeats[-1]}, like=tree)
            label += w.say(" to {l}: {t} times", " 到 {l}：{t} 个", l=name(many, "last"), t=number(many, "times"))
        io = w.study.facts.first("module.io", whole)
        cost = w.study.facts.first("block.cost", whole)
        at = w.study.facts.first("module.calls", whole) or w.study.facts.first("module.parameters", whole)
        sides = [_summaries(io, side) if io is not None else [] for side in ("in", "out")]
        yield [
            label,
            Text((Ref(_short(row["repr"]), tree.id, "name", row["repr"]),)),
            *(w.say("{s}", "{s}", s=side[:3]) if side else Text() for side in sides),
            Text((Ref(f"{row['parameters']:,}", tree.id, "number", row["parameters"]),))
            if row["parameters"]
            else Text(),
            Text((_large(cost),)) if cost is not None else Text(),
            Text((w.line(at),)) if at is not None and at.line else Text(),
        ]


_DEFAULTS = re.compile(
    r", (?:eps=1e-0?5|momentum=0\.1|affine=True|track_running_stats=True|bias=True|elementwise_affine=True"
    r"|stride=\(1, 1\)|"
    r"inplace=(?:True|False))|inplace=(?:True|False)|(?<=[(, ])in_features=|(?<=[ ])out_features=|negative_slope="
)


def _short(text: str) -> str:
    """A module as PyTorch prints it, without what is the default anyway."""
    text = _DEFAULTS.sub("", text).replace("kernel_size=", "kernel=").replace("(, ", "(")
    return text if len(text) <= 62 else text[:61] + "…"


def _repeats(rows: list[dict[str, Any]], at: int) -> list[str]:
    """The paths of the blocks after this one that are built alike, for blocks of more than one module."""
    path = rows[at]["path"]
    head, _, last = path.rpartition(".")
    if not last.isdigit():
        return []
    own = _shape(rows, path)
    found: list[str] = []
    while len(own) > 1:
        following = f"{head}.{int(last) + 1 + len(found)}" if head else str(int(last) + 1 + len(found))
        if _shape(rows, following) != own:
            break
        found.append(following)
    return found


def _shape(rows: list[dict[str, Any]], path: str) -> list[tuple[str, str, int]]:
    return [
        (r["path"][len(path) :], r["repr"], r["parameters"])
        for r in rows if r["path"] == path or r["path"].startswith(f"{path}.")
    ]  # fmt: skip


def _layers(w: Writer) -> Iterator[Block]:
    """The usual layers that occur, each once, with their equation."""
    seen: dict[str, Fact] = {}
    own = {f.subject for f in w.study.facts.of("define.class")}  # what they compute stands in the program
    for tree in w.study.roots[:6]:
        for row in tree["modules"] or []:
            if layers.known(row["class"]) is not None and row["class"] not in own:
                seen.setdefault(row["class"], tree)
    if not seen:
        return
    yield w.heading("What the layers compute", "各层计算什么")
    rows = []
    for kind, fact in seen.items():
        layer = layers.known(kind)
        assert layer is not None
        cells = (Ref(kind, fact.id, "name", kind), general(fact, layer.equation), general(fact, layer.meaning[w.lang]))
        rows.append([Text((cell,)) for cell in cells])
    yield w.table((("layer", "层"), ("equation", "公式"), ("what for", "作用")), rows)


def _classes(w: Writer) -> Iterator[Block]:
    """The program's own blocks: their text, and what is recognised in their forward."""
    for fact in w.study.facts.of("define.class"):
        unit = w.study.program.units.get(fact.file)
        info = unit.classes.get(fact.subject) if unit is not None else None
        if unit is None or info is None or not fact["module"]:
            continue
        yield w.heading("The class {n}", "类 {n}", n=name(fact))
        if fact["docstring"]:
            yield w.said("In its own words: “{d}”", "自述：“{d}”", d=quote(fact, "docstring"))
        forward = info.methods.get("forward")
        first, last = fact["first"], fact["last"]
        if last - first >= MOST_LINES and forward is not None:
            first, last = forward.lineno, forward.end_lineno or forward.lineno
        code = w.excerpt(fact.file, first, last)
        if code is not None:
            yield code
        if forward is not None:
            yield from _recognised(w, fact, ast.unparse(forward))


def _recognised(w: Writer, fact: Fact, code: str) -> Iterator[Block]:
    if layers.attention(code):
        yield w.said("Its forward is attention written out:", "它的 forward 写出了注意力：")
        mask = " + mask" if re.search(r"mask|causal|tril|-inf", code) else ""
        yield Formula(Text((general(fact, f"softmax(Q Kᵀ / √d_k{mask}) V"),)))
    if layers.residual(code):
        yield w.said("It adds to its own input, a residual connection:", "它把结果加回自己的输入，即残差连接：")
        yield Formula(Text((general(fact, "y = x + f(x)"),)))
    if "reparam" in code or ("randn_like" in code and re.search(r"exp\(.*(?:var|sigma|std)|\bstd\b", code)):
        yield w.said("It draws its latent code so that gradients pass:", "它以可传梯度的方式采样隐变量：")
        yield Formula(Text((general(fact, "z = μ + σ ⊙ ε,  ε ~ N(0, I)"),)))


def _cards(w: Writer) -> Iterator[Block]:
    for tree in w.study.roots:
        kinds = {row["class"] for row in tree["modules"] or []}
        if any(k.startswith("LSTM") for k in kinds):
            yield from w.question("lstm-gates", tree)
        if kinds & {"LayerNorm", "RMSNorm"}:
            yield from w.question("layernorm", tree)
        if "MultiheadAttention" in kinds:
            yield from w.question("attention-softmax", tree)
    softmax = w.study.facts.first("softmax.call")
    if softmax is not None and len(softmax["shape"] or []) == 4:
        yield from w.question("sqrt-dk", softmax)
        yield from w.question("causal-mask", softmax)
    shared = w.study.facts.first("module.shared") or w.study.facts.first("probe.tied")
    if shared is not None:
        yield from w.question("weight-tying", shared)
