"""Rules of VAEs, Transformers, diffusion and sampling: one slip each in small programs, and the same without it."""

from pathlib import Path

import pytest

from bowerbird.reading.check import check
from bowerbird.reading.running.launch import Child

VAE = """
import torch
from torch import nn
from torch.nn import functional as F

class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.mu, self.lv, self.dec = nn.Linear(784, 32), nn.Linear(32, 4), nn.Linear(32, 4), nn.Linear(4, 784)

    def reparameterize(self, mu, logvar):
        if not self.training:
            return mu
        std = torch.exp(0.5 * logvar)
        return mu + std * torch.randn_like(std)

    def forward(self, x):
        h = torch.relu(self.enc(x.view(-1, 784)))
        mu, logvar = self.mu(h), self.lv(h)
        return torch.sigmoid(self.dec(self.reparameterize(mu, logvar))), mu, logvar

def loss_function(recon_x, x, mu, logvar):
    bce = F.binary_cross_entropy(recon_x, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld

model = VAE()
optimizer = torch.optim.Adam(model.parameters())
for step in range(3):
    x = torch.rand(8, 784)
    loss = loss_function(*model(x)[:1], x, *model(x)[1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
z = torch.randn(16, 4)
image = model.dec(z)
"""

GPT = """
import math
import torch
from torch import nn
from torch.nn import functional as F

class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, d // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) / math.sqrt(d // self.heads)
        scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
        weights = F.softmax(scores, dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))

class LanguageModel(nn.Module):
    def __init__(self, vocab=40, dim=32, heads=4):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, dim), nn.Embedding(64, dim)
        self.attention, self.head = Attention(dim, heads), nn.Linear(dim, vocab)

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.size(1)))
        x = x + F.dropout(self.attention(x), p=0.1, training=self.training)
        return self.head(x)

data = torch.randint(0, 40, (500,))
model = LanguageModel()
optimizer = torch.optim.Adam(model.parameters())
for step in range(3):
    at = torch.randint(0, 470, (6,)).tolist()
    x = torch.stack([data[i : i + 12] for i in at])
    y = torch.stack([data[i + 1 : i + 13] for i in at])
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

@torch.no_grad()
def generate(ids, n, temperature=1.0, top_k=None):
    model.eval()
    for _ in range(n):
        logits = model(ids)[:, -1]
        logits = logits / temperature
        if top_k is not None:
            v, _ = torch.topk(logits, top_k)
            logits[logits < v[:, [-1]]] = -float("inf")
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], dim=1)
    return ids
"""

DIFFUSION = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.time = nn.Embedding(60, 8)
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, t):
        return self.last(torch.relu(self.first(x) + self.time(t)[:, :, None, None]))

class Diffusion:
    def __init__(self, steps=60):
        self.steps = steps
        self.betas = torch.linspace(0.002, 0.3, steps)
        self.alphas = 1 - self.betas
        self.alphas_cumprod = torch.cumprod(self.alphas, 0)

    def add_noise(self, x, t, noise):
        a = self.alphas_cumprod[t].sqrt()[:, None, None, None]
        s = (1 - self.alphas_cumprod[t]).sqrt()[:, None, None, None]
        return a * x + s * noise

    @torch.no_grad()
    def sample(self, model, n):
        x = torch.randn(n, 1, 8, 8)
        for i in reversed(range(self.steps)):
            t = torch.full((n,), i)
            eps = model(x, t)
            noise = torch.randn_like(x) if i > 0 else torch.zeros_like(x)
            mean = (x - self.betas[i] / (1 - self.alphas_cumprod[i]).sqrt() * eps) / self.alphas[i].sqrt()
            x = mean + self.betas[i].sqrt() * noise
        return x

diffusion, model = Diffusion(), Net()
optimizer = torch.optim.Adam(model.parameters())
for step in range(3):
    x = torch.rand(4, 1, 8, 8) * 2 - 1
    t = torch.randint(0, 60, (4,))
    noise = torch.randn_like(x)
    loss = F.mse_loss(model(diffusion.add_noise(x, t, noise), t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

SLIPS = [
    (VAE, "V02", "torch.exp(0.5 * logvar)", "torch.exp(logvar)"),
    (VAE, "V03", "            return mu\n", "            return logvar\n"),
    (VAE, "V04", 'reduction="sum"', 'reduction="mean"'),
    (VAE, "V06", "-0.5 * torch.sum", "0.5 * torch.sum"),
    (GPT, "T01", "F.softmax(scores, dim=-1)", "F.softmax(scores, dim=-2)"),
    (GPT, "T03", ".transpose(1, 2).reshape(b, t, d)", ".reshape(b, t, d)"),
    (GPT, "T05", 'float("-inf"))', "1e-9)"),
    (GPT, "T06", "math.sqrt(d // self.heads)", "math.sqrt(d)"),
    (GPT, "T10", "data[i + 1 : i + 13]", "data[i + 2 : i + 14]"),
    (GPT, "S03", "logits / temperature", "logits * temperature"),
    (GPT, "S05", "v[:, [-1]]", "v[:, [0]]"),
    (GPT, "S07", ", training=self.training", ""),
    (DIFFUSION, "D03", "torch.cumprod(self.alphas, 0)", "torch.cumsum(self.alphas, 0)"),
    (DIFFUSION, "D03", "s = (1 - self.alphas_cumprod[t]).sqrt()", "s = (1 - self.alphas_cumprod[t])"),
    (DIFFUSION, "D08", "self.betas[i].sqrt() * noise", "self.betas[i] * noise"),
    (DIFFUSION, "D08", "if i > 0 else", "if i >= 0 else"),
    (DIFFUSION, "X20", "self.time(t)", "self.time(t * 0)"),
    (DIFFUSION, "D13", "torch.randint(0, 60", "torch.randint(1, 60"),
]  # fmt: skip


def findings(text: str, folder: Path, child: Child) -> list[tuple[str, str, int]]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    result = check(path, child=child)
    assert result.ran
    return [(f.rule, f.severity, f.line) for f in result.findings if f.rule[0] in "VTDS" or f.rule == "X20"]


@pytest.mark.parametrize(
    ("text", "rule", "right", "wrong"), SLIPS, ids=[f"{r}-{w.strip()[:24]}" for _, r, _, w in SLIPS]
)
def test_a_slip_is_named_at_its_line(
    text: str, rule: str, right: str, wrong: str, tmp_path: Path, child: Child
) -> None:
    assert text.count(right) == 1
    line = text[: text.index(right)].count("\n") + 1
    found = findings(text.replace(right, wrong), tmp_path, child)
    named = ("error", "warning") if rule == "S03" else ("error",)  # some call an inverse temperature so
    assert any(r == rule and severity in named and abs(at - line) <= 2 for r, severity, at in found), found


@pytest.mark.parametrize("text", [VAE, GPT, DIFFUSION], ids=["vae", "gpt", "diffusion"])
def test_without_slips_nothing_is_said(text: str, tmp_path: Path, child: Child) -> None:
    found = findings(text, tmp_path, child)
    assert [f for f in found if f[1] in ("error", "warning")] == []
    assert sum(severity == "ok" for _, severity, _ in found) >= 2
