"""Which loss it is: every backward's number, split into the losses that were observed before it, and their equations.

A loss is identified by what was called (a named loss of PyTorch), by what it was given (targets that are one number,
outputs of which networks), and by arithmetic: the observed parts must add up to the number that was differentiated.
Where no named loss was called, the lines that ran are compared with the ways in which the known losses are written.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bowerbird.reading.explain import formulas
from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact, first_shape
from bowerbird.reading.program import Unit, dotted, last_name, names_in
from bowerbird.reading.wording import table

Places = set[tuple[str, int | None]]
_CLOSE, _NEAR = 3e-6, 1e-4
MOST_PARTS = 4096
"""Micro-batches among which a loss may be divided."""
_OPEN = ("rest", "shaped", "weighted")
"""Ways in which observed losses make up only a part of the number."""
FARTHEST = 30
"""Lines above a backward at which its terms are still looked for."""


def note(study: Study) -> None:
    """Adds ``loss.identified`` for each place with a backward."""
    for subject, here in study.passes().items():
        _identify(study, subject, here)


def _identify(study: Study, subject: str, here: list[Fact]) -> None:
    backward, unit = here[0], study.program.units.get(here[0].file)
    calls, value = _called(study, here)
    rule, parts = _arithmetic([f["value"] for f in calls], value)
    expression, lines, written = _written(unit, backward.line) if unit is not None else ("", [], "")
    equations = [equation(study, f, backward) for f in calls]
    patterns: list[dict[str, Any]] = []
    if not calls or rule in _OPEN:
        patterns = list(_patterns(study, backward, lines, {(f.file, f.line) for f in calls}))
    if rule in ("shaped", "weighted"):
        patterns = [p for p in patterns if p["formula"]]
    if rule == "weighted" and patterns:  # a share of it would be a guess: other terms were added
        rule, equations = "shaped", [f"c · ({equations[0]})"]
    whole = _joined(equations, rule, parts, patterns)
    derived = (
        _derived(study, unit, backward, calls, patterns) if unit is not None and (not calls or rule in _OPEN) else None
    )
    if derived is not None:
        confirmed = derived.value is not None and abs(derived.value - value) < _NEAR * max(abs(value), 1e-6)
        whole, rule = derived.words, "confirmed" if confirmed else "derived"
        patterns = [p for p in patterns if p["formula"]]
    study.add("loss.identified", subject, {
        "expression": expression, "lines": lines, "written": written, "value": value, "rule": rule,
        "functions": [f.subject for f in calls], "calls": [f.id for f in calls], "values": [f["value"] for f in calls],
        "reductions": [f["reduction"] for f in calls], "parts": parts, "at": [[f.file, f.line] for f in calls],
        "equation": whole, "patterns": [p["name"] for p in patterns],
        "pattern_lines": [[p["file"], p["line"]] for p in patterns], "formulas": [p["formula"] for p in patterns],
        "through": list(dict.fromkeys(row["module"] for row in backward["through"] or [])),
    }, like=backward)  # fmt: skip


def _derived(
    study: Study, unit: Unit, backward: Fact, calls: list[Fact], patterns: list[dict[str, Any]]
) -> formulas.Term | None:  # fmt: skip
    """The loss as its lines compute it; None where a term of it is not understood."""
    call = next((c for c in unit.calls("*.backward") if c.lineno == backward.line), None)
    if call is None or not isinstance(call.func, ast.Attribute):
        return None
    scope = unit.scope(call)

    def network(asked: ast.Call) -> str:
        seen = [
            f for f in study.facts.of("event.forward")
            if f.file == unit.file and f.line == asked.lineno and (f["seq"] or 0) < (backward["seq"] or 0)
        ]  # fmt: skip
        named = [f for f in seen if f.subject.rpartition(".")[2] == last_name(asked)]
        named = named or (seen if (dotted(asked.func) or "") in unit.modules else [])
        return answer(study, named[-1]) if named and len({f.subject for f in named}) == 1 else ""

    def known(asked: ast.Call) -> formulas.Term | None:
        for pattern in patterns:
            if pattern["formula"] and pattern["file"] == unit.file and pattern["line"] in _span(unit, asked):
                return formulas.Term(str(pattern["formula"]).partition(" = ")[0], halved=pattern["name"] == "kl-normal")
        seen = [f for f in calls if f.file == unit.file and f.line == asked.lineno]
        function = derivation._function(asked)
        seen = [f for f in seen if f.subject == function]
        if len(seen) != 1:
            return None
        value = seen[0]["value"] if isinstance(seen[0]["value"], int | float) else None
        inside = unit.scope(asked) is not scope
        words = derivation._named(function, asked) if inside else equation(study, seen[0], backward)
        return formulas.Term(words, value)

    derivation = formulas.Derivation(unit, scope, backward.line or 0, network, known)
    try:
        return derivation.loss(call.func.value)
    except formulas.Unknown:
        return None


def _span(unit: Unit, call: ast.Call) -> range:
    """The lines of a call, and of the function of the program that it runs."""
    function = unit.functions.get(last_name(call))
    first, last = (function.lineno, function.end_lineno or 0) if function is not None else (call.lineno, call.lineno)
    return range(first, last + 1)


def _called(study: Study, here: list[Fact]) -> tuple[list[Fact], Any]:
    """The named losses that were called before a backward pass, and the number that was differentiated."""
    backward = here[0]
    since = _since(study, backward)
    calls = [f for f in study.facts.of("loss.call") if since < f["seq"] < backward["seq"] and _differentiable(f)]
    late = None if calls else _at_the_end(study, here[-1])
    return (calls, backward["loss"]) if late is None else ([late], here[-1]["loss"])


def _since(study: Study, backward: Fact) -> int:
    """When the backward pass before this one was."""
    return max((f["seq"] for f in study.facts.of("event.backward") if f["seq"] < backward["seq"]), default=0)


def _at_the_end(study: Study, backward: Fact) -> Fact | None:
    """A named loss whose last value, or a whole part of it, was differentiated last: its first calls evaluated."""
    total = backward["loss"]
    for last in study.facts.of("loss.last"):
        number = last["value"]
        first = study.facts.first("loss.call", last.subject, line=last.line)
        if first is None or not isinstance(number, int | float) or not isinstance(total, int | float):
            continue
        if _arithmetic([number], total)[0] in ("last", "divided"):
            return study.add("loss.call.last", last.subject, {**first.value, **last.value}, like=last)
    return None


def _differentiable(call: Fact) -> bool:
    return any(isinstance(call[key], dict) and call[key].get("requires_grad") for key in ("input", "target"))


def _arithmetic(values: list[Any], total: Any) -> tuple[str, list[float]]:
    """How the observed losses make up the number that was differentiated."""
    known = [v for v in values if isinstance(v, int | float)]
    if not known or not isinstance(total, int | float) or len(known) != len(values):
        return ("shaped", []) if values else ("none", [])
    scale = max(abs(total), 1e-6)
    if abs(known[-1] - total) < _CLOSE * scale:
        return "last", [known[-1]]
    if abs(sum(known) - total) < _CLOSE * scale:
        return "sum", known
    if abs(sum(known) / len(known) - total) < _CLOSE * scale:
        return "mean", known
    share = round(known[-1] / total) if total else 0
    if len(known) == 1 and 2 <= share <= MOST_PARTS and abs(known[0] / share - total) < _CLOSE * scale:
        return "divided", [known[0], share]
    if len(known) == 1 and known[0] and abs(total) < abs(known[0]):
        return "weighted", [*known, float(f"{total / known[0]:.6g}")]
    return "rest", [*known, float(f"{total - sum(known):.6g}")]


def _joined(equations: list[str], rule: str, parts: list[float], patterns: list[dict[str, Any]]) -> str:
    known = [p["equation"] for p in patterns]
    match rule:
        case "last":
            return equations[-1]
        case "weighted":
            return f"c · ({equations[0]})"
        case "mean":
            return f"({_summed(equations)}) / {len(equations)}"
        case "divided":
            return f"({equations[-1]}) / {parts[-1]:g}"
        case "rest":
            return _summed([*equations, *(known or ["R"])])
    return _summed([*equations, *known])


def _summed(terms: list[str]) -> str:
    return " + ".join(terms).replace("+ −", "− ")


# ------------------------------------------------------------------------------------------- named losses of PyTorch


def equation(study: Study, call: Fact, backward: Fact) -> str:
    """What a named loss computes of what it was given, in the program's own names."""
    return formulas.named(call.subject, str(call["reduction"]), output(study, call, backward), _target(study, call))


