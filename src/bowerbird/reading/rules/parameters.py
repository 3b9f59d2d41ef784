"""Rules of modules and their parameters: what is registered, shared, used and counted."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.program import ClassInfo, Program, Unit, dotted, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


@rule("P01", "Modules are kept in a plain list", family="modules")
def plain_list(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Modules that no module holds have parameters that no optimiser, no ``.to`` and no checkpoint sees."""
    for fact in facts.of("module.unregistered"):
        unit = unit_of(program, fact)
        name = fact.subject.rpartition(".")[2]
        line = _stored(unit, str(fact["class"]), name) or placed(fact.line)
        yield say(
            "P01", "error" if fact["calls"] and not _set_aside(unit, str(fact["class"])) else "warning", line,
            patch=_module_list(unit, line) if fact["container"] == "list" else None, fact=fact,
            which="s lie" if fact["count"] > 1 else " lies", name=name,
            which_2="Dict" if fact["container"] == "dict" else "List",
        )  # fmt: skip


def _set_aside(unit: Unit, kind: str) -> bool:
    """Whether a class freezes something: networks that are not to be trained are sometimes hidden in a list."""
    info = unit.classes.get(kind)
    return info is not None and bool(re.search(r"requires_grad|\.eval\(\)|pretrained", ast.unparse(info.node)))


def _stored(unit: Unit, kind: str, name: str) -> int | None:
    """The line at which a class assigns an attribute."""
    info = unit.classes.get(kind)
    if info is None:
        return None
    assigned = [
        n.lineno for n in unit.all(ast.Assign, under=info.node)
        if any(dotted(t) == f"self.{name}" for t in n.targets)
    ]  # fmt: skip
    return assigned[0] if assigned else None


def _module_list(unit: Unit, line: int) -> Patch | None:
    text = unit.lines[line - 1]
    found = re.match(r"^(\s*self\.\w+\s*=\s*)(\[.*\])\s*$", text)
    if found is None or "nn" not in unit.text:
        return None
    return replace_line(
        unit.file, line, text, f"{found[1]}nn.ModuleList({found[2]})", unit.lines, label="P01: ModuleList"
    )


