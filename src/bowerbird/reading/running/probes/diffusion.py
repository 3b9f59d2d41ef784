"""Probes of diffusion schedules: every table against its definition by the others."""

import ast
import inspect
import re
from typing import Any

import numpy as np
import torch
from torch import nn

from bowerbird.reading.program import Unit, dotted, last_name, targets_of
from bowerbird.reading.running.formula import units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe

_BAR = r"(alphas?(cum(ulative)?(prod(uct)?s?)?|bars?|hats?)|abars?|alphasbar|alphascum|ab)"
_KINDS = {
    "betas": r"betas?",
    "alphas": r"alphas?",
    "bar": _BAR,
    "bar_prev": rf"({_BAR}prev|prev{_BAR})",
    "sqrt_bar": rf"sqrt{_BAR}",
    "sqrt_one_minus_bar": rf"sqrt(oneminus|1minus|1m|om|m|minusone|minus1){_BAR}",
    "sqrt_recip_bar": rf"sqrtrecip{_BAR}",
    "sqrt_recipm1_bar": rf"sqrtrecipm1{_BAR}",
    "posterior_variance": r"posterior(variance|var)s?",
    "mean_coef1": r"posteriormeancoef1",
    "mean_coef2": r"posteriormeancoef2",
}


def kind_of(name: str) -> str:
    """Which table of a diffusion process a name stands for; empty for another."""
    plain = name.lower().removesuffix("_t").replace("_", "")
    return next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, plain)), "")


def _table(value: Any) -> torch.Tensor | None:
    if isinstance(value, nn.Parameter):
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.numel() >= 8
        and value.numel() == max(value.shape)
    ):
        return value.detach().double().reshape(-1)
    return None


def holders(live: Live) -> dict[str, dict[str, torch.Tensor]]:
    """Tables by holder and kind: of modules, of plain objects, of the namespace, of functions."""
    if "tables" in live.cache:
        return live.cache["tables"]
    spaces: dict[str, dict[str, Any]] = {"": live.namespace}
    for name, value in list(live.namespace.items()):
        if not isinstance(value, nn.Module) and live.line_of(type(value)) is not None and hasattr(value, "__dict__"):
            spaces[name] = vars(value)
    for path, module in live.user_modules().items():
        spaces[path] = {
            **dict(module.named_buffers(recurse=False)),
            **{k: v for k, v in vars(module).items() if isinstance(v, torch.Tensor)},
        }
    for function, values in live.locals.items():
        spaces[f"{function}()"] = values
        for name, value in values.items():
            if (
                not isinstance(value, nn.Module)
                and hasattr(value, "__dict__")
                and live.line_of(type(value)) is not None
            ):
                spaces[name] = vars(value)
    spaces |= {f"{function}()": values for function, values in live.tables.items()}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for holder, values in spaces.items():
        for name, value in list(values.items()):
            kind, table = kind_of(name), _table(value)
            if kind and table is not None:
                found.setdefault(holder, {}).setdefault(kind, table)
                live.cache.setdefault("table_names", {})[holder, kind] = name
    live.cache["tables"] = {h: t for h, t in found.items() if "bar" in t or _rises(t.get("betas"))}
    return live.cache["tables"]


def _rises(betas: torch.Tensor | None) -> bool:
    """Whether a table called beta is a schedule of noise: positive, small, rising."""
    return (
        betas is not None and bool((betas > 0).all()) and float(betas.max()) < 1 and float(betas[-1]) > float(betas[0])
    )


def bars(live: Live) -> torch.Tensor | None:
    """The table of cumulative products, wherever it is."""
    for tables in holders(live).values():
        if "betas" in tables and len(tables.get("bar", ())) != len(tables["betas"]):
            return torch.cumprod(1 - tables["betas"], 0)
        if "bar" in tables:
            return tables["bar"]
    return None


def _line_of_table(live: Live, name: str, holder: str = "") -> tuple[str, int | None]:
    """Where a table is made: in the class or function that holds it, else anywhere."""
    module = live.user_modules().get(holder)
    held_by = type(module).__name__ if module is not None else holder.removesuffix("()").partition(".")[0]
    for unit in units(live.files):
        under: ast.AST | None = unit.classes[held_by].node if held_by in unit.classes else None
        under = under or next((f for f in unit.functions.values() if f.name == held_by), None)
        if under is not None and (line := _made_at(unit, name, under)) is not None:
            return unit.file, line
    for unit in units(live.files):
        if (line := _made_at(unit, name, None)) is not None:
            return unit.file, line
    return live.main, None


def _made_at(unit: Unit, name: str, under: ast.AST | None) -> int | None:
    for call in unit.all(ast.Call, under=under):
        if "buffer" in last_name(call) and call.args and isinstance(call.args[0], ast.Constant):
            if call.args[0].value == name:
                return call.lineno
    for statement in unit.all(ast.Assign, ast.AnnAssign, under=under):
        if any((dotted(t) or "").rpartition(".")[2] == name for t in targets_of(statement)):
            return statement.lineno
    return None


