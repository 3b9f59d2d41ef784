"""Checks of the exercises on recurrent networks, translation and music."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import sacrebleu
import torch
from torch import Tensor, nn

from bowerbird.reading.learn.checks import Observation, checks, seen


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
    yield seen(carried and len(given) == 2, "state", kept=kept, n=len(given))
    attached = sum(state is not None and state.requires_grad for state in given)
    yield seen(attached == 0, "attached", attached=attached)
    numbers = all(isinstance(loss, int | float) for loss in losses)
    yield seen(numbers, "losses", kind=type(losses[0]).__name__)
    state, optimizer = None, torch.optim.SGD(reference.parameters(), lr=0.1)
    for start in (0, 4, 8):
        output, state = reference(x[:, start : start + 4], state)
        state = state.detach()
        optimizer.zero_grad()
        (output - y[:, start : start + 4]).square().mean().backward()
        optimizer.step()
    pairs = zip(net.parameters(), reference.parameters(), strict=True)
    apart = max((a - b).abs().max().item() for a, b in pairs)
    yield seen(apart < 1e-5, "weights", apart=apart)


def _corpora() -> Iterator[tuple[str, list[list[str]], list[list[str]]]]:
    draw = random.Random(0)
    words = "a b c d e f g".split()
    references = [[draw.choice(words) for _ in range(draw.randint(6, 14))] for _ in range(12)]
    noisy = [[w if draw.random() < 0.85 else draw.choice(words) for w in line] for line in references]
    yield "wrong", noisy, references
    yield "early", [line[: max(4, len(line) - 3)] for line in noisy], references
    repeated = [[*line, *[line[-1]] * 4] for line in noisy]
    yield "repeated", repeated, references


@checks("corpus-bleu")
def corpus_bleu(answer: Any) -> Iterator[Observation]:
    for case, ours, theirs in _corpora():
        lines, known = [" ".join(line) for line in ours], [" ".join(line) for line in theirs]
        wanted = sacrebleu.corpus_bleu(lines, [known], tokenize="none", smooth_method="none", force=True).score
        got = float(answer.bleu(ours, theirs))
        yield seen(abs(got - wanted) < 0.01, case, got=got, wanted=wanted)


@checks("transpose")
def transpose(answer: Any) -> Iterator[Observation]:
    training = [[[60, 48], [67, 50], [-1, 53]], [[72, 45], [65, -1]]]
    piece = [[60, 50], [-1, 53], [64, -1]]
    before = copy.deepcopy(piece)
    moved = answer.transpose(piece, 2, training)
    yield seen(moved == [[62, 52], [-1, 55], [66, -1]], "moved", before=before, moved=moved)
    yield seen(piece == before, "kept", piece=piece, before=before)
    for semitones, end in ((10, "above"), (-6, "below")):
        found = answer.transpose(copy.deepcopy(before), semitones, training)
        yield seen(found is None, end, semitones=semitones, found=found)
