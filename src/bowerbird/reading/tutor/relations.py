"""Relations: what a claim may say of the structure of a program, each decided by the program model and the facts.

    contains(module, part)     "the generator has batch norm", "`VAE` contains `fc1`"
    count(module, type, n)     "the discriminator has three linear layers", 两个优化器
    updates(optimizer, module) "`optimizer_G` updates the generator"
    made_of(optimizer, kind)   "`optimizer_G` is Adam"
    before(first, second)      "`zero_grad()` is called before `backward()`"
    called(module)             "`fc3` is never called"

A relation holds, fails, or is unknown; nothing that a model says takes part in the decision.
"""

import ast
import re
from dataclasses import dataclass
from typing import Literal

from bowerbird.reading.facts import FactStore
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.tutor.names import Names
from bowerbird.reading.tutor.wording import LAYERS, code_concepts

Status = Literal["holds", "fails", "unknown"]
ENDINGS = {"adam", "adamw", "sgd", "rmsprop"}
LOSSES = {"bce", "cross_entropy", "mse", "l1", "hinge", "wasserstein", "kl"}
PARTS = LAYERS - ENDINGS - LOSSES - {"schedule", "clip", "mask", "momentum"}
_WITHOUT_WEIGHTS = {
    "ReLU",
    "LeakyReLU",
    "Tanh",
    "Sigmoid",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "Softmax",
    "GELU",
    "ELU",
    "MaxPool2d",
    "AvgPool2d",
    "Upsample",
    "Identity",
    "Unflatten",
    "SiLU",
    "Softplus",
    "LogSoftmax",
    "ZeroPad2d",
}


@dataclass(frozen=True)
class Outcome:
    status: Status
    says: str
    """The relation in our words, as it is decided: what a claim that fails should have said."""
    keys: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    numbers: tuple[float, ...] = ()
    negated: bool = False