@probe("diffusion_tables", cheap=True)
def tables(live: Live) -> None:
    """Every table against its definition by the others."""
    names: dict[tuple[str, str], str] = live.cache.setdefault("table_names", {})
    for holder, found in holders(live).items():
        wanted = identities(found)
        for kind, right in wanted.items():
            have = found[kind]
            shared = min(len(have), len(right))
            difference = (have[:shared] - right[:shared]).abs()
            error = float((difference / (right[:shared].abs() + 1e-3)).max())
            name = names[holder, kind]
            file, line = _line_of_table(live, name, holder)
            value = {
                "kind": kind,
                "error": error,
                "first": float(have[0]),
                "should_be": float(right[0]),
                "last": float(have[-1]),
                "steps": len(have),
                "name": name,
            }
            live.cache.setdefault("measured_tables", set()).add((file, line))
            live.record("probe.table", f"{holder}.{name}" if holder else name, value, line=line, file=file)
        bar = found.get("bar")
        betas = found.get("betas")
        if bar is None and betas is not None:
            bar = torch.cumprod(1 - betas, 0)
        if bar is not None:
            name = names.get((holder, "bar")) or names[holder, "betas"]
            file, line = _line_of_table(live, names.get((holder, "betas"), name), holder)
            falling = bool((bar.diff() <= 1e-9).all())
            value = {
                "steps": len(bar),
                "falling": falling,
                "last": float(bar[-1].clamp(min=0).sqrt()),
                "first": float(bar[0]),
                "betas_inside": betas is None or bool(((betas > -1e-9) & (betas < 1)).all()),
                "name": name,
                "beta_first": float(betas[0]) if betas is not None else None,
                "beta_last": float(betas[-1]) if betas is not None else None,
            }
            live.record("probe.schedule", f"{holder}.{name}" if holder else name, value, line=line, file=file)


def identities(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What each of the tables should be by its definition, where the others tell."""
    wanted: dict[str, torch.Tensor] = {}
    bar = found.get("bar")
    if "betas" in found and "alphas" in found and len(found["betas"]) == len(found["alphas"]):
        cumulative = torch.cumprod(1 - found["betas"], 0)
        if float((found["alphas"] - cumulative).abs().max()) > 1e-3:
            wanted["alphas"] = 1 - found["betas"]
    alphas = 1 - found["betas"] if "betas" in found else found.get("alphas")
    if bar is not None and alphas is not None and len(alphas) == len(bar):
        wanted["bar"] = torch.cumprod(alphas, 0)
    if bar is None and "betas" in found:
        bar = torch.cumprod(1 - found["betas"], 0)
    if bar is None:
        return wanted
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    wanted |= {
        "bar_prev": before,
        "sqrt_bar": bar.sqrt(),
        "sqrt_one_minus_bar": (1 - bar).clamp(min=0).sqrt(),
        "sqrt_recip_bar": (1 / bar.clamp(min=1e-12)).sqrt(),
        "sqrt_recipm1_bar": (1 / bar.clamp(min=1e-12) - 1).clamp(min=0).sqrt(),
    }
    betas = found.get("betas")
    if betas is not None and len(betas) == len(bar):
        rest = (1 - bar).clamp(min=1e-12)
        wanted["posterior_variance"] = betas * (1 - before) / rest
        wanted["mean_coef1"] = betas * before.sqrt() / rest
        wanted["mean_coef2"] = (1 - before) * (1 - betas).sqrt() / rest
    return {kind: table for kind, table in wanted.items() if kind in found and len(table) == len(found[kind])}


@probe("diffusion_cosine", cheap=True)
def cosine(live: Live) -> None:
    """Functions that say they give the cosine schedule, against it."""
    steps = 200
    grid = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((grid + 0.008) / 1.008 * torch.pi / 2).square()
    right = (curve / curve[0])[1:]
    for name, function in live.functions().items():
        if "cos" not in name.lower() or not re.search("beta|schedule|alpha|noise", name, re.I):
            continue
        try:
            out = _table(live.call(function, steps))
        except Exception:  # it takes other arguments
            continue
        if out is None or len(out) not in (steps, steps + 1):
            continue
        bar = torch.cumprod(1 - out, 0) if float(out[0]) < 0.5 else out[-steps:]
        inner = slice(5, steps - 10)
        error = float((bar[inner] - right[inner]).abs().max())
        root = float((bar[inner] - right[inner].sqrt()).abs().max())
        code = inspect.unwrap(function).__code__
        lines = list(_cos_lines(live, code.co_filename, code.co_firstlineno))
        value = {"error": error, "error_of_root": root}
        live.record("probe.cosine", name, value, line=(lines or [code.co_firstlineno])[0], file=code.co_filename)


def _cos_lines(live: Live, file: str, line: int) -> list[int]:
    for unit in units({file}):
        for function in unit.functions.values():
            if function.lineno <= line <= (function.end_lineno or line) or function.lineno == line:
                return [c.lineno for c in unit.calls("cos", under=function)]
    return []
