"""What the general experiments found: each knows a property that any right program has, and no pattern of the text."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding, Severity
from bowerbird.reading.liveness import lost_values
from bowerbird.reading.origins import function_at
from bowerbird.reading.program import Program
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.diffusion import wrong_tables
from bowerbird.reading.rules.messages import placed, say
from bowerbird.reading.rules.places import first, unit_of
from bowerbird.reading.running.run import Run


def _failing(facts: FactStore, name: str) -> Iterator[Fact]:
    return (fact for fact in facts.of(f"property.{name}") if fact["holds"] is False)


def _sentence(fact: Fact) -> str:
    said = str(fact["said"])
    return f"{said[:1].upper()}{said[1:]} ({fact.id})."


@dataclass(frozen=True)
class Experiment:
    """A rule that tells where a property of the same name fails, and nothing else; ``weigh`` says how sure that is."""

    id: str
    title: str
    family: str
    property: str
    weigh: Callable[[Fact], Severity | None]

    def __call__(self, program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
        for fact in _failing(facts, self.property):
            severity = self.weigh(fact)
            if severity is not None:
                yield say(self.id, severity, fact.line, fact=fact, said=_sentence(fact))


def _heeded(fact: Fact) -> Severity | None:
    if fact["how"] == "value":
        return "error" if fact["module"] else "warning"
    if fact["how"] == "replaced" and fact["module"]:
        return "error"
    return "info" if fact["how"] == "unread" else None


def _surely(fact: Fact) -> Severity:
    return "error"


def _likely(fact: Fact) -> Severity:
    return "warning"


def _coupled(fact: Fact) -> Severity:
    return "error" if fact["module"] and fact["mixes"] else "warning"


EXPERIMENTS = (
    Experiment("P08", "A call changes its input in place, and the input is used again", "modules", "in place", _likely),
    Experiment("P10", "No gradient reaches what the output depends on", "modules", "learning", _likely),
    Experiment("S08", "Randomness is on in evaluation and off in training", "sampling", "mode", _surely),
    Experiment("V03", "In evaluation the latent is not the posterior mean", "vae", "evaluation", _surely),
    Experiment("X18", "Examples of a batch depend on one another", "general", "independence", _coupled),
    Experiment("X20", "An input has no effect", "general", "heeded", _heeded),
    Experiment("X22", "A log-determinant is not that of the Jacobian", "general", "jacobian", _surely),
    Experiment("X23", "An inverse does not undo what it inverts", "general", "inverse", _likely),
)
for experiment in EXPERIMENTS:
    rule(experiment.id, experiment.title, family=experiment.family, exact=True)(experiment)


@rule("X05", "The result of an operation is thrown away", family="general", exact=True)
def discarded(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A statement that only computes: ``x.clamp(0, 1)`` changes nothing."""
    for fact in _failing(facts, "dataflow"):
        for row in fact["unused"]:
            if row["how"] == "discarded":
                yield say(
                    "X05",
                    "warning" if row["kind"] == "module" else "error",
                    row["line"],
                    text=row["text"][:60],
                    fact=fact,
                )


@rule("X08", "What is computed is never used", family="general")
def unused(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A term of the loss that is left out, a noise that is drawn and not added; and a value that no way through its
    function reads, which holds whatever that is called with."""
    lost = {(unit.file, value.line): value for unit in program for value in lost_values(unit)}
    for fact in _failing(facts, "dataflow"):
        for row in fact["unused"]:
            known = lost.get((fact.file or "", row["line"]))
            if row["how"] != "never read" or (known is not None and known.again):
                continue
            lost.pop((fact.file or "", row["line"]), None)
            loss = " and enters no loss: nothing is trained by it" if row["graph"] else ", and nothing depends on it"
            yield say(
                "X08", "info" if row["kind"] == "filled" else "warning", row["line"], row=row, loss=loss,
                text=row["text"][:80], fact=fact,
            )  # fmt: skip
    for (file, line), value in lost.items():
        yield say("X08b", "warning" if value.again else "info", line, file=file, lost=value)


@rule("X29", "A parameter is taken and not handed on", family="general", exact=True)
def left_out(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``bias=False`` of a constructor whose only layer is ``nn.Linear(width, width)``."""
    for fact in facts.of("probe.handed"):
        if fact.file in program.units:
            yield say("X29" if fact["how"] == "left out" else "X29b", "warning", fact.line, fact=fact)


_REDUCTIONS = frozenset("mean sum prod amax amin logsumexp std var norm softmax log_softmax cumsum".split())


@rule("X19", "A single number is reduced again", family="general")
def reduced_again(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``torch.mean(loss, dim=0)`` of what was summed without ``dim``: it was meant to be one value per example."""
    for fact in facts.of("function.call"):
        args, kwargs = fact["args"] or [None], fact["kwargs"] or {}
        along = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if fact.subject in _REDUCTIONS and fact["direct"] and args[0] == [] and isinstance(along, int):
            yield say("X19", "warning", fact.line, fact=fact, function=fact.subject, along=along)


@rule("X26", "A known function, written out", family="general")
def equivalent(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A loss that gives the numbers of one of PyTorch's, whatever it is called."""
    for fact in facts.of("probe.equivalent"):
        yield say("X26", "ok", fact.line, fact=fact)


@rule("P09", "What was trained is not saved", family="parameters", exact=True)
def unsaved(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A tensor that training changes, beside parameters and buffers."""
    for fact in _failing(facts, "state"):
        name = str(fact["lost"][0]).rpartition(".")[2]
        unit = unit_of(program, fact)
        lines = [line for line, text in enumerate(unit.lines, 1) if f"self.{name} =" in text]
        yield say(
            "P09", "error", first(lines, fact.line), file=fact.file, facts=(fact.id,), name=name,
            said=_sentence(fact),
        )  # fmt: skip


@rule("M01", "A number that is reported depends on the batch size", family="reporting", exact=True)
def batch_size(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Sums over examples belong over the number of examples, means of batches over the number of batches."""
    for fact in facts.of("property.batch size"):
        unit = unit_of(program, fact)
        function = function_at(unit, fact.line)
        divided = [n.lineno for n in unit.all(ast.BinOp, ast.AugAssign, under=function) if isinstance(n.op, ast.Div)]
        line = max(divided, default=placed(fact.line))
        said = _sentence(fact)
        if fact["holds"]:
            yield Finding("M01", "ok", line, f"What {fact.subject} reports is an average.", said, file=fact.file)
            continue
        yield say("M01", "error", line, fact=fact, said=said)


@rule("D14", "The network is trained on no path of diffusion or flow matching", family="diffusion", exact=True)
def no_path(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """What the network is given in training, taken apart into data and noise at three times."""
    if wrong_tables(facts) or any(abs(f["sum_of_squares"] - 1) > 2e-3 for f in facts.of("probe.noising")):
        return  # D03 says which table or function it is
    for fact in _failing(facts, "path"):
        yield say("D14" if fact["missing"] else "D14b", "error" if fact["missing"] else "warning", fact.line,
                  fact=fact, said=_sentence(fact))  # fmt: skip


@rule("D15", "The target does not belong to the path", family="diffusion")
def foreign_target(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """What the network's answer is compared with, taken apart likewise."""
    for fact in _failing(facts, "target"):
        yield say("D15", "warning", fact.line, fact=fact, said=_sentence(fact))
