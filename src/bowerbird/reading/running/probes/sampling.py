"""Probes of sampling: temperature, filters of the likeliest tokens, dropout that is on in evaluation."""

import ast
import copy
import re
from typing import Any

import torch

from bowerbird.reading.program import Unit, last_name, names_in, words_in
from bowerbird.reading.running.formula import calls_in, evaluate, units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.tracing import traced

_TEMPERATURE = re.compile(r"^(temperature|temp|tau|t_sampling|softmax_temp)$", re.I)
_DRAWS = {"multinomial", "argmax", "Categorical", "choice", "topk"}
SIZES = ((2, 3, 50), (2, 50), (50,), (3, 50))


@probe("temperature", cheap=True)
def temperature(live: Live) -> None:
    """Expressions with a temperature: the entropy of what is drawn from, at 0.5 and at 2."""
    for unit in units(live.files):
        for statement in unit.all(ast.Assign, ast.Return):
            value = statement.value
            if value is None or not any(map(_TEMPERATURE.match, words_in(value))):
                continue
            function = unit.function(statement)
            around: ast.AST = function if function is not None else unit.tree
            if not calls_in(around) & _DRAWS or not _is_used(value):
                continue
            found = _entropies(value, live)
            if found is not None:
                told = {"cold": found[0], "hot": found[1], "text": ast.unparse(value)[:100]}
                live.record("probe.temperature", "temperature", told, line=statement.lineno, file=unit.file)


def _is_used(value: ast.expr) -> bool:
    """Whether the temperature is an operand here, not handed on to another function."""
    for node in ast.walk(value):
        if isinstance(node, ast.BinOp) and any(map(_TEMPERATURE.match, words_in(node))):
            return True
        if isinstance(node, ast.Call) and last_name(node) in ("div", "mul", "div_", "mul_"):
            return True
    return isinstance(value, ast.Name)


