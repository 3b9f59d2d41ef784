"""Rules of what goes in and out of a generator: ranges, priors, labels, initial weights, and what the text promises."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from bowerbird.reading.adversaries import Pair, first_tensor, games, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import bound, calls_at
from bowerbird.reading.phases import forwards, phases
from bowerbird.reading.program import Program, Unit, dotted, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run


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
            yield Finding(
                "G14", "ok", real[0].line or 1, f"Real images lie where the generator's {kind[0]} can reach.",
                f"In [{low:.3g}, {high:.3g}] ({real[0].id}).", "", real[0].file, (real[0].id,),
            )  # fmt: skip
            continue
        made = next((c for c in facts.of("event.forward", pair.generator)), real[0])
        out = first_tensor(made["out"])
        message = (
            f"The generator ends in a {kind[0]} and real images lie in [{low:.3g}, {high:.3g}]: the "
            "discriminator can tell "
            "them apart by range."
        )
        evidence = (
            f"{pair.discriminator} was given real values in [{low:.3g}, {high:.3g}] ({real[0].id}); {pair.generator} "
            f"gave [{out.get('min', 0):.3g}, {out.get('max', 0):.3g}] ({made.id})."
        )
        fix = (
            "Normalise the data with mean 0.5 and deviation 0.5."
            if tanh
            else "Let the last layer reach the data's range."
        )
        known = (real[0].id, made.id)
        places = [*_transforms(program), kind[1:]]
        for file, line in dict.fromkeys((places[0], (kind[1], kind[2]))):
            yield Finding("G14", "warning", line, message, evidence, fix, file, known)


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
        if not trained or not any(_is_noise(facts, call) for call in own):
            continue
        told: set[int] = set()
        for call in {c.line: c for c in own if c.line != trained[0].line}.values():
            if _alike(trained[0], call):
                continue
            drawn = _drawn(facts, program, call)
            for line in dict.fromkeys((_draw_line(program, call), *(() if drawn else (call.line or 1,)))):
                if line not in told:
                    told.add(line)
                    yield _another_prior(pair, trained[0], call, line, drawn)
            source = _draw_line(program, trained[0])
            if drawn and all(abs(source - line) > 2 for line in told):
                told.add(source)
                yield replace(_another_prior(pair, call, trained[0], source, drawn), severity="warning")


def _is_noise(facts: FactStore, call: Fact) -> bool:
    """Whether a call was given something that was drawn at random."""
    given = first_tensor(call["in"])
    return any(
        draw["mean"] is not None and draw["std"] is not None
        and abs(draw["mean"] - given["mean"]) < 1e-5 and abs(draw["std"] - given["std"]) < 0.01 * given["std"]
        for draw in facts.of("random.draw")
    )  # fmt: skip


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


def _another_prior(pair: Pair, known: Fact, call: Fact, line: int, drawn: bool) -> Finding:
    first, second = _figures(known), _figures(call)
    one_sided = (second["min"] >= 0) != (first["min"] >= 0)
    what = "noise" if drawn else "inputs"
    return say(
        "G15" if drawn else "G15b", "error" if one_sided and drawn else "warning", line, file=call.file,
        facts=(known.id, call.id), pair=pair, what=what, known=known, first=first, second=second, call=call,
    )  # fmt: skip


def _figures(call: Fact) -> dict[str, float]:
    first = first_tensor(call["in"])
    if first.get("mean") is None or "float" not in first.get("dtype", ""):
        return {}
    count = 1
    for length in first["shape"]:
        count *= length
    return {**{key: first[key] for key in ("mean", "std", "min")}, "count": count}


def _drawn(facts: FactStore, program: Program, call: Fact) -> bool:
    """Whether what a call was given was drawn at its line or where its argument was bound."""
    lines = {call.line, _draw_line(program, call)}
    return any(draw.line in lines and draw.file == call.file for draw in facts.of("random.draw"))


def _draw_line(program: Program, call: Fact) -> int:
    """Where the noise of a call was bound to its name; past lines that only wrap it or move it."""
    unit = program.units.get(call.file, program.main)
    line = call.line or 1
    for node in calls_at(unit, line):
        name = dotted(node.args[0]) if node.args else None
        if last_name(node) == call.subject.rpartition(".")[2] and name is not None:
            for _ in range(4):
                found = bound(unit, name, line, unit.function(node))
                if found is None or found[0] >= line:
                    break
                line = found[0]
                if not re.search(rf"\b{re.escape(name)}\b", ast.unparse(found[1])):
                    break
            return line
    return line


@rule("G17", "The condition is ignored", family="gan")
def condition_ignored(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A conditional network must depend on its labels; a discriminator that sees none cannot ask for them."""
    found = pairs(facts)
    roles = {name for pair in found for name in (pair.generator, pair.discriminator)}
    for fact in facts.of("probe.inputs"):
        rows = fact["arguments"] or []
        if fact.subject not in roles or len(rows) < 2 or not any(r["moved"] > 0 for r in rows):
            continue
        if len([s for s in facts.of("event.step") if fact.subject in (s["owners"] or {})]) < 2:
            continue
        for row in rows:
            if row["moved"] > 0 or row["argument"] == 0:
                continue
            unit, line, name = _parameter(program, str(fact["class"]), row["argument"])
            yield say(
                "G17b", "error", line or fact.line or 1, file=unit.file if unit else fact.file, fact=fact, name=name,
                row=row, rows=rows,
            )  # fmt: skip
    for pair in found:
        yield from _unlabelled(program, facts, pair)


