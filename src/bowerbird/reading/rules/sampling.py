"""Rules of sampling and evaluation: modes, gradients, temperature, filters, ranges of pictures."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import function_at
from bowerbird.reading.program import Function, Program, Unit, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import swap, unit_of
from bowerbird.reading.running.run import Run

_NOT_TRAINING = re.compile(
    r"sampl|generat|valid|eval|^test|infer|predict|reconstruct|dream|translate|greedy|show|visuali|accuracy|perplexity|interpolat|estimate",
    re.I,
)
_ADVERSARY = re.compile(r"discriminator|critic|^net_?d$|^d_?net$|^d$|adversar", re.I)


def _noisy_layers(facts: FactStore, name: str) -> list[str]:
    """Layers of a root module that behave differently in training: dropout that drops, batch normalisation."""
    trees = [t for t in facts.of("module.tree") if name == t.subject or name.startswith(f"{t.subject}.")]
    found = []
    for row in trees[-1]["modules"] or () if trees else ():
        path = name[len(trees[-1].subject) + 1 :]
        if path and row["path"] != path and not row["path"].startswith(f"{path}."):
            continue
        if row["class"].startswith("BatchNorm"):
            found.append(row["class"])
        elif row["class"].startswith("Dropout") and not re.search(r"p=0(\.0)?[,)]", row["repr"]):
            found.append(row["class"])
        elif re.search(r"dropout=0?\.\d*[1-9]", row["repr"]):
            found.append(f"{row['class']} with dropout")
    return found


def _adversarial(program: Program, facts: FactStore) -> bool:
    names = [t.subject for t in facts.of("module.tree")] + [str(t["class"]) for t in facts.of("module.tree")]
    return any(_ADVERSARY.search(name) for name in names)


def _used_in_training(facts: FactStore) -> set[int]:
    """The numbers of forward calls that a backward pass went through."""
    return {row["call"] for f in facts.of("event.backward") for row in f["through"] or ()}


def _first_line(unit: Unit, function: Function | None, line: int) -> int:
    """Where ``eval()`` belongs: a ``train()`` that stands there instead, or the head of the function."""
    if function is None:
        return line
    for call in unit.all(ast.Call, under=function):
        if last_name(call) == "train" and isinstance(call.func, ast.Attribute) and call.lineno <= line:
            return call.lineno
    body = function.body
    lone = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1
    return body[1 if lone else 0].lineno if line - function.lineno > 2 else function.lineno


@rule("S01", "Sampling or evaluation runs in training mode", family="sampling")
def training_mode(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Calls without gradients, in functions that sample or evaluate, while dropout or batch statistics are on."""
    adversarial = _adversarial(program, facts)
    told = set()
    for fact in facts.of("event.forward"):
        if not fact["training"] or fact["grad_enabled"] or fact.line is None:
            continue
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        home = function
        noisy = _noisy_layers(facts, fact.subject)
        if not noisy or (fact.file, fact.subject, function) in told:
            continue
        told.add((fact.file, fact.subject, function))
        inside_training = home is None or not _NOT_TRAINING.search(home.name)
        if inside_training and _in_training_loop(unit, fact.line):
            continue
        if inside_training and home is not None and not re.search("main|run", home.name):
            continue
        layers = ", ".join(sorted(set(noisy)))
        yield say(
            "S01", "info" if adversarial else "error",
            _where_called(unit, function, facts) or _first_line(unit, function, fact.line), fact=fact, layers=layers,
            partition=fact.subject.partition(".")[0],
        )  # fmt: skip


def _where_called(unit: Unit, function: Function | None, facts: FactStore) -> int | None:
    """For a method of the module itself: where a function that trains calls it (or opens no_grad for that)."""
    holder = unit.class_around(function) if function is not None else None
    if function is None or holder is None or not ({t["class"] for t in facts.of("module.tree")} & {holder.name}):
        return None
    for call in unit.all(ast.Call):
        around = unit.function(call)
        if last_name(call) != function.name or around is None or unit.class_around(call) is holder:
            continue
        if any(last_name(c) in ("train", "backward") for c in unit.all(ast.Call, under=around)):
            opened = [w for w in unit.all(ast.With, under=around) if w.lineno < call.lineno <= (w.end_lineno or 0)]
            return opened[0].lineno if opened else call.lineno
    return None


def _in_training_loop(unit: Unit, line: int) -> bool:
    return any(loop.lineno <= line <= (loop.end_lineno or 0) for loop in unit.training_loops)


