"""Probes of vector quantisers: where gradients go."""

import re
from typing import Any

import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe


@probe("vq")
def straight_through(live: Live) -> None:
    """Where gradients go through a vector quantiser: to its input from what it gives, to the codebook from its loss."""
    for path, module in live.user_modules().items():
        books = [m for m in module.children() if isinstance(m, nn.Embedding)]
        if not re.search(r"quanti[sz]|^vq|codebook", type(module).__name__, re.I) or not books:
            continue
        given = live.inputs(module)
        if given is None or not given[0] or not isinstance(given[0][0], torch.Tensor):
            continue
        entry = given[0][0].clone().requires_grad_()
        if not entry.is_floating_point():
            continue
        with live.frozen(module), torch.enable_grad():
            module.train()
            book_before = books[0].weight.detach().clone()
            out = live.call(module, entry, *given[0][1:], **given[1])
            parts = [t for t in (out if isinstance(out, list | tuple) else [out]) if isinstance(t, torch.Tensor)]
            value: dict[str, Any] = {"class": type(module).__name__}
            like = next((t for t in parts if t.shape == entry.shape and t.is_floating_point()), None)
            loss = next((t for t in parts if t.ndim == 0 and t.requires_grad), None)
            book = books[0].weight
            for word, part in (("out", like), ("loss", loss)):
                if part is None:
                    continue
                target = (part * torch.randn_like(part)).sum()
                wanted = [entry, book] if book.requires_grad else [entry]
                grads = (
                    torch.autograd.grad(target, wanted, retain_graph=True, allow_unused=True)
                    if target.requires_grad
                    else [None]
                )
                value[f"{word}_to_input"] = _size(grads[0])
                value[f"{word}_to_codebook"] = _size(grads[1]) if len(grads) > 1 else None
            value["codebook_learns"] = book.requires_grad and torch.equal(book_before, book.detach())
            live.record("probe.quantiser", path, value, line=live.line_of(type(module)))


def _size(gradient: torch.Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.norm())
