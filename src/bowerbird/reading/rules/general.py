"""Rules of any program: names, values and types, options and data, slips."""

import ast
import difflib
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.origins import at, bound, calls_at
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.running.run import Run, StandIn
from bowerbird.reading.undefined import undefined_names


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
        slip = _slip(fact, program)
        if fact["follows"] or (fact["phase"] != "program" and not slip):
            continue
        before = [StandIn(f.subject, str(f["reason"])) for f in replaced if f.position < fact.position]
        made_up = [stand_in.name for stand_in in before if stand_in.made_up]
        made_up += [f.subject for f in facts.of("run.refused") if f.position < fact.position]
        file, line = _place(fact, program)
        text = program.line(line, file).strip()
        meant = text.startswith(("raise ", "assert "))
        elsewhere = fact.subject in _ELSEWHERE or "allocate memory" in str(fact["message"])
        ours = not slip and (bool(made_up) or meant or elsewhere)
        absent = f"{', '.join(made_up[:3]) or 'what it needs'} was not there"
        why = "it says so itself" if meant else absent if ours else ""
        yield Finding(
            RAISED, "info" if ours else "error" if fact["phase"] == "program" else "warning",
            line,
            f"The program raises {fact.subject}: {' '.join(str(fact['message']).split())[:160]}",
            f"Raised when `{text[:80]}` ran ({fact.id})"
            f"{f'; {why}, so it may be no fault of its own' if why else ''}{f'; {slip}' if slip else ''}.",
            file=file, facts=(fact.id,),
        )  # fmt: skip


def _place(fact: Fact, program: Program) -> tuple[str, int]:
    """The innermost line of the program's own files on the way to an exception; else the statement that failed."""
    way = [(file, line) for file, line, _ in fact["stack"] or () if file in program.units]
    return way[-1] if way else (program.file, placed(fact["statement"]))


_LAYERS = frozenset("Linear Conv1d Conv2d ConvTranspose2d Embedding LayerNorm BatchNorm2d LSTM GRU Sequential".split())


def _slip(fact: Fact, program: Program) -> str:
    """Why an exception is the program's own whatever values it was given; empty where it is not known to be."""
    unit, message = program.units.get(fact.file), str(fact["message"])
    quoted = re.findall(r"'(\w+)'", message)
    if unit is None or not fact.line:
        return ""
    if "before Module.__init__() call" in message:
        return "super().__init__() comes first"
    if fact.subject == "NameError" and quoted and quoted[0] in undefined_names(unit.text, unit.tree, unit.file):
        return f"nothing binds {quoted[0]}"
    if fact.subject == "AttributeError" and re.fullmatch(r"'\w+' object has no attribute '\w+'", message):
        kind, name = quoted
        modules = {info.name for u in program for info in u.classes.values() if info.is_module}
        given = {n.attr for u in program for n in u.all(ast.Attribute) if isinstance(n.ctx, ast.Store)}
        given |= {key.rpartition(".")[2] for u in program for key in u.functions}
        given |= {name for u in program if re.search("setattr|__dict__|__getattr__", u.text) for name in u.given}
        return f"no {kind} has a {name}" if kind in modules | _LAYERS and name not in given else ""
    return ""