@rule("S02", "Sampling records gradients", family="sampling")
def graph_kept(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Outputs with a graph that no backward pass ever uses, in functions that sample or evaluate."""
    used = _used_in_training(facts)
    told = set()
    for fact in facts.of("event.forward"):
        if not fact["grad_enabled"] or not fact["graph"] or fact["call"] in used or fact.line is None:
            continue
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        if function is None or not _NOT_TRAINING.search(function.name) or (fact.file, function.name) in told:
            continue
        if "backward" in {last_name(c) for c in unit.all(ast.Call, under=function)} or function.name in (
            "forward",
            "__call__",
        ):
            continue
        told.add((fact.file, function.name))
        decorated = function.decorator_list
        yield say(
            "S02", "warning", function.lineno if not decorated else decorated[0].lineno, function=function, fact=fact,
        )  # fmt: skip


@rule("S03", "The temperature does not do what it should", family="sampling")
def temperature(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The entropy of what is drawn from must rise with it."""
    for fact in facts.of("probe.temperature"):
        cold, hot = fact["cold"], fact["hot"]
        if hot > cold + 1e-3:
            yield say("S03c", "ok", fact.line, cold=cold, hot=hot, fact=fact)
            continue
        idle = abs(hot - cold) <= 1e-3  # the other way round is what some call an inverse temperature
        yield say(
            "S03" if idle else "S03b", "error" if idle else "warning", fact.line, fact=fact, cold=cold, hot=hot,
        )  # fmt: skip


@rule("S04", "A model is left in evaluation mode", family="sampling")
def left_in_eval(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Training goes on after an evaluation that did not switch back."""
    used = _used_in_training(facts)
    trained: dict[str, Fact] = {}
    told = set()
    for fact in facts.of("event.forward"):
        if fact["call"] not in used:
            continue
        if fact["training"]:
            trained.setdefault(fact.subject, fact)
            continue
        first = trained.get(fact.subject)
        noisy = _noisy_layers(facts, fact.subject)
        if first is None or fact.subject in told or not noisy:
            continue
        told.add(fact.subject)
        mode = [
            m
            for m in facts.of("event.mode")
            if m.subject == fact.subject and not m["training"] and first.position < m.position < fact.position
        ]
        switch = mode[-1] if mode else fact
        yield say(
            "S04", "error", switch.line, file=switch.file, facts=(first.id, fact.id, switch.id), fact=fact,
            set_2=", ".join(sorted(set(noisy))), first=first,
        )  # fmt: skip


@rule("S05", "The filter of likely tokens keeps the wrong ones", family="sampling")
def token_filter(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Known logits: the five likeliest, and the smallest set that holds 60 % of the probability."""
    for fact in facts.of("probe.filter"):
        left, likeliest = fact["left"], fact["keeps_likeliest"]
        if not fact["asked"]:  # how many are to be left is unknown; those that are left must be the largest
            wrong = not fact["keeps_largest"]
            said = f"it leaves {left} tokens, {'not all of them' if wrong else 'all of them'} the largest"
            fix = "Keep the largest logits."
        elif fact["kind"] == "k":
            wrong = any(n != 5 for n in left)
            said = f"top-k with k = 5 leaves {left} tokens"
            fix = "Compare with the smallest of the k largest logits: logits < v[..., [-1]]."
        else:
            wrong = any(abs(n - right) > 1 for n, right in zip(left, fact["nucleus"], strict=True))
            said = f"top-p with p = 0.6 leaves {left} tokens; the smallest sets that hold it have {fact['nucleus']}"
            fix = "Drop the tokens whose predecessors already hold p."
        if not wrong and likeliest:
            yield say("S05c", "ok", fact.line, said=said, fact=fact)
            continue
        yield say("S05" if likeliest else "S05b", "error", fact.line, said=said, fact=fact, seen=fix)


def _signed(facts: FactStore, program: Program) -> str:
    """Why pictures of this program lie in [-1, 1]; empty where nothing says so."""
    for fact in facts.of("data.batch"):
        if any(
            isinstance(p, dict)
            and isinstance(p.get("min"), int | float)
            and p["min"] < -0.5
            and len(p.get("shape", ())) == 4
            for p in fact["parts"] or ()
        ):
            return f"the data go below zero ({fact.id})"
    if re.search(r"Tanh\(\)|torch\.tanh|clamp_?\(\s*-1", program.main.text):
        return "the program's pictures end in [-1, 1]"
    return ""


def _left_signed(shown: dict[str, Any], why: str) -> bool:
    """Whether what is saved lies around zero, as pictures in [-1, 1] do, and not around a half."""
    known: list[Any] = [shown.get(key) for key in ("min", "max", "mean")]
    if not all(isinstance(value, int | float) for value in known):
        return False
    low, high, mean = known
    near_zero = low < 0 and abs(mean) < 0.15 and why.startswith("the data")
    return high <= 1.5 and mean < 0.35 and (low < -0.15 or near_zero)


@rule("S06", "Pictures in [-1, 1] are written as if in [0, 1]", family="sampling")
def not_rescaled(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The range of what is handed to the function that saves."""
    why = _signed(facts, program)
    told = set()
    for fact in facts.of("image.saved"):
        shown = fact["input"] or {}
        if (
            not why
            or fact["normalize"]
            or fact.line in told
            or not isinstance(shown, dict)
            or not _left_signed(shown, why)
        ):
            continue
        if fact.subject not in ("save_image", "make_grid", "imshow", "imsave") or (
            fact.subject != "save_image" and len(shown.get("shape") or ()) < 3
        ):
            continue
        if fact.subject == "make_grid":
            continue
        told.add(fact.line)
        yield say("S06", "error", fact.line, fact=fact, shown=shown, get=shown.get("max", 0), why=why)


@rule("S07", "Dropout is on in evaluation", family="sampling")
def functional_dropout(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``F.dropout(x, p)`` trains unless it is told otherwise."""
    for fact in facts.of("probe.dropout"):
        yield say(
            "S07", "error", fact.line,
            patch=swap(
                program, fact.file, fact.line, "p=self.p)", "p=self.p, training=self.training)", "S07: training",
            ),
            fact=fact,
        )  # fmt: skip