def _parameter(program: Program, kind: str, argument: int | str) -> tuple[Unit | None, int | None, str]:
    """Where the forward of a class reads one of its arguments, or its head where it never does."""
    for unit in program:
        forward = unit.functions.get(f"{kind}.forward")
        if forward is None:
            continue
        names = [a.arg for a in forward.args.args][1:]
        name = names[argument] if isinstance(argument, int) and argument < len(names) else str(argument)
        reads = [n.lineno for n in unit.all(ast.Name, under=forward) if n.id == name and isinstance(n.ctx, ast.Load)]
        return unit, (reads[0] if reads else forward.lineno), name
    return None, None, f"argument {argument}"


def _unlabelled(program: Program, facts: FactStore, pair: Pair) -> Iterator[Finding]:
    """The generator is given labels and the discriminator neither sees nor says any."""
    made = [c for c in facts.of("event.forward", pair.generator) if _labels(c)]
    judged = [c for c in facts.of("event.forward", pair.discriminator) if c["from"]]
    if not made or not judged or any(_labels(c) for c in judged):
        return
    call = judged[0]
    outputs = call["out"] if isinstance(call["out"], list) else [call["out"]]
    if len(outputs) > 1 or len(call["in"] or ()) > 1 or call["kwargs"]:
        return
    given, said = first_tensor(call["in"]).get("shape"), first_tensor(made[0]["out"]).get("shape")
    width = first_tensor(call["out"]).get("shape", [0, 0])
    if given is None or given != said or (len(width) > 1 and width[-1] not in (1, given[-1]) and len(width) == 2):
        return
    yield say(
        "G17", "warning", call.line or 1, file=call.file, facts=(made[0].id, call.id), pair=pair, made=made,
        given=given, call=call,
    )  # fmt: skip


def _labels(call: Fact) -> bool:
    given = [*(call["in"] or ())[1:], *(call["kwargs"] or {}).values()]
    return any(isinstance(g, dict) and "int" in str(g.get("dtype", "")) for g in given)


@rule("G18", "All samples are the same", family="gan")
def insensitive(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A generator whose output does not depend on its noise can make only one picture."""
    makers = {pair.generator for pair in pairs(facts)}
    for fact in facts.of("probe.inputs"):
        noise = [r for r in fact["arguments"] or () if r["argument"] == 0 and "float" in r["dtype"]]
        if fact.subject not in makers or not noise:
            continue
        trained = [s for s in facts.of("event.step") if fact.subject in (s["owners"] or {})]
        if noise[0]["moved"] <= 1e-6 * max(noise[0]["size"], 1e-6):
            if len(trained) < 2:
                continue
            unit, line, name = _parameter(program, str(fact["class"]), 0)
            yield say(
                "G18", "error", line or fact.line or 1, file=unit.file if unit else fact.file, fact=fact, name=name,
                noise=noise,
            )  # fmt: skip
        else:
            yield Finding(
                "G18", "ok", fact.line or 1, f"The samples of {fact.subject} depend on its noise.",
                f"Other noise moved its output by {noise[0]['moved']:.2g} ({fact.id}).", "", fact.file, (fact.id,),
            )  # fmt: skip


@rule("G19", "The discriminator is saturated", family="gan")
def saturated(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """When the discriminator is certain, hardly any gradient is left for the generator."""
    for pair in pairs(facts):
        _, ours = games(facts, pair)
        made = [s for game in ours for s in game if s.fake]
        pulls = [abs(r["mean"] * r["of"]) for s in made for r in s.backward["pulls"] if r["call"] == s.call["call"]]
        if len(pulls) >= 2 and max(pulls) < 1e-4:
            yield say(
                "G19", "warning", made[-1].backward.line or 1, file=made[-1].backward.file,
                facts=(made[-1].backward.id,), pair=pair, pulls_2=max(pulls), pulls_3=len(pulls),
                id=made[-1].backward.id,
            )  # fmt: skip
