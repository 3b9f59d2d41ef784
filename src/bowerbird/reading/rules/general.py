"""Rules of any program: names, results that are thrown away."""

import ast
import difflib
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.patching import replace_line
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run, StandIn
from bowerbird.reading.undefined import undefined_names

METHODS = frozenset("backward step zero_grad eval train cuda cpu update requires_grad_ item detach".split())


@rule("X01", "A name is used that is bound nowhere", family="general", exact=True)
def undefined(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A slip when it resembles a name of the program; otherwise what a fragment expects from its surroundings."""
    unit = program.main
    bound = {n.id for n in unit.all(ast.Name) if isinstance(n.ctx, ast.Store)} | set(unit.functions) | set(unit.classes)
    fragment = not any(True for _ in unit.all(ast.Import, ast.ImportFrom))
    replaced = {stand_in.name for stand_in in run.stand_ins}
    raised = {f["message"]: f for f in facts.of("run.exception", "NameError")}
    for name, line in undefined_names(unit.text, unit.tree, unit.file).items():
        near = difflib.get_close_matches(name, bound - {name}, n=1, cutoff=0.75)
        failed = next((f for message, f in raised.items() if f"'{name}'" in message), None)
        if failed is not None and near and not fragment:
            severity: Severity = "error"
        else:
            slip = bool(near) and difflib.SequenceMatcher(None, name, near[0]).ratio() > 0.85
            severity = "info" if fragment and not (slip and name not in replaced) else "warning"
        yield say(
            "X01" if failed else "X01b" if name in replaced else "X01c", severity,
            failed.line if failed and failed.line else line, facts=(failed.id,) if failed else (), name=name,
            failed=failed, said=f"Did you mean {near[0]}?" if near else f"Import or define {name} first.",
        )  # fmt: skip


@rule("X11", "A method is named and not called", family="general")
def not_called(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``optimizer.step`` without parentheses does nothing."""
    for unit in program:
        for statement in unit.all(ast.Expr):
            value = statement.value
            if isinstance(value, ast.Attribute) and value.attr in METHODS:
                yield say(
                    "X11", "error" if run.executed else "warning", statement.lineno, file=unit.file,
                    patch=replace_line(
                        unit.file, statement.lineno, ast.unparse(value), f"{ast.unparse(value)}()", unit.lines,
                        label="X11: call",
                    ),
                    value_2=ast.unparse(value),
                )  # fmt: skip


RAISED = "X17"
_ELSEWHERE = (
    "ImportError", "ModuleNotFoundError", "FileNotFoundError", "PermissionError", "Refused", "ConnectionError",
    "URLError", "HTTPError", "MemoryError", "OutOfMemoryError", "TimeoutError", "EOFError",
)  # fmt: skip
"""Exceptions about the place where a program runs, not about the program."""


@rule(RAISED, "The program raises an exception", family="general", exact=True)
def raises(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """What ended a statement of the program's own; where values of ours took part, it may be theirs."""
    replaced = facts.of("run.stand_in")
    for fact in run.exceptions():
        if fact["phase"] != "program" or fact["follows"]:
            continue
        before = [StandIn(f.subject, str(f["reason"])) for f in replaced if f.position < fact.position]
        made_up = [stand_in.name for stand_in in before if stand_in.made_up]
        unit = next((u for u in program if u.file == fact.file), program.main)
        text = program.line(fact.line or 0, unit.file).strip()
        meant = text.startswith(("raise ", "assert "))
        ours = bool(made_up) or meant or fact.subject in _ELSEWHERE or "allocate memory" in str(fact["message"])
        absent = f"{', '.join(made_up[:3]) or 'what it needs'} was not there"
        why = "it says so itself" if meant else absent if ours else ""
        yield Finding(
            RAISED, "info" if ours else "error", fact.line or fact["statement"] or 1,
            f"The program raises {fact.subject}: {' '.join(str(fact['message']).split())[:160]}",
            f"Raised when `{text[:80]}` ran ({fact.id}){f'; {why}, so it may be no fault of its own' if why else ''}.",
            file=unit.file, facts=(fact.id,),
        )  # fmt: skip


_HARMLESS = ("network", "writing", "foreign code")


@rule("X09", "The program reaches beyond itself", family="general")
def reaches_out(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Processes, deletion elsewhere, secrets, signals: refused while the program was observed, and worth knowing."""
    for what in dict.fromkeys(fact.subject for fact in facts.of("run.refused")):
        tried = facts.of("run.refused", what)
        first = next((fact for fact in tried if fact.file == program.file), None)
        if first is None:
            continue
        yield say(
            "X09", "info" if what in _HARMLESS else "warning", first.line or 1, facts=(first.id,),
            get=_ATTEMPTS.get(what, what), tried_2=len(tried), tried_3="s" * (len(tried) > 1),
            detail=str(first["detail"])[:80], first=first,
        )  # fmt: skip


_ATTEMPTS = {
    "network": "to reach the network",
    "process": "to start another process",
    "signal": "to send a signal to another process",
    "deleting or moving": "to delete or move files outside its working folder",
    "writing": "to write outside its working folder",
    "reading secrets": "to read a file that may hold secrets",
    "foreign code": "to load code from a library directly",
}
