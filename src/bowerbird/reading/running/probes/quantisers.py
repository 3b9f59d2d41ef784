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
    for path, module in _quantisers(live.user_modules()).items():
        book = _book(module)
        if book is None:
            continue
        given = live.inputs(module)
        if given is None or not given[0] or not isinstance(given[0][0], torch.Tensor):
            continue
        entry = given[0][0].clone().requires_grad_()
        if not entry.is_floating_point():
            continue
        with live.frozen(module), torch.enable_grad():
            module.train()
            book_before = book.detach().clone()
            out = live.call(module, entry, *given[0][1:], **given[1])
            parts = [t for t in (out if isinstance(out, list | tuple) else [out]) if isinstance(t, torch.Tensor)]
            value: dict[str, Any] = {"class": type(module).__name__}
            like = next((t for t in parts if t.shape == entry.shape and t.is_floating_point()), None)
            loss = next((t for t in parts if t.ndim == 0 and t.requires_grad), None)
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
            live.record("probe.quantiser", path, value, at=type(module))


_QUANTISER = re.compile(r"quanti[sz]|^vq|codebook", re.I)
_MODEL = re.compile(r"vae|net|gan|model|auto", re.I)


def _quantisers(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The outermost modules that quantise; a whole model only where nothing within it does."""
    named = {path: m for path, m in modules.items() if _QUANTISER.search(type(m).__name__) and _book(m) is not None}
    models = {
        path for path, m in named.items()
        if _MODEL.search(type(m).__name__) and any(other.startswith(f"{path}.") for other in named)
    }  # fmt: skip
    outer = {path: m for path, m in named.items() if path not in models}
    return {path: m for path, m in outer.items() if not any(path.startswith(f"{other}.") for other in outer)}


_BOOKS = re.compile(r"(^|[._])(embed(ding)?s?|codebook|book|codes|dictionary)(\.weight)?$", re.I)


def _book(module: nn.Module) -> torch.Tensor | None:
    """The codebook: the weight of an embedding, else a matrix that is called so, learned or a moving average."""
    embeddings = [m.weight for m in module.children() if isinstance(m, nn.Embedding)]
    named = [*module.named_parameters(), *module.named_buffers()]
    return next(iter([*embeddings, *(t for name, t in named if _BOOKS.search(name) and t.ndim >= 2)]), None)


def _size(gradient: torch.Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.norm())
