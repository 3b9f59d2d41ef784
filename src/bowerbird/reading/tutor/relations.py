"""Relations: what may be said of the structure of a program, each decided by the program model and the facts.

    contains(module, part)     a layer of a class, or a part by name
    count(module, type, n)     how many layers of a class; of the program, how many optimisers
    updates(optimizer, module) whose parameters an optimiser holds
    made_of(name, class)       what a module or an optimiser is
    before(first, second)      which of two lines comes first, within the training loop where both stand there
    called(module)             whether it was called

A relation holds, fails, or is unknown; nothing that a model says takes part in the decision.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bowerbird.reading.facts import FactStore
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.tutor.names import Names


@dataclass(frozen=True)
class Outcome:
    """``truth`` is None where it is not known; ``says`` is what is known."""

    truth: bool | None
    says: str


class Relations:
    def __init__(self, program: Program, facts: FactStore, names: Names) -> None:
        self.program, self.facts, self.names = program, facts, names

    # ------------------------------------------------------------------------------------------------ modules

    def kinds(self, key: str) -> list[str] | None:
        """The classes of the leaves below a module: as observed, else as written if that is unambiguous."""
        root, _, path = key.partition(".")
        tree = next((t for t in self.facts.of("module.tree") if t.subject in (key, root) or t["class"] == root), None)
        if tree is None:
            return self._written(key)
        rows = [(str(r.get("path", "")).removeprefix(tree.subject).lstrip("."), str(r.get("class")))
                for r in tree["modules"] or []]  # fmt: skip
        inside = path if tree.subject != key else ""
        below = [(p, c) for p, c in rows if p and (not inside or p == inside or p.startswith(f"{inside}."))]
        return [c for p, c in below if not any(q.startswith(f"{p}.") for q, _ in below)]

    def _written(self, key: str) -> list[str] | None:
        entity = self.names.entities.get(key)
        info = next((u.classes[entity.kind] for u in self.program if entity and entity.kind in u.classes), None)
        if entity is None or info is None:
            return [entity.kind] if entity is not None and entity.sort == "module" else None
        if any(isinstance(n, ast.Starred | ast.For | ast.ListComp | ast.GeneratorExp) for n in ast.walk(info.node)):
            return None
        made = [n for n in ast.walk(info.node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
        names = [last_name(n) for n in made if last_name(n)[:1].isupper()]
        return [name for name in names if name not in ("Sequential", "ModuleList", "Parameter")]

    def contains(self, module: str, part: str) -> Outcome:
        """Whether a module has a part of this name, or a layer of this class (``BatchNorm`` means any of them)."""
        keys = self.names.keys_of(module)
        parts = self.names.keys_of(part)
        if any(p.startswith(f"{k}.") for p in parts for k in keys):
            return Outcome(True, f"`{part}` is a part of `{module}`")
        found = [kinds for key in sorted(keys) if (kinds := self.kinds(key)) is not None]
        if not found:
            return Outcome(None, f"what `{module}` contains")
        all_kinds = list(dict.fromkeys(kind for kinds in found for kind in kinds))
        truth = any(_is_kind(kind, part) for kind in all_kinds)
        return Outcome(truth, f"`{module}` contains {', '.join(all_kinds[:12]) or 'no layers'}")

    def count(self, module: str, kind: str, n: float) -> Outcome:
        """How many layers of a class a module has; without a module, how many optimisers the program has."""
        if not module:
            number = len({s.name or s.line for u in self.program for s in u.optimizers})
            return Outcome(n == number if kind == "optimizer" else None, f"the program has {number} optimizers")
        counts = {sum(_is_kind(k, kind) for k in kinds)
                  for key in self.names.keys_of(module) if (kinds := self.kinds(key)) is not None}  # fmt: skip
        if len(counts) != 1:
            return Outcome(None, f"how many {kind} `{module}` has")
        return Outcome(n in counts, f"`{module}` has {min(counts)} {kind}")

    def called(self, module: str) -> Outcome:
        counts = [c["calls"] for key in self.names.keys_of(module) for c in self.facts.of("module.calls", key)]
        if not counts or None in counts:
            return Outcome(None, f"whether `{module}` was called")
        return Outcome(any(counts), f"`{module}` was called {sum(counts)} times")

    def made_of(self, name: str, kind: str) -> Outcome:
        kinds = {self.names.entities[k].kind for k in self.names.keys_of(name)} - {"function"}
        return Outcome(any(_is_kind(k, kind) for k in kinds) if kinds else None,
                       f"`{name}` is {', '.join(sorted(kinds)) or 'not known'}")  # fmt: skip

    # ------------------------------------------------------------------------------------------------ optimisers

    def owners(self, optimizer: str) -> set[str]:
        """The modules whose parameters an optimiser was given: as observed, else as written."""
        created = [
            f for f in self.facts.of("optimizer.created") if optimizer in (f.subject, *self.names.keys_of(f.subject))
        ]
        seen = {root for f in created for root in f["owners"] or {}}
        return seen or {name for u in self.program for s in u.optimizers if s.name == optimizer for name in s.modules}

    def updates(self, optimizer: str, module: str) -> Outcome:
        keys = self.names.keys_of(module)
        owned: set[str] = set().union(*(self.owners(o) for o in self.names.keys_of(optimizer)))
        meant: set[str] = set().union(*(self.names.keys_of(o) | {o} for o in owned))
        if not owned or not keys:
            return Outcome(None, f"what `{optimizer}` updates")
        says = f"`{optimizer}` updates {', '.join(f'`{o}`' for o in sorted(owned))}"
        apart = not any(m.startswith(f"{o}.") or o.startswith(f"{m}.") for m in keys for o in meant)
        return Outcome(True if meant & keys else False if apart else None, says)

    # ------------------------------------------------------------------------------------------------ order

    def lines_of(self, snippet: str) -> list[int]:
        """The lines of the main unit where a call, or an assignment to a name, stands."""
        wanted = re.sub(r"\s+", "", snippet).strip("`").removesuffix("()")
        unit, found = self.program.main, set()
        for node in unit.all(ast.Call):
            text = re.sub(r"\s+", "", ast.unparse(node if "(" in wanted else node.func))
            if text == wanted or text.endswith(f".{wanted}"):
                found.add(node.lineno)
        for statement in unit.all(ast.Assign):
            if wanted in (re.sub(r"\s+", "", ast.unparse(part)) for part in (statement, statement.targets[0])):
                found.add(statement.lineno)
        return sorted(found)

    def before(self, first: str, second: str) -> Outcome:
        """Whether all of one stands above all of the other, within a training loop if both stand in it."""
        one, other = self.lines_of(first), self.lines_of(second)
        for loop in self.program.main.training_loops:
            inside = [[n for n in side if loop.lineno <= n <= (loop.end_lineno or n)] for side in (one, other)]
            one, other = inside if all(inside) else (one, other)
        if not one or not other or one == other:
            return Outcome(None, f"where `{first}` and `{second}` stand")
        says = f"`{first}` stands at line {_listed(one)}, `{second}` at line {_listed(other)}"
        return Outcome(True if max(one) < min(other) else False if max(other) < min(one) else None, says)


def _is_kind(kind: str, wanted: str) -> bool:
    """Whether a class is the one that is meant: ``BatchNorm`` and ``nn.BatchNorm1d`` mean BatchNorm1d."""
    wanted = wanted.strip("`").rpartition(".")[2].lower()
    return bool(wanted) and (kind.lower() == wanted or bool(re.fullmatch(rf"{re.escape(wanted)}\d?d?", kind.lower())))


def _listed(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines[:3]))
