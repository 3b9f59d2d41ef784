"""Rules of adversarial training: whose gradients reach whom, who is stepped, and whether the two sides oppose."""

import ast
from collections.abc import Iterator
from statistics import fmean

from bowerbird.reading.adversaries import Pair, Score, first_tensor, games, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import argument_line, calls_at, loss_line
from bowerbird.reading.patching import Patch, replace_line
from bowerbird.reading.phases import contributions, did_nothing, forwards, owners_of, phases, steps_of
from bowerbird.reading.program import Program, Unit, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.running.run import Run


def unit_of(program: Program, fact: Fact) -> Unit:
    """The file that a fact was seen in."""
    return program.units.get(fact.file, program.main)


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


@rule("G02", "The discriminator's loss reaches the generator", family="gan")
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
            yield Finding(
                "G02", "info", fake.line or 1,
                f"The fakes are not detached where {pair.discriminator} is trained; nothing comes of it but "
                "wasted work.",
                f"{reached}, which are cleared before its own step.", "Detach them: D(fake.detach()).", fake.file,
                known,
                patch,
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
                yield Finding(
                    "G04", "error", last[-1].line or 1,
                    f"The scores of {pair.discriminator} carry no gradient here, so the loss cannot train anything.",
                    f"backward() at line {error.line} stopped: {error['message'][:80]} ({error.id}).",
                    "Compute the generator's loss without detach() and outside no_grad().", last[-1].file,
                    (last[-1].id, error.id),
                )  # fmt: skip


def _others_scored(pair: Pair, call: Fact, backward: Fact, step: Fact) -> Finding:
    return Finding(
        "G04", "error", call.line or 1,
        f"The generator's loss scores a batch that {pair.generator} did not make, so no gradient reaches it.",
        f"The input of line {call.line} comes from no call of {pair.generator} ({call.id}); backward ({backward.id}) "
        f"reached {', '.join(sorted(filter(None, backward['grads'] or {}))) or 'nothing'}, and "
        f"{step.subject}.step() found "
        f"no gradient ({step.id}).",
        "Score G(z) here.", call.file, (call.id, backward.id, step.id),
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
        return Finding(
            "G03", "error", call.line or 1,
            f"The new batch of line {newer[0].line} is never scored; the old, detached one is, so no gradient reaches "
            f"{pair.generator}.",
            f"The output of line {newer[0].line} enters no other network ({newer[0].id}); line {call.line} scores the "
            f"batch of line {source.line} ({call.id}); {nothing}.",
            "Score the new batch.", call.file, (newer[0].id, call.id, step.id),
        )  # fmt: skip
    hidden = not source["grad_enabled"]
    place = source if hidden and source.position > (call.position - 400) else call
    why = "was made under no_grad()" if hidden else "is detached"
    return Finding(
        "G04", "error", place.line or 1,
        f"The batch that {pair.discriminator} scores in the generator's step {why}: no gradient of this loss reaches "
        f"{pair.generator}.",
        f"The scores of line {call.line} are of a batch without gradient ({call.id}); backward ({backward.id}) reached "
        f"{', '.join(sorted(filter(None, backward['grads'] or {}))) or 'nothing'}; {nothing}.",
        "Score G(z) itself where the generator is trained." if hidden else "Remove the detach() in this step.",
        place.file, (call.id, backward.id, step.id), None if hidden else _attached(program, call),
    )  # fmt: skip


def _attached(program: Program, call: Fact) -> Patch | None:
    unit = unit_of(program, call)
    return replace_line(unit.file, call.line or 1, ".detach()", "", unit.lines, label="G04: no detach")


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


@rule("G05", "The labels push the wrong way", family="gan")
def wrong_labels(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """The generator must want the opposite of what the discriminator wants of fakes; real and fake must differ."""
    yield from _opposition(program, facts, compared=True)


@rule("G06", "The sign of an adversarial objective is wrong", family="gan")
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
            yield _fine(pair, real, fake, made, "G05" if compared else "G06", compared)
            continue
        culprit, message = wrong
        if (culprit[0].loss is not None) == compared:
            yield _wrong(program, pair, culprit, message, "G05" if compared else "G06")


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


def _wrong(program: Program, pair: Pair, culprit: list[Score], message: str, rule_id: str) -> Finding:
    score = culprit[0]
    unit = unit_of(program, score.backward)
    line = score.loss.line if score.loss is not None else loss_line(unit, score.backward.line)
    known = (score.call.id, score.backward.id, *((score.loss.id,) if score.loss is not None else ()))
    side = f"{score.call.subject} scored {'fakes' if score.fake else 'real samples'} at line {score.call.line}"
    file = score.loss.file if score.loss is not None else unit.file
    return Finding(
        rule_id, "error", line or 1,
        f"Both sides pull the same way: {message}.",
        f"{side} ({score.call.id}); the gradient of the loss of line {score.backward.line} at these scores is "
        f"{_gradient(score):+.3g} on average, so a smaller loss wants "
        f"{'larger' if score.wish > 0 else 'smaller'} scores "
        f"({score.backward.id}).",
        "Use the label of real samples in the generator's step." if rule_id == "G05" and score.fake
        else "Flip the sign of this term.", file, known,
    )  # fmt: skip


def _gradient(score: Score) -> float:
    rows = score.backward["pulls"] or ()
    return float(next((r["mean"] for r in rows if r["call"] == score.call["call"]), 0.0))


def _fine(pair: Pair, real: list[Score], fake: list[Score], made: list[Score], rule_id: str, compared: bool) -> Finding:
    return Finding(
        rule_id, "ok", made[0].backward.line or 1,
        f"{pair.generator} and {pair.discriminator} want opposite things of the scores of fakes.",
        f"Of real samples {fmean(s.wish for s in real):+.2f}, of fakes {fmean(s.wish for s in fake):+.2f}, of the "
        f"generator's {fmean(s.wish for s in made):+.2f} (+1: all larger; {real[0].backward.id}, "
        f"{made[0].backward.id}).",
        "", made[0].backward.file, (real[0].backward.id, made[0].backward.id),
    )  # fmt: skip


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
    return Finding(
        "G16", "warning", argument_line(unit, loss.line, 1, ("target",)) or 1,
        f"Labels are smoothed on the wrong side: {what}, which {why}.",
        f"The loss of line {loss.line} was given targets with mean {loss['target']['mean']:.3g} ({loss.id}).",
        "Smooth the labels of real samples in the discriminator's loss only.", unit.file, (loss.id,),
    )  # fmt: skip


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
                yield Finding(
                    "G23", "warning", drawn[0].line or line or 1,
                    f"{pair.generator} is trained on the same batch of noise in every step.",
                    f"The {len(calls)} calls of line {line} were given identical numbers ({calls[0].id}, "
                    f"{calls[-1].id}), "
                    f"drawn once ({drawn[0].id}).",
                    "Draw new noise in every step.", drawn[0].file, (calls[0].id, calls[-1].id, drawn[0].id),
                )  # fmt: skip
