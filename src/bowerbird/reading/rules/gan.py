"""Rules of adversarial training: whose graph reaches whom, who is stepped, signs and labels, critics, promises."""

import ast
import re
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from bowerbird.reading.adversaries import Pair, Score, first_tensor, games, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import argument_line, around, bound, calls_at, loss_line
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.phases import Phase, contributions, did_nothing, forwards, owners_of, phases, steps_of
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, receiver, words_in
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.loop import doubled, forsaken, name_of, steps_taken
from bowerbird.reading.rules.messages import placed, say
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
        place = next((c for c in through if c.subject == pair.generator), fake)
        yield say(
            "G02b", "error", place.line, file=place.file, facts=known, patch=patch, pair=pair, reached=reached,
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
                    "G04d", "error", last[-1].line, file=last[-1].file, facts=(last[-1].id, error.id), pair=pair,
                    error=error, message=error["message"][:80],
                )  # fmt: skip


def _others_scored(pair: Pair, call: Fact, backward: Fact, step: Fact) -> Finding:
    return say(
        "G04", "error", call.line, file=call.file, facts=(call.id, backward.id, step.id), pair=pair, call=call,
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


# ---------- objectives: whether the two sides oppose each other, by the gradients at the discriminator's scores


def sides(facts: FactStore, pair: Pair) -> tuple[list[list[Score]], list[list[Score]]]:
    """The scores of both sides, where each side is stepped by an optimiser of its own."""
    moved = {s for name in (pair.generator, pair.discriminator) for s in [bool(stepping(facts, name))]}
    return games(facts, pair) if moved == {True} else ([], [])


def wish(scores: list[Score]) -> float | None:
    """What the losses want of these scores: above zero larger ones.  None where that changes with the values."""
    known = [s for s in scores if not _quadratic(s)]
    return fmean(s.wish for s in known) if known and len(known) == len(scores) else None


def goal(scores: list[Score]) -> float | None:
    """The mean constant that these scores are compared with."""
    goals = [s.goal for s in scores if s.goal is not None]
    return fmean(goals) if goals and len(goals) == len(scores) else None


def _quadratic(score: Score) -> bool:
    """Whether the loss has its least value at a finite score, so that its slope says nothing of its intent."""
    return score.loss is not None and score.loss.subject in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


@rule("G05", "The labels push the wrong way", family="gan", exact=True)
def wrong_labels(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The generator must want the opposite of what the discriminator wants of fakes; real and fake must differ."""
    yield from _opposition(program, facts, compared=True)


@rule("G06", "The sign of an adversarial objective is wrong", family="gan", exact=True)
def wrong_sign(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The same of objectives that are written with the scores themselves: Wasserstein, hinge, logarithms."""
    yield from _opposition(program, facts, compared=False)


def _opposition(program: Program, facts: FactStore, *, compared: bool) -> Iterator[Finding]:
    for pair in pairs(facts):
        theirs, ours = sides(facts, pair)
        real = [s for game in theirs for s in game if not s.fake]
        fake = [s for game in theirs for s in game if s.fake]
        made = [s for game in ours for s in game if s.fake]
        if not real or not fake or not made:
            continue
        wrong = _by_goals(real, fake, made) if goal(real + fake + made) is not None else _by_slopes(real, fake, made)
        if wrong is None:
            yield say(
                "G05b" if compared else "G06b", "ok", made[0].backward.line, file=made[0].backward.file,
                facts=(real[0].backward.id, made[0].backward.id), pair=pair, real=fmean(s.wish for s in real),
                fake=fmean(s.wish for s in fake), made=fmean(s.wish for s in made), theirs=real[0].backward,
                ours=made[0].backward,
            )  # fmt: skip
            continue
        culprit, message = wrong
        if (culprit[0].loss is not None) == compared:
            yield _wrong(program, culprit[0], message, compared)


def _by_goals(real: list[Score], fake: list[Score], made: list[Score]) -> tuple[list[Score], str] | None:
    high, low, aim = goal(real), goal(fake), goal(made)
    assert high is not None and low is not None and aim is not None
    if abs(high - low) < 0.05:
        return fake, f"real and fake scores are compared with the same label ({high:.2g})"
    if abs(aim - low) < 0.4 * abs(aim - high):
        return made, f"the generator's samples are trained towards {aim:.2g}, the label of fakes, not {high:.2g}"
    return None


def _by_slopes(real: list[Score], fake: list[Score], made: list[Score]) -> tuple[list[Score], str] | None:
    up, down, aim = wish(real), wish(fake), wish(made)
    if up is None or down is None or aim is None or min(abs(up), abs(down), abs(aim)) < 0.3:
        return None
    if (up > 0) == (down > 0):
        same = "raise" if up > 0 else "lower"
        return (
            fake if up > 0 else real
        ), f"the discriminator's loss wants to {same} the scores of real and of fake alike"
    if (aim > 0) != (down > 0):
        return None
    if up < 0:
        return (
            real,
            "the discriminator lowers the scores of real samples and raises those of fakes, as the generator does",
        )
    return made, "the generator's loss wants lower scores of its samples, as the discriminator's does"


def _wrong(program: Program, score: Score, message: str, compared: bool) -> Finding:
    unit = unit_of(program, score.backward)
    line = score.loss.line if score.loss is not None else loss_line(unit, score.backward.line)
    return say(
        "G05" if compared and score.fake else "G05c" if compared else "G06", "error", line,
        file=score.loss.file if score.loss is not None else unit.file,
        facts=(score.call.id, score.backward.id, *((score.loss.id,) if score.loss is not None else ())), said=message,
        call=score.call, of="fakes" if score.fake else "real samples", backward=score.backward,
        gradient=_gradient(score), wanted="larger" if score.wish > 0 else "smaller",
    )  # fmt: skip


def _gradient(score: Score) -> float:
    rows = score.backward["pulls"] or ()
    return float(next((r["mean"] for r in rows if r["call"] == score.call["call"]), 0.0))


@rule("G16", "Labels are smoothed on the wrong side", family="gan")
def smoothed(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One-sided smoothing moves the label of real samples in the discriminator's loss alone."""
    for pair in pairs(facts):
        theirs, ours = sides(facts, pair)
        fake = [s for game in theirs for s in game if s.fake and s.loss is not None]
        real = [s for game in theirs for s in game if not s.fake and s.loss is not None]
        if not fake or not real or not fake[0].loss or not real[0].loss or "cross_entropy" not in fake[0].loss.subject:
            continue
        high, low = goal(real[:1]), goal(fake[:1])
        if high is None or low is None or high < low:
            continue
        loss = fake[0].loss
        if 0.01 < low < 0.4:
            yield _label(
                program, loss, f"the label of fakes is {low:.2g}", "rewards the generator for staying as it is"
            )
        made = [s for game in ours for s in game if s.fake and s.loss is not None and s.goal is not None]
        if made and made[0].loss is not None and made[0].goal is not None and 0.6 < made[0].goal < 0.99:
            yield _label(
                program, made[0].loss, f"the generator's label is {made[0].goal:.2g}", "only weakens its gradient"
            )


def _label(program: Program, loss: Fact, what: str, why: str) -> Finding:
    unit = unit_of(program, loss)
    return say(
        "G16", "warning", argument_line(unit, loss.line, 1, ("target",)), file=unit.file, facts=(loss.id,),
        what=what, why=why, loss=loss,
    )  # fmt: skip


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


# ---------- critics: the loss that fits the last layer, Lipschitz bounds, gradient penalties, the ratio of updates


def creations(program: Program, *words: str) -> Iterator[tuple[Unit, ast.Call]]:
    """Calls of these names anywhere in the program."""
    for unit in program:
        for call in unit.all(ast.Call):
            if last_name(call) in words:
                yield unit, call


def wasserstein(facts: FactStore, pair: Pair) -> Score | None:
    """A score of a critic whose loss is linear in its scores, as that of Wasserstein is (hinge has a constant)."""
    theirs, _ = games(facts, pair)
    calls = forwards(facts)
    for game in theirs:
        if len({s.fake for s in game}) == 2 and all(_linear(s.backward, pair, calls) for s in game):
            return game[0]
    return None


def _linear(backward: Fact, pair: Pair, calls: dict[int, Fact]) -> bool:
    """Whether a loss is the sum of its scores, each with one weight for the whole call."""
    rows = [r for r in backward["pulls"] or () if r["module"] == pair.discriminator and r["call"] in calls]
    means = [first_tensor(calls[r["call"]]["out"]).get("mean") for r in rows]
    if not rows or None in means or backward["loss"] is None:
        return False
    if any(abs(r["max"] - r["min"]) > 1e-6 * abs(r["max"]) + 1e-9 for r in rows):
        return False
    linear = sum(r["mean"] * r["of"] * mean for r, mean in zip(rows, means, strict=True))
    return bool(abs(backward["loss"] - linear) < 1e-3 * (1 + abs(linear)))


def penalties(facts: FactStore) -> list[Fact]:
    """Gradients with respect to inputs that are differentiated again."""
    return [f for f in facts.of("autograd.grad") if f["create_graph"]]


def _steps(facts: FactStore, module: str) -> int:
    owned = {f.subject: f["owners"] or {} for f in facts.of("optimizer.created")}
    return sum(int(f["steps"]) for f in facts.of("optimizer.steps") if set(owned.get(f.subject, ())) == {module})


@rule("G10", "The critic is trained less than the generator", family="gan")
def critic_ratio(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A Wasserstein critic must be ahead of the generator: several of its steps for each of the generator's."""
    for pair in pairs(facts):
        clipped = any(f.subject == pair.discriminator for f in facts.of("event.clamp"))
        linear = wasserstein(facts, pair)
        theirs, ours = _steps(facts, pair.discriminator), _steps(facts, pair.generator)
        if (linear is None and not clipped and not penalties(facts)) or ours < theirs + 2 or ours < 1.5 * theirs:
            continue
        place = _gate(program, facts, pair)
        steps = [s for s in facts.of("event.step") if pair.discriminator in (s["owners"] or {})]
        if not steps:
            continue
        file, line = place or (steps[0].file, placed(steps[0].line))
        yield say(
            "G10", "error", line, file=file, facts=(steps[0].id,), pair=pair, theirs=theirs, ours=ours, steps=steps,
        )  # fmt: skip


def _gate(program: Program, facts: FactStore, pair: Pair) -> tuple[str, int] | None:
    """The condition that holds the critic back, or the loop that repeats the generator."""
    lines: dict[str, set[int]] = {pair.discriminator: set(), pair.generator: set()}
    for step in facts.of("event.step"):
        for owner in step["owners"] or {}:
            lines.setdefault(owner, set()).add(step.line or 0)
    unit = program.main
    nodes: Iterator[Any] = unit.all(ast.If, ast.For)
    for node in nodes:
        body = _reached(unit, node.body)
        judge, maker = bool(body & lines[pair.discriminator]), bool(body & lines[pair.generator])
        if isinstance(node, ast.If) and judge and not maker and "%" in ast.unparse(node.test):
            return unit.file, node.lineno
        if isinstance(node, ast.For) and maker and not judge:
            return unit.file, node.lineno
    return None


def _reached(unit: Unit, body: list[ast.stmt]) -> set[int]:
    """The lines of statements and of the program's own functions that they call."""
    lines: set[int] = set()
    for statement in body:
        for node in ast.walk(statement):
            if hasattr(node, "lineno"):
                lines.add(node.lineno)
            if isinstance(node, ast.Call):
                word = last_name(node)
                for name, function in unit.functions.items():
                    if name == word or name.endswith(f".{word}"):
                        lines |= set(range(function.lineno, (function.end_lineno or function.lineno) + 1))
    return lines


@rule("G11", "Nothing bounds the slope of a Wasserstein critic", family="gan")
def unbounded_critic(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Weight clipping, a gradient penalty or spectral normalisation is what makes its loss a distance."""
    for pair in pairs(facts):
        found = wasserstein(facts, pair)
        clamps = facts.of("event.clamp", pair.discriminator)
        if found is None or clamps or penalties(facts) or _normalised(program):
            continue
        steps = [s for s in facts.of("event.step") if pair.discriminator in (s["owners"] or {})]
        vain = _vain_clipping(program)
        if isinstance(vain, str) or not steps:
            continue
        file, line = vain or (steps[0].file, placed(steps[0].line))
        score = found
        yield say(
            "G11", "error", line, file=file, facts=(score.backward.id, steps[0].id), pair=pair,
            said=": this clipping changes a copy." if vain else ".", score=score,
        )  # fmt: skip


def _normalised(program: Program) -> bool:
    words = ("spectral_norm", "SpectralNorm", "weight_norm")
    return any(word in unit.text for unit in program for word in words)


def _vain_clipping(program: Program) -> tuple[str, int] | str | None:
    """A clamp of parameters whose result goes nowhere; "kept" where it is written back."""
    for unit in program:
        for call in unit.calls("clamp"):
            loops = unit.loops(call)
            if not loops or not isinstance(loops[0], ast.For) or "parameters()" not in ast.unparse(loops[0].iter):
                continue
            statement = unit.statement(call)
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute | ast.Subscript):
                return "kept"
            if isinstance(statement, ast.Expr) and last_name(statement.value) in ("copy_", "set_"):
                return "kept"
            return unit.file, call.lineno
    return None


# ---------- gradient penalties: whose gradient is taken, at which points, and over which axes its norm


_NORMS = ("norm", "linalg_norm", "vector_norm", "linalg_vector_norm", "frobenius_norm")


@rule("G12", "The gradient penalty takes the norm over the wrong axes", family="gan")
def penalty_axes(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One norm per sample: over all axes but the first."""
    for gradient in {f.line: f for f in penalties(facts)}.values():
        shape = gradient["shapes"][0] if gradient["shapes"] else []
        unit = program.units.get(gradient.file, program.main)
        function = around(unit, gradient.line)
        for call in facts.of("function.call"):
            if call.file != gradient.file or not call["args"] or around(unit, call.line) is not function:
                continue
            given, out = call["args"][0], call["out"]
            norm = call.subject in _NORMS or (call.subject == "sum" and _rooted(unit, call.line))
            if not norm or given != shape or len(shape) < 2 or not isinstance(out, list):
                continue
            if out in ([shape[0]], [shape[0], 1], [shape[0], *([1] * (len(shape) - 1))]):
                continue
            yield say(
                "G12", "error", call.line, file=call.file, facts=(gradient.id, call.id), out=out, shape=shape,
                said=": every pixel is pushed towards norm one." if len(out) > 1 else ".", gradient=gradient, call=call,
            )  # fmt: skip
            break


def _rooted(unit: Unit, line: int | None) -> bool:
    """Whether the square root of a sum is taken in the statement at a line."""
    return any(last_name(c) == "sqrt" for c in calls_at(unit, line))


_LOSSES = re.compile(r"softplus|sigmoid|log|cross_entropy|loss|criterion|relu", re.I)


@rule("G24", "The gradient of the loss is penalised, not that of the scores", family="gan")
def penalised_loss(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """R1 and the penalty of WGAN-GP bound the slope of the discriminator itself."""
    for unit in program:
        for call in unit.calls("*grad"):
            outputs, inputs = keyword(call, "outputs", 0), keyword(call, "inputs", 1)
            create = keyword(call, "create_graph")
            if outputs is None or inputs is None or not (isinstance(create, ast.Constant) and create.value is True):
                continue
            while isinstance(outputs, ast.Call) and last_name(outputs) in ("sum", "mean") and receiver(outputs):
                outputs = receiver(outputs)
            name = dotted(outputs)
            found = bound(unit, name, call.lineno, unit.function(call)) if name is not None else None
            words = [last_name(c) for c in unit.all(ast.Call, under=found[1])] if found is not None else []
            if found is None or name is None or not any(_LOSSES.search(word) for word in words):
                continue
            yield say(
                "G24", "warning", outputs.lineno if outputs is not None else call.lineno, file=unit.file, name=name,
                found=found, search=next(w for w in words if _LOSSES.search(w)), call=call,
            )  # fmt: skip


@rule("G13", "Batch normalisation in a critic with a gradient penalty", family="gan")
def coupled_samples(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The penalty is on the gradient of each sample; batch statistics make it depend on all others."""
    found = penalties(facts)
    for pair in pairs(facts) if found else ():
        tree = facts.first("module.tree", pair.discriminator)
        norms = [r for r in tree["modules"] if r["class"].startswith(("BatchNorm", "SyncBatch"))] if tree else []
        shapes = [s for f in found for s in f["shapes"]]
        fed = [first_tensor(c["in"]).get("shape") for c in facts.of("event.forward", pair.discriminator)]
        training = any(c["training"] for c in facts.of("event.forward", pair.discriminator))
        if not norms or tree is None or not training or not any(s in fed for s in shapes):
            continue
        lines = [
            (unit, call.lineno) for unit, call in creations(program, *{r["class"] for r in norms})
            if (holder := unit.class_around(call)) is None or holder.name == tree["class"]
        ]  # fmt: skip
        unit, line = lines[0] if lines else (program.main, placed(found[0].line))
        yield say(
            "G13", "warning", line, file=unit.file, facts=(tree.id, found[0].id), pair=pair, norms_2=len(norms),
            norms=norms, tree=tree, found=found,
        )  # fmt: skip


@rule("G22", "The interpolation is not drawn per sample", family="gan")
def shared_alpha(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The points between real and fake need one coefficient for each sample."""
    started = min((f.position for f in facts.of("event.forward")), default=0)  # what is drawn before fills weights
    for gradient in {f.line: f for f in penalties(facts)}.values():
        unit = program.units.get(gradient.file, program.main)
        function = around(unit, gradient.line)
        shape = gradient["shapes"][0] if gradient["shapes"] else []
        draws = [
            f for f in facts.of("random.draw")
            if f.file == gradient.file and started < f.position < gradient.position
            and around(unit, f.line) is function
            and re.search(r"rand$|uniform_?$|random$|rand_like$", f.subject)
        ]  # fmt: skip
        for draw in {f.line: f for f in draws}.values():
            size = 1
            for length in draw["shape"] or ():
                size *= length
            if len(shape) < 2 or (shape[0] < 2 and draw["shape"] != shape):
                continue
            if size == 1 and shape[0] > 1:
                what = f"one coefficient serves all {shape[0]} samples"
            elif size == shape[1] and size != shape[0] and len(draw["shape"]) == 1:
                what = f"{size} coefficients run along the wrong axis"
            elif draw["shape"] == shape and len(shape) == 4 and "dragan" not in unit.text.lower():
                what = "every pixel has a coefficient of its own, so the points do not lie between real and fake"
            else:
                continue
            yield say(
                "G22", "warning", draw.line, file=draw.file, facts=(draw.id, gradient.id), what=what, draw=draw,
                shape=shape, gradient=gradient,
            )  # fmt: skip


# ---------- last layers: the loss must fit what a network's outputs are


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


# ---------- what goes in and out of a generator: ranges, priors, labels, initial weights, and what the text promises


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
        if not trained or not any(_is_noise(facts, call) for call in own):
            continue
        for call in {c.line: c for c in own if c.line != trained[0].line}.values():
            if not _alike(trained[0], call):
                drawn = _drawn(facts, program, call)
                yield _another_prior(pair, trained[0], call, _draw_line(program, call), drawn)


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
    line = placed(call.line)
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


# ---------- promises: what the text says of the layers, and initialisations that reach none


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
