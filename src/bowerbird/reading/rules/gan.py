"""Rules of adversarial training: whose gradients reach whom, who is stepped, and whether the two sides oppose."""

import ast
from collections.abc import Iterator

from bowerbird.reading.adversaries import Pair, first_tensor, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import calls_at
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.phases import contributions, did_nothing, forwards, owners_of, phases, steps_of
from bowerbird.reading.program import Program, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


def optimizer_of(facts: FactStore, module: str) -> Fact | None:
    """The optimiser that holds all parameters of a module and as little else as possible."""
    holding = [
        f for f in facts.of("optimizer.created") if module in owners_of(facts).get(f["identity"], ())
    ]  # fmt: skip
    return min(holding, key=lambda f: len(f["owners"]), default=None)


def stepping(facts: FactStore, module: str) -> list[Fact]:
    """The recorded steps of every optimiser that holds parameters of a module."""
    return [s for s in facts.of("event.step") if module in (s["owners"] or {})]


@rule("G01", "A graph that was freed is walked again", family="gan")
def freed_graph(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The fakes of the discriminator's step were not detached, and the generator's loss goes through them again."""
    for error in facts.of("run.exception", "RuntimeError"):
        if "backward through the graph a second time" not in error["message"]:
            continue
        calls = forwards(facts)
        walked = {row["call"] for b in facts.of("event.backward") for row in b["through"] or ()}
        for pair in pairs(facts):
            again = [
                c for c in calls.values() if c.subject == pair.discriminator and c.position < error.position
                and any(n in walked and calls[n].subject == pair.generator for n in c["from"] or () if n in calls)
            ]  # fmt: skip
            own = {
                row["call"] for phase in phases(facts) if pair.generator in phase.owners
                for b in phase.backwards for row in b["through"] or ()
            }  # fmt: skip
            again = [c for c in again if c["call"] not in own] or again
            if not again:
                continue
            evidence = (
                f"Line {again[0].line} scores the batch made at line {calls[again[0]['from'][0]].line} with its graph "
                f"({again[0].id}); backward() at line {error.line} stopped: {error['message'][:70]}… ({error.id})."
            )
            fix = "Detach the fakes in the discriminator's step: D(fake.detach())."
            message = (
                "The fake batch reaches the discriminator's loss with its graph, which that loss's backward() frees."
            )
            yield Finding(
                "G01", "error", again[0].line or 1, message, evidence, fix, again[0].file, (again[0].id, error.id),
                patch=_detached(program, facts, again[0]),
            )  # fmt: skip
            if abs((error.line or 1) - (again[0].line or 1)) > 2:
                message = (
                    f"This backward pass walks the graph of the fake batch again, which line {again[0].line} gave away."
                )
                yield Finding(
                    "G01", "error", error.line or 1, message, evidence, fix, error.file, (again[0].id, error.id)
                )
            return


def _detached(program: Program, facts: FactStore, call: Fact) -> Patch | None:
    """The patch that detaches the argument of a discriminator's call."""
    unit = unit_of(program, call)
    name = call.subject.rpartition(".")[2]
    for node in calls_at(unit, call.line):
        if last_name(node) != name or not node.args or call.line is None or node.lineno != call.line:
            continue
        given = ast.unparse(node.args[0])
        return replace_line(
            unit.file, call.line, f"{name}({given}", f"{name}({given}.detach()", unit.lines, label="detach the fakes"
        )  # fmt: skip
    return None


@rule("G02", "The discriminator's loss reaches the generator", family="gan", exact=True)
def not_detached(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """An error where the generator's step uses those gradients; harmless where they are cleared first."""
    calls = forwards(facts)
    for pair in pairs(facts):
        theirs = [
            b for phase in phases(facts) if pair.discriminator in phase.owners and pair.generator not in phase.owners
            for b in phase.backwards if pair.generator in (b["grads"] or {})
        ]  # fmt: skip
        if not theirs:
            continue
        optimizer = optimizer_of(facts, pair.generator)
        steps = [] if optimizer is None else steps_of(facts, optimizer["identity"])
        used = [b for s in steps for b in contributions(facts, s, pair.generator) if b in theirs]
        through = [calls[r["call"]] for r in theirs[-1]["through"] if r["call"] in calls]
        fake = next(
            (c for c in through if c.subject == pair.discriminator and c["from"]), through[0] if through else theirs[0]
        )
        norm = theirs[-1]["grads"][pair.generator]["norm"]
        last = theirs[-1]
        reached = f"The backward pass of line {last.line} gave {pair.generator} gradients (norm {norm:.3g}, {last.id})"
        known, patch = (theirs[-1].id, fake.id), _detached(program, facts, fake)
        if not used:
            yield say(
                "G02", "info", fake.line or 1, file=fake.file, facts=known, patch=patch, pair=pair, reached=reached,
            )  # fmt: skip
            continue
        message = f"{pair.generator} is also trained by the loss of {pair.discriminator}: the fakes are not detached."
        evidence = f"{reached}, and its own step used them too ({used[0].id}): they were not cleared in between."
        fix = "Detach the fakes in the discriminator's step, and clear the generator's gradients before its own."
        made = next((c for c in through if c.subject == pair.generator), None)
        places = {fake.line: fake, **({made.line: made} if made is not None else {})}
        for line, place in places.items():
            yield Finding(
                "G02", "error", line or 1, message, evidence, fix, place.file, known, patch if place is fake else None
            )


@rule("G04", "The adversarial loss cannot reach the generator", family="gan")
def cut_off(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Where the generator's loss is computed its samples are detached, or were made under no_grad."""
    yield from (f for f in _cut_off(program, facts) if f.rule == "G04")


@rule("G03", "A new batch is made and the old one scored", family="gan")
def stale_batch(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The generator's new samples reach no loss; the detached ones of the discriminator's step do."""
    yield from (f for f in _cut_off(program, facts) if f.rule == "G03")


def _cut_off(program: Program, facts: FactStore) -> Iterator[Finding]:
    calls = forwards(facts)
    for pair in pairs(facts):
        for phase in phases(facts) if stepping(facts, pair.discriminator) else ():
            if pair.generator not in phase.owners or pair.discriminator in phase.owners or not phase.backwards:
                continue
            scored = [
                calls[row["call"]] for b in phase.backwards for row in b["through"] or ()
                if row["module"] == pair.discriminator and row["call"] in calls
            ]  # fmt: skip
            of_fakes = [
                c for c in scored if any(calls[n].subject == pair.generator for n in c["from"] or () if n in calls)
            ]
            if scored and not of_fakes and all(did_nothing(step) for step in phase.steps):
                yield _others_scored(pair, scored[-1], phase.backwards[-1], phase.steps[0])
                break
            if not of_fakes or not all(c["detached"] for c in of_fakes):
                continue
            yield _cut(program, facts, pair, of_fakes[-1], phase.backwards[-1], phase.steps[0])
            break
    for error in facts.of("run.exception", "RuntimeError"):
        if "does not require grad" not in error["message"]:
            continue
        before = [c for c in calls.values() if c.position < error.position and c.file == program.file]
        for pair in pairs(facts):
            last = [c for c in before if c.subject == pair.discriminator]
            own = [c for c in last if c["graph"] and not c["from"] and c["grad_enabled"]]
            thawed = bool(own) and last and last[-1]["grad_enabled"] and last[-1]["detached"]
            if last and last[-1]["from"] and not last[-1]["graph"] and not thawed:
                yield say(
                    "G04d", "error", last[-1].line or 1, file=last[-1].file, facts=(last[-1].id, error.id), pair=pair,
                    error=error, message=error["message"][:80],
                )  # fmt: skip


def _others_scored(pair: Pair, call: Fact, backward: Fact, step: Fact) -> Finding:
    return say(
        "G04", "error", call.line or 1, file=call.file, facts=(call.id, backward.id, step.id), pair=pair, call=call,
        backward=backward, grads=", ".join(sorted(filter(None, backward["grads"] or {}))) or "nothing", step=step,
    )  # fmt: skip


def _cut(program: Program, facts: FactStore, pair: Pair, call: Fact, backward: Fact, step: Fact) -> Finding:
    calls = forwards(facts)
    source = next(calls[n] for n in call["from"] if n in calls and calls[n].subject == pair.generator)
    newer = [
        c for c in calls.values()
        if c.subject == pair.generator and source.position < c.position < call.position and c["graph"]
        and not any(c["call"] in (other["from"] or ()) for other in calls.values())
    ]  # fmt: skip
    found = did_nothing(step)
    nothing = f"{step.subject}.step() found no gradient at all ({step.id})" if found else "other terms still train it"
    if newer:
        return say(
            "G03", "error", call.line or 1, file=call.file, facts=(newer[0].id, call.id, step.id), newer=newer,
            pair=pair, call=call, source=source, nothing=nothing,
        )  # fmt: skip
    hidden = not source["grad_enabled"]
    place = source if hidden and source.position > (call.position - 400) else call
    why = "was made under no_grad()" if hidden else "is detached"
    return say(
        "G04b" if hidden else "G04c", "error", place.line or 1, file=place.file, facts=(call.id, backward.id, step.id),
        patch=None if hidden else _attached(program, call), pair=pair, why=why, call=call, backward=backward,
        grads=", ".join(sorted(filter(None, backward["grads"] or {}))) or "nothing", nothing=nothing,
    )  # fmt: skip


def _attached(program: Program, call: Fact) -> Patch | None:
    unit = unit_of(program, call)
    return replace_line(unit.file, call.line or 1, ".detach()", "", unit.lines, label="G04: no detach")


@rule("G23", "The generator is trained on one batch of noise", family="gan")
def same_noise(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Noise that is drawn once, before the loop, teaches the generator a handful of points."""
    walked = {row["call"] for b in facts.of("event.backward") for row in b["through"] or ()}
    for pair in pairs(facts):
        by_line: dict[int | None, list[Fact]] = {}
        for call in facts.of("event.forward", pair.generator):
            if call["call"] in walked and first_tensor(call["in"]).get("mean") is not None and not call["from"]:
                by_line.setdefault(call.line, []).append(call)
        for line, calls in by_line.items():
            seen = {tuple(first_tensor(c["in"])[k] for k in ("min", "max", "mean", "std")) for c in calls}
            given = first_tensor(calls[0]["in"])
            drawn = [d for d in facts.of("random.draw") if d["shape"] == given["shape"] and d["mean"] == given["mean"]]
            if len(calls) >= 4 and len(seen) == 1 and drawn and given.get("std"):
                yield say(
                    "G23", "warning", drawn[0].line or line or 1, file=drawn[0].file,
                    facts=(calls[0].id, calls[-1].id, drawn[0].id), pair=pair, calls_2=len(calls), line_=line,
                    calls=calls, id=calls[-1].id, drawn=drawn,
                )  # fmt: skip
