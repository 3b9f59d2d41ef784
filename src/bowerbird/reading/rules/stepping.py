"""Rules of turns: each side of a game stepped by its own optimiser after its own loss."""

import ast
from collections.abc import Iterator

from bowerbird.reading.adversaries import Pair, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import around, calls_at, loss_line
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.phases import Phase, did_nothing, phases
from bowerbird.reading.program import Program, dotted, last_name, names_in, receiver
from bowerbird.reading.rules import handing, rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.ownership import doubled, forsaken, name_of, steps_taken
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


@rule("G07", "One side of the game is never stepped", family="gan")
def never_stepped(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Both optimisers hold the same network, or one of them is never stepped; else what the text says of it."""
    observed = list(_observed(program, facts))
    yield from observed
    if not observed:
        yield from handing.handed_twice(program)
        yield from handing.never_stepped(program)
        yield from handing.exchanged(program)
        yield from handing.given_alike(program)


def _observed(program: Program, facts: FactStore) -> Iterator[Finding]:
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
            "G07f", "error", wrong.line or 1, file=wrong.file, facts=(first.id, second.id, untrained[lost].id),
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
        unit.file, optimizer.line or 1, f"{held}.parameters()", f"{wanted}.parameters()", unit.lines, label=label
    )


def _stepped_somewhere(program: Program, name: str) -> bool:
    """Whether the source steps an optimiser of this name, or hands it to something that may."""
    word = name.rpartition(".")[2].partition("[")[0]
    for unit in program:
        for call in unit.all(ast.Call):
            if last_name(call) in ("step", "minimize") and word in _words(call):
                return True
            if last_name(call) not in ("zero_grad", "state_dict", "load_state_dict") and not last_name(call).endswith(
                "LR"
            ):
                if any(word in _words(a) for a in call.args if isinstance(a, ast.Name | ast.Attribute)):
                    return True
    return False


def _words(node: ast.AST) -> set[str]:
    return names_in(node) | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


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
    handed = _handed(program, step) if step is not None else None
    place = step or backward or optimizer
    instead = f"; {step.subject} is {'handed on' if handed else 'stepped'} here instead." if step is not None else "."
    yield say(
        "G07e", "error", handed or place.line or 1, file=place.file,
        facts=tuple(f.id for f in (optimizer, backward, step) if f is not None),
        patch=_renamed(program, step, name) if step is not None and not handed else None, name=name, module=module,
        instead=instead, of=len(facts.of("event.step")), optimizer=optimizer,
        said=f"; the loss of line {backward.line} reached {module} ({backward.id})." if backward is not None else ".",
    )  # fmt: skip


def _handed(program: Program, step: Fact) -> int | None:
    """The line that hands a function the optimiser that it steps, where the step is of an argument."""
    unit = program.units.get(step.file, program.main)
    function = around(unit, step.line)
    stepped = next((dotted(receiver(c)) for c in calls_at(unit, step.line) if last_name(c) == "step"), None)
    if function is None or stepped not in [a.arg for a in function.args.args]:
        return None
    word = step.subject.rpartition(".")[2]
    calls = [c for c in unit.calls(function.name) if any(last_name(a) == word for a in c.args)]
    return calls[0].lineno if calls else None


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


@rule("G08", "A loss is followed by the step of the other network", family="gan", exact=True)
def other_step(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The generator's loss goes through the discriminator, whose optimiser is stepped in the generator's place."""
    yield from _other_judge(program, facts)
    for pair in pairs(facts):
        yield from _both_in_one(facts, pair)
        if _never(program, facts, pair.generator) is not None:
            yield from _misdirected(program, facts, pair)
        yield from _without_gradients(program, facts, pair)


def _both_in_one(facts: FactStore, pair: Pair) -> Iterator[Finding]:
    """The generator's only optimiser also holds the discriminator, which has one of its own."""
    made = [o for o in facts.of("optimizer.created") if o["owners"] and steps_taken(facts, o)]
    makers = [o for o in made if pair.generator in o["owners"]]
    judges = [o for o in made if set(o["owners"]) == {pair.discriminator}]
    if len(makers) == 1 and judges and pair.discriminator in makers[0]["owners"]:
        optimizer = makers[0]
        yield say(
            "G08", "error", optimizer.line or 1, file=optimizer.file, facts=(optimizer.id, judges[0].id),
            name_of_2=name_of(facts, optimizer), pair=pair, owners=", ".join(sorted(optimizer["owners"])),
            optimizer=optimizer, name_of_3=name_of(facts, judges[0]), judges=judges,
        )  # fmt: skip


def _other_judge(program: Program, facts: FactStore) -> Iterator[Finding]:
    """Of several discriminators, one is stepped after a loss that goes through another."""
    judges = {pair.discriminator for pair in pairs(facts)}
    for phase in phases(facts) if len(judges) > 1 else ():
        own = phase.owners & judges
        reached = {name for b in phase.backwards for name in (b["grads"] or {})}
        if len(own) != 1 or not own == phase.owners or own & reached or not reached & judges:
            continue
        if not all(did_nothing(step) for step in phase.steps):
            continue
        (mine,), other = own, sorted(reached & judges)[0]
        backward, step = phase.backwards[-1], phase.steps[-1]
        lines = loss_line(unit_of(program, backward), backward.line), backward.line
        yield say(
            "G08b", "error", lines[0] or lines[1] or 1, file=backward.file, facts=(backward.id, step.id), step=step,
            other=other, mine=mine, backward=backward, filter_2=", ".join(sorted(filter(None, reached))),
        )  # fmt: skip
        return


def _misdirected(program: Program, facts: FactStore, pair: Pair) -> Iterator[Finding]:
    for phase in phases(facts):
        reaching = [b for b in phase.backwards if pair.generator in (b["grads"] or {})]
        if reaching and pair.generator not in phase.owners and pair.discriminator in phase.owners:
            step, backward = phase.steps[-1], reaching[-1]
            yield say(
                "G08c", "error", _handed(program, step) or step.line or 1, file=step.file, facts=(backward.id, step.id),
                step=step, pair=pair, backward=backward, owners=", ".join(step["owners"] or {}),
            )  # fmt: skip
            return


def _without_gradients(program: Program, facts: FactStore, pair: Pair) -> Iterator[Finding]:
    """A step whose own network the loss before it does not reach, while the network that it reaches is not stepped."""
    for phase in phases(facts):
        for step in phase.steps:
            owners = set(step["owners"] or {})
            reached = {name for b in phase.backwards for name in b["grads"] or {} if name}
            if pair.generator in owners and pair.discriminator in reached and not owners & reached:
                if _never(program, facts, pair.discriminator) is None or not phase.backwards:
                    continue
                backward = phase.backwards[-1]
                yield say(
                    "G08d", "error", step.line or 1, file=step.file, facts=(backward.id, step.id), step=step, pair=pair,
                    backward=backward, reached_2=", ".join(sorted(reached)), owners_2=", ".join(sorted(owners)),
                )  # fmt: skip
                return
