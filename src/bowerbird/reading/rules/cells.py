"""Rules of recurrent cells: which of their two states goes on."""

import ast
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Function, Program, Unit, dotted, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


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
