"""Probes of positions: the sinusoids, and along which axis an encoding varies; and of tied weights."""

import re
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe


@probe("positions")
def positions(live: Live) -> None:
    """Encodings of position: identity of the sinusoid, and along which axis they vary."""
    done: set[type] = set()
    for path, module in live.user_modules().items():
        kind = type(module)
        if kind in done:
            continue
        tables = [(n, b) for n, b in [*module.named_buffers(recurse=False), *_plain(module)] if b.is_floating_point()]
        for name, table in tables:
            found = _sinusoid(table)
            if found is not None:
                done.add(kind)
                live.record("probe.sinusoid", f"{path}.{name}", found, at=kind)
        if re.search(r"pos", kind.__name__, re.I) and not any(True for m in module.children() if _is_big(m)):
            found = _added(live, module)
            if found is not None:
                done.add(kind)
                live.record("probe.positions", path, {**found, "class": kind.__name__}, at=kind)


def _is_big(module: nn.Module) -> bool:
    return any(isinstance(m, nn.MultiheadAttention | nn.LayerNorm | nn.Conv2d) for m in module.modules())


def _plain(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(n, v) for n, v in vars(module).items() if isinstance(v, torch.Tensor) and not n.startswith("_")]


def _sinusoid(table: torch.Tensor) -> dict[str, Any] | None:
    """The squares of sine and cosine and the frequencies of a table of positions; None for another table."""
    flat = table.detach().squeeze()
    if flat.ndim != 2 or flat.shape[0] < 8 or flat.shape[1] < 4 or float(flat.abs().max()) > 1.0001:
        return None
    if flat.unique().numel() <= flat.shape[0]:  # a mask or another table of a few values, no waves
        return None
    if flat.shape[1] % 2:
        flat = flat[:, :-1]
    blank = not bool(flat[0].any())  # position 0 is padding and has no encoding
    flat = flat[1:] if blank else flat
    half = flat.shape[1] // 2
    pairs = {"interleaved": (flat[:, 0::2], flat[:, 1::2]), "halves": (flat[:, :half], flat[:, half:])}
    for order, (sine, cosine) in pairs.items():
        if not blank and not _from_zero(sine, cosine):
            sine, cosine = cosine, sine
        if not blank and not _from_zero(sine, cosine):
            continue
        error = float((sine.square() + cosine.square() - 1).abs().max())
        frequency = torch.atan2(sine[0 if blank else 1], cosine[0 if blank else 1]).double().abs()
        steps = frequency.clamp(min=1e-12).log().diff()
        return {
            "order": order,
            "identity_error": error,
            "channels": flat.shape[1],
            "first": float(frequency[0]),
            "last": float(frequency[-1]),
            "even": float((steps - steps.mean()).abs().max()) if half > 1 else 0.0,
            "longest": float(2 * torch.pi / frequency[-1].clamp(min=1e-12)),
        }
    return None


def _from_zero(sine: torch.Tensor, cosine: torch.Tensor) -> bool:
    return float(sine[0].abs().max()) < 1e-4 and float((cosine[0] - 1).abs().max()) < 1e-4


def _added(live: Live, module: nn.Module) -> dict[str, Any] | None:
    """What a module of positions adds to a constant input, and along which axes that varies."""
    given = live.inputs(module)
    if given is None or len(given[0]) < 1 or not isinstance(given[0][0], torch.Tensor):
        return None
    entry = given[0][0]
    if entry.ndim != 3 or not entry.is_floating_point() or min(entry.shape[:2]) < 2:
        return None
    constant = torch.randn(1, 1, entry.shape[2]).expand(entry.shape).contiguous()
    with live.frozen(module), torch.no_grad():
        module.eval()
        for parameter in module.parameters():  # learned positions may begin at zero
            parameter.add_(torch.randn_like(parameter) * 0.1)
        out = live.call(module, constant, *given[0][1:], **given[1])
    if not isinstance(out, torch.Tensor) or out.shape != entry.shape:
        return None
    return {
        "first_axis": float((out - out[:1]).abs().max()),
        "second_axis": float((out - out[:, :1]).abs().max()),
        "shape": list(entry.shape),
        "lines": sorted(_lines(live, module, given)),
    }


def _lines(live: Live, module: nn.Module, given: Any) -> set[int]:
    from bowerbird.reading.running.tracing import trace_call

    found = trace_call(live, "", module, given[0], given[1])
    return {op.line for op in found.ops if op.line is not None} if found is not None else set()


@probe("tying", cheap=True)
def ties(live: Live) -> None:
    """Assignments ``self.a.weight = self.b.weight``: whether the two are one tensor in the end."""
    import ast

    from bowerbird.reading.program import dotted, targets_of
    from bowerbird.reading.running.formula import units

    for unit in units(live.files):
        for statement in unit.all(ast.Assign):
            left, right = dotted(targets_of(statement)[0]), dotted(statement.value)
            holder = unit.class_around(statement)
            if (
                not left
                or not right
                or holder is None
                or not all(n.startswith("self.") and n.endswith(".weight") for n in (left, right))
            ):
                continue
            for path, module in live.user_modules().items():
                if type(module).__name__ != holder.name:
                    continue
                pair = [_attribute(module, n) for n in (left, right)]
                if all(isinstance(t, torch.Tensor) for t in pair):
                    value = {
                        "left": left,
                        "right": right,
                        "one": pair[0] is pair[1] or pair[0].data_ptr() == pair[1].data_ptr(),
                    }
                    live.record("probe.tied", path, value, line=statement.lineno, file=unit.file)
                    break


def _attribute(thing: Any, name: str) -> Any:
    for word in name.split(".")[1:]:
        thing = getattr(thing, word, None)
    return thing