@rule("X27", "A call does not match the parameters of its function", family="general", exact=True)
def unbindable(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A keyword that a function of the program does not know; of a library's, another version may know it.  A line that
    ran and raised nothing is right, whatever it looks like."""
    raised = {_place(fact, program) for fact in facts.of("run.exception", "TypeError")}
    for fact in facts.of("probe.binding"):
        if fact.file not in program.units or (fact["ran"] and (fact.file, fact.line) not in raised):
            continue
        yield say(
            "X27", "error" if fact["own"] else "warning", fact.line, fact=fact, text=fact["text"][:80],
            said="" if fact["own"] else " in the installed version",
            ran="raised the error" if fact["ran"] else "did not run here",
        )  # fmt: skip


@rule("X28", "An attribute is read but never set", family="general")
def ungiven(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A slip in a name behind ``self.``, where the program did not come or where it failed."""
    raised = {_place(fact, program) for fact in facts.of("run.exception", "AttributeError")}
    for fact in facts.of("probe.ungiven"):
        if fact.file in program.units and (not fact["ran"] or (fact.file, fact.line) in raised):
            near = difflib.get_close_matches(str(fact["name"]), fact["has"], n=1, cutoff=0.75)
            said = f"Did you mean {near[0]}?" if near else f"Set it in {fact['of']}.__init__."
            yield say("X28", "warning", fact.line, fact=fact, said=said)


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
            "X09", "info" if what in _HARMLESS else "warning", first.line, facts=(first.id,),
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


# ---------- values: shapes that are broadcast, types that do not fit, data and loss terms


@rule("X03", "Shapes are broadcast against each other by mistake", family="general")
def broadcast(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A column against a row: (B, 1) and (B,) make (B, B), and every prediction is compared with every target."""
    seen: set[tuple[str, int | None]] = set()
    for warning in facts.of("run.warning"):
        if "Using a target size" in warning["message"] and (warning.file, warning.line) not in seen:
            seen.add((warning.file, warning.line))
            yield say(
                "X03c", "error", warning.line, file=warning.file, facts=(warning.id,),
                message=warning["message"][:150], warning=warning,
            )  # fmt: skip
    for fact in facts.of("tensor.broadcast"):
        first, second = fact["shapes"]
        if (fact.file, fact.line) in seen or not _column_against_row(first, second) or not _subtracts(program, fact):
            continue
        seen.add((fact.file, fact.line))
        yield say(
            "X03", "error", fact.line, tuple_2=tuple(first), tuple_3=tuple(second), out=tuple(fact["out"]),
            fact=fact, first=first, second=second,
        )  # fmt: skip
    guessed = any("stand-in images" in s.reason for s in run.stand_ins)
    for error in facts.of("run.exception"):
        if "Using a target size" in error["message"] and error["phase"] == "program" and error.line:
            yield say(
                "X03d", "warning" if guessed else "error", error.line, file=error.file, facts=(error.id,),
                message=error["message"][:150], error=error,
            )  # fmt: skip


def _column_against_row(first: list[int], second: list[int]) -> bool:
    """(…, n, 1) against (n,): the same number of elements, and one axis more."""
    longer, shorter = (first, second) if len(first) > len(second) else (second, first)
    return len(longer) == len(shorter) + 1 and len(shorter) >= 1 and longer[-1] == 1 and longer[:-1] == shorter and (
        shorter[-1] > 1
    )  # fmt: skip


def _subtracts(program: Program, fact: Fact) -> bool:
    """Whether the broadcast is a difference that becomes a loss, and no axis was added on purpose."""
    unit = program.units.get(fact.file, program.main)
    statement = at(unit, fact.line)
    text = ast.unparse(statement) if statement is not None else ""
    if "None" in text or "unsqueeze" in text or "newaxis" in text or "cdist" in text:
        return False
    loss = fact.subject.endswith("_loss")
    return loss or (
        fact.subject in ("sub", "__sub__", "__rsub__") and bool(re.search(r"pow|\*\*|abs|mean|square|loss", text))
    )


_TYPES = re.compile(
    r"same dtype|expected scalar type|should be the same|expected dtype|Found dtype|same device"
    r"|Expected object of (scalar|device)"
    r"|expected m1 and m2 to have the same dtype|Input type .* and weight type", re.I
)  # fmt: skip


@rule("X04", "Tensors of different type or device meet", family="general", exact=True)
def mismatch(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Double from NumPy against single weights; a tensor left on the CPU beside a network on the GPU."""
    for error in facts.of("run.exception", "RuntimeError"):
        if error["phase"] != "program" or not _TYPES.search(error["message"]) or not error["stack"]:
            continue
        file, line = _where_from(program, error)
        half = any(s.name == "CUDA" for s in run.stand_ins) and re.search(r"half|float16", error["message"], re.I)
        yield say(
            "X04", "warning" if half else "error", line, file=file, facts=(error.id,), error=error,
            message=error["message"][:130],
        )  # fmt: skip


def _where_from(program: Program, error: Fact) -> tuple[str, int]:
    """The line that made the tensor that a failing call was given, through one name."""
    file, line, _ = error["stack"][0]
    for file, line, _ in error["stack"]:
        unit = program.units.get(file, program.main)
        if any(dotted(c.func) in unit.modules for c in calls_at(unit, line)):
            break
    unit = program.units.get(file, program.main)
    for call in calls_at(unit, line):
        if dotted(call.func) not in unit.modules:
            continue
        for argument in call.args:
            name = dotted(argument)
            found = bound(unit, name, line, unit.function(call)) if name else None
            if found is not None and re.search(r"numpy|np\.|double|float64|linspace", ast.unparse(found[1])):
                return file, found[0]
    return file, line


# ---------- options, data and the terms of a loss: what is given, and what is left out


@rule("X06", "A flag of type bool is true whatever is given", family="general")
def bool_flag(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``type=bool`` turns every text that is not empty into True."""
    for unit in program:
        for call in unit.calls("add_argument"):
            kind = keyword(call, "type")
            if isinstance(kind, ast.Name) and kind.id == "bool":
                flag = next((str(a.value) for a in call.args if isinstance(a, ast.Constant)), "the flag")
                default = keyword(call, "default")
                yes = isinstance(default, ast.Constant) and default.value is True
                yield say(
                    "X06" if yes else "X06b", "warning", call.lineno, file=unit.file,
                    patch=None if yes else _store_true(unit, kind.lineno, default), flag=flag,
                )  # fmt: skip


def _store_true(unit: Unit, line: int, default: ast.expr | None) -> Patch | None:
    """The patch that makes a flag of an option; its default goes with its type."""
    given = f", default={ast.unparse(default)}" if default is not None else ""
    old = f"type=bool{given}" if f"type=bool{given}" in unit.lines[line - 1] else "type=bool"
    return replace_line(unit.file, line, old, 'action="store_true"', unit.lines, label="X06: store_true")


_HELD_OUT = re.compile(r"(^|_|\b)(val|valid|validation|test|eval|dev)", re.I)
_TRAINED_ON = re.compile(r"(^|_|\b)(train|trn)", re.I)


@rule("X07", "Training data are used for validation, or are never shuffled", family="general")
def same_data(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Two loaders of one data set, one of them called validation; a training loader with shuffle=False."""
    for unit in program:
        given: dict[str, list[tuple[str, int]]] = {}
        for name, values in unit.assignments.items():
            for value, _ in values:
                if isinstance(value, ast.Call) and last_name(value) == "DataLoader":
                    data = keyword(value, "dataset", 0)
                    if data is not None and keyword(value, "sampler") is None:
                        given.setdefault(ast.unparse(data), []).append((name, value.lineno))
                    shuffle = keyword(value, "shuffle", 2)
                    if isinstance(shuffle, ast.Constant) and shuffle.value is False and _TRAINED_ON.search(name):
                        yield say(
                            "X07b", "warning", value.lineno, file=unit.file, name=name,
                            value_2=ast.unparse(value)[:100],
                        )  # fmt: skip
                elif isinstance(value, ast.Call) and _HELD_OUT.search(name) and not _TRAINED_ON.search(name):
                    train = keyword(value, "train")
                    if isinstance(train, ast.Constant) and train.value is True:
                        yield Finding(
                            "X07", "warning", value.lineno, f"{name} holds the training split (train=True).",
                            f"{ast.unparse(value)[:100]}", "Use train=False.", unit.file,
                        )  # fmt: skip
        for source, loaders in given.items():
            held = [(n, line) for n, line in loaders if _HELD_OUT.search(n) and not _TRAINED_ON.search(n)]
            others = [n for n, _ in loaders if n not in {h[0] for h in held}]
            if held and others:
                yield say("X07", "warning", held[0][1], file=unit.file, held=held, source=source, others=others)


@rule("X14", "A transform is composed and never applied", family="general")
def transform_unused(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A pipeline of transforms that no data set is given: the data stay as they are."""
    for unit in program:
        for name, values in unit.assignments.items():
            for value, statement in values:
                if not isinstance(value, ast.Call) or last_name(value) != "Compose" or "." in name:
                    continue
                scope = unit.function(statement) or unit.tree
                reads = [n for n in unit.all(ast.Name, under=scope) if n.id == name and isinstance(n.ctx, ast.Load)]
                if not reads and not (scope is unit.tree and _imported_elsewhere(program, unit, name)):
                    yield say("X14", "warning", statement.lineno, file=unit.file, name=name)


def _imported_elsewhere(program: Program, unit: Unit, name: str) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", other.text) for other in program if other is not unit)


# ---------- slips that read well: a conditional that gives a function, an attribute in the place of an argument
