"""Rules of what goes in and out of both networks: last layers, ranges, priors, initial weights."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.adversaries import Pair, first_tensor, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import replace_line
from bowerbird.reading.phases import forwards, phases
from bowerbird.reading.program import Program, Unit, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.critics import creations
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.running.run import Run


@rule("G09", "The loss does not fit the last layer", family="gan")
def sigmoid_twice(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Probabilities given to a loss that takes logits, or logits to one that takes probabilities."""
    for loss in facts.of("loss.call", "binary_cross_entropy_with_logits"):
        source = _source(facts, loss)
        low, high = loss["input"].get("min"), loss["input"].get("max")
        if source is None or low is None or low < 0 or high > 1 or not _ends_in(program, facts, source, "Sigmoid"):
            continue
        made = list(creations(program, "BCEWithLogitsLoss"))
        places = [(made[0][0].file, made[0][1].lineno)] if made else [(loss.file, placed(loss.line))]
        yield say(
            "G09", "error", places[0][1], file=places[0][0], facts=(loss.id, source.id), source=source, loss=loss,
            low=low, high=high,
            patch=replace_line(
                made[0][0].file, places[0][1], "BCEWithLogitsLoss", "BCELoss", made[0][0].lines, label="G09: BCELoss",
            ) if made else None,
        )  # fmt: skip
        break
    yield from _logits(program, facts)


def _logits(program: Program, facts: FactStore) -> Iterator[Finding]:
    for error in facts.of("run.exception"):
        if "elements of input should be between 0 and 1" not in error["message"] or error["phase"] != "program":
            continue
        made = [(u.file, c.lineno) for u, c in creations(program, "BCELoss")]
        file, line = made[0] if made else (error.file, placed(error.line))
        yield say("G09b", "error", line, file=file, facts=(error.id,), error=error, message=error["message"][:90])


def _source(facts: FactStore, loss: Fact) -> Fact | None:
    """The call of a module whose output a loss was given."""
    given = loss["input"] if isinstance(loss["input"], dict) else {}
    for call in reversed(facts.of("event.forward")):
        out = first_tensor(call["out"])
        if call.position < loss.position and out.get("mean") is not None:
            if all(out.get(key) == given.get(key) for key in ("min", "max", "mean")):
                return call
    return None


def _ends_in(program: Program, facts: FactStore, call: Fact, kind: str) -> bool:
    """Whether a sigmoid is a module's last layer, or is applied where its ``forward`` returns."""
    tree = facts.first("module.tree", call.subject)
    rows = [r for r in (tree["modules"] or []) if r["path"]] if tree is not None else []
    if rows and rows[-1]["class"] == kind:
        return True
    for unit in program:
        forward = unit.functions.get(f"{call['class']}.forward")
        for told in unit.all(ast.Return, under=forward) if forward is not None else ():
            if any(last_name(c).lower() == kind.lower() for c in unit.all(ast.Call, under=told)):
                return True
    return False


# ---------- what goes in and out of a generator: ranges, priors


