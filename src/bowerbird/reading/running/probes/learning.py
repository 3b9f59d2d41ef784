"""Whether gradients reach what an answer depends on.

A random mixture of all that a network answers is differentiated.  A parameter that asks for gradients and gets none,
although the answer changes with it, was cut off: by ``detach``, ``.data``, ``no_grad``, a rounding, a number made of a
tensor.
"""

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.observe.modules import detached, tensors
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Subject, moved, subjects, tell
from bowerbird.reading.running.tracing import Trace

SHAKEN = 0.05


@probe("learning", late=True)
def learning(live: Live) -> None:
    """Records ``property.learning`` for each outermost network."""
    owned = {id(p) for o in live.optimizers.values() for group in o.param_groups for p in group["params"]}
    for subject in subjects(live):
        module = subject.module
        if module is None or "." in subject.name or not any(p.requires_grad for p in module.parameters()):
            continue
        with live.frozen(module), torch.enable_grad():
            module.train()
            lost = _cut_off(live, subject, module)
        lost = [path for path in lost or () if not owned or id(module.get_parameter(path)) in owned]
        if lost is None:
            continue
        said = "every weight that the answer depends on gets a gradient"
        holder = module
        if lost:
            holder = module.get_submodule(lost[0].rpartition(".")[0])
            said = f"the answer of {subject.name} depends on {', '.join(lost[:3])}, and no gradient reaches it"
        file, line = live.place_of(holder)
        if lost:
            file, line = _cut(live, subject, module, lost) or (file, line)
        tell(live, "learning", subject.name, not lost, said, file, line, lost=lost[:12], owned=bool(owned))


def _cut_off(live: Live, subject: Subject, module: nn.Module) -> list[str] | None:
    """The parameters without a gradient on which the answer depends; None where nothing learns at all."""
    named = {path: p for path, p in module.named_parameters() if p.requires_grad and p.is_floating_point()}
    with torch.no_grad():
        for parameter in named.values():
            parameter.add_(torch.randn_like(parameter) * SHAKEN)
    out = _run(live, subject)
    parts = [t for t in out or () if t.requires_grad and t.is_floating_point()]
    if not parts or len(named) > 400:
        return None
    whole = torch.stack([(t * torch.randn_like(t)).sum() for t in parts]).sum()
    before = {path: p.detach().clone() for path, p in named.items()}
    grads = torch.autograd.grad(whole, list(named.values()), allow_unused=True)
    without = [path for path, g in zip(named, grads, strict=True) if g is None or not bool(g.any())]
    return [path for path in without if _matters(live, subject, named[path], before[path])]


def _matters(live: Live, subject: Subject, parameter: nn.Parameter, before: torch.Tensor) -> bool:
    """Whether the answer changes with a parameter that the network does not change by itself."""
    with torch.no_grad():
        one = _run(live, subject)
        if not torch.equal(parameter, before):
            return False
        parameter.add_(torch.randn_like(parameter) * (float(parameter.abs().mean()) + 0.1))
        other = _run(live, subject)
        parameter.copy_(before)
    if not one or not other or [t.shape for t in one] != [t.shape for t in other]:
        return False
    return any(bool(moved(a, b, 1e-4).any()) for a, b in zip(one, other, strict=True))


def _cut(live: Live, subject: Subject, module: nn.Module, lost: list[str]) -> tuple[str, int | None] | None:
    """Where what depends on these weights first loses its graph."""
    asks = [(p, p.requires_grad) for p in module.parameters()]
    for path, parameter in module.named_parameters():
        parameter.requires_grad_(path in lost)
    watch = Trace(live)
    with torch.enable_grad(), watch:
        _run(live, subject)
    cut = [
        op for op in watch.ops
        if op.line is not None and any(t.requires_grad for t in op.operands())
        and not any(t.requires_grad for t in tensors(op.out))
    ]  # fmt: skip
    for parameter, asked in asks:
        parameter.requires_grad_(asked)
    return (cut[0].file, cut[0].line) if cut else None


def _run(live: Live, subject: Subject) -> list[torch.Tensor] | None:
    live.seed(1)
    try:
        return tensors(live.call(subject.call, detached(subject.given)))
    except Exception:  # the user's code, asked again
        return None
