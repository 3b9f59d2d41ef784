"""Checks of the exercises on Transformers: attention, positions, the next token."""

from collections.abc import Iterator
from typing import Any

import torch

from bowerbird.reading.learn.checks import Observation, checks, seen


@checks("causal-attention")
def causal_attention(answer: Any) -> Iterator[Observation]:
    n, head, t, d = 2, 2, 6, 8
    q, k, v = (torch.randn(n, head, t, d, requires_grad=True) for _ in range(3))
    output, weights = answer.causal_attention(q, k, v)
    leak = 0.0
    for i in range(t - 1):
        gradients = torch.autograd.grad(output[:, :, i].square().sum(), (k, v), retain_graph=True)
        leak = max(leak, *(gradient[:, :, i + 1 :].abs().max().item() for gradient in gradients))
    yield seen(leak == 0, "leak", leak=leak)
    off = (weights.sum(-1) - 1).abs().max().item()
    yield seen(off < 1e-5, "sum", off=off)
    score = (q @ k.transpose(-2, -1)).detach()[..., -1, :]
    ratio = weights.detach()[..., -1, :].clamp(min=1e-12).log()
    spread = (ratio - ratio.mean(-1, keepdim=True)).std() / (score - score.mean(-1, keepdim=True)).std()
    yield seen(abs(spread.item() * d**0.5 - 1) < 0.01, "scale", spread=spread.item(), d=d, wanted=d ** (-0.5))


@checks("sinusoidal-positions")
def positions(answer: Any) -> Iterator[Observation]:
    length, d = 40, 16
    table = torch.as_tensor(answer.positions(length, d)).double()
    if tuple(table.shape) != (length, d):
        shape = tuple(table.shape)
        yield seen(False, "shape", shape=shape, length=length, d=d)
        return
    circle = (table[:, 0::2] ** 2 + table[:, 1::2] ** 2 - 1).abs().max().item()
    yield seen(circle < 1e-5, "circle", circle=circle)
    start = (table[0] - torch.tensor([0.0, 1.0]).repeat(d // 2)).abs().max().item()
    yield seen(start < 1e-6, "start", start=start)
    p, k = torch.arange(length).double()[:, None], torch.arange(d // 2).double()[None]
    angle = p * 10000 ** (-2 * k / d)
    error = (table - torch.stack([angle.sin(), angle.cos()], -1).flatten(1)).abs().max().item()
    yield seen(error < 1e-4, "table", error=error)


@checks("label-shift")
def label_shift(answer: Any) -> Iterator[Observation]:
    vocab, pad = 11, 0
    ids = torch.randint(1, vocab, (4, 9))
    knows_next = torch.nn.functional.one_hot(ids.roll(-1, 1), vocab).float() * 40
    knows_present = torch.nn.functional.one_hot(ids, vocab).float() * 40
    nothing = torch.zeros(4, 9, vocab)
    value = float(answer.loss(knows_next, ids, pad))
    yield seen(value < 0.01, "next", value=value)
    value = float(answer.loss(knows_present, ids, pad))
    yield seen(value > 10, "present", value=value)
    value = float(answer.loss(nothing, ids, pad))
    yield seen(abs(value - torch.tensor(float(vocab)).log().item()) < 1e-4, "nothing", value=value, vocab=vocab)
    logits = torch.randn(4, 9, vocab)
    before = float(answer.loss(logits, ids, pad))
    padded = torch.cat([ids, torch.full((4, 5), pad)], 1)
    after = float(answer.loss(torch.cat([logits, torch.randn(4, 5, vocab)], 1), padded, pad))
    yield seen(abs(before - after) < 1e-5, "padding", before=before, after=after)


@checks("top-k")
def top_k(answer: Any) -> Iterator[Observation]:
    logits, k = torch.randn(5, 30), 4
    p = answer.probabilities(logits, 1.0, k)
    support = (p > 0).sum(-1)
    kept = bool((logits.topk(k).indices.sort().values == p.topk(k).indices.sort().values).all())
    yield seen(bool((support == k).all()) and kept, "support", least=int(support.min()), most=int(support.max()), k=k)
    total = (p.sum(-1) - 1).abs().max().item()
    yield seen(total < 1e-5, "sum", total=total)
    cold, warm = (torch.special.entr(answer.probabilities(logits, T, 30)).sum(-1).mean().item() for T in (0.5, 2.0))
    yield seen(cold < warm, "temperature", cold=cold, warm=warm)
    exact = (answer.probabilities(logits, 0.7, 30) - (logits / 0.7).softmax(-1)).abs().max().item()
    yield seen(exact < 1e-5, "exact", exact=exact)


@checks("nucleus")
def nucleus(answer: Any) -> Iterator[Observation]:
    logits = torch.tensor([[0.5, 0.05, 0.3, 0.15], [0.01, 0.02, 0.95, 0.02]]).log()
    for p, wanted in ((0.6, ([0, 2], [2])), (0.8, ([0, 2], [2])), (0.94, ([0, 2, 3], [2])), (1e-6, ([0], [2]))):
        kept = [row.isfinite().nonzero().flatten().tolist() for row in answer.top_p(logits.clone(), p)]
        # 0.8 is a sum of float32 probabilities, so the third token may lie on either side of it.
        right = kept == list(wanted) or (p == 0.8 and kept == [[0, 2, 3], [2]])
        yield seen(right, "kept", p=p, kept=kept, wanted=list(wanted))
    found = answer.top_p(logits.clone(), 0.94)
    same = found.isfinite().logical_not() | (found == logits)
    yield seen(bool(same.all()), "same", same=bool(same.all()))
