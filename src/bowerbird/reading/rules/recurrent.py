"""Rules of recurrent networks: states carried on, the axis of time, what is taken at the end."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Patch, insert_before, replace_line
from bowerbird.reading.program import Function, Program, Unit, dotted, last_name, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run

_STATE = re.compile(r"(^|_)(h|c|hx|cx|hc|hn|cn|h_?t|c_?t|s)\d?$|hid|state|memory|carry", re.I)


def _taken(unit: Unit) -> tuple[ast.Assign, str] | None:
    """The statement of a training loop that takes a state and assigns it again, and the state's name."""
    for loop in unit.training_loops:
        for statement in unit.all(ast.Assign, under=loop):
            for name in map(dotted, targets_of(statement)):
                if name is not None and _STATE.search(name.rpartition(".")[2]):
                    return statement, name
    return None


def _dropped(unit: Unit) -> ast.Expr | None:
    """A statement that computes a detached state and assigns it to nothing."""
    for statement in unit.all(ast.Expr):
        if isinstance(statement.value, ast.Call) and re.search(r"detach$|repackage", last_name(statement.value)):
            return statement
    return None


def _cut(unit: Unit, statement: ast.stmt, name: str) -> Patch | None:
    """The patch that detaches a state before the call that takes it; none for a state that begins as None."""
    values = [ast.unparse(value) for value, _ in unit.assignments.get(name, [])]
    if "None" in values:
        return None
    new = f"{name} = tuple(v.detach() for v in {name}) if isinstance({name}, tuple) else {name}.detach()"
    return insert_before(unit.file, statement.lineno, new, unit.lines, label="R01: detach the state")


@rule("R01", "The state keeps the graph of earlier batches", family="recurrent", exact=True)
def attached_state(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A pass that starts from a state and the graph of an earlier backward pass."""
    carried = [f for f in facts.of("recurrent.start") if f["carried"]]
    for fact in [f for f in carried if f["attached"]][:1]:
        unit = unit_of(program, fact)
        dropped, taken = _dropped(unit), _taken(unit)
        line = dropped.lineno if dropped is not None else taken[0].lineno if taken is not None else fact.line
        yield say(
            "R01" if dropped is None else "R01c", "error", line, fact=fact, said=_start(fact),
            patch=_cut(unit, *taken) if taken is not None and dropped is None else None,
        )  # fmt: skip
        return
    for fact in carried[:1]:
        yield say("R01b", "ok", fact.line, fact=fact)


def _start(fact: Fact) -> str:
    earlier = f"the final state of pass {fact['from_era'] + 1}"
    return f"Pass {fact['era'] + 1} starts from {earlier} (norm {fact['norm']:.3g})"


# ---------- recurrent layers and their layouts: which axis is time, which output is the last


@rule("R03", "The layer takes another axis for time", family="recurrent")
def axis_of_time(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One example was changed: the layer saw one of its time steps change."""
    told: set[tuple[str, int]] = set()
    for fact in facts.of("probe.recurrent_axes"):
        axis = fact["batch_axis"]
        if axis is None:
            continue
        role, effect = fact["roles"][axis], fact["others"][axis]
        if role == "example":
            told.add((fact.file, placed(fact.line)))
            yield say("R03c", "ok", fact.line, fact=fact, axis=axis)
            continue
        turned = next((v for v in facts.of("probe.view") if "recurrent" in str(v["role"])), None)
        if role == "neither" and turned is None:
            continue
        unit = unit_of(program, fact)
        line = turned.line if turned is not None else fact.line
        told.add((fact.file, placed(line)))
        moved = f", and other examples' outputs move by {effect:.2g} of their size" if effect else ""
        text = unit.lines[line - 1] if line and line <= len(unit.lines) else ""
        patch = None
        if turned is None and not fact["batch_first"] and text.rstrip().endswith(")"):
            patch = replace_line(
                fact.file,
                placed(line),
                text,
                text.rstrip()[:-1] + ", batch_first=True)",
                unit.lines,
                label="R03: batch first",
            )
        yield say(
            "R03" if not fact["batch_first"] else "R03b", "error", line, patch=patch, fact=fact, axis=axis,
            moved=moved,
        )  # fmt: skip


# ---------- recurrent cells: which of their two states goes on


@rule("R05", "The cell state of an LSTM is passed on as its output", family="recurrent")
def cell_state_fed(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``h, c = cell(x, (h, c))``: what the next layer reads is h; c is the cell's own memory."""
    for unit in program:
        cells = {name for name, kind in unit.modules.items() if kind == "LSTMCell"}
        for function in unit.functions.values() if cells else ():
            states = _cell_states(unit, function, cells)
            told: set[int] = set()
            for call in unit.all(ast.Call, under=function):
                name = dotted(call.args[0]) if call.args else None
                module = dotted(call.func) in unit.modules
                if name not in states or not module or call.lineno in told:
                    continue
                told.add(call.lineno)
                yield say(
                    "R05", "warning", call.lineno, file=unit.file, func=dotted(call.func), name=name,
                    states_2=states[name],
                )  # fmt: skip


def _cell_states(unit: Unit, function: Function, cells: set[str]) -> dict[str, int]:
    """The names that a function gives to second values of LSTM cells, with the line of the call."""
    found = {}
    for node in unit.all(ast.Assign, under=function):
        target = node.targets[0]
        called = isinstance(node.value, ast.Call) and dotted(node.value.func) in cells and last_name(node.value)
        if called and isinstance(target, ast.Tuple) and len(target.elts) == 2:
            name = dotted(target.elts[1])
            if name is not None and name != "_":
                found[name] = node.lineno
    return found
