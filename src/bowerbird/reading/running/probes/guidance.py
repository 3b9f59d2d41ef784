"""Probes of formulas around diffusion: guidance, clamped ratios."""

import ast
import re
from typing import Any

import torch

from bowerbird.reading.program import last_name, names_in
from bowerbird.reading.running.formula import Formulas, evaluate, units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe


@probe("guidance", cheap=True)
def guidance(live: Live) -> None:
    """Sums of a conditional and an unconditional answer: the weight of the conditional one."""
    free = re.compile(r"uncond|unconditional|_free|free_|null|empty|no_?cond|eps_u$|uc$", re.I)
    bound = re.compile(r"cond|text|label|class|pred|eps|noise|_c$|logits", re.I)
    for unit in units(live.files):
        for statement, value in Formulas(unit, lambda name: False).statements():
            for node in ast.walk(value):
                if not isinstance(node, ast.BinOp | ast.Call) or (
                    isinstance(node, ast.Call) and last_name(node) != "lerp"
                ):
                    continue
                names = set(names_in(node))
                without = [n for n in names if free.search(n)]
                with_ = [n for n in names if bound.search(n) and n not in without]
                if len(without) != 1 or len(with_) != 1 or not isinstance(statement, ast.Assign | ast.Return):
                    continue
                weights = dict.fromkeys(names - {without[0], with_[0], "torch", "self"}, 3.0)
                try:
                    values = [
                        evaluate(
                            node,
                            live.namespace,
                            {**weights, "self": _Weights(), without[0]: torch.tensor(u), with_[0]: torch.tensor(c)},
                        )
                        for u, c in ((0.0, 1.0), (1.0, 0.0))
                    ]
                except Exception:  # not a formula of these two alone
                    continue
                numbers = [float(v) for v in values if isinstance(v, torch.Tensor) and v.numel() == 1]
                if len(numbers) == 2 and numbers[0] != numbers[1]:
                    told = {
                        "of_conditional": numbers[0],
                        "of_unconditional": numbers[1],
                        "text": ast.unparse(node)[:120],
                    }
                    live.record("probe.guidance", with_[0], told, line=node.lineno, file=unit.file)
                    break


class _Weights:
    def __getattr__(self, name: str) -> float:
        return 3.0


@probe("snr", cheap=True)
def clamped_ratio(live: Live) -> None:
    """Where a signal-to-noise ratio is clamped by a gamma: from above or from below."""
    for unit in units(live.files):
        for call in unit.all(ast.Call):
            if last_name(call) not in ("clamp", "clamp_", "clip", "minimum", "maximum", "min", "max"):
                continue
            text = ast.unparse(call)
            if not re.search("snr", text, re.I) or not re.search("gamma|min_snr|5", text):
                continue
            others: dict[str, Any] = {n: 5.0 for n in names_in(call) if n not in live.namespace}
            ratio = next(
                (n for n in sorted(names_in(call)) if re.search("snr", n, re.I) and not re.search("gamma|weight", n)),
                None,
            )
            if ratio is None:
                continue
            grid = torch.logspace(-3, 3, 13)
            try:
                out = evaluate(call, live.namespace, {**others, "self": _Weights(), ratio: grid.clone()})
            except Exception:  # a ratio that is made differently
                continue
            if isinstance(out, torch.Tensor) and out.shape == grid.shape:
                live.record(
                    "probe.snr",
                    ratio,
                    {"least": float(out.min()), "most": float(out.max())},
                    line=call.lineno,
                    file=unit.file,
                )