def _constant(summary: Any) -> float | None:
    """The number that a whole tensor is, or None."""
    if isinstance(summary, dict) and summary.get("min") is not None and summary["min"] == summary.get("max"):
        return float(summary["min"])
    return None


def _target(study: Study, call: Fact) -> str:
    constant = _constant(call["target"])
    if constant is not None:
        return f"{constant:g}"
    fixed = call["target"] if not (call["target"] or {}).get("requires_grad") else call["input"]
    if not isinstance(fixed, dict):
        return "y"
    if str(fixed.get("dtype", "")).startswith("int"):
        return "y"
    drawn = any(
        f["shape"] == fixed.get("shape") for f in study.facts.of("random.draw") if f.subject.startswith("randn")
    )
    if drawn and abs(fixed.get("mean") or 0) < 0.1 and abs((fixed.get("std") or 0) - 1) < 0.1:
        return "ε"
    return "x"


# ------------------------------------------------------------------------------ losses that are written by hand


def _patterns(study: Study, backward: Fact, lines: list[int], known: Places) -> Iterator[dict[str, Any]]:
    """Lines that ran before this backward and are written like a loss, each loss once; not those known already."""
    through = list(dict.fromkeys(row["module"] for row in backward["through"] or []))
    near = _neighbourhood(study.program.units.get(backward.file), lines, backward.line, known)
    seen: set[str] = set()
    for (file, line), recent in _ran(study, backward):
        text = study.text(file, line or 0)
        apart = bool(study.shown) and file != backward.file  # the file that a driver of ours drives
        meant = (file, line) in near or apart or text.strip().startswith("return")
        found = _pattern(text, seen) if meant and (file, line) not in known else None
        if found is None:
            continue
        seen.add(found["name"])
        one = found["equation"].replace("f(x)", f"{through[-1]}(x)" if through else "f(x)")
        if "term" not in found:
            other = found.get("other") if len(through) > 1 else None
            yield {"name": found["name"], "equation": other or one, "line": line, "file": file, "formula": ""}
        elif recent:  # else it ran for another loss
            yield {"name": found["name"], "equation": found["term"], "line": line, "file": file, "formula": one}


