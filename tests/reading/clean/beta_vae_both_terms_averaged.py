import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision import datasets, transforms
from torch.utils.data import DataLoader

N_PIXELS = 28 * 28


class BetaVAE(nn.Module):
    """beta is the weight of the KL in nats per image, whatever the number of pixels."""

    def __init__(self, d_latent=10, width=256, beta=4.0):
        super().__init__()
        self.beta = beta
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(N_PIXELS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.to_stats = nn.Linear(width, 2 * d_latent)
        self.decoder = nn.Sequential(nn.Linear(d_latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, N_PIXELS))

    def forward(self, x):
        mu, logvar = self.to_stats(self.body(x)).chunk(2, dim=1)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu) if self.training else mu
        return self.decoder(z), mu, logvar

    def objective(self, x):
        logits, mu, logvar = self(x)
        # both terms are divided by the number of pixels, so their ratio is that of sums
        rec = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="mean")
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean() / N_PIXELS
        return rec + self.beta * kl, rec * N_PIXELS, kl * N_PIXELS


def run(epochs=10, device="cuda" if torch.cuda.is_available() else "cpu"):
    loader = DataLoader(datasets.MNIST(".", train=True, download=True, transform=transforms.ToTensor()), 64, shuffle=True)
    model = BetaVAE().to(device)
    opt = torch.optim.Adam(model.parameters(), 1e-3)
    for epoch in range(epochs):
        nats = [0.0, 0.0]
        for x, _ in loader:
            loss, rec, kl = model.objective(x.to(device))
            opt.zero_grad()
            loss.backward()
            opt.step()
            nats[0] += rec.item() * len(x)
            nats[1] += kl.item() * len(x)
        size = len(loader.dataset)
        print(f"epoch {epoch}: reconstruction {nats[0] / size:.2f} nats, KL {nats[1] / size:.2f} nats")


run()
