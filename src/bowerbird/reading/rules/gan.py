"""Rules of adversarial training: whose graph reaches whom, and who is stepped."""

import ast
from collections.abc import Iterator

from bowerbird.reading.adversaries import Pair, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import calls_at
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.phases import Phase, contributions, did_nothing, forwards, owners_of, phases, steps_of
from bowerbird.reading.program import Program, last_name, receiver, words_in
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.optimisers import doubled, forsaken, name_of, steps_taken
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
        if "backward through the graph a second time" not in error["message"] or error.line is None:
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
            yield say(
                "G01", "error", again[0].line, file=again[0].file, facts=(again[0].id, error.id), again=again[0],
                patch=_detached(program, facts, again[0]), made=calls[again[0]["from"][0]], error=error,
                message=error["message"][:70],
            )  # fmt: skip
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
                "G02", "info", fake.line, file=fake.file, facts=known, patch=patch, pair=pair, reached=reached,
            )  # fmt: skip
            continue
        yield say(
            "G02b", "error", fake.line, file=fake.file, facts=known, patch=patch, pair=pair, reached=reached,
            used=used[0],
        )  # fmt: skip


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
            if not of_fakes or not all(c["detached"] for c in of_fakes):
                continue
            yield _cut(program, facts, pair, of_fakes[-1], phase.backwards[-1], phase.steps[0])
            break


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
            "G03", "error", call.line, file=call.file, facts=(newer[0].id, call.id, step.id), newer=newer,
            pair=pair, call=call, source=source, nothing=nothing,
        )  # fmt: skip
    hidden = not source["grad_enabled"]
    place = source if hidden and source.position > (call.position - 400) else call
    why = "was made under no_grad()" if hidden else "is detached"
    return say(
        "G04b" if hidden else "G04c", "error", place.line, file=place.file, facts=(call.id, backward.id, step.id),
        patch=None if hidden else _attached(program, call), pair=pair, why=why, call=call, backward=backward,
        grads=", ".join(sorted(filter(None, backward["grads"] or {}))) or "nothing", nothing=nothing,
    )  # fmt: skip


def _attached(program: Program, call: Fact) -> Patch | None:
    unit = unit_of(program, call)
    return replace_line(unit.file, placed(call.line), ".detach()", "", unit.lines, label="G04: no detach")


# ---------- turns: each side of a game stepped by its own optimiser after its own loss


@rule("G07", "One side of the game is never stepped", family="gan")
def never_stepped(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Both optimisers hold the same network, or one of them is never stepped."""
    found = pairs(facts)
    sides = {name for pair in found for name in (pair.generator, pair.discriminator)}
    untrained = {moved.subject: moved for moved in forsaken(facts)}
    for first, second in doubled(facts):
        lost = next((name for name in sides if name in untrained), None)
        if lost is None:
            continue
        wrong = max((first, second), key=lambda o: (_fits(name_of(facts, o), lost), o.position))
        held = next(iter(wrong["owners"]))
        yield say(
            "G07f", "error", wrong.line, file=wrong.file, facts=(first.id, second.id, untrained[lost].id),
            patch=_given(program, wrong, held, lost), name_of_2=name_of(facts, wrong), held=held, lost=lost,
            wrong=wrong, first=first, second=second, id=untrained[lost].id,
        )  # fmt: skip
    for pair in found:
        yield from _unstepped(program, facts, pair.discriminator, pair.generator)
        yield from _unstepped(program, facts, pair.generator, pair.discriminator)


def _fits(optimizer: str, module: str) -> int:
    """How well an optimiser's name speaks of a module."""
    letter = module.removeprefix("net").lstrip("_.").lower()[:1]
    words = optimizer.lower().replace("optimizer", " ").replace("optim", " ").replace("opt", " ").replace("_", " ")
    return sum(word.strip()[:1] == letter for word in words.split())


def _given(program: Program, optimizer: Fact, held: str, wanted: str) -> Patch | None:
    unit = program.units.get(optimizer.file, program.main)
    label = f"G07: {wanted}"
    return replace_line(
        unit.file, placed(optimizer.line), f"{held}.parameters()", f"{wanted}.parameters()", unit.lines, label=label
    )


def _stepped_somewhere(program: Program, name: str) -> bool:
    """Whether the source steps an optimiser of this name, or hands it to something that may."""
    word = name.rpartition(".")[2].partition("[")[0]
    for unit in program:
        for call in unit.all(ast.Call):
            if last_name(call) in ("step", "minimize") and word in words_in(call):
                return True
            if last_name(call) not in ("zero_grad", "state_dict", "load_state_dict") and not last_name(call).endswith(
                "LR"
            ):
                if any(word in words_in(a) for a in call.args if isinstance(a, ast.Name | ast.Attribute)):
                    return True
    return False


def _never(program: Program, facts: FactStore, module: str) -> Fact | None:
    """The optimiser that holds a module, where the program never steps it although it trains."""
    holding = [o for o in facts.of("optimizer.created") if module in (o["owners"] or {})]
    if not holding or any(steps_taken(facts, o) for o in holding) or len(facts.of("event.step")) < 2:
        return None
    return next((o for o in holding if not _stepped_somewhere(program, name_of(facts, o))), None)


def _unstepped(program: Program, facts: FactStore, module: str, other: str) -> Iterator[Finding]:
    optimizer = _never(program, facts, module)
    if optimizer is None:
        return
    name = name_of(facts, optimizer)
    backward, step = _abandoned(facts, module, other)
    place = step or backward or optimizer
    instead = f"; {step.subject} is stepped here instead." if step is not None else "."
    yield say(
        "G07e", "error", place.line, file=place.file,
        facts=tuple(f.id for f in (optimizer, backward, step) if f is not None),
        patch=_renamed(program, step, name) if step is not None else None, name=name, module=module,
        instead=instead, of=len(facts.of("event.step")), optimizer=optimizer,
        said=f"; the loss of line {backward.line} reached {module} ({backward.id})." if backward is not None else ".",
    )  # fmt: skip


def _abandoned(facts: FactStore, module: str, other: str) -> tuple[Fact | None, Fact | None]:
    """The backward pass that no step of a module follows, and the step that stands in its place, if one does.

    A pass that reaches the module alone is its own; a step whose own backward pass comes later is not in its place.
    """
    found: list[tuple[Fact, Phase, int]] = [
        (backward, phase, place)
        for phase in phases(facts) if module not in phase.owners
        for place, backward in enumerate(phase.backwards) if module in (backward["grads"] or {})
    ]  # fmt: skip
    alone = [entry for entry in found if other not in (entry[0]["grads"] or {})]
    for backward, phase, place in alone or found:
        later = any(phase.owners & set(b["grads"] or {}) for b in phase.backwards[place + 1 :])
        return backward, None if later else phase.steps[0]
    return None, None


def _renamed(program: Program, step: Fact, name: str) -> Patch | None:
    unit = program.units.get(step.file, program.main)
    for call in unit.all(ast.Call):
        if call.lineno == step.line and last_name(call) == "step" and receiver(call) is not None:
            old = ast.unparse(receiver(call))  # type: ignore[arg-type]
            prefix = old.rpartition(".")[0]
            new = f"{prefix}.{name.rpartition('.')[2]}" if prefix else name
            return replace_line(unit.file, call.lineno, f"{old}.step(", f"{new}.step(", unit.lines, label=f"step {new}")
    return None
