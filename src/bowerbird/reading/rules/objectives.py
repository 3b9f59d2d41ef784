"""Rules of adversarial objectives: whether both sides oppose each other, by the gradients at the scores."""

from collections.abc import Iterator
from statistics import fmean

from bowerbird.reading.adversaries import Pair, Score, games, pairs
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import argument_line, loss_line
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.gan import stepping
from bowerbird.reading.rules.messages import say
from bowerbird.reading.rules.places import unit_of
from bowerbird.reading.running.run import Run


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
        said = "the discriminator lowers the scores of real samples and raises those of fakes, as the generator does"
        return real, f"{said} (or else the generator's loss has the sign that does not fit)"
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
