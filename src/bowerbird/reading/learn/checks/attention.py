"""Checks of the exercises on Transformers: attention, positions, the next token."""

from collections.abc import Iterator
from typing import Any

import torch

from bowerbird.reading.learn.checks import Observation, checks


@checks("causal-attention")
def causal_attention(answer: Any) -> Iterator[Observation]:
    n, head, t, d = 2, 2, 6, 8
    q, k, v = (torch.randn(n, head, t, d, requires_grad=True) for _ in range(3))
    output, weights = answer.causal_attention(q, k, v)
    leak = 0.0
    for i in range(t - 1):
        gradients = torch.autograd.grad(output[:, :, i].square().sum(), (k, v), retain_graph=True)
        leak = max(leak, *(gradient[:, :, i + 1 :].abs().max().item() for gradient in gradients))
    yield Observation(
        leak == 0,
        f"The largest gradient from an output to a later position is {leak:.3g}; it should be 0.",
        f"输出对其后位置的最大梯度是 {leak:.3g}；应为 0。",
    )
    off = (weights.sum(-1) - 1).abs().max().item()
    yield Observation(
        off < 1e-5,
        f"The sum of the weights that one query gives to all keys is off 1 by up to {off:.3g}.",
        f"一个 query 给所有 key 的权重之和与 1 最多相差 {off:.3g}；应为 1。",
    )
    score = (q @ k.transpose(-2, -1)).detach()[..., -1, :]
    ratio = weights.detach()[..., -1, :].clamp(min=1e-12).log()
    spread = (ratio - ratio.mean(-1, keepdim=True)).std() / (score - score.mean(-1, keepdim=True)).std()
    yield Observation(
        abs(spread.item() * d**0.5 - 1) < 0.01,
        f"The last query's log-weights spread {spread.item():.4g} times as much as q·k; "
        f"for d = {d} it should be {d**-0.5:.4g}.",
        f"最后一个 query 的对数权重的离散程度是 q·k 的 {spread.item():.4g} 倍；d = {d} 时应为 {d**-0.5:.4g}。",
    )


