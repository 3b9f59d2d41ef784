"""Names: which module, optimiser or function of a program a name of its code, or of a fact, means.

A variable and the class that it is an instance of are one entity, and so are ``fc1``, ``self.fc1`` and ``model.fc1``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bowerbird.reading.facts import FactStore
from bowerbird.reading.program import Program

Sort = Literal["module", "optimizer", "function"]


@dataclass(frozen=True)
class Entity:
    """``key`` is the name in facts; ``kind`` the class of a module or of an optimiser."""

    key: str
    sort: Sort
    kind: str
    lines: tuple[int, int] = (0, 0)
    """Of a module, its class; of an optimiser, where it is built; of a function, its body."""


class Names:
    def __init__(self, program: Program, facts: FactStore) -> None:
        self.program, self.facts = program, facts
        self.entities: dict[str, Entity] = {}
        self._aliases: dict[str, set[str]] = {}
        self._add_modules()
        self._add_optimizers()
        for unit in program:
            for name, node in unit.functions.items():
                self._add(Entity(name, "function", "function", (node.lineno, node.end_lineno or node.lineno)),
                          name, name.rpartition(".")[2])  # fmt: skip

    def _add(self, entity: Entity, *aliases: str) -> None:
        self.entities.setdefault(entity.key, entity)
        for alias in (entity.key, *aliases):
            if not alias.startswith("__"):
                self._aliases.setdefault(alias, set()).add(entity.key)

    def _add_modules(self) -> None:
        for unit in self.program:
            spans = {n: (i.node.lineno, i.node.end_lineno or i.node.lineno) for n, i in unit.classes.items()}
            for name, kind in unit.modules.items():
                if not name.startswith("self.") and "." not in name:
                    self._add(Entity(name, "module", kind, spans.get(kind, (0, 0))), kind)
            for name, info in unit.classes.items():
                if info.is_module and name not in self._aliases:
                    self._add(Entity(name, "module", name, spans[name]))
            self._add_parts(unit.classes)
        for tree in self.facts.of("module.tree"):
            kind = str(tree["class"] or "")
            root = next((e for e in self.entities.values() if e.kind == kind), None)
            self._add(Entity(tree.subject, "module", kind, root.lines if root else (0, 0)), kind)
            for part in tree["modules"] or []:
                path = str(part.get("path", ""))
                if path and path != tree.subject:
                    key = path if path.startswith(f"{tree.subject}.") else f"{tree.subject}.{path}"
                    short = key.removeprefix(f"{tree.subject}.")
                    self._add(
                        Entity(key, "module", str(part.get("class", ""))), short, f"self.{short}", f"{kind}.{short}"
                    )

    def _add_parts(self, classes: Iterable[str]) -> None:
        for unit in self.program:
            for name, kind in unit.modules.items():
                for _, statement in unit.assignments.get(name, []):
                    around = unit.class_around(statement)
                    if name.startswith("self.") and around is not None and around.name in classes:
                        short = name.removeprefix("self.")
                        for root in self._aliases.get(around.name, {around.name}).copy():
                            span = (statement.lineno, statement.end_lineno or statement.lineno)
                            self._add(
                                Entity(f"{root}.{short}", "module", kind, span), short, name, f"{around.name}.{short}"
                            )

    def _add_optimizers(self) -> None:
        for unit in self.program:
            for site in unit.optimizers:
                if site.name:
                    span = (site.line, site.call.end_lineno or site.line)
                    self._add(Entity(site.name, "optimizer", site.kind, span), site.name.rpartition(".")[2])
        for fact in self.facts.of("optimizer.created"):
            known = next((e for e in self.entities.values() if e.sort == "optimizer" and fact.line in e.lines), None)
            if known is not None:  # a run may not know what the variable is called
                self._aliases.setdefault(fact.subject, set()).add(known.key)
            else:
                self._add(Entity(fact.subject, "optimizer", str(fact["class"] or ""), (fact.line or 0, fact.line or 0)))

    def keys_of(self, name: str) -> frozenset[str]:
        """The entities that a name of the code or of a fact means."""
        name = name.strip().removesuffix("()")
        return frozenset(self._aliases.get(name) or self._aliases.get(name.removeprefix("self."), set()))

    def speaks_of(self, text: str) -> bool:
        """Whether a sentence names something of the program: in backticks, or by a name that is no plain word."""
        words = re.findall(r"[A-Za-z_]\w*", text)
        own = {alias for alias in self._aliases if re.search(r"[A-Z_.\d]", alias) or len(alias) == 1}
        return "`" in text or any("_" in w or re.search(r"[a-z][A-Z]", w) or w in own for w in words)
