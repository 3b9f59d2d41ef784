"""Names: what a sentence means by "the generator", ``optimizer_D`` or ``fc1``.

An entity is a module, an optimiser, a function or a class of the program.  A variable and the class that it is an
instance of are one entity; "the generator" and 生成器 mean the module that is called so, or ``G``.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from bowerbird.reading.facts import FactStore
from bowerbird.reading.program import Program
from bowerbird.reading.tutor.wording import concept_of, located_concepts, name_parts

Sort = Literal["module", "optimizer", "function"]
ROLES = ("generator", "discriminator", "encoder", "decoder")
_LETTERS = {
    "g": "generator",
    "d": "discriminator",
    "gen": "generator",
    "disc": "discriminator",
    "critic": "discriminator",
    "enc": "encoder",
    "dec": "decoder",
}
CODE = re.compile(r"`([^`]+)`")
_PLAIN_NAME = re.compile(r"(?<![\w.`])[A-Za-z_]\w*(?:\.\w+)*")


@dataclass(frozen=True)
class Entity:
    """``key`` is the name in facts; ``kind`` the class of a module or of an optimiser."""

    key: str
    sort: Sort
    kind: str
    lines: tuple[int, int] = (0, 0)
    """Of a module, its class; of an optimiser, where it is built; of a function, its body."""


@dataclass(frozen=True)
class Mention:
    start: int
    end: int
    text: str
    keys: frozenset[str]


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
        self._add_roles()

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

    def _add_roles(self) -> None:
        """ "the generator" means modules whose name or class says so, or the letter G."""
        self.roles: dict[str, set[str]] = {}
        for entity in self.entities.values():
            if entity.sort == "module" and "." not in entity.key:
                parts = {p for n in (entity.key, entity.kind) for p in name_parts(n)}
                for role in {_LETTERS.get(p) or concept_of(p) for p in parts} & set(ROLES):
                    self.roles.setdefault(role, set()).add(entity.key)
            if entity.sort == "module" and entity.key.rpartition(".")[2].lower() in ROLES:
                self.roles.setdefault(entity.key.rpartition(".")[2].lower(), set()).add(entity.key)

    @cached_property
    def words(self) -> set[str]:
        """Every name and dotted piece that occurs in the code itself, comments and texts excluded."""
        found: set[str] = set()
        for unit in self.program:
            for node in unit.nodes:
                for field in ("id", "attr", "arg", "name"):
                    if isinstance(value := getattr(node, field, None), str):
                        found |= {value, *value.split(".")}
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                    found |= {node.value, node.value.lstrip("-"), node.value.lstrip("-").replace("-", "_")}
                if isinstance(node, ast.ImportFrom) and node.module:
                    found |= set(node.module.split("."))
        kinds = {str(p.get("class")) for t in self.facts.of("module.tree") for p in t["modules"] or []}
        return found | kinds

    def keys_of(self, name: str) -> frozenset[str]:
        """The entities that a name of the code or of a fact means."""
        name = name.strip().removesuffix("()")
        return frozenset(self._aliases.get(name) or self._aliases.get(name.removeprefix("self."), set()))

    def unknown(self, text: str) -> list[str]:
        """Names in backticks, and words that look like names of code, that occur nowhere in the program."""
        wanted = [n for code in CODE.findall(text) for n in re.findall(r"[A-Za-z_]\w*", code)]
        bare = CODE.sub(" ", text)
        wanted += re.findall(r"\b[A-Z][a-z]+(?:[A-Z][A-Za-z0-9]*)+\b|\b[A-Za-z]\w*_\w+\b", bare)
        fine = {"PyTorch", "NumPy", "TensorFlow", "nn", "torch", "F", "True", "False", "None", "self"}
        lower = {w.lower() for w in self.words}
        return [n for n in dict.fromkeys(wanted) if n not in self.words and n not in fine and n.lower() not in lower]

    def mentions(self, text: str) -> list[Mention]:
        """The entities that a sentence speaks of, in order."""
        found: list[Mention] = []
        for match in CODE.finditer(text):
            keys = self.keys_of(match[1]) or self.keys_of(match[1].partition("(")[0]) or self._owner(match[1])
            if keys:
                found.append(Mention(match.start(), match.end(), match[1], keys))
        taken = [m.span() for m in CODE.finditer(text)]
        for match in _PLAIN_NAME.finditer(text):
            word = match[0]
            if not any(a <= match.start() < b for a, b in taken) and (keys := self._plain(word)):
                found.append(Mention(match.start(), match.end(), word, keys))
        covered = [(m.start, m.end) for m in found] + taken
        for start, end, concept in located_concepts(text):
            if concept in self.roles and not any(a <= start < b for a, b in covered):
                found.append(Mention(start, end, text[start:end], frozenset(self.roles[concept])))
        return self._with_optimizers(text, sorted(found, key=lambda m: m.start))

    def _owner(self, code: str) -> frozenset[str]:
        """``optimizer_G.step()`` speaks of ``optimizer_G``."""
        head = code.partition("(")[0].rpartition(".")[0]
        return self.keys_of(head) if head else frozenset()

    def _plain(self, word: str) -> frozenset[str]:
        """A word without backticks means an entity if it looks like a name, or is a role of the family."""
        keys = self.keys_of(word)
        telling = "_" in word or "." in word or any(c.isupper() for c in word) or any(c.isdigit() for c in word)
        role = concept_of(word) in ROLES
        return keys if keys and (telling or role or (len(word) > 3 and self._only_a_name(word))) else frozenset()

    def _only_a_name(self, word: str) -> bool:
        return any(self.entities[k].sort == "module" for k in self.keys_of(word)) and word not in ("model", "network")

    def _with_optimizers(self, text: str, found: list[Mention]) -> list[Mention]:
        """ "the generator's optimizer", "the optimizer of the generator", 生成器的优化器 mean an optimiser."""
        optimizers = [e for e in self.entities.values() if e.sort == "optimizer"]
        for start, end, concept in list(located_concepts(text)):
            if concept != "optimizer" or any(m.start <= start < m.end for m in found):
                continue
            near = [m for m in found if (0 <= start - m.end <= 4 and not re.search(r"[,.;]", text[m.end : start]))
                    or re.fullmatch(r"\s*(?:of|for)\s+(?:the\s+)?`?", text[end : m.start] or "?")]  # fmt: skip
            keys = {o.key for o in optimizers} if len(optimizers) == 1 else set()
            for mention in near:
                keys = {o.key for o in optimizers if self._named_for(o.key, mention.keys)}
                found = [m for m in found if m is not mention]
                start, end = min(start, mention.start), max(end, mention.end)
            if keys:
                found.append(Mention(start, end, text[start:end], frozenset(keys)))
        return self._qualified(text, sorted(found, key=lambda m: m.start))

    def _qualified(self, text: str, found: list[Mention]) -> list[Mention]:
        """ "`fc1` of the discriminator" and "the discriminator's `fc1`" are one mention of ``discriminator.fc1``."""
        merged: list[Mention] = []
        for mention in found:
            before = merged[-1] if merged else mention
            gap = text[before.end : mention.start]
            part, whole = (before, mention) if re.fullmatch(r"\s+(?:of|in)\s+(?:the\s+)?", gap) else (mention, before)
            keys = frozenset(k for k in part.keys for w in whole.keys if k.startswith(f"{w}."))
            if merged and keys and (part is before or re.fullmatch(r"(?:'s|的)\s*", gap)):
                merged[-1] = Mention(before.start, mention.end, text[before.start : mention.end], keys)
            else:
                merged.append(mention)
        return merged

    def _named_for(self, optimizer: str, modules: frozenset[str]) -> bool:
        parts = {_LETTERS.get(p, p) for p in name_parts(optimizer)}
        wanted = {_LETTERS.get(p) or concept_of(p) for key in modules for p in name_parts(key)}
        return bool(parts & wanted)
