"""A model of tunes: an LSTM over notes, its trainer, and what draws a tune from it.  Nothing here runs by itself."""

import math

import torch
from torch import nn


class Tunes(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.notes = nn.Embedding(spec.notes, spec.width, padding_idx=spec.rest)
        self.rnn = nn.LSTM(spec.width, spec.hidden, spec.layers, batch_first=True)
        self.scores = nn.Linear(spec.hidden, spec.notes)

    def forward(self, notes, past=None):
        out, past = self.rnn(self.notes(notes), past)
        return self.scores(out), past


def masked_loss(scores, notes, rest):
    losses = nn.functional.cross_entropy(scores.transpose(1, 2), notes, reduction="none")
    heard = (notes != rest).float()
    return (losses * heard).sum() / heard.sum()


class Teacher:
    def __init__(self, model, songs, spec):
        self.model, self.songs, self.spec = model, songs, spec
        self.optimizer = torch.optim.Adam(model.parameters(), lr=spec.lr)

    def rate(self, step):
        cosine = (1 + math.cos(math.pi * step / self.spec.steps)) / 2
        return self.spec.lr * cosine * min(1, (step + 1) / self.spec.warm_up)

    def teach(self):
        told = []
        for step, songs in enumerate(self.songs):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(step)
            scores, _ = self.model(songs["notes"][:, :-1])
            loss = masked_loss(scores, songs["notes"][:, 1:], self.spec.rest)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip)
            self.optimizer.step()
            told.append(loss.item())
        return told


@torch.no_grad()
def improvise(model, first, length, temperature, generator=None):
    model.eval()
    tune, past = [first], None
    for _ in range(length - 1):
        scores, past = model(tune[-1], past)
        odds = torch.softmax(scores[:, -1] / temperature, dim=-1)
        tune.append(torch.multinomial(odds, 1, generator=generator))
    return torch.cat(tune, dim=1)
