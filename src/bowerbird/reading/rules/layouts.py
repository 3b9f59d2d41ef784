"""Rules of recurrent layers and their layouts: which axis is time, which output is the last."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import replace_line
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run

_TURNS = re.compile(r"transpose|permute|\.t\(\)|movedim|swapaxes|\.T\b|\.mT\b|rearrange")
_LAYERS = ("LSTM", "GRU", "RNN")


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
            told.add((fact.file, fact.line or 1))
            yield say("R03c", "ok", fact.line or 1, fact=fact, axis=axis)
            continue
        turned = next((v for v in facts.of("probe.view") if "recurrent" in str(v["role"])), None)
        if role == "neither" and turned is None:
            continue
        unit = unit_of(program, fact)
        line = turned.line if turned is not None else fact.line
        told.add((fact.file, line or 1))
        moved = f", and other examples' outputs move by {effect:.2g} of their size" if effect else ""
        text = unit.lines[line - 1] if line and line <= len(unit.lines) else ""
        patch = None
        if turned is None and not fact["batch_first"] and text.rstrip().endswith(")"):
            patch = replace_line(
                fact.file,
                line or 1,
                text,
                text.rstrip()[:-1] + ", batch_first=True)",
                unit.lines,
                label="R03: batch first",
            )
        yield say(
            "R03" if not fact["batch_first"] else "R03b", "error", line or 1, patch=patch, fact=fact, axis=axis,
            moved=moved,
        )  # fmt: skip
    for unit in program:
        for line, said in _contradictions(unit):
            if (unit.file, line) not in told:
                yield say("R03d", "warning", line, file=unit.file, said=said)


def _contradictions(unit: Unit) -> Iterator[tuple[int, str]]:
    """Layers without batch_first whose output is read, or whose state is made, as if the batch came first."""
    for statement in unit.all(ast.Assign):
        call = statement.value
        if not isinstance(call, ast.Call) or last_name(call) not in _LAYERS or len(call.args) > 4:
            continue
        first = keyword(call, "batch_first")
        if (first is not None and not (isinstance(first, ast.Constant) and first.value is False)) or any(
            k.arg is None for k in call.keywords
        ):
            continue
        holder, name = unit.class_around(statement), dotted(statement.targets[0])
        for use in unit.all(ast.Assign, under=holder) if holder is not None and name else ():
            if not isinstance(use.value, ast.Call) or dotted(use.value.func) != name or not use.value.args:
                continue
            said = _read_batch_first(unit, use, use.value)
            if said:
                yield call.lineno, said
                break


def _read_batch_first(unit: Unit, use: ast.Assign, call: ast.Call) -> str:
    function = unit.function(use)
    given, out = call.args[0], next(iter(targets_of(use)), None)
    if function is None or out is None or _TURNS.search(ast.unparse(given)) or "pack" in ast.unparse(function):
        return ""
    names = {dotted(given), dotted(out)}
    texts = [
        ast.unparse(s.value)
        for s in unit.all(ast.Assign, under=function)
        if any(dotted(t) in names for t in targets_of(s)) and s is not use
    ]
    if any(_TURNS.search(text) for text in texts) or _TURNS.search(ast.unparse(function)):
        return ""
    word = re.escape(dotted(out) or "")
    for node in unit.all(ast.Subscript, under=function):
        if re.match(rf"{word}\[:, -1", ast.unparse(node)):
            read = f"line {node.lineno} reads {ast.unparse(node)} as the last step"
            return f"Line {use.lineno} calls it without batch_first, and {read}."
    source = re.escape(dotted(given) or "?")
    for made in unit.all(ast.Call, under=function):
        if last_name(made) in ("zeros", "randn", "new_zeros") and re.search(
            rf", {source}\.(size\(0\)|shape\[0\]),", ast.unparse(made)
        ):
            counted = f"{dotted(given)}.size(0)"
            return f"Line {made.lineno} makes a state for {counted} examples, and the layer takes that axis for time."
    return ""


@rule("R04", "The final state is taken at padding", family="recurrent")
def last_at_padding(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An example alone against the same example in its padded batch; lengths that are not sorted."""
    for fact in facts.of("run.exception"):
        if "enforce_sorted" in str(fact["message"]):
            yield say("R04b", "error", fact.line or 1, message=str(fact["message"])[:120], fact=fact)
    mixed = any(
        f["batch_axis"] is not None and f["roles"][f["batch_axis"]] != "example"
        for f in facts.of("probe.recurrent_axes")
    )
    for fact in facts.of("probe.recurrent_padding"):
        if fact["change"] < 1e-4:
            yield say("R04c", "ok", fact.line or 1, fact=fact)
            continue
        if mixed:
            continue
        unit = unit_of(program, fact)
        line = _last_taken(unit, fact.line)
        if line is None:
            continue
        yield say("R04", "error" if fact["told"] else "warning", line, fact=fact)


def _last_taken(unit: Unit, line: int | None) -> int | None:
    """Where a class takes the last step: an index -1, else the final state of its recurrent layer."""
    holder = next(
        (c.node for c in unit.classes.values() if line and c.node.lineno <= line <= (c.node.end_lineno or 0)), None
    )
    if holder is None:
        return None
    places = [
        n
        for n in unit.all(ast.Subscript, under=holder)
        if re.search(r"\[(:, )?-1\b", ast.unparse(n)[len(ast.unparse(n.value)) :])
        and not re.search(r"shape|size|lengths", ast.unparse(n.value))
    ]
    outputs = [n for n in places if "[:, -1" in ast.unparse(n)]
    for node in [*outputs, *places]:
        return node.lineno
    layers = {
        dotted(t)
        for s in unit.all(ast.Assign, under=holder)
        if isinstance(s.value, ast.Call) and last_name(s.value) in _LAYERS
        for t in targets_of(s)
    }
    return next((c.lineno for c in unit.all(ast.Call, under=holder) if dotted(c.func) in layers), None)
