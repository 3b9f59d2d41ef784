import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence


class GaussianMLP(nn.Module):
    """Two hidden layers, then mean and standard deviation of a diagonal normal."""

    def __init__(self, d_in, d_hidden, d_out):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(d_in, d_hidden), nn.SiLU(), nn.Linear(d_hidden, d_hidden), nn.SiLU())
        self.mean = nn.Linear(d_hidden, d_out)
        self.raw_scale = nn.Linear(d_hidden, d_out)

    def forward(self, x):
        h = self.trunk(x)
        return Normal(self.mean(h), F.softplus(self.raw_scale(h)) + 1e-4)


class BernoulliVAE(nn.Module):
    def __init__(self, d_x=784, d_z=16, d_hidden=256):
        super().__init__()
        self.d_z = d_z
        self.encoder = GaussianMLP(d_x, d_hidden, d_z)
        self.decoder = nn.Sequential(nn.Linear(d_z, d_hidden), nn.SiLU(), nn.Linear(d_hidden, d_x))

    def prior(self, like):
        return Normal(torch.zeros_like(like.loc), torch.ones_like(like.scale))

    def forward(self, x, beta=1.0):
        q = self.encoder(x)
        z = q.rsample()
        logits = self.decoder(z)
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        p = self.prior(q)
        kl = torch.distributions.kl_divergence(q, p).sum(dim=-1)
        return {"loss": (nll + beta * kl).mean(), "nll": nll.mean(), "kl": kl.mean()}

    @torch.no_grad()
    def generate(self, n):
        z = torch.randn(n, self.d_z, device=next(self.parameters()).device)
        return torch.sigmoid(self.decoder(z))


class Trainer:
    def __init__(self, model, optimizer, warmup=2000):
        self.model, self.optimizer, self.warmup = model, optimizer, warmup
        self.step = 0

    def beta(self):
        return min(1.0, (self.step + 1) / self.warmup)

    def run_epoch(self, loader):
        sums = {"loss": 0.0, "nll": 0.0, "kl": 0.0}
        count = 0
        for batch in loader:
            x = batch[0].flatten(1)
            out = self.model(x, self.beta())
            self.optimizer.zero_grad(set_to_none=True)
            out["loss"].backward()
            self.optimizer.step()
            self.step += 1
            for key in sums:
                sums[key] += out[key].item() * x.shape[0]
            count += x.shape[0]
        return {key: value / count for key, value in sums.items()}


def main():
    model = BernoulliVAE()
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-3))
    for epoch in range(5):
        report = trainer.run_epoch(train_loader)
        print(epoch, {k: round(v, 3) for k, v in report.items()})
    samples = model.generate(16).view(-1, 1, 28, 28)
    print(samples.min().item(), samples.max().item())


main()
