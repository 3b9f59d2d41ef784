"""Rules of sizes: parameters that broadcasting hides, and numbers of parameters that the text gives."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, last_name
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

_PER_CHANNEL = re.compile(
    r"(per|for each|each|every|for every|of each)[ -](channel|feature|dimension|unit)|channel-?wise|每个通道|逐通道",
    re.I,
)
_WIDTHS = re.compile(
    r"^(n_?)?(channels?|c|dim|features|num_features|width|n_channels|d_model|hidden_size|planes|ch)$", re.I
)


@rule("P05", "One parameter serves all channels", family="modules")
def one_for_all(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A parameter of one element that is said to have one for each channel: broadcasting hides the difference."""
    for unit in program:
        for info in unit.classes.values():
            init = info.methods.get("__init__")
            if not info.is_module or init is None:
                continue
            said = _PER_CHANNEL.search(ast.get_docstring(info.node) or "")
            arguments = [a.arg for a in init.args.args[1:]]
            read = {n.id for n in unit.all(ast.Name, under=init) if isinstance(n.ctx, ast.Load)}
            unread = [a for a in arguments if _WIDTHS.match(a) and a not in read]
            for call in unit.calls("*Parameter", under=init):
                shape = _shape(unit, call)
                comment = unit.comments.get(call.lineno, "")
                why = said or _PER_CHANNEL.search(comment)
                if shape is None or set(shape) != {1} or not (why or unread):
                    continue
                reason = f"the text says “{why.group(0)}”" if why else f"{unread[0]} is an argument that nothing reads"
                seen = next((f for f in facts.of("module.init") if f["shape"] == list(shape)), None)
                yield say(
                    "P05", "warning", call.lineno, file=unit.file, facts=(seen.id,) if seen else (), info=info,
                    tuple_2=tuple(shape), why=f" ({seen.id})" if seen else "", reason=reason,
                )  # fmt: skip


def _shape(unit: Unit, call: ast.Call) -> tuple[int, ...] | None:
    """The constant shape of ``Parameter(torch.zeros(1, 1, 1))``."""
    inner = next(
        (c for c in unit.all(ast.Call, under=call) if last_name(c) in ("zeros", "ones", "randn", "rand", "full")), None
    )
    if inner is None or not inner.args:
        return None
    if last_name(inner) == "full" or isinstance(inner.args[0], ast.Tuple | ast.List):
        value = unit.constant(inner.args[0])
        return value if isinstance(value, tuple) else None
    values = [unit.constant(a) for a in inner.args]
    return tuple(values) if all(isinstance(v, int) for v in values) else None


_COUNT = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)\s*(?P<unit>k|m|b|thousand|million|billion|万|亿)?\s*"
    r"(?:trainable |learnable |model |total )?(?:parameters|params|weights|个参数|参数)", re.I
)  # fmt: skip
_UNITS = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9, "万": 1e4, "亿": 1e8}


@rule("P06", "The text gives another number of parameters", family="modules")
def counted(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """Numbers of parameters in docstrings, against PyTorch's own count."""
    trees = [t for t in facts.of("module.tree") if t["parameters"] and not t["made_smaller"]]
    for unit in program:
        for info in unit.classes.values():
            own = [t for t in trees if t["class"] == info.name]
            guessed = any(s.name.startswith(f"{info.name}(") for s in run.stand_ins)
            text = ast.get_docstring(info.node, clean=False)
            if not own or guessed or not text:
                continue
            for offset, line in enumerate(text.splitlines()):
                said = _COUNT.search(line)
                if said is None:
                    continue
                claim = float(said["number"].replace(",", "")) * _UNITS.get((said["unit"] or "").lower(), 1)
                digits = len(said["number"].replace(",", "").replace(".", "").rstrip("0")) or 1
                slack = max(0.02, 0.6 * 10 ** -(digits - 1)) if claim >= 1e3 and said["unit"] else 1e-9
                if claim < 100 or any(abs(t["parameters"] - claim) <= slack * claim for t in own):
                    continue
                yield say(
                    "P06", "warning", info.node.body[0].lineno + offset, file=unit.file, facts=(own[0].id,),
                    group=said.group(0).strip(), info=info, own=own,
                )  # fmt: skip
