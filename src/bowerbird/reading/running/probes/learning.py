"""Whether gradients reach what an answer depends on.

A random mixture of all that a network answers is differentiated.  A parameter that asks for gradients and gets none,
although the answer changes with it, was cut off: by ``detach``, ``.data``, ``no_grad``, a rounding, a number made of a
tensor.
"""

from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import detached, tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Given, Subject, exchanged, same, subjects, tell
from bowerbird.reading.running.tracing import Op, Trace

SHAKEN = 0.05


@probe("learning", late=True)
def learning(live: Live) -> None:
    """Records ``property.learning`` for each module, inner ones first."""
    owned = {id(p) for o in live.optimizers.values() for group in o.param_groups for p in group["params"]}
    told: list[str] = []
    for subject in sorted(subjects(live), key=lambda s: -s.name.count(".")):
        module = subject.module
        if module is None or any(inner.startswith(f"{subject.name}.") for inner in told):
            continue  # what is inside it is told there
        learned = {
            path: p for path, p in module.named_parameters()
            if p.requires_grad and p.is_floating_point() and (not owned or id(p) in owned)
            and (p.grad is None or not bool(p.grad.any()))
        }  # fmt: skip
        with live.frozen(module), torch.enable_grad():
            module.train()
            lost = _cut_off(live, subject, module, learned)
            if lost is None:
                continue
            file, line = (lost and _cut(live, subject, module, lost)) or (subject.file, subject.line)
        told += [subject.name] if lost else []
        said = "gradients reach all that the output depends on"
        if lost:
            said = f"the output of {subject.name} depends on {', '.join(lost[:3])}, but no gradient reaches it"
        tell(live, "learning", subject.name, not lost, said, file, line, lost=lost[:12], owned=bool(owned))


def _cut_off(live: Live, subject: Subject, module: nn.Module, learned: dict[str, nn.Parameter]) -> list[str] | None:
    """The parameters and inputs without a gradient on which the answer depends; None where nothing learns at all."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * SHAKEN)
    given = detached(subject.given)
    inputs = {n: t.requires_grad_() for n, t in given.items() if isinstance(t, torch.Tensor) and t.is_floating_point()}
    given |= {name: leaf.clone() for name, leaf in inputs.items()}  # no leaves, which nothing may change in place
    before = {path: p.detach().clone() for path, p in learned.items()}
    out = _run(live, subject, given) or []
    if not any(t.requires_grad for t in out) or len(learned) > 400:
        return None
    without = _without(out, learned)
    cut = [name for name in inputs if _cut_input(live, subject, name, inputs[name], out)]
    return [name for name in without if _matters(live, subject, learned[name], before[name])] + cut


def _without(out: list[torch.Tensor], wanted: dict[str, Any]) -> list[str]:
    """Which of these get no gradient from a random mixture of answers."""
    parts = [t for t in out if t.requires_grad and t.is_floating_point()]
    if not parts or not wanted:
        return list(wanted)
    whole = torch.stack([(t * torch.randn_like(t)).sum() for t in parts]).sum()
    grads = torch.autograd.grad(whole, list(wanted.values()), allow_unused=True, retain_graph=True)
    return [name for name, g in zip(wanted, grads, strict=True) if g is None or not bool(g.any())]


def _cut_input(live: Live, subject: Subject, name: str, value: torch.Tensor, out: list[torch.Tensor]) -> bool:
    """Whether an answer that is no single number changes with an input and hands no gradient back to it."""
    other = exchanged(subject.given[name])
    with torch.no_grad():
        one, two = (_run(live, subject, detached({**subject.given, name: v})) for v in (subject.given[name], other))
    if other is None or not one or not two:
        return False
    changed = [
        t for t, a, b in zip(out, one, two, strict=False)
        if t.ndim and t.is_floating_point() and same([a], [b], 1e-4) is False
    ]  # fmt: skip
    return any(t.grad_fn is not None and bool(_without([t], {name: value})) for t in changed)


def _matters(live: Live, subject: Subject, parameter: nn.Parameter, before: torch.Tensor) -> bool:
    """Whether the answer changes with a parameter that the network does not change by itself."""
    with torch.no_grad():
        one = _run(live, subject, detached(subject.given))
        if not torch.equal(parameter, before):
            return False
        parameter.add_(torch.randn_like(parameter) * (float(parameter.abs().mean()) + 0.1))
        other = _run(live, subject, detached(subject.given))
        parameter.copy_(before)
    return same(one, other, 1e-4) is False


def _cut(live: Live, subject: Subject, module: nn.Module, lost: list[str]) -> tuple[str, int | None] | None:
    """Where what depends on these weights first loses its graph."""
    asks = [(p, p.requires_grad) for p in module.parameters()]
    for path, parameter in module.named_parameters():
        parameter.requires_grad_(path in lost)
    given = detached(subject.given)
    for name in lost:
        if isinstance(given.get(name), torch.Tensor):
            given[name] = given[name].requires_grad_().clone()
    watch = Trace(live)
    with torch.enable_grad(), watch:
        out = _run(live, subject, given) or []
    cut = [
        op for op in watch.ops
        if op.line is not None and any(t.requires_grad for t in op.operands())
        and any(t.is_floating_point() for t in tensors(op.out)) and not any(t.requires_grad for t in tensors(op.out))
    ]  # fmt: skip
    trained = [t for t in out if (t.ndim > 0) == (lost[0] in subject.given)]  # weights by a loss, inputs by an answer
    cut = [op for op in cut if op in _behind(watch.ops, trained)] or cut
    for parameter, asked in asks:
        parameter.requires_grad_(asked)
    return (cut[-1].file, cut[-1].line) if cut else None


def _behind(ops: list[Op], wanted: list[torch.Tensor]) -> list[Op]:
    """The torch functions that these answers were computed by."""
    front = [op for op in ops if any(t is w for t in tensors(op.out) for w in wanted)]
    seen: list[Op] = []
    while front:
        op = front.pop()
        if op not in seen:
            seen.append(op)
            front += op.parents
    return seen


def _run(live: Live, subject: Subject, given: Given) -> list[torch.Tensor] | None:
    live.seed(1)
    try:
        return tensors(live.call(subject.call, given))
    except Exception:  # the user's code, asked again
        return None
