"""Which loss it is: every backward's number, split into the losses that were observed before it, and their equations.

A loss is identified by what was called (a named loss of PyTorch), by what it was given (targets that are one number,
outputs of which networks), and by arithmetic: the observed parts must add up to the number that was differentiated.
Where no named loss was called, the lines that ran are compared with the ways in which the known losses are written.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.explain import formulas
from bowerbird.reading.explain.answers import output
from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact
from bowerbird.reading.program import Unit, last_name, names_in

Places = set[tuple[str, int | None]]
_CLOSE = 3e-6
MOST_PARTS = 4096
"""Micro-batches among which a loss may be divided."""
FARTHEST = 30
"""Lines above a backward at which its terms are still looked for."""


def note(study: Study) -> None:
    """Adds ``loss.identified`` for each place with a backward."""
    for subject, here in study.passes().items():
        _identify(study, subject, here)


def _identify(study: Study, subject: str, here: list[Fact]) -> None:
    backward, backwards = here[0], study.facts.of("event.backward")
    before = max((f["seq"] for f in backwards if f["seq"] < backward["seq"]), default=0)
    calls = [f for f in study.facts.of("loss.call") if before < f["seq"] < backward["seq"] and _differentiable(f)]
    unit = study.program.units.get(backward.file)
    expression, lines, written = _written(unit, backward.line) if unit is not None else ("", [], "")
    rule, parts = _arithmetic([f["value"] for f in calls], backward["loss"])
    value_then = backward["loss"]
    if not calls:
        late = _at_the_end(study, here[-1])
        if late is not None:
            calls, value_then = [late], here[-1]["loss"]
            rule, parts = _arithmetic([late["value"]], value_then)
    equations = [equation(study, f, backward) for f in calls]
    patterns = (
        []
        if equations and rule not in ("rest", "shaped", "weighted")
        else list(_patterns(study, backward, lines, {(f.file, f.line) for f in calls}))
    )
    if rule in ("shaped", "weighted"):
        patterns = [p for p in patterns if p["formula"]]
    if rule == "weighted" and patterns:  # a share of it would be a guess: other terms were added
        rule, equations = "shaped", [f"c · ({equations[0]})"]
    joined = _joined(equations, rule, parts, patterns)
    if not calls and unit is not None:
        by_hand = formulas.by_hand(study, unit, backward, patterns)
        if by_hand is not None:
            joined, patterns = by_hand
    value: dict[str, Any] = {
        "expression": expression, "lines": lines, "written": written, "value": value_then, "rule": rule,
        "functions": [f.subject for f in calls], "calls": [f.id for f in calls], "values": [f["value"] for f in calls],
        "reductions": [f["reduction"] for f in calls], "parts": parts, "at": [[f.file, f.line] for f in calls],
        "equation": joined, "patterns": [p["name"] for p in patterns],
        "pattern_lines": [[p["file"], p["line"]] for p in patterns], "formulas": [p["formula"] for p in patterns],
        "through": list(dict.fromkeys(row["module"] for row in backward["through"] or [])),
    }  # fmt: skip
    study.add("loss.identified", subject, value, like=backward)


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
    if rule == "last":
        return equations[-1]
    if rule == "sum":
        return _summed(equations)
    if rule == "weighted":
        return f"c · ({equations[0]})"
    if rule == "mean":
        return f"({_summed(equations)}) / {len(equations)}"
    if rule == "divided":
        return f"({equations[-1]}) / {parts[-1]:g}"
    known = [p["equation"] for p in patterns]
    if rule == "shaped":
        return _summed([*equations, *(p["equation"] for p in patterns if p["formula"])])
    if rule == "rest":
        return _summed([*equations, *(known or ["R"])])
    return _summed(known)


def _summed(terms: list[str]) -> str:
    return " + ".join(terms).replace("+ −", "− ")


# ------------------------------------------------------------------------------------------- named losses of PyTorch


def equation(study: Study, call: Fact, backward: Fact) -> str:
    """What a named loss computes of what it was given, in the program's own names."""
    judged, target = output(study, call, backward), _target(study, call)
    reduced = {"mean": "E", "sum": "Σ", "none": ""}.get(str(call["reduction"]), "E")
    function, constant = call.subject, _constant(call["target"])
    match function:
        case "binary_cross_entropy" | "binary_cross_entropy_with_logits":
            p = judged if function == "binary_cross_entropy" else f"σ({judged})"
            if constant == 1:
                return f"−{reduced}[log {p}]"
            if constant == 0:
                return f"−{reduced}[log(1 − {p})]"
            return f"−{reduced}[{target} log {p} + (1 − {target}) log(1 − {p})]"
        case "mse_loss":
            return f"{reduced}[({judged} − {target})²]"
        case "l1_loss":
            return f"{reduced}[|{judged} − {target}|]"
        case "smooth_l1_loss" | "huber_loss":
            return f"{reduced}[huber({judged} − {target})]"
        case "cross_entropy":
            return f"−{reduced}[log softmax({judged})_{target}]"
        case "nll_loss":
            return f"−{reduced}[{judged}_{target}]"
        case "kl_div":
            return f"{reduced}[{target} (log {target} − {judged})]"
    return f"{reduced}[{function}({judged}, {target})]"


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

