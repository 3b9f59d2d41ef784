"""Checks of the exercises on recurrent networks, translation and music."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import sacrebleu
import torch
from torch import Tensor, nn

from bowerbird.reading.learn.checks import Observation, checks


class _Net(nn.Module):
    """A GRU that records the states it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)
        self.given: list[Tensor | None] = []
        self.made: list[Tensor] = []

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.given.append(state)
        h, state = self.rnn(x, state)
        self.made.append(state.detach().clone())
        return self.head(h), state


@checks("truncated-bptt")
def truncated_bptt(answer: Any) -> Iterator[Observation]:
    net = _Net()
    reference = copy.deepcopy(net)
    x, y = torch.randn(4, 12, 3), torch.randn(4, 12, 2)
    losses = answer.train(net, torch.optim.SGD(net.parameters(), lr=0.1), x, y, 4)
    given = net.given[1:]
    kept = sum(state is not None for state in given)
    carried = all(
        state is not None and torch.equal(state.detach(), made)
        for state, made in zip(given, net.made[:-1], strict=True)
    )
    yield Observation(
        carried and len(given) == 2,
        f"{kept} of {len(given)} later segments began with the state that the "
        "segment before had ended with; all should.",
        f"后面 {len(given)} 段中有 {kept} 段从前一段结束时的状态开始；应当全部如此。",
    )
    attached = sum(state is not None and state.requires_grad for state in given)
    yield Observation(
        attached == 0,
        f"{attached} of the states that were carried on still had a history; none should.",
        f"被传递的状态中有 {attached} 个还带着历史；应当为 0。",
    )
    numbers = all(isinstance(loss, int | float) for loss in losses)
    yield Observation(
        numbers,
        f"The losses are of type {type(losses[0]).__name__}; they should be numbers, which hold no graph.",
        f"损失的类型是 {type(losses[0]).__name__}；应为普通数字，不保留计算图。",
    )
    state, optimizer = None, torch.optim.SGD(reference.parameters(), lr=0.1)
    for start in (0, 4, 8):
        output, state = reference(x[:, start : start + 4], state)
        state = state.detach()
        optimizer.zero_grad()
        (output - y[:, start : start + 4]).square().mean().backward()
        optimizer.step()
    pairs = zip(net.parameters(), reference.parameters(), strict=True)
    apart = max((a - b).abs().max().item() for a, b in pairs)
    yield Observation(
        apart < 1e-5,
        f"After three segments the weights are off those of the exact algorithm by up to {apart:.3g}.",
        f"三段之后，权重与精确算法最多相差 {apart:.3g}。",
    )


def _corpora() -> Iterator[tuple[str, str, list[list[str]], list[list[str]]]]:
    draw = random.Random(0)
    words = "a b c d e f g".split()
    references = [[draw.choice(words) for _ in range(draw.randint(6, 14))] for _ in range(12)]
    noisy = [[w if draw.random() < 0.85 else draw.choice(words) for w in line] for line in references]
    yield "outputs with some wrong words", "有些词译错", noisy, references
    yield "outputs that stop early", "译文过短", [line[: max(4, len(line) - 3)] for line in noisy], references
    repeated = [[*line, *[line[-1]] * 4] for line in noisy]
    yield "outputs that repeat a right word", "重复一个正确的词", repeated, references


@checks("corpus-bleu")
def corpus_bleu(answer: Any) -> Iterator[Observation]:
    for en, zh, ours, theirs in _corpora():
        lines, known = [" ".join(line) for line in ours], [" ".join(line) for line in theirs]
        wanted = sacrebleu.corpus_bleu(lines, [known], tokenize="none", smooth_method="none", force=True).score
        got = float(answer.bleu(ours, theirs))
        yield Observation(
            abs(got - wanted) < 0.01,
            f"For {en} the result is {got:.2f}; sacreBLEU gives {wanted:.2f}.",
            f"{zh}时结果是 {got:.2f}；sacreBLEU 给出 {wanted:.2f}。",
        )


@checks("transpose")
def transpose(answer: Any) -> Iterator[Observation]:
    training = [[[60, 48], [67, 50], [-1, 53]], [[72, 45], [65, -1]]]
    piece = [[60, 50], [-1, 53], [64, -1]]
    before = copy.deepcopy(piece)
    moved = answer.transpose(piece, 2, training)
    yield Observation(
        moved == [[62, 52], [-1, 55], [66, -1]],
        f"Two semitones up, {before} becomes {moved}.",
        f"升两个半音，{before} 变成 {moved}。",
    )
    yield Observation(
        piece == before,
        f"The given piece is now {piece}; it was {before}.",
        f"传入的曲子现在是 {piece}；原来是 {before}。",
    )
    for semitones, en, zh in ((10, "above 72", "高于 72"), (-6, "below 45", "低于 45")):
        found = answer.transpose(copy.deepcopy(before), semitones, training)
        yield Observation(
            found is None,
            f"Moved by {semitones:+d}, a note lies {en}, the end of the range; "
            f"the result is {found}, it should be None.",
            f"移动 {semitones:+d} 时有音{zh}（音域的边界）；结果是 {found}，应为 None。",
        )