class Relations:
    def __init__(self, program: Program, facts: FactStore, names: Names) -> None:
        self.program, self.facts, self.names = program, facts, names

    def _decide(
        self,
        truth: bool | None,
        holds: bool,
        says: str,
        keys: frozenset[str],
        *words: str,
        numbers: tuple[float, ...] = (),
    ) -> Outcome:
        status: Status = "unknown" if truth is None else "holds" if truth == holds else "fails"
        return Outcome(status, says, keys, frozenset(words), numbers, not holds)

    # ------------------------------------------------------------------------------------------------ modules

    def kinds(self, key: str) -> list[str] | None:
        """The classes of the leaves below a module: as observed, else as written if that is unambiguous."""
        root, _, path = key.partition(".")
        tree = next((t for t in self.facts.of("module.tree") if t.subject in (key, root) or t["class"] == root), None)
        if tree is not None:
            rows = tree["modules"] or []
            short = [
                (str(r.get("path", "")).removeprefix(f"{tree.subject}").lstrip("."), str(r.get("class"))) for r in rows
            ]
            inside = path if tree.subject != key and path else ""
            below = [(p, c) for p, c in short if p and (not inside or p == inside or p.startswith(f"{inside}."))]
            return [c for p, c in below if not any(q.startswith(f"{p}.") for q, _ in below)]
        return self._written(key)

    def _written(self, key: str) -> list[str] | None:
        entity = self.names.entities.get(key)
        info = next((u.classes[entity.kind] for u in self.program if entity and entity.kind in u.classes), None)
        if entity is None or info is None:
            return [entity.kind] if entity is not None and entity.sort == "module" else None
        found = []
        for call in (n for n in ast.walk(info.node) if isinstance(n, ast.Call)):
            name = last_name(call)
            if (
                name[:1].isupper()
                and isinstance(call.func, ast.Attribute)
                and name not in ("Sequential", "ModuleList", "Parameter")
            ):
                found.append(name)
        repeats = [
            n for n in ast.walk(info.node) if isinstance(n, ast.Starred | ast.For | ast.ListComp | ast.GeneratorExp)
        ]
        return None if repeats else found

    def contains(self, keys: frozenset[str], concept: str, holds: bool = True) -> Outcome:
        """Whether a module has a layer, or its code a function, of a kind."""
        truths = [self._contains(key, concept) for key in sorted(keys)]
        truth = None if not truths or None in truths else any(truths)
        there = "contains" if truth else "contains no"
        return self._decide(truth, holds, f"{'/'.join(sorted(keys))} {there} {concept}", keys, concept)

    def _contains(self, key: str, concept: str) -> bool | None:
        entity = self.names.entities.get(key)
        kinds = self.kinds(key)
        if kinds is not None and any(
            concept in code_concepts(kind) for kind in [*kinds, entity.kind if entity else ""]
        ):
            return True
        if entity is not None and entity.lines != (0, 0):
            for unit in self.program:
                if entity.kind in unit.classes or entity.key in unit.functions or unit is self.program.main:
                    return concept in self.code_concepts(*entity.lines, unit_file=unit.file)
        return None if kinds is None else False

    def part_of(self, whole: frozenset[str], part: frozenset[str], holds: bool = True) -> Outcome:
        truth = any(p.startswith(f"{w}.") for p in part for w in whole)
        verb = "contains" if truth else "does not contain"
        return self._decide(truth, holds, f"{min(whole)} {verb} {min(part)}", whole | part, "contain")

    def count(self, keys: frozenset[str], what: str, n: float) -> Outcome:
        """How many layers of a kind a module has, or how many optimisers or modules the program."""
        each = [self._counts(key, what) for key in sorted(keys)] if keys else [self._program_counts(what)]
        counts: set[int] = set().union(*(one for one in each if one is not None))
        if not counts or None in each:
            return Outcome("unknown", f"how many {what} there are", keys)
        whose = "/".join(sorted(keys)) or "the program"
        right = sorted(counts)
        says = f"{whose} has {' or '.join(map(str, right))} of kind {what}"
        return self._decide(n in right, True, says, keys, what, "layer", numbers=(n,))

    def _counts(self, key: str, what: str) -> set[int] | None:
        """The numbers that may be meant: with and without layers that have no weights, or that are a variant."""
        kinds = self.kinds(key)
        if kinds is None:
            return None
        if what == "layer":
            return {sum(k not in _WITHOUT_WEIGHTS for k in kinds), len(kinds)}
        these = [k for k in kinds if what in code_concepts(k)]
        strict = [k for k in these if not ({"transpose", "leaky"} & code_concepts(k))]
        return {len(these), len(strict)} if strict else {len(these)}

    def _program_counts(self, what: str) -> set[int]:
        if what == "optimizer":
            return {len({s.name or s.line for u in self.program for s in u.optimizers})}
        infos = [i for u in self.program for i in u.classes.values()]
        defined = sum(i.is_module for i in infos)
        if what == "class":
            return {defined, len(infos)}
        return {defined, len(self.facts.of("module.tree"))} - {0} if what == "module" else set()

    def called(self, keys: frozenset[str], holds: bool) -> Outcome:
        counts = [c["calls"] for key in keys for c in self.facts.of("module.calls", key)]
        truth = None if not counts or None in counts else any(counts)
        return self._decide(truth, holds, f"{min(keys)} is {'' if truth else 'never '}called", keys, "call")

    def ends_in(self, keys: frozenset[str], concept: str, last_line: int, holds: bool = True) -> Outcome:
        """Whether the last layer of a module, or what the last of the cited lines returns, is of a kind."""
        kinds = [k[-1] for key in sorted(keys) if (k := self.kinds(key))]
        truth = any(concept in code_concepts(kind) for kind in kinds) or (
            last_line > 0 and concept in self.code_concepts(last_line, last_line)
        )
        return self._decide(truth, holds, f"the end is {', '.join(kinds) or f'line {last_line}'}", keys, concept, "end")

    # ------------------------------------------------------------------------------------------------ optimisers

    def owners(self, optimizer: str) -> set[str]:
        """The modules whose parameters an optimiser was given: as observed, else as written."""
        created = [
            f for f in self.facts.of("optimizer.created") if optimizer in (f.subject, *self.names.keys_of(f.subject))
        ]
        seen = {root for f in created for root in f["owners"] or {}}
        sites = [s for u in self.program for s in u.optimizers if s.name == optimizer]
        return seen or {name for site in sites for name in site.modules}

    def updates(self, optimizer: frozenset[str], module: frozenset[str], holds: bool = True) -> Outcome:
        owned = set().union(*(self.owners(o) for o in optimizer)) if optimizer else set()
        meant = set().union(*(self.names.keys_of(o) | {o} for o in owned)) if owned else set()
        truth = bool(meant & module) if owned else None
        if truth is False and any(m.startswith(f"{o}.") or o.startswith(f"{m}.") for m in module for o in meant):
            truth = None
        says = f"{'/'.join(sorted(optimizer))} updates {', '.join(sorted(owned)) or 'nothing known'}"
        return self._decide(truth, holds, says, optimizer | module, "optimizer", "parameter", "update")

    def made_of(self, optimizer: frozenset[str], kind: str, holds: bool = True) -> Outcome:
        kinds = {self.names.entities[o].kind for o in optimizer if o in self.names.entities}
        truth = None if not kinds else any(k.lower() == kind for k in kinds)
        says = f"{'/'.join(sorted(optimizer))} is {', '.join(sorted(kinds))}"
        return self._decide(truth, holds, says, optimizer, kind, "optimizer", "update")

    # ------------------------------------------------------------------------------------------------ order

    def lines_of(self, snippet: str) -> list[int]:
        """The lines of the main unit where a call, or a name, stands in the code."""
        wanted = re.sub(r"\s+", "", snippet).strip("`")
        wanted = wanted.removesuffix("()") if wanted.endswith("()") else wanted
        unit = self.program.main
        found = set()
        for node in unit.all(ast.Call, ast.Assign, ast.AugAssign):
            text = re.sub(
                r"\s+", "", ast.unparse(node.func if isinstance(node, ast.Call) and "(" not in wanted else node)
            )
            if isinstance(node, ast.Call) and (text == wanted or text.endswith(f".{wanted}")):
                found.add(node.lineno)
            elif isinstance(node, ast.Assign) and (
                text == wanted or re.sub(r"\s+", "", ast.unparse(node.targets[0])) == wanted
            ):
                found.add(node.lineno)
        return sorted(found)

    def steps_of(self, keys: frozenset[str]) -> list[int]:
        """The lines where the optimisers of some modules take their step."""
        optimizers = {
            s.name for u in self.program for s in u.optimizers if self.owners(s.name) & keys or s.name in keys
        }
        return sorted(line for name in optimizers for line in self.lines_of(f"{name}.step"))

    def before(
        self, first: list[int], second: list[int], names: str, lines: tuple[int, int] | None, holds: bool = True
    ) -> Outcome:
        """Whether all of one stands above all of the other, within the cited lines if both are there."""
        if lines is not None:
            inside = [[n for n in side if lines[0] <= n <= lines[1]] for side in (first, second)]
            first, second = inside if all(inside) else (first, second)
        loops = [(loop.lineno, loop.end_lineno or loop.lineno) for loop in self.program.main.training_loops]
        for a, b in loops:
            inside = [[n for n in side if a <= n <= b] for side in (first, second)]
            first, second = inside if all(inside) else (first, second)
        if not first or not second or first == second:
            truth = None
        else:
            truth = True if max(first) < min(second) else False if max(second) < min(first) else None
        says = f"of {names}, the first stands at line {first}, the second at line {second}"
        return self._decide(truth, holds, says, frozenset(), "before", "after", "order", "update")

    # ------------------------------------------------------------------------------------------------ code

    def code_concepts(self, first: int, last: int, unit_file: str | None = None) -> set[str]:
        """What the code of some lines speaks of: without comments and docstrings, with what its names were bound to."""
        unit = self.program.units.get(unit_file or self.program.file, self.program.main)
        found: set[str] = set()
        for node in unit.nodes:
            line = getattr(node, "lineno", 0)
            if not first <= line <= last:
                continue
            for field in ("id", "attr", "arg", "name"):
                if isinstance(value := getattr(node, field, None), str):
                    found |= code_concepts(value)
                    found |= self._bound(value) if field in ("id", "attr") else set()
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value.strip():
                found |= code_concepts(node.value)
            if isinstance(node, ast.For | ast.While):
                found |= {"loop", "repeat", "iterate"}
            operator = node.op if isinstance(node, ast.BinOp | ast.UnaryOp | ast.AugAssign) else node
            found |= _SAYS.get(type(operator), set())
        return found

    def _bound(self, name: str) -> set[str]:
        """``criterion`` speaks of BCELoss where it was bound to one, ``optimizer_G`` of Adam."""
        unit = self.program.main
        known = {*unit.modules, *(s.name for s in unit.optimizers)}
        for spelled in (name, f"self.{name}"):
            if spelled in known:
                return set().union(*(code_concepts(last_name(v)) for v, _ in unit.assignments.get(spelled, [])))
        return set()

    def anywhere(self, concept: str) -> bool:
        """Whether anything in the whole program speaks of a concept."""
        kinds = [k for e in self.names.entities.values() for k in (e.kind,)]
        return any(concept in code_concepts(k) for k in kinds) or any(
            concept in self.code_concepts(1, len(u.lines), u.file) for u in self.program
        )


_SAYS: dict[type, set[str]] = {
    ast.Return: {"return", "output"},
    ast.Add: {"sum", "add"},
    ast.Sub: {"subtract"},
    ast.Mult: {"multiply"},
    ast.Div: {"divide", "half"},
    ast.USub: {"subtract", "negative"},
    ast.Pow: {"square", "power"},
    ast.With: {"context"},
    ast.ClassDef: {"class"},
    ast.If: {"if", "condition", "when", "only"} - {"only"},
    ast.Import: {"import"},
    ast.ImportFrom: {"import"},
}
