"""A study: everything that is known of a program while its reading is written, derived facts included."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bowerbird.reading.explain.families import OTHER, Family, families
from bowerbird.reading.facts import Fact, FactStore, first_shape
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import Source


@dataclass(frozen=True)
class SavedPicture:
    """A picture file of the run, read before its folder was removed."""

    name: str
    data: bytes = field(repr=False)
    mime: str


@dataclass
class Study:
    """``facts`` grows while the study is made; afterwards it is only read."""

    source: Source
    program: Program
    run: Run
    findings: list[Finding]
    pictures: list[SavedPicture] = field(default_factory=list)
    shown: tuple[str, ...] = ()
    """Files that are read; what merely drives them is not among them.  Empty: all."""

    @property
    def facts(self) -> FactStore:
        return self.run.facts

    @property
    def files(self) -> list[str]:
        return list(self.shown) or list(self.source.texts)

    @property
    def file(self) -> str:
        """The file that is read first."""
        return self.files[0] if self.shown else self.source.main

    @property
    def family(self) -> Family:
        fact = self.facts.first("program.family")
        return families()[fact.subject if fact is not None else OTHER]

    @cached_property
    def titled(self) -> Fact:
        """What is read: the file, or the folder of several."""
        if len(self.files) > 1:
            return self.add("source.folder", self.source.path.name, {"files": len(self.files)})
        found = self.facts.first("source.file")
        assert found is not None
        return found

    def add(self, topic: str, subject: str, value: Any, like: Fact | None = None, **where: Any) -> Fact:
        """Records a derived fact; ``like`` lends its place, its kind and its run."""
        kind = where.pop("kind", like.kind if like is not None else "static")
        file = where.pop("file", like.file if like is not None else self.source.main)
        line = where.pop("line", like.line if like is not None else None)
        run = where.pop("run", like.run if like is not None else None)
        return self.facts.add(kind, topic, subject, value, file=file, line=line, run=run)

    def short(self, file: str) -> str:
        """A file as a reader knows it: its name, or its path below the folder that was named."""
        path = Path(file)
        if self.source.path.is_dir() and path.is_relative_to(self.source.path):
            return path.relative_to(self.source.path).as_posix()
        return path.name

    def text(self, file: str, line: int) -> str:
        lines = self.source.texts.get(file, "").splitlines()
        return lines[line - 1] if 0 < line <= len(lines) else ""

    # ------------------------------------------------------------------------------------------- what is asked often

    @cached_property
    def roots(self) -> list[Fact]:
        """The networks: trees of modules, those that were called first."""
        called = {f.subject: f["calls"] or 0 for f in self.facts.of("module.calls")}
        trees = [f for f in self.facts.of("module.tree") if f["parameters"] or called.get(f.subject)]
        trees = [f for f in trees if f.line or called.get(f.subject)] or trees  # those without a line were only tried
        return sorted(trees, key=lambda f: called.get(f.subject, 0) == 0)

    @cached_property
    def optimizers(self) -> list[Fact]:
        """One fact per optimiser, with the name that the program gives it."""
        named = {f.subject: f["name"] for f in self.facts.of("optimizer.steps")}
        steps = {f.subject: f["steps"] for f in self.facts.of("optimizer.steps")}
        return [
            self.add(
                "optimizer.named", str(named.get(f.subject) or f.subject),
                {**f.value, "steps": steps.get(f.subject, 0), "moves": self._moves(f)}, like=f,
            )
            for f in self.facts.of("optimizer.created")
        ]  # fmt: skip

    def _moves(self, created: Fact) -> list[str]:
        """The networks that an optimiser moves; of a network that it has a part of, the part where that is a module."""
        found = []
        for owner, share in (created["owners"] or {}).items():
            tree = self.facts.first("module.tree", owner)
            parts = [r["path"] for r in (tree["modules"] or [] if tree is not None else []) if r["path"]
                     and r["parameters"] == created["elements"]]  # fmt: skip
            whole = share["tensors"] == share["of"] or not parts
            found.append(owner if whole else f"{owner}.{parts[0]}")
        return found

    @cached_property
    def networks(self) -> list[Fact]:
        """What is called from outside: roots, and the parts of a root that is a mere holder of networks."""
        found = []
        for tree in self.roots:
            paths = dict.fromkeys(f.subject for f in self.facts.of("event.forward", f"{tree.subject}.*"))
            rows = {f"{tree.subject}.{row['path']}": row for row in tree["modules"] or []}
            held = self.facts.first("event.forward", tree.subject) is None
            for path in [p for p in paths if p in rows] if held else []:
                row = rows[path]
                value = {"class": row["class"], "parameters": row["parameters"], "trainable": row["parameters"]}
                found.append(self.add("network", path, value, like=tree))
            if not held or not paths:
                value = {key: tree[key] for key in ("class", "parameters", "trainable")}
                found.append(self.add("network", tree.subject, value, like=tree))
        return found

    def passes(self) -> dict[str, list[Fact]]:
        """The backward passes by their line, and by the networks that they go through where one line serves several."""
        calls = {f["call"]: f for f in self.facts.of("event.forward")}

        def own(backward: Fact) -> bool:
            """Whether a loss is the program's: it stands at a line of it, or a network returned it."""
            through = [calls[row["call"]] for row in backward["through"] or [] if row["call"] in calls]
            return bool(backward.line) or any(first_shape(call["out"]) == [] for call in through)

        return {subject: facts for subject, facts in passes(self.facts).items() if own(facts[0])}

    @cached_property
    def events(self) -> list[Fact]:
        """What happened in training, in order."""
        found = [f for f in self.facts.of("event.*") if f["seq"] is not None]
        return sorted(found, key=lambda f: f["seq"])


def passes(store: FactStore) -> dict[str, list[Fact]]:
    """The backward passes of a store by line, and by the networks that they go through where a line serves several."""
    groups: dict[tuple[str, int | None, tuple[str, ...]], list[Fact]] = {}
    for fact in store.of("event.backward"):
        through = tuple(sorted({row["module"] for row in fact["through"] or []}))
        groups.setdefault((fact.file, fact.line, through), []).append(fact)
    lines = [key[:2] for key in groups]
    return {
        f"line {key[1]}" + (f" through {' and '.join(key[2])}" if lines.count(key[:2]) > 1 else ""): facts
        for key, facts in groups.items()
    }