@checks("sinusoidal-positions")
def positions(answer: Any) -> Iterator[Observation]:
    length, d = 40, 16
    table = torch.as_tensor(answer.positions(length, d)).double()
    if tuple(table.shape) != (length, d):
        shape = tuple(table.shape)
        yield Observation(False, f"The table has shape {shape}, not ({length}, {d}).", f"表的形状是 {shape}。")
        return
    circle = (table[:, 0::2] ** 2 + table[:, 1::2] ** 2 - 1).abs().max().item()
    yield Observation(
        circle < 1e-5,
        f"sin² + cos² of a pair of columns is off 1 by up to {circle:.3g}.",
        f"每对列的 sin² + cos² 与 1 最多相差 {circle:.3g}。",
    )
    start = (table[0] - torch.tensor([0.0, 1.0]).repeat(d // 2)).abs().max().item()
    yield Observation(
        start < 1e-6,
        f"The row of position 0 is off (0, 1, 0, 1, …) by up to {start:.3g}.",
        f"位置 0 的那一行与 (0, 1, 0, 1, …) 最多相差 {start:.3g}。",
    )
    p, k = torch.arange(length).double()[:, None], torch.arange(d // 2).double()[None]
    angle = p * 10000 ** (-2 * k / d)
    error = (table - torch.stack([angle.sin(), angle.cos()], -1).flatten(1)).abs().max().item()
    yield Observation(
        error < 1e-4,
        f"The table is off sin and cos of p·10000^(−2k/d) by up to {error:.3g}.",
        f"与 p·10000^(−2k/d) 的正弦、余弦最多相差 {error:.3g}。",
    )


@checks("label-shift")
def label_shift(answer: Any) -> Iterator[Observation]:
    vocab, pad = 11, 0
    ids = torch.randint(1, vocab, (4, 9))
    knows_next = torch.nn.functional.one_hot(ids.roll(-1, 1), vocab).float() * 40
    knows_present = torch.nn.functional.one_hot(ids, vocab).float() * 40
    nothing = torch.zeros(4, 9, vocab)
    value = float(answer.loss(knows_next, ids, pad))
    yield Observation(
        value < 0.01,
        f"Logits that know the next token have a loss of {value:.3g}; it should be 0.",
        f"知道下一个词的 logits，损失是 {value:.3g}；应为 0。",
    )
    value = float(answer.loss(knows_present, ids, pad))
    yield Observation(
        value > 10,
        f"Logits that only repeat the present token have a loss of {value:.3g}; it should be large.",
        f"只会重复当前词的 logits，损失是 {value:.3g}；应当很大。",
    )
    value = float(answer.loss(nothing, ids, pad))
    yield Observation(
        abs(value - torch.tensor(float(vocab)).log().item()) < 1e-4,
        f"Logits that know nothing have a loss of {value:.4g}; it should be log {vocab} = 2.398.",
        f"一无所知的 logits，损失是 {value:.4g}；应为 log {vocab} = 2.398。",
    )
    logits = torch.randn(4, 9, vocab)
    before = float(answer.loss(logits, ids, pad))
    padded = torch.cat([ids, torch.full((4, 5), pad)], 1)
    after = float(answer.loss(torch.cat([logits, torch.randn(4, 5, vocab)], 1), padded, pad))
    yield Observation(
        abs(before - after) < 1e-5,
        f"Five columns of padding changed the loss from {before:.4g} to {after:.4g}; it should stay.",
        f"补上五列填充后，损失从 {before:.4g} 变成 {after:.4g}；应当不变。",
    )


@checks("top-k")
def top_k(answer: Any) -> Iterator[Observation]:
    logits, k = torch.randn(5, 30), 4
    p = answer.probabilities(logits, 1.0, k)
    support = (p > 0).sum(-1)
    kept = bool((logits.topk(k).indices.sort().values == p.topk(k).indices.sort().values).all())
    yield Observation(
        bool((support == k).all()) and kept,
        f"Between {int(support.min())} and {int(support.max())} tokens can be drawn; "
        f"it should be the {k} likeliest ones.",
        f"可能被抽到的词元有 {int(support.min())} 到 {int(support.max())} 个；应为最可能的 {k} 个。",
    )
    total = (p.sum(-1) - 1).abs().max().item()
    yield Observation(total < 1e-5, f"The sums are off 1 by up to {total:.3g}.", f"概率和与 1 最多相差 {total:.3g}。")
    cold, warm = (torch.special.entr(answer.probabilities(logits, T, 30)).sum(-1).mean().item() for T in (0.5, 2.0))
    yield Observation(
        cold < warm,
        f"The entropy is {cold:.3f} nats at temperature 0.5 and {warm:.3f} at 2; it should rise.",
        f"温度 0.5 时熵为 {cold:.3f} nats，温度 2 时为 {warm:.3f}；应当上升。",
    )
    exact = (answer.probabilities(logits, 0.7, 30) - (logits / 0.7).softmax(-1)).abs().max().item()
    yield Observation(
        exact < 1e-5,
        f"Without a cut, at temperature 0.7, the probabilities are off p^(1/T) by up to {exact:.3g}.",
        f"不截断、温度 0.7 时，概率与 p^(1/T) 最多相差 {exact:.3g}。",
    )


@checks("nucleus")
def nucleus(answer: Any) -> Iterator[Observation]:
    logits = torch.tensor([[0.5, 0.05, 0.3, 0.15], [0.01, 0.02, 0.95, 0.02]]).log()
    for p, wanted in ((0.6, ([0, 2], [2])), (0.8, ([0, 2], [2])), (0.94, ([0, 2, 3], [2])), (1e-6, ([0], [2]))):
        kept = [row.isfinite().nonzero().flatten().tolist() for row in answer.top_p(logits.clone(), p)]
        # 0.8 is a sum of float32 probabilities, so the third token may lie on either side of it.
        right = kept == list(wanted) or (p == 0.8 and kept == [[0, 2, 3], [2]])
        yield Observation(
            right,
            f"Of probabilities (0.5, 0.05, 0.3, 0.15) and (0.01, 0.02, 0.95, 0.02), p = {p:g} keeps the tokens {kept}; "
            f"it should keep {list(wanted)}.",
            f"概率为 (0.5, 0.05, 0.3, 0.15) 与 (0.01, 0.02, 0.95, 0.02)，p = {p:g} 保留了 {kept}；"
            f"应保留 {list(wanted)}。",
        )
    found = answer.top_p(logits.clone(), 0.94)
    same = found.isfinite().logical_not() | (found == logits)
    yield Observation(
        bool(same.all()),
        f"Logits that stay keep their value: {bool(same.all())}; they should.",
        f"留下的 logit 数值不变：{bool(same.all())}；应当不变。",
    )