def _ran(study: Study, backward: Fact) -> list[tuple[tuple[str, int | None], bool]]:
    """The lines of the program that ran before a backward pass, those since the pass before it (True) first."""
    since = _since(study, backward)
    ran = {
        (f.file, f.line): (f["seq"] or 0) > since for f in study.facts.of("function.call")
        if f.file in study.files and f["direct"] and (f["seq"] or 0) < backward["seq"]
    }  # fmt: skip
    return sorted(ran.items(), key=lambda row: (not row[1], row[0][0], row[0][1] or 0))


def _pattern(text: str, seen: set[str]) -> dict[str, str] | None:
    """The first known loss that a line is written like, of those not seen yet."""
    known = table(Path(__file__).with_name("losses.toml"))["loss"]
    return next((row for row in known if row["name"] not in seen and re.search(row["pattern"], text)), None)


def _neighbourhood(unit: Unit | None, lines: list[int], at: int | None, known: Places) -> Places:
    """The lines of the expression, and of the functions that it calls or in which a part of it was observed."""
    if unit is None:
        return set()
    found: set[tuple[str, int | None]] = {(unit.file, line) for line in lines} | {(unit.file, at)}
    called = {last_name(call) for call in unit.all(ast.Call) if call.lineno in lines}
    for name, node in unit.functions.items():
        own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if name.rpartition(".")[2] in called or any(f == unit.file and n in own for f, n in known if n):
            found |= {(unit.file, line) for line in own}
    return found


def _written(unit: Unit, line: int | None) -> tuple[str, list[int], str]:
    """What is differentiated at a line: its name, the lines that compute it (the last assignments), and their text."""
    call = next((c for c in unit.calls("*.backward") if c.lineno == line), None)
    if call is None or not isinstance(call.func, ast.Attribute):
        return "", [], ""
    lines: list[int] = []
    waiting, seen = sorted(names_in(call.func.value)), set[str]()
    while waiting and len(lines) < 8:
        name = waiting.pop(0)
        assigned = None if name in seen else _assigned(unit, name, call)
        seen.add(name)
        if assigned is not None and _losslike(assigned[0]) and call.lineno - assigned[1] < FARTHEST:
            lines.append(assigned[1])
            waiting += sorted(names_in(assigned[0]) - seen)
    lines = sorted(set(lines))
    return ast.unparse(call.func.value), lines, "\n".join(unit.lines[n - 1].strip() for n in lines)