@rule("G14", "Real and generated images have different ranges", family="gan")
def ranges(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A tanh reaches [-1, 1] and a sigmoid [0, 1]: the data must lie there too, or the range gives fakes away."""
    if any("stand-in images" in stand_in.reason for stand_in in run.stand_ins):
        return
    for pair in pairs(facts):
        kind = _last_layer(program, facts, pair.generator)
        calls = forwards(facts)
        real = [
            c for c in facts.of("event.forward", pair.discriminator)
            if not c["from"] and "min" in (given := first_tensor(c["in"])) and not given.get("requires_grad")
        ]  # fmt: skip
        if kind is None or not real or not calls:
            continue
        low = min(first_tensor(c["in"])["min"] for c in real)
        high = max(first_tensor(c["in"])["max"] for c in real)
        tanh = kind[0] == "tanh" and low >= 0 and 0.5 < high <= 1.0001
        sigmoid = kind[0] == "sigmoid" and low < -0.2
        large = high > 2 and kind[0] in ("tanh", "sigmoid")
        if not (tanh or sigmoid or large):
            yield say("G14b", "ok", real[0].line, file=real[0].file, facts=(real[0].id,), kind=kind[0], low=low,
                      high=high, call=real[0])  # fmt: skip
            continue
        made = next((c for c in facts.of("event.forward", pair.generator)), real[0])
        out = first_tensor(made["out"])
        file, line = [*_transforms(program), kind[1:]][0]
        yield say(
            "G14" if tanh else "G14c", "warning", line, file=file, facts=(real[0].id, made.id), kind=kind[0], low=low,
            high=high, pair=pair, call=real[0], least=out.get("min", 0), most=out.get("max", 0), made=made,
        )  # fmt: skip


def _last_layer(program: Program, facts: FactStore, module: str) -> tuple[str, str, int] | None:
    """The activation that a module ends in, with its place."""
    call = facts.first("event.forward", module)
    for unit in program:
        holder = unit.classes.get(str(call["class"])) if call is not None else None
        if holder is None:
            continue
        found = [
            (c.lineno, c) for c in unit.all(ast.Call, under=holder.node)
            if last_name(c).lower() in ("tanh", "sigmoid")
        ]  # fmt: skip
        tree = facts.first("module.tree", module)
        rows = [r for r in tree["modules"] if r["class"] in ("Tanh", "Sigmoid")] if tree is not None else []
        kinds = {last_name(c).lower() for _, c in found} | {r["class"].lower() for r in rows}
        out = first_tensor(call["out"]) if call is not None else {}
        if len(kinds) == 1 and found and abs(out.get("min", 9)) <= 1 and abs(out.get("max", 9)) <= 1:
            if _is_last(unit, found[-1][1]):
                return kinds.pop(), unit.file, found[-1][0]
    return None


def _is_last(unit: Unit, call: ast.Call) -> bool:
    """Whether an activation can be the last thing that a class does."""
    holder = unit.parents.get(call)
    if isinstance(holder, ast.Call) and call in holder.args:
        return holder.args[-1] is call
    if isinstance(holder, ast.List):
        return holder.elts[-1] is call
    return True


def _transforms(program: Program) -> list[tuple[str, int]]:
    """Where images become tensors without being normalised."""
    return [
        (unit.file, call.lineno) for unit in program for call in unit.calls("ToTensor")
        if "Normalize" not in unit.text
    ]  # fmt: skip


@rule("G15", "The noise of sampling differs from that of training", family="gan")
def priors(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A generator knows only the distribution of noise that it was trained on."""
    for pair in pairs(facts):
        walked = {row["call"] for b in facts.of("event.backward") for row in b["through"] or ()}
        judged = {n for c in facts.of("event.forward", pair.discriminator) for n in c["from"] or ()}
        own = [c for c in facts.of("event.forward", pair.generator) if _figures(c)]
        taught = _taught(facts, pair)
        trained = [c for c in own if c["call"] in taught] or [c for c in own if c["call"] in walked | judged]
        if not trained or not any(_draw(facts, call) for call in own):
            continue
        for call in {c.line: c for c in own if c.line != trained[0].line}.values():
            if not _alike(trained[0], call):
                yield _another_prior(pair, trained[0], call, _draw(facts, call))


def _draw(facts: FactStore, call: Fact) -> Fact | None:
    """The random draw that a call was given, by its mean and its deviation."""
    given = first_tensor(call["in"])
    return next((
        draw for draw in facts.of("random.draw")
        if draw["mean"] is not None and draw["std"] is not None
        and abs(draw["mean"] - given["mean"]) < 1e-5 and abs(draw["std"] - given["std"]) < 0.01 * given["std"]
    ), None)  # fmt: skip


def _taught(facts: FactStore, pair: Pair) -> set[int]:
    """The calls of the generator that its own steps learned from."""
    return {
        row["call"]
        for phase in phases(facts) if pair.generator in phase.owners
        for b in phase.backwards for row in b["through"] or () if row["module"] == pair.generator
    }  # fmt: skip


def _alike(known: Fact, call: Fact) -> bool:
    """Whether the inputs of two calls may come from one distribution."""
    first, second = _figures(known), _figures(call)
    if second["count"] < 60 or first["count"] < 60 or second["std"] == 0 or first["std"] == 0:
        return True
    shifted = abs(second["mean"] - first["mean"]) > 0.3 * first["std"] + 0.1
    return not ((second["min"] >= 0) != (first["min"] >= 0) or shifted or second["std"] / first["std"] > 1.6)


def _another_prior(pair: Pair, known: Fact, call: Fact, drawn: Fact | None) -> Finding:
    first, second = _figures(known), _figures(call)
    one_sided = (second["min"] >= 0) != (first["min"] >= 0)
    place = drawn or call
    return say(
        "G15" if drawn else "G15b", "error" if one_sided and drawn else "warning", place.line, file=place.file,
        facts=(known.id, call.id), pair=pair, what="noise" if drawn else "inputs", known=known, first=first,
        second=second, call=call,
    )  # fmt: skip


def _figures(call: Fact) -> dict[str, float]:
    first = first_tensor(call["in"])
    if first.get("mean") is None or "float" not in first.get("dtype", ""):
        return {}
    count = 1
    for length in first["shape"]:
        count *= length
    return {**{key: first[key] for key in ("mean", "std", "min")}, "count": count}


# ---------- initial weights


@rule("G21", "The initialisation is never applied", family="gan")
def initialised(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A function that initialises weights looks for classes by a name that none has."""
    kinds = {row["class"] for tree in facts.of("module.tree") for row in tree["modules"] or ()}
    for unit in program:
        for name, function in unit.functions.items():
            word = name.rpartition(".")[2]
            if not re.search(r"init", word) or word.startswith("__") or not function.args.args:
                continue
            body = ast.unparse(function)
            if "classname" not in body and "isinstance" not in body and "__class__" not in body:
                continue
            yield from _missed(unit, function, kinds)


def _missed(unit: Unit, function: ast.AST, kinds: set[str]) -> Iterator[Finding]:
    for call in unit.calls("find", under=function):
        wanted = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if not isinstance(wanted, str) or not wanted:
            continue
        holder = unit.parents.get(call)
        if not isinstance(holder, ast.Compare):
            yield say("G21", "warning", call.lineno, file=unit.file, wanted=wanted)
            continue
        near = sorted(k for k in kinds if wanted.lower() in k.lower())
        if near and not any(wanted in k for k in kinds):
            yield say(
                "G21b", "error", call.lineno, file=unit.file, wanted=wanted, near=near, near_2=", ".join(near[:3]),
                cased=_cased(near[0], wanted),
            )  # fmt: skip


def _cased(name: str, wanted: str) -> str:
    place = name.lower().find(wanted.lower())
    return name[place : place + len(wanted)]
