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


# ---------- the layers that a class stores and never calls


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
