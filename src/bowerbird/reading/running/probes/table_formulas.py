"""Probes of tables by their formulas: what no object holds is computed from the text, on a schedule of our own."""

import ast
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bowerbird.reading.program import Unit, dotted, last_name, names_in, targets_of
from bowerbird.reading.running.formula import Formulas, evaluate, units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.diffusion import identities, kind_of

STEPS = 200


def _schedule() -> dict[str, torch.Tensor]:
    """Every table that other tables are computed from, for the linear schedule."""
    betas = torch.linspace(1e-4, 0.05, STEPS, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    base = {"betas": betas, "alphas": 1 - betas, "bar": bar}
    right = identities({**base, **dict.fromkeys(_DERIVED, bar)})
    return {**base, **{kind: right[kind] for kind in _DERIVED}}


_DERIVED = (
    "bar_prev", "sqrt_bar", "sqrt_one_minus_bar", "sqrt_recip_bar", "sqrt_recipm1_bar", "posterior_variance",
    "mean_coef1", "mean_coef2",
)  # fmt: skip


@probe("table_formulas", cheap=True)
def table_formulas(live: Live) -> None:
    """Expressions that are given the name of a table and use only other tables, against that table's definition."""
    measured = live.cache.get("measured_tables", set())
    schedule = _schedule()
    for unit in units(live.files):
        for name, value, statement in _made(unit):
            kind = kind_of(name)
            if kind not in _DERIVED or (unit.file, statement.lineno) in measured:
                continue
            out = _evaluated(unit, value, statement, schedule, live.namespace)
            if out is None or out.shape != schedule[kind].shape:
                continue
            right = schedule[kind]
            fact = {
                "kind": kind, "error": float(((out - right).abs() / (right.abs() + 1e-3)).max()),
                "first": float(out[0]), "should_be": float(right[0]), "last": float(out[-1]), "steps": STEPS,
                "name": name,
            }  # fmt: skip
            live.record("probe.table", name, fact, line=statement.lineno, file=unit.file)


def _made(unit: Unit) -> Iterator[tuple[str, ast.expr, ast.stmt]]:
    """Names that are given a value, by assignment or as buffers."""
    for statement in unit.all(ast.Assign, ast.AnnAssign):
        for target in targets_of(statement):
            if statement.value is not None and (name := dotted(target)):
                yield name.rpartition(".")[2], statement.value, statement
    for call in unit.all(ast.Call):
        statement = unit.statement(call)
        given = call.args[1:2]
        if "buffer" in last_name(call) and given and statement is not None and isinstance(call.args[0], ast.Constant):
            yield str(call.args[0].value), given[0], statement


def _evaluated(
    unit: Unit, value: ast.expr, statement: ast.stmt, schedule: dict[str, torch.Tensor], namespace: dict[str, Any]
) -> torch.Tensor | None:  # fmt: skip
    """An expression over tables alone, for arrays of torch or of numpy."""
    expression = Formulas(unit, lambda name: bool(kind_of(name))).expand(value, statement)
    used = [name for name in names_in(expression) if kind_of(name)]
    if not used or isinstance(expression, ast.Name):
        return None
    for convert in (torch.Tensor.clone, torch.Tensor.numpy):
        bound = {name: convert(schedule[kind_of(name)]) for name in used}
        try:
            out = evaluate(expression, namespace, bound)
        except Exception:  # an expression of more than tables
            continue
        if isinstance(out, np.ndarray):
            out = torch.from_numpy(np.ascontiguousarray(out))
        if isinstance(out, torch.Tensor) and out.is_floating_point() and out.ndim == 1 and bool(out.isfinite().all()):
            return out.double()
    return None
