"""A model writes the driver of a program whose modules or functions did not run: asked, tried, told what failed.

A driver is kept when more of the program runs with it.  It is a stranger's code like any other: it runs in the same
confinement as the program, and opens no file to it that the program could not read.
"""

import re
from collections.abc import Iterator
from importlib import resources
from itertools import islice

from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.reading.check import CheckResult, driven
from bowerbird.reading.exercised import Exercised
from bowerbird.reading.proposing.material import (
    EXECUTIONS,
    Budget,
    Malformed,
    importable,
    known,
    told,
    unreached,
    with_left_out,
)
from bowerbird.reading.running.launch import Child
from bowerbird.reading.running.request import Driver
from bowerbird.reading.running.run import Run
from bowerbird.reading.source import parse, printable
from bowerbird.reading.tutor.endpoint import Endpoint, Message, tokens
from bowerbird.reading.tutor.prompt import mark_of

MOST_TRIES = 3
SHARE = 0.5
"""How much of the time for executions may be over when a driver is still put right."""
LONGEST_DRIVER = 12_000
LONGEST_ANSWER_TOKENS = 4_000
LEAST_LINES = 0.75
"""Where fewer of a program's lines ran, a driver is asked for although each of its parts has run."""
_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.M | re.S)


def wanted(exercised: Exercised) -> bool:
    """Whether a driver could show more: parts that never ran or only on guesses, or many lines that did not."""
    covered, of = exercised.covered
    return bool(exercised.never or exercised.guessed or not exercised.ran or covered < LEAST_LINES * of)


def drive(
    result: CheckResult, endpoint: Endpoint, child: Child, *, context: int = 16_000, budget: Budget | None = None
) -> CheckResult:  # fmt: skip
    """The result with a driver of the model's, where one is wanted and one of its answers reaches more of the program.

    What the endpoint answers beside that costs the driver and not the result.  After half of the budget it is told no
    more of what failed, so that time is left for hypotheses.
    """
    if not wanted(result.exercised) or any(driver.by == "user" for driver in result.run.drivers):
        return result
    began, left, unasked = result.run, "", []
    budget = budget or Budget(child, EXECUTIONS * result.seconds)
    try:
        messages = prompt(result, context - min(LONGEST_ANSWER_TOKENS, context // 4))
        for _ in range(MOST_TRIES):
            answer = "".join(endpoint.stream(messages, json_wanted=False, max_tokens=LONGEST_ANSWER_TOKENS))
            better, said = _tried(result, answer, endpoint.model, child)
            result, left = better or result, said
            if better and not said:
                break
            if budget.over(SHARE):
                unasked = [f"The driver was not put right by the model: half of {budget}."]
                break
            messages = [*messages[:2], {"role": "assistant", "content": answer}, {"role": "user", "content": said}]
    except (RunFailed, BowerbirdError) as error:
        left = str(error)
    used = result.run is not began
    unused = [] if used else [f"No driver of the model's was used: {left.splitlines()[0]}"]
    return with_left_out(result, [*unused, *unasked])


def _tried(result: CheckResult, answer: str, model: str, child: Child) -> tuple[CheckResult | None, str]:
    """The result with the driver of an answer, if it is better; and what the model should mend, empty if nothing."""
    try:
        driver = read(answer, model, result.program.source.main)
    except Malformed as wrong:
        return None, f"{str(wrong)[:1].upper()}{str(wrong)[1:]}."
    better, run = driven(result, driver, child)
    told = "\n".join(_told((better or result).exercised, run, better is not None))
    return better, told


def read(answer: str, model: str, main: str) -> Driver:
    """The driver of an answer: its last fenced block, or all of it; raises Malformed where that is no Python."""
    blocks = _FENCE.findall(answer) or [answer]
    text = max(blocks, key=len)
    if len(text) > LONGEST_DRIVER:
        raise Malformed(f"the script is longer than {LONGEST_DRIVER:,} characters")
    try:
        tree = parse(text, "the script")
    except BowerbirdError as error:
        raise Malformed(str(error).rstrip(".")) from None
    if not tree.body:
        raise Malformed("the answer holds no script")
    return Driver(f"written by {printable(model)[:60]}", text.strip() + "\n", main, by="model")


def _told(exercised: Exercised, run: Run, better: bool) -> Iterator[str]:
    """What became of a driver, for the model to mend; nothing where all that can be wished for ran."""
    fact = next((f for f in run.facts.of("run.driver") if f.subject.startswith("written by")), None)
    failures = list(fact["failures"] or ()) if fact is not None else [run.why_not or "it did not run"]
    if better and not failures and not exercised.never:
        return
    yield "The script ran, and more of the file with it." if better else "With the script no more of the file ran."
    yield from (f"- failed: {printable(str(failure))[:600]}" for failure in islice(failures, 4))
    yield from unreached(exercised)
    yield "Send the whole script again, mended; an exception that is the file's own fault may stay."


def prompt(result: CheckResult, room: int) -> list[Message]:
    """What is sent: the task, the file with its line numbers, what running it showed, and what lies beside it."""
    source = result.program.source
    names = importable(source)
    imported = f"It can also be imported, as {' or as '.join(names[:3])}." if names else ""
    template = resources.files(__package__).joinpath("driver.txt").read_text("utf-8")
    mark = mark_of(result.program.main.text)
    never = [(first, last) for file, first, last in result.exercised.missed if file == source.main]
    task = template.format(imported=imported, seconds=result.seconds, mark=mark)
    return [{"role": "system", "content": task}, told(result, known(result), room - tokens(task), never)]
