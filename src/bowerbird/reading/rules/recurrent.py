"""Rules of recurrent networks: the state across batches, which axis is time, padding at the end."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Edit, Patch
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in, targets_of
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.places import function_at, unit_of
from bowerbird.reading.running.run import Run

_STATE = re.compile(
    r"^(h|hidden|state|states|hx|hc|h_?0|c_?0|hidden_state|rnn_state|h_state|memory|mem|carry|prev_state|hiddens)\d?$"
)
_RECURRENT = re.compile(r"RNN|LSTM|GRU|Cell$")


def _recurrent(program: Program) -> bool:
    return any(_RECURRENT.search(last_name(c)) for unit in program for c in unit.all(ast.Call)) or any(
        _RECURRENT.search(base)
        for unit in program
        for info in unit.classes.values()
        for base in (info.name, *info.bases)
    )


def _carried(unit: Unit, loop: ast.For | ast.While) -> list[tuple[str, ast.stmt]]:
    """States that a loop hands from one round to the next: given to a call and assigned from its result."""
    found = []
    for statement in unit.all(ast.Assign, under=loop):
        if not isinstance(statement.value, ast.Call):
            continue
        given = {dotted(a) for a in [*statement.value.args, *(k.value for k in statement.value.keywords)]}
        for target in targets_of(statement):
            name = dotted(target)
            if name and name in given and _STATE.match(name.rpartition(".")[2]):
                found.append((name, statement))
    return found


@rule("R01", "The state is carried over with its graph", family="recurrent")
def graph_carried(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Autograd walks into the batch before: it fails, or takes longer with every step."""
    failed = next(
        (f for f in run.exceptions() if "backward through the graph a second time" in str(f["message"])), None
    )
    growing = _growing(facts)
    if not _recurrent(program) or (failed is None and growing is None):
        return
    for unit in program:
        for loop in unit.training_loops:
            for name, statement in _carried(unit, loop):
                discarded = [s for s in unit.all(ast.Expr, under=loop) if isinstance(s.value, ast.Call) and name in names_in(s.value)
                             and re.search("repackage|detach", ast.unparse(s.value)) and not re.search("detach_", ast.unparse(s.value))]  # fmt: skip
                renewed = [
                    s
                    for s in unit.all(ast.Assign, under=loop)
                    if any(dotted(t) == name for t in targets_of(s)) and s is not statement
                ]
                if renewed and not discarded:
                    continue
                fact = failed or growing
                assert fact is not None
                line = discarded[0].lineno if discarded else statement.lineno
                text = unit.lines[line - 1]
                indent = text[: len(text) - len(text.lstrip())]
                patch = (
                    Patch(
                        "R01: keep the detached state",
                        (Edit(unit.file, line, line, (f"{indent}{name} = {text.strip()}",)),),
                    )
                    if discarded
                    else None
                )
                yield Finding(
                    "R01", "error", line,
                    f"The detached state is thrown away: {name} keeps the graph of the batches before." if discarded else
                    f"{name} is carried into the next batch with its graph.",
                    f"PyTorch raised at line {fact.line}: {str(fact['message'])[:60]} ({fact.id})." if fact is failed else
                    f"The graph of the loss grew from step to step, to {fact['nodes']} nodes ({fact.id}).",
                    f"Detach the state between batches: {name} = {name}.detach().", file=unit.file, facts=(fact.id,), patch=patch,
                )  # fmt: skip
                return


def _growing(facts: FactStore) -> Fact | None:
    """The last backward pass, if the graph grew with every one of at least four."""
    passes = [f for f in facts.of("event.backward") if isinstance(f["nodes"], int)]
    same = [f for f in passes if f.line == passes[0].line][:8] if passes else []
    sizes = [f["nodes"] for f in same]
    if len(sizes) >= 4 and all(b > a * 1.1 for a, b in zip(sizes, sizes[1:4], strict=False)):
        return same[-1]
    return None


