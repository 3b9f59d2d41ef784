"""Rules of values: modules taken for tensors, shapes that are broadcast, types that do not fit, data and loss terms."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.origins import at, bound, calls_at
from bowerbird.reading.program import Program, Unit, dotted, keyword, last_name, receiver
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

_MODULE_AS_TENSOR = (
    re.compile(r"^'(\w+)' object has no attribute '(\w+)'$"),
    re.compile(r"unsupported operand type\(s\) for [^:]+: '(\w+)' and|and '(\w+)'$"),
    re.compile(r"(?:must be|expected|to be) (?:a )?Tensor[^.]*?,? (?:not|but got|but found) (?:<class '[\w.]*?)?(\w+)"),
)


@rule("X02", "An operation on tensors is asked of a module", family="general", exact=True)
def module_as_tensor(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """``layer.pow(2)`` instead of ``layer.weight.pow(2)``."""
    kinds = {row["class"] for tree in facts.of("module.tree") for row in tree["modules"] or ()}
    told: set[tuple[str, int | None]] = set()
    for error in facts.of("run.exception"):
        if error.subject not in ("AttributeError", "TypeError") or error.line is None or error["phase"] != "program":
            continue
        found = [m for m in (p.search(error["message"]) for p in _MODULE_AS_TENSOR) if m is not None]
        named = {g for m in found for g in m.groups() if g} & kinds
        attribute = found[0].group(2) if found and found[0].re.groups == 2 else ""
        if not named or attribute in ("step", "zero_grads", "param_groups", "zero_gradient"):
            continue
        unit = program.units.get(error.file, program.main)
        defined = {n for i in unit.classes.values() for n in i.methods} | {
            n.attr for n in unit.all(ast.Attribute) if isinstance(n.ctx, ast.Store)
        }  # fmt: skip
        if not (attribute in _TENSOR_METHODS or error.subject == "TypeError") or attribute in defined:
            continue
        told.add((error.file, error.line))
        yield say(
            "X02", "error", error.line, file=error.file, facts=(error.id,), named_2=sorted(named)[0],
            message=error["message"][:140], error=error,
        )  # fmt: skip

    yield from _initialised(program, told)


def _initialised(program: Program, told: set[tuple[str, int | None]]) -> Iterator[Finding]:
    """``nn.init.zeros_(self.layer)``: the layer's weight is meant."""
    for unit in program:
        for call in unit.calls("*init.*_"):
            name = dotted(call.args[0]) if call.args else None
            kind = unit.modules.get(name or "")
            if kind is not None and (unit.file, call.lineno) not in told:
                yield say("X02b", "warning", call.lineno, file=unit.file, func=dotted(call.func), name=name, kind=kind)


_TENSOR_METHODS = frozenset(
    "pow sum mean abs norm sqrt exp log view reshape size shape detach item backward grad data squeeze "
    "unsqueeze clamp max "
    "min numel std var dim ndim T t matmul mm mul add sub div cpu numpy clone dot permute transpose flatten".split()
)


