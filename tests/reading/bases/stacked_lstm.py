"""Predicts the next value of sine waves with two stacked LSTM cells."""

import torch
from torch import nn


class Predictor(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.width = width
        self.first = nn.LSTMCell(1, width)
        self.second = nn.LSTMCell(width, width)
        self.readout = nn.Linear(width, 1)

    def forward(self, x):
        h1 = c1 = h2 = c2 = torch.zeros(x.size(0), self.width)
        outputs = []
        for value in x.split(1, dim=1):
            h1, c1 = self.first(value, (h1, c1))
            h2, c2 = self.second(h1, (h2, c2))
            outputs.append(self.readout(h2))
        return torch.cat(outputs, dim=1)


phase = torch.rand(64, 1) * 6.28
waves = torch.sin(torch.arange(60)[None] / 8 + phase)
model = Predictor()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(60):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(waves[:, :-1]), waves[:, 1:])
    loss.backward()
    optimizer.step()
    print(epoch, loss.item())