@rule("R02", "The state of one sequence begins the next", family="recurrent")
def state_kept(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A state that lives on while the batches are shuffled or drawn at random."""
    if not _recurrent(program):
        return
    shuffled = next((f for f in facts.of("data.loader") if f["shuffle"]), None)
    for unit in program:
        for statement in unit.all(ast.Assign):
            text = ast.unparse(statement)
            names = [dotted(t) or "" for t in targets_of(statement)]
            own = [n for n in names if _STATE.match(n.rpartition(".")[2])]
            if not own or not re.search("detach|repackage|\\.data", text) or own[0] not in ast.unparse(statement.value):
                continue
            source = _random_source(unit, statement)
            loop = unit.loops(statement)
            over_loader = shuffled is not None and bool(loop)
            if not over_loader and source is None or _reset_inside(unit, statement, own[0]):
                continue
            why = (
                f"the loader shuffles ({shuffled.id})"
                if over_loader and shuffled
                else f"{source} draws new examples every time"
            )
            facts_used = (shuffled.id,) if over_loader and shuffled else ()
            yield Finding(
                "R02", "warning", statement.lineno, f"{own[0]} of one batch begins the next, although their sequences have nothing to do with each other.",
                f"The state is only detached here, not reset, and {why}.", "Start every independent batch from a zero state.",
                file=unit.file, facts=facts_used,
            )  # fmt: skip
            return


def _random_source(unit: Unit, statement: ast.stmt) -> str | None:
    """A function of the program that is called beside a statement and makes a batch from random numbers."""
    block: ast.AST = (unit.loops(statement) or [unit.function(statement) or unit.tree])[0]
    for call in unit.all(ast.Call, under=block):
        maker = unit.functions.get(last_name(call))
        if maker is not None and not re.search(
            "init|forward|train|step|detach|repackage|loss|hidden|state", maker.name
        ):
            words = {last_name(c) for c in unit.all(ast.Call, under=maker)}
            if words & {"rand", "randn", "randint", "uniform", "choice", "sample"} and re.search(
                "batch|data|wave|sample|seq|example|make|get", maker.name
            ):
                return maker.name
    return None


def _reset_inside(unit: Unit, statement: ast.stmt, name: str) -> bool:
    block: ast.AST = (unit.loops(statement) or [unit.function(statement) or unit.tree])[0]
    for other in unit.all(ast.Assign, under=block):
        if other is not statement and any(dotted(t) == name for t in targets_of(other)):
            if re.search("zeros|init|None|reset", ast.unparse(other)):
                return True
    return False


@rule("R03", "A recurrent layer runs along the batch", family="recurrent")
def batch_first(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """One example was exchanged and others answered differently."""
    for fact in facts.of("probe.mixing"):
        flow = facts.first("probe.causality", fact.subject)
        shift = flow["shift"] if flow is not None else None
        along_batch = bool(
            flow and isinstance(shift, dict) and shift["axis"] == 1 and flow["column_after"] and not flow["row_after"]
        )
        size = fact["in"][0]
        per_example = (
            len(fact["out"]) == 2
            and any(t[:1] == [size] for t in fact["targets"] or ())
            and fact["layer_in"]
            and fact["layer_in"][0] == size
        )
        batches = [p.get("shape", []) for f in facts.of("data.batch") for p in f["parts"] or () if isinstance(p, dict)]
        loaded = (
            any(shape[:2] == fact["in"][:2] and shape[0] != shape[1] for shape in batches if len(shape) >= 2)
            and fact["layer_in"]
            and fact["layer_in"][0] == size
        )
        if not fact["mixed"]:
            yield Finding(
                "R03",
                "ok",
                fact.line or 1,
                "Examples of a batch do not influence each other.",
                f"({fact.id})",
                file=fact.file,
                facts=(fact.id,),
            )
            continue
        if fact["batch_first"] or not (along_batch or per_example or loaded):
            continue
        unit = unit_of(program, fact)
        call = next(
            (
                c
                for c in unit.all(ast.Call)
                if last_name(c) in ("LSTM", "GRU", "RNN") and c.lineno <= (fact.line or 0) <= (c.end_lineno or 0)
            ),
            None,
        )
        line = fact.line or 1
        text = unit.lines[line - 1]
        whole = call is not None and call.end_lineno == call.lineno == line
        patch = None
        if whole and call is not None and call.end_col_offset:
            raw = text.encode()
            new = (raw[: call.end_col_offset - 1] + b", batch_first=True" + raw[call.end_col_offset - 1 :]).decode()
            patch = Patch("R03: batch_first", (Edit(unit.file, line, line, (new,)),))
        yield Finding(
            "R03", "error", line, "The layer expects time first and is given the batch first: it runs along the batch.",
            f"Exchanging example 0 of an input of shape {fact['in']} changed the answers to others ({fact.id}).",
            "Pass batch_first=True.", file=fact.file, facts=(fact.id,), patch=patch,
        )  # fmt: skip


@rule("R04", "The last output of padded sequences is padding", family="recurrent")
def last_is_padding(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """More padding changes the answer, and the last position is taken on the way."""
    if not _recurrent(program) or any(c for unit in program for c in unit.calls("pack_padded_sequence")):
        return
    for fact in facts.of("probe.padding"):
        if fact["change"] < 1e-4 or fact["means"]:
            continue
        if fact["lasts"]:
            place = fact["lasts"][-1]
            line, file = place["line"], place["file"]
        else:
            unit = unit_of(program, fact)
            holder = next(
                (
                    f
                    for f in unit.functions.values()
                    if f.name == "forward" and (fact.line or 0) <= f.lineno and function_at(unit, f.lineno)
                ),
                None,
            )
            line, file = (holder.lineno if holder else fact.line or 1), fact.file
        yield Finding(
            "R04", "error" if fact["lasts"] else "warning", line, "The output at the end of the padded batch is taken, which is padding for shorter sequences.",
            f"Three more padding tokens changed the answer by {fact['change']:.2g} of its size; {fact['padded']:.0%} of the batch is padding ({fact.id}).",
            "Gather the output at length - 1, or pack the sequences.", file=file, facts=(fact.id,),
        )  # fmt: skip