@rule("X03", "Shapes are broadcast against each other by mistake", family="general")
def broadcast(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A column against a row: (B, 1) and (B,) make (B, B), and every prediction is compared with every target."""
    seen: set[tuple[str, int | None]] = set()
    for warning in facts.of("run.warning"):
        if "Using a target size" in warning["message"] and (warning.file, warning.line) not in seen:
            seen.add((warning.file, warning.line))
            yield say(
                "X03c", "error", warning.line or 1, file=warning.file, facts=(warning.id,),
                message=warning["message"][:150], warning=warning,
            )  # fmt: skip
    for fact in facts.of("tensor.broadcast"):
        first, second = fact["shapes"]
        if (fact.file, fact.line) in seen or not _column_against_row(first, second) or not _subtracts(program, fact):
            continue
        seen.add((fact.file, fact.line))
        yield say(
            "X03", "error", fact.line or 1, tuple_2=tuple(first), tuple_3=tuple(second), out=tuple(fact["out"]),
            fact=fact, first=first, second=second,
        )  # fmt: skip
    yield from list(_channels(facts)) or {f.line: f for f in _grey(program)}.values()
    guessed = any("stand-in images" in s.reason for s in run.stand_ins)
    for error in facts.of("run.exception"):
        if "Using a target size" in error["message"] and error["phase"] == "program" and error.line:
            yield say(
                "X03d", "warning" if guessed else "error", error.line, file=error.file, facts=(error.id,),
                message=error["message"][:150], error=error,
            )  # fmt: skip


def _channels(facts: FactStore) -> Iterator[Finding]:
    """Three means for a grey picture: old versions of torchvision took the first, newer ones raise."""
    for fact in facts.of("transform.mismatch"):
        yield say("X03b", "warning", fact.line or 1, fact=fact, which="s" if fact["channels"] > 1 else "")


_GREY = ("MNIST", "FashionMNIST", "KMNIST", "EMNIST", "QMNIST", "USPS")


def _grey(program: Program) -> Iterator[Finding]:
    """In the text: three means for a data set of grey pictures, where its transform was not seen to run."""
    for unit in program:
        for call in unit.all(ast.Call):
            given = keyword(call, "transform") if last_name(call) in _GREY else None
            name = dotted(given)
            found = bound(unit, name, call.lineno, unit.function(call)) if name is not None else None
            pipeline = found[1] if found is not None else given
            if pipeline is None or re.search("Grayscale|Lambda|RGB", ast.unparse(pipeline)):
                continue
            for inner in unit.calls("Normalize", under=pipeline):
                means = unit.constant(inner.args[0]) if inner.args else None
                if isinstance(means, tuple) and len(means) == 3:
                    yield say("X03e", "warning", inner.lineno, file=unit.file, last_name_2=last_name(call), call=call)


def _column_against_row(first: list[int], second: list[int]) -> bool:
    """(…, n, 1) against (n,): the same number of elements, and one axis more."""
    longer, shorter = (first, second) if len(first) > len(second) else (second, first)
    return len(longer) == len(shorter) + 1 and len(shorter) >= 1 and longer[-1] == 1 and longer[:-1] == shorter and (
        shorter[-1] > 1
    )  # fmt: skip


def _subtracts(program: Program, fact: Fact) -> bool:
    """Whether the broadcast is a difference that becomes a loss, and no axis was added on purpose."""
    unit = program.units.get(fact.file, program.main)
    statement = at(unit, fact.line)
    text = ast.unparse(statement) if statement is not None else ""
    if "None" in text or "unsqueeze" in text or "newaxis" in text or "cdist" in text:
        return False
    loss = fact.subject.endswith("_loss")
    return loss or (
        fact.subject in ("sub", "__sub__", "__rsub__") and bool(re.search(r"pow|\*\*|abs|mean|square|loss", text))
    )


_TYPES = re.compile(
    r"same dtype|expected scalar type|should be the same|expected dtype|Found dtype|same device"
    r"|Expected object of (scalar|device)"
    r"|expected m1 and m2 to have the same dtype|Input type .* and weight type", re.I
)  # fmt: skip


@rule("X04", "Tensors of different type or device meet", family="general", exact=True)
def mismatch(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Double from NumPy against single weights; a tensor left on the CPU beside a network on the GPU."""
    for error in facts.of("run.exception", "RuntimeError"):
        if error["phase"] != "program" or not _TYPES.search(error["message"]) or not error["stack"]:
            continue
        file, line = _where_from(program, error)
        half = any(s.name == "CUDA" for s in run.stand_ins) and re.search(r"half|float16", error["message"], re.I)
        yield say(
            "X04", "warning" if half else "error", line, file=file, facts=(error.id,), error=error,
            message=error["message"][:130],
        )  # fmt: skip
    for unit in program:
        yield from _left_on_cpu(unit)


def _where_from(program: Program, error: Fact) -> tuple[str, int]:
    """The line that made the tensor that a failing call was given, through one name."""
    file, line, _ = error["stack"][0]
    for file, line, _ in error["stack"]:
        unit = program.units.get(file, program.main)
        if any(dotted(c.func) in unit.modules for c in calls_at(unit, line)):
            break
    unit = program.units.get(file, program.main)
    for call in calls_at(unit, line):
        if dotted(call.func) not in unit.modules:
            continue
        for argument in call.args:
            name = dotted(argument)
            found = bound(unit, name, line, unit.function(call)) if name else None
            if found is not None and re.search(r"numpy|np\.|double|float64|linspace", ast.unparse(found[1])):
                return file, found[0]
    return file, line


_FRESH = frozenset(
    "randn rand zeros ones empty full FloatTensor Tensor tensor from_numpy arange linspace randint".split()
)


def _left_on_cpu(unit: Unit) -> Iterator[Finding]:
    """Fresh tensors that are given to a network on the GPU without being moved there; nothing here can observe that."""
    if "set_default_tensor_type" in unit.text or "set_default_device" in unit.text:
        return
    moved = _on_gpu(unit)
    for call in unit.all(ast.Call):
        name = dotted(call.func)
        if name not in moved or not call.args:
            continue
        for argument in call.args:
            given, line = argument, argument.lineno
            if isinstance(argument, ast.Name):
                found = bound(unit, argument.id, call.lineno, unit.function(call))
                if found is None or found[0] >= call.lineno:
                    continue
                line, given = found
            if _fresh(unit, given):
                yield say(
                    "X04b", "warning", line, file=unit.file, name=name, moved_2=moved[name],
                    given_2=ast.unparse(given)[:70],
                )  # fmt: skip


def _on_gpu(unit: Unit) -> dict[str, int]:
    """Networks that are moved to the GPU unconditionally, and where."""
    found = {}
    for name, values in unit.assignments.items():
        for value, statement in values:
            if name in unit.modules and re.search(r"\.cuda\(\)|\.to\(['\"]cuda", ast.unparse(value)):
                found[name] = statement.lineno
    for call in unit.calls("*.cuda"):
        owner = dotted(receiver(call))
        conditional = any(isinstance(a, ast.If) for a in unit.ancestors(call))
        if owner in unit.modules and not conditional:
            found.setdefault(str(owner), call.lineno)
    return found


def _fresh(unit: Unit, node: ast.expr) -> bool:
    text = ast.unparse(node)
    if re.search(r"device|\.cuda\(|\.to\(|\.type\(|cuda\.", text):
        return False
    while isinstance(node, ast.Call):
        word = last_name(node)
        if word in _FRESH and (dotted(node.func) or "").startswith("torch."):
            return True
        inner = receiver(node)
        node = (
            node.args[0]
            if word == "Variable" and node.args
            else inner
            if isinstance(inner, ast.Call)
            else ast.Constant(0)
        )
    return False


_ORDERED = ("binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "nll_loss", "kl_div")


@rule("X12", "Prediction and target are exchanged", family="general")
def exchanged(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Losses that are not symmetric take the prediction first; only that one should carry gradients."""
    seen = set()
    for loss in facts.of("loss.call"):
        first, second = loss["input"], loss["target"]
        if loss.subject not in _ORDERED or (loss.file, loss.line) in seen:
            continue
        if not isinstance(first, dict) or not isinstance(second, dict) or first.get("requires_grad"):
            continue
        if second.get("requires_grad"):
            seen.add((loss.file, loss.line))
            yield say("X12", "warning", loss.line or 1, file=loss.file, facts=(loss.id,), loss=loss)