def _assigned(unit: Unit, name: str, call: ast.Call) -> tuple[ast.expr, int] | None:
    """What a name was assigned last before a call, in its scope or the module's, and at which line."""
    scopes = (unit.scope(call), unit.tree)
    earlier = [
        (v, s.lineno) for v, s in unit.assignments.get(name, [])
        if s.lineno <= call.lineno and unit.scope(s) in scopes and not isinstance(v, ast.Constant)
    ]  # fmt: skip
    return earlier[-1] if earlier else None


_LOSSLIKE = re.compile(
    r"loss|objective|criterion|entropy|mse|bce|kl|mean|sum|penalty|elbo|nll|softplus|relu|model|net|step"
)


def _losslike(value: ast.expr) -> bool:
    """Arithmetic, or a call of what sounds like a loss or a mean."""
    if isinstance(value, ast.BinOp | ast.UnaryOp):
        return True
    called = [last_name(c) for c in ast.walk(value) if isinstance(c, ast.Call)]
    if any(word[:1].isupper() for word in called):  # something is built, not computed
        return False
    return any(_LOSSLIKE.search(word.lower()) for word in called)


# ------------------------------------------------------------- which network's answer to what: netD(netG(z))

DEEPEST = 3
"""Networks that are named within one another."""


def output(study: Study, call: Fact, backward: Fact) -> str:
    """What a loss judges, from the inside outwards: ``netD(netG(z))``, also where ``netG(z)`` was detached."""
    calls = {f["call"]: f for f in study.facts.of("event.forward") if f["call"] is not None}
    judged = _judged(call, [calls[row["call"]] for row in backward["through"] or [] if row["call"] in calls])
    if judged is None:
        return "f(x)"
    if first_shape(judged["out"]) == []:  # it returns the loss: what was judged is a network inside it
        return f"{_inside(study, call, judged)}(x)"
    return answer(study, judged)


def answer(study: Study, forward: Fact) -> str:
    """A call of a network with where its input came from: ``netD(netG(z))``."""
    calls = {f["call"]: f for f in study.facts.of("event.forward") if f["call"] is not None}
    chain = [forward]
    while len(chain) < DEEPEST:
        before = [calls[c] for c in chain[-1]["from"] or [] if c in calls and calls[c].subject != chain[-1].subject]
        if not before:
            break
        chain.append(before[0])
    word = _source(study, chain[-1], alone=len(chain) == 1)
    for call in reversed(chain):
        word = f"{call.subject}({word})"
    return word


def _judged(call: Fact, forwards: list[Fact]) -> Fact | None:
    """The call of a network whose output a loss was given: the same numbers, else the last one before it."""
    given = [call[key] for key in ("input", "target") if isinstance(call[key], dict)]
    for forward in reversed(forwards):
        out = forward["out"] if isinstance(forward["out"], list) else [forward["out"]]
        if any(isinstance(o, dict) and o.get("mean") is not None and _same(o, g) for o in out for g in given):
            return forward
    earlier = [f for f in forwards if (f["seq"] or 0) < (call["seq"] or 0)]
    return earlier[-1] if earlier else forwards[-1] if forwards else None


def _inside(study: Study, call: Fact, judged: Fact) -> str:
    """The outermost module in a network whose output is what a loss was given; without one the network."""
    given = [call[key] for key in ("input", "target") if isinstance(call[key], dict)]
    rows = study.facts.of("module.io", f"{judged.subject}.*")
    found = [f.subject for f in rows for o in f["out"] or [] for g in given if isinstance(o, dict) and _same(o, g)]
    return min(found, key=len, default=judged.subject)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two summaries are of the same numbers, in whatever shape."""
    return all(a.get(key) == b.get(key) for key in ("min", "max", "mean", "std"))


def _source(study: Study, forward: Fact, *, alone: bool) -> str:
    """The letter of what goes in: z for a draw that is no batch of the data and that another network judges."""
    given = first_shape(forward["in"])
    data = [
        part.get("shape") for f in study.facts.of("data.batch") for part in f["parts"] or [] if isinstance(part, dict)
    ]
    drawn = [f["shape"] for f in study.facts.of("random.draw")]
    return "z" if given in drawn and given not in data and not alone else "x"