class _Settings:
    """``self`` or ``args`` of which only the temperature is asked."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __getattr__(self, name: str) -> float:
        if _TEMPERATURE.match(name):
            return self.value
        raise AttributeError(name)


def _entropies(value: ast.expr, live: Live) -> tuple[float, float] | None:
    free = [n for n in names_in(value) if n not in live.namespace or isinstance(live.namespace[n], torch.Tensor)]
    for size in SIZES:
        logits = torch.randn(size, generator=torch.Generator().manual_seed(0))
        found = []
        for heat in (0.5, 2.0):
            values = {
                n: heat
                if _TEMPERATURE.match(n)
                else _Settings(heat)
                if n in ("self", "args", "cfg", "config", "opt")
                else logits.clone()
                for n in [*free, *(n for n in names_in(value) if _TEMPERATURE.match(n) or n in ("args", "opt"))]
            }
            try:
                out = evaluate(value, live.namespace, values)
            except Exception:  # another shape, or more than logits and a temperature
                break
            if not isinstance(out, torch.Tensor) or not out.is_floating_point() or out.numel() < 20:
                break
            weights = calls_in(value) & {"softmax", "exp", "sigmoid", "Softmax"}
            rows = out.reshape(-1, out.shape[-1]).double()
            p = rows / rows.sum(-1, keepdim=True) if weights else torch.softmax(rows, -1)
            if bool((p < -1e-9).any()) or not bool(p.isfinite().all()):
                break
            found.append(float(-(p * p.clamp(min=1e-30).log()).sum(-1).mean()))
        if len(found) == 2:
            return found[0], found[1]
    return None


@probe("filters", cheap=True)
def filters(live: Live) -> None:
    """Filters of the likeliest tokens, on known numbers: how many tokens are left."""
    for unit in units(live.files):
        blocks = [n for n in unit.all(ast.If) if re.search(r"top_?[kp]|nucleus", ast.unparse(n.test), re.I)]
        done: set[int] = set()
        for block in blocks:
            words = calls_in(block)
            kind = "k" if "topk" in words else "p" if "cumsum" in words else ""
            if not kind or block.lineno in done or any(b is not block and b in ast.walk(block) for b in blocks):
                continue
            done.add(block.lineno)
            found = _left_by_block(block, live)
            if found is not None:
                live.record(
                    "probe.filter", kind, {"kind": kind, "asked": True, **found}, line=_compared(block), file=unit.file
                )
        _functions(unit, live)


def _functions(unit: Unit, live: Live) -> None:
    for name, function in live.functions().items():
        node = unit.functions.get(name)
        if node is None or not re.search(r"top_?[kp]|nucleus|filter", name, re.I):
            continue
        kind = (
            "k"
            if "topk" in calls_in(node) and "cumsum" not in calls_in(node)
            else "p"
            if "cumsum" in calls_in(node)
            else ""
        )
        if not kind:
            continue
        words = [a.arg for a in node.args.args]
        given = {w: v for w in words if (v := _setting(w, kind)) is not None}
        if not words or words[0] in given or len(words) > len(given) + 1 + len(node.args.defaults):
            continue
        for size in ((2, 50), (50,)):
            logits = _known(size)
            out = None
            try:
                out = live.call(function, logits.clone(), **given)
            except Exception:  # another shape
                continue
            if isinstance(out, torch.Tensor) and out.shape == logits.shape:
                live.record(
                    "probe.filter", name, {"kind": kind, "asked": bool(given), **_left(logits, out)},
                    line=_compared(node), file=unit.file,
                )  # fmt: skip
                break


def _setting(word: str, kind: str) -> float | int | None:
    if re.fullmatch(r"top_?k|k", word, re.I):
        return 5 if kind == "k" else None
    if re.fullmatch(r"top_?p|p|nucleus(_p)?|threshold|thres", word, re.I) and kind == "p":
        return 0.6
    return None


def _known(size: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1)) * 2


def _left(logits: torch.Tensor, out: torch.Tensor) -> dict[str, Any]:
    """How many tokens a filter leaves of each row, against a nucleus of 0.6 and the five likeliest."""
    rows, kept = logits.reshape(-1, 50), out.reshape(-1, 50)
    probabilities = bool((kept >= 0).all())
    alive = kept > 0 if probabilities else kept > -1e4
    order = torch.softmax(rows, -1).sort(descending=True, dim=-1).values.cumsum(-1)
    nucleus = [int((row < 0.6).sum()) + 1 for row in order]
    return {
        "left": [int(row.sum()) for row in alive],
        "nucleus": nucleus,
        "keeps_largest": bool(
            (_where(alive, rows, torch.inf).amin(-1) >= _where(~alive, rows, -torch.inf).amax(-1)).all()
        ),
        "keeps_likeliest": bool(alive.gather(1, rows.argmax(-1, keepdim=True)).all()),
    }


def _where(chosen: torch.Tensor, rows: torch.Tensor, other: float) -> torch.Tensor:
    return torch.where(chosen, rows, torch.full_like(rows, other))


def _left_by_block(block: ast.If, live: Live) -> dict[str, Any] | None:
    stored = {n.id for n in ast.walk(block) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    loaded = [n.id for n in ast.walk(block) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    tree = ast.fix_missing_locations(ast.Module([*copy.deepcopy(block.body)], []))
    wanted = next((n for n in loaded if re.search(r"logit|^out|pred|scores", n) and "sort" not in n), None)
    probabilities = next(
        (n for n in loaded if re.search(r"prob|^p$", n) and "sort" not in n and n not in ("top_p",)), None
    )
    name = wanted or probabilities
    if name is None:
        return None
    for size in ((2, 50), (50,)):
        logits = _known(size)
        values: dict[str, Any] = {
            name: torch.softmax(logits, -1) if name == probabilities and not wanted else logits.clone()
        }
        for word in loaded:
            if word in values or word in stored or word in live.namespace or word in dir(__builtins__):
                continue
            setting = _setting(word, "k" if re.fullmatch(r"top_?k|k", word, re.I) else "p")
            if setting is not None:
                values[word] = setting
        values |= {"top_k": 5, "top_p": 0.6, "self": _Top(), "args": _Top(), "filter_value": -float("inf")}
        space = {**live.namespace, **values}
        try:
            live.call(exec, compile(tree, "<filter>", "exec"), space)
        except Exception:  # it needs more than logits and a setting
            continue
        out = space.get(name)
        if isinstance(out, torch.Tensor) and out.shape == logits.shape:
            return _left(logits, out)
    return None


class _Top:
    top_k, top_p, k, p, filter_value = 5, 0.6, 5, 0.6, -float("inf")


def _compared(node: ast.AST) -> int:
    """The line of the comparison that decides which tokens go."""
    lines = [
        n.lineno
        for n in ast.walk(node)
        if isinstance(n, ast.Compare)
        and not (isinstance(node, ast.If) and n in ast.walk(node.test))
        and isinstance(n.ops[0], ast.Lt | ast.Gt | ast.LtE | ast.GtE)
        and not isinstance(n.comparators[0], ast.Constant)
    ]
    return lines[0] if lines else node.lineno  # type: ignore[attr-defined]


@probe("dropout")
def dropout_in_evaluation(live: Live) -> None:
    """Functional dropout that is told to train while its module does not."""
    seen: set[tuple[str, int | None]] = set()
    for trace in traced(live):
        for op in trace.ops:
            if (
                op.name not in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout")
                or (op.file, op.line) in seen
            ):
                continue
            p = op.argument(1, "p", 0.5)
            if isinstance(p, int | float) and p > 0 and op.argument(2, "training", True) is True:
                seen.add((op.file, op.line))
                live.record(
                    "probe.dropout", trace.name, {"p": float(p), "function": op.function}, line=op.line, file=op.file
                )
        for op in trace.ops:
            if op.name == "scaled_dot_product_attention" and (op.file, op.line) not in seen:
                p = op.argument(4, "dropout_p", 0.0)
                if isinstance(p, int | float) and p > 0:
                    seen.add((op.file, op.line))
                    live.record(
                        "probe.dropout",
                        trace.name,
                        {"p": float(p), "function": op.function},
                        line=op.line,
                        file=op.file,
                    )