_A = r"[\w.\[\]()]+"
_PATTERNS: tuple[tuple[str, str, str], ...] = (  # "a | b": of a critic | of what it judges; "T = …": a term
    ("kl-normal", r"(?=.*exp\()(?=.*(?:log_?var|log_?sigma|logstd|\blv\b))"
     r"(?=.*(?:pow\(2|\*\* ?2|square\(|mu ?\* ?mu))(?=.*(?:0\.5|/ ?2))",
     "KL = KL(N(μ, σ²) ‖ N(0, 1)) = −½ Σ (1 + log σ² − μ² − σ²)"),
    ("kl-distributions", r"kl_divergence\(", "KL = KL(q(z|x) ‖ p(z))"),
    ("non-saturating", r"softplus\(-\w*real\w*\).*softplus\(\w*fake\w*\).*,.*softplus\(-\w*fake\w*\)",
     "−E log σ(D(x)) − E log(1 − σ(D(G(z)))) | −E log σ(D(G(z)))"),
    ("minimax", r"softplus\(-\w*real\w*\).*softplus\(\w*fake\w*\).*,.*-F?\.?softplus\(\w*fake\w*\)",
     "−E log σ(D(x)) − E log(1 − σ(D(G(z)))) | E log(1 − σ(D(G(z))))"),
    ("hinge", r"relu\(1(?:\.0)? [-+] .*relu\(1(?:\.0)? [-+] ", "E max(0, 1 − D(x)) + E max(0, 1 + D(G(z)))"),
    ("gradient-penalty", r"(?:norm|grad).*- 1(?:\.0)?\).*(?:\*\* ?2|square|pow)", "penalty = λ E(‖∇D(x̂)‖ − 1)²"),
    ("zero-centred-penalty", r"gamma / 2 \* .*square\(\)\.sum\(1\)\.mean\(\)", "penalty = γ/2 · E‖∇D‖²"),
    ("wasserstein-critic", r"mean\(.*\) ?- ?.*mean\(|\.mean\(\) ?- ?.*\.mean\(\)", "E D(G(z)) − E D(x)"),
    ("wasserstein-generator", r"^\s*\w+ = -(?:torch\.mean\(.*\)|.*\.mean\(\))\s*$", "−E D(G(z))"),
    ("log-likelihood", r"log\(.*\).*mean\(\)|mean\(.*log\(", "−E log p"),
    ("squared-error", r"\(.* - .*\)\.?(?: ?\*\* ?2|\.pow\(2\)|\.square\(\)).*|mse", "E‖f(x) − y‖²"),
    ("cross-entropy-sum", r"cross_entropy\(.*reduction=.sum.", "−Σ log p(xᵢ | x₍<ᵢ₎) / n"),
)  # fmt: skip


def _patterns(study: Study, backward: Fact, lines: list[int], known: Places) -> Iterator[dict[str, Any]]:
    """Lines that ran before this backward and are written like a loss, each loss once; not those known already."""
    before = max((f["seq"] for f in study.facts.of("event.backward") if f["seq"] < backward["seq"]), default=0)
    ran = {
        (f.file, f.line): (f["seq"] or 0) > before for f in study.facts.of("function.call")
        if f.file in study.files and f["direct"] and (f["seq"] or 0) < backward["seq"]
    }  # fmt: skip
    through = list(dict.fromkeys(row["module"] for row in backward["through"] or []))
    crossed = len(through) > 1
    unit = study.program.units.get(backward.file)
    near = _neighbourhood(study, unit, lines, backward.line, known)
    seen: set[str] = set()
    for file, line in sorted(ran, key=lambda place: (not ran[place], place[0], place[1] or 0)):
        text = study.text(file, line or 0)
        if (file, line) in known:
            continue
        apart = bool(study.shown) and file != backward.file  # the file that a driver of ours drives
        if (file, line) not in near and not apart and not text.strip().startswith("return"):
            continue
        for name, pattern, formula in _PATTERNS:
            if name not in seen and re.search(pattern, text):
                seen.add(name)
                one, _, other = formula.partition(" | ")
                if through:
                    one = one.replace("f(x)", f"{through[-1]}(x)")
                short, _, longer = one.partition(" = ")
                if longer and not ran[file, line]:
                    break  # a term that ran for another loss
                yield {
                    "name": name, "equation": short if longer else other if crossed and other else one, "line": line,
                    "file": file, "formula": one if longer else "",
                }  # fmt: skip
                break


def _neighbourhood(study: Study, unit: Unit | None, lines: list[int], at: int | None, known: Places) -> Places:
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
    expression = call.func.value
    lines: list[int] = []
    waiting = sorted(names_in(expression))
    seen: set[str] = set()
    while waiting and len(lines) < 8:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        scope = unit.scope(call)
        earlier = [
            (v, s) for v, s in unit.assignments.get(name, [])
            if s.lineno <= call.lineno and unit.scope(s) in (scope, unit.tree) and not isinstance(v, ast.Constant)
        ]  # fmt: skip
        if earlier:
            value, statement = earlier[-1]
            if _losslike(value) and call.lineno - statement.lineno < FARTHEST:
                lines.append(statement.lineno)
                waiting += sorted(names_in(value) - seen)
    lines = sorted(set(lines))
    return ast.unparse(expression), lines, "\n".join(unit.lines[n - 1].strip() for n in lines)


def _losslike(value: ast.expr) -> bool:
    """Arithmetic, or a call of what sounds like a loss or a mean."""
    if isinstance(value, ast.BinOp | ast.UnaryOp):
        return True
    called = [last_name(c) for c in ast.walk(value) if isinstance(c, ast.Call)]
    if any(word[:1].isupper() for word in called):  # something is built, not computed
        return False
    words = [word.lower() for word in called]
    return any(
        re.search(
            r"loss|objective|criterion|entropy|mse|bce|kl|mean|sum|penalty|elbo|nll|softplus|relu|model|net|step", w
        )
        for w in words
    )