@rule("P02", "One layer is repeated instead of copied", family="modules", exact=True)
def repeated(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``[layer] * n`` holds the same layer n times."""
    shared = [f for f in facts.of("module.shared") if _siblings(f["paths"])]
    for unit in program:
        for node in unit.all(ast.BinOp):
            if (
                not isinstance(node.op, ast.Mult)
                or not isinstance(node.left, ast.List)
                or not _modules_in(unit, node.left)
            ):
                continue
            seen = shared[0] if shared else None
            meant = re.search(r"shar|tied|same|共享", " ".join(unit.lines[max(node.lineno - 4, 0) : node.lineno]), re.I)
            if seen is None and not _in_container(unit, node):
                continue
            yield say(
                "P02b" if seen else "P02c", "error" if seen and not meant else "warning", node.lineno, file=unit.file,
                facts=(seen.id,) if seen else (), paths=", ".join(seen["paths"][:3]) if seen else "", seen=seen,
                node_2=ast.unparse(node)[:80],
            )  # fmt: skip
            return
    for fact in shared[:1]:
        yield say("P02", "warning", fact.line, fact=fact, paths=len(fact["paths"]))


def _siblings(paths: list[str] | None) -> bool:
    """Whether the paths of one module are numbered neighbours of one list."""
    parts = [p.rpartition(".") for p in paths or ()]
    return len(parts) > 1 and len({p[0] for p in parts}) == 1 and all(p[2].isdigit() for p in parts)


def _modules_in(unit: Unit, display: ast.List) -> bool:
    for element in display.elts:
        word, name = last_name(element), dotted(element)
        if isinstance(element, ast.Call) and ((dotted(element.func) or "").startswith("nn.") or word in unit.classes):
            return word not in ("ReLU", "Tanh", "Sigmoid", "GELU", "Dropout", "Identity", "SiLU", "Parameter")
        if name is not None and re.search(r"layer|module|block|net|encoder|decoder|attn", name, re.I):
            return True
    return False


def _in_container(unit: Unit, node: ast.AST) -> bool:
    return any(isinstance(a, ast.Call) and last_name(a) in ("ModuleList", "Sequential") for a in unit.ancestors(node))


# ---------- the layers that a class stores: shared by two branches, never called, stored too early


def _uses(unit: Unit, info: ClassInfo, name: str) -> list[ast.Attribute]:
    """Where a class reads one of its attributes outside its constructor's assignments."""
    return [
        n for n in unit.all(ast.Attribute, under=info.node)
        if n.attr == name and isinstance(n.ctx, ast.Load) and dotted(n) == f"self.{name}"
    ]  # fmt: skip


def _layers(unit: Unit, info: ClassInfo) -> dict[str, tuple[str, int]]:
    """The layers that a constructor stores: attribute → class and line."""
    found = {}
    init = info.methods.get("__init__")
    for node in unit.all(ast.Assign, under=init) if init is not None else ():
        value = node.value
        for target in node.targets:
            name = dotted(target)
            if not name or not name.startswith("self.") or name.count(".") > 1 or not isinstance(value, ast.Call):
                continue
            kind = last_name(value)
            if (dotted(value.func) or "").startswith(("nn.", "torch.nn.")) or (
                kind in unit.classes and unit.classes[kind].is_module
            ):
                found[name[5:]] = (kind, node.lineno)
    return found


_STATELESS = re.compile(
    r"ReLU|Tanh|Sigmoid|GELU|SiLU|Softmax|Dropout|Identity|Pool|Upsample|Flatten|Loss|Pad|ELU|Parameter|Softplus|Mish|"
    r"PixelShuffle|Unfold|Fold"
)


@rule("P03", "One layer serves two branches", family="modules")
def two_branches(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A normalisation that is called where its unused twin was meant, or that mixes two distributions."""
    for unit in program:
        for info in unit.classes.values():
            layers = _layers(unit, info) if info.is_module else {}
            for name, (kind, _) in layers.items():
                calls = [
                    u for u in _uses(unit, info, name)
                    if isinstance(unit.parents.get(u), ast.Call) and unit.parents[u].func is u  # type: ignore[attr-defined]
                ]  # fmt: skip
                within = [c for c in calls if (f := unit.function(c)) is not None and f.name != "__init__"]
                if len({unit.function(c) for c in within}) != 1 or len(within) < 2 or _STATELESS.search(kind):
                    continue
                twins = [
                    t for t, (k, _) in layers.items() if k == kind and t != name and not _uses(unit, info, t)
                    and _stem(t) == _stem(name)
                ]  # fmt: skip
                if _exclusive(unit, within) or not (twins or "Norm" in kind):
                    continue
                yield _second_call(unit, facts, info, name, kind, within, twins)


def _stem(name: str) -> str:
    return name.rstrip("0123456789").rstrip("_")


def _exclusive(unit: Unit, calls: list[ast.Attribute]) -> bool:
    """Whether two calls stand in different arms of one condition, so that only one of them runs."""
    around = [[a for a in unit.ancestors(c) if isinstance(a, ast.If | ast.IfExp)] for c in calls]
    return any(around) and len({tuple(map(id, a)) for a in around}) == 1 and len(calls) == 2 and any(
        isinstance(a, ast.IfExp) or (isinstance(a, ast.If) and a.orelse) for a in around[0]
    )  # fmt: skip


def _second_call(
    unit: Unit, facts: FactStore, info: ClassInfo, name: str, kind: str, calls: list[ast.Attribute], twins: list[str]
) -> Finding:  # fmt: skip
    seen = [f for f in facts.of("module.calls", f"*{name}") if f["class"] == kind and f["calls"] > 1]
    instead = f", and {twins[0]}, of the same class, is never called" if twins else ""
    lines = " and ".join(str(c.lineno) for c in calls)
    counted = f"; it was called {seen[0]['calls']} times ({seen[0].id})" if seen else ""
    patch = None
    if twins and unit.lines[calls[1].lineno - 1].count(f"self.{name}(") == 1:
        patch = replace_line(
            unit.file, calls[1].lineno, f"self.{name}(", f"self.{twins[0]}(", unit.lines, label=f"P03: {twins[0]}"
        )
    return say(
        "P03", "warning", calls[1].lineno, file=unit.file, facts=tuple(f.id for f in seen[:1]), patch=patch, info=info,
        name=name, instead=instead, kind=kind, lines=lines, counted=counted,
        why=twins[0] if twins else "a layer of its own",
    )  # fmt: skip


@rule("P04", "A layer is defined and never used", family="modules")
def never_called(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Parameters that no forward pass reads are saved, counted and never trained."""
    for unit in program:
        for info in unit.classes.values():
            if not info.is_module or _reflects(unit, info):
                continue
            if program.source.mended and info.node is unit.tree.body[-1]:
                continue  # it may have been cut off before the line that uses them
            for name, (kind, line) in _layers(unit, info).items():
                elsewhere = len(re.findall(rf"\.{re.escape(name)}\b", unit.text)) - 1
                if _STATELESS.search(kind) or elsewhere > 0 or _named_elsewhere(program, unit, name):
                    continue
                idle = [f for f in facts.of("module.calls", f"*.{name}") if f.line == line and not f["calls"]]
                yield say(
                    "P04", "warning", line, file=unit.file, facts=tuple(f.id for f in idle[:1]), info=info, name=name,
                    kind=kind, why=f"; it was never called ({idle[0].id})" if idle else "",
                )  # fmt: skip


def _reflects(unit: Unit, info: ClassInfo) -> bool:
    """Whether a class reads its layers by other means than their names, or is a base of another."""
    text = ast.unparse(info.node)
    if re.search(r"getattr\(|\.children\(|\._modules|named_children|__dict__|\.modules\(\)", text):
        return True
    if any(base in unit.classes for base in info.bases):
        return True
    return any(info.name in base for other in unit.classes.values() for base in other.bases)


def _named_elsewhere(program: Program, unit: Unit, name: str) -> bool:
    word = rf"\.{re.escape(name)}\b|['\"]{re.escape(name)}['\"]"
    return any(re.search(word, other.text) for other in program if other is not unit)


@rule("P07", "A module is used before it is initialised", family="modules", exact=True)
def before_init(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Layers and parameters can be stored only after ``super().__init__()``."""
    seen = set()
    for error in facts.of("run.exception", "AttributeError"):
        if re.search(r"before Module\.__init__\(\) call|has no attribute '_(modules|parameters)'", error["message"]):
            seen.add((error.file, error.line))
            yield say(
                "P07", "error", error.line, file=error.file, facts=(error.id,), message=error["message"][:100],
                error=error,
            )  # fmt: skip
    for unit in program:
        for info in unit.classes.values():
            init = info.methods.get("__init__")
            if not info.is_module or init is None or not any(b.rpartition(".")[2] == "Module" for b in info.bases):
                continue
            stored = _layers(unit, info)
            calls = [c.lineno for c in unit.all(ast.Call, under=init) if last_name(c) == "__init__"]
            first = min((line for _, line in stored.values()), default=None)
            if first is None or (calls and min(calls) <= first) or any(
                file == unit.file and n is not None and init.lineno <= n <= (init.end_lineno or n) for file, n in seen
            ):  # fmt: skip
                continue
            yield say("P07b" if calls else "P07c", "warning", first, file=unit.file, info=info)


# ---------- sizes: parameters that broadcasting hides, and numbers of parameters that the text gives
