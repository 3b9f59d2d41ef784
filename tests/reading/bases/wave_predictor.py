"""Next-value prediction of noisy sine waves with a GRU cell unrolled by hand."""
import math

import torch
from torch import nn


class GRUPredictor(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.hidden = hidden
        self.cell = nn.GRUCell(1, hidden)
        self.readout = nn.Linear(hidden, 1)
        self.state = None

    def reset(self, batch):
        self.state = torch.zeros(batch, self.hidden)

    def step(self, x):
        self.state = self.cell(x, self.state)
        return self.readout(self.state)

    def forward(self, xs):
        return torch.stack([self.step(x) for x in xs.unbind(1)], dim=1)


def sine_batch(batch=32, length=40):
    phase = torch.rand(batch, 1) * 2 * math.pi
    freq = 0.15 + 0.2 * torch.rand(batch, 1)
    t = torch.arange(length + 1)[None, :]
    wave = torch.sin(freq * t + phase) + 0.05 * torch.randn(batch, length + 1)
    return wave[:, :-1, None], wave[:, 1:, None]


class Experiment:
    def __init__(self, lr=5e-3, steps=300):
        self.model = GRUPredictor()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.loss = nn.MSELoss()
        self.steps = steps
        self.history = []

    def train_step(self):
        x, y = sine_batch()
        self.model.reset(x.shape[0])
        self.optimizer.zero_grad()
        prediction = self.model(x)
        loss = self.loss(prediction, y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def run(self):
        self.model.reset(32)
        for k in range(self.steps):
            self.history.append(self.train_step())
            if (k + 1) % 50 == 0:
                recent = self.history[-50:]
                print(f"step {k + 1}: mse {sum(recent) / len(recent):.4f}")

    @torch.no_grad()
    def dream(self, warm, n=20):
        self.model.eval()
        self.model.reset(warm.shape[0])
        value = self.model(warm)[:, -1]
        out = []
        for _ in range(n):
            out.append(value)
            value = self.model.step(value)
        return torch.stack(out, dim=1)


if __name__ == "__main__":
    torch.manual_seed(0)
    experiment = Experiment()
    experiment.run()
    warm, _ = sine_batch(batch=2)
    print(experiment.dream(warm).squeeze(-1))
