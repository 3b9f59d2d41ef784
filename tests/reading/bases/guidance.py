"""Class-conditional DDPM with classifier-free guidance, on MNIST."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


def make_schedule(T, beta1=1e-4, beta2=0.02):
    beta = torch.linspace(beta1, beta2, T + 1)
    beta[0] = 0.0
    abar = torch.cumprod(1 - beta, dim=0)
    return {
        "beta": beta,
        "abar": abar,
        "sqrt_abar": abar.sqrt(),
        "sqrt_one_minus_abar": (1 - abar).sqrt(),
        "inv_sqrt_alpha": 1 / (1 - beta).sqrt(),
        "eps_coef": torch.cat([torch.zeros(1), beta[1:] / (1 - abar[1:]).sqrt()]),
    }


class FiLM(nn.Module):
    def __init__(self, d, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.Linear(width, 2 * width))

    def forward(self, h, e):
        scale, shift = self.net(e)[:, :, None, None].chunk(2, dim=1)
        return h * (1 + scale) + shift


class ContextUnet(nn.Module):
    def __init__(self, width=24, n_classes=10):
        super().__init__()
        self.n_classes = n_classes
        self.inp = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.time_film = FiLM(1, width)
        self.class_film = FiLM(n_classes, width)
        self.mid = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.out = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x, c, t, drop):
        """c: class indices, t: step in (0, 1], drop: 1 where the class is hidden"""
        onehot = F.one_hot(c, self.n_classes).float() * (1 - drop)[:, None]
        h0 = F.gelu(self.inp(x))
        h = F.gelu(self.down(h0))
        h = self.time_film(h, t[:, None])
        h = self.class_film(h, onehot)
        h = F.gelu(self.norm(self.mid(h)))
        return self.out(torch.cat([self.up(h), h0], dim=1))


class DDPM(nn.Module):
    def __init__(self, net, T=400, drop_prob=0.1):
        super().__init__()
        self.net, self.T, self.drop_prob = net, T, drop_prob
        for name, table in make_schedule(T).items():
            self.register_buffer(name, table)

    def forward(self, x, c):
        t = torch.randint(1, self.T + 1, (x.shape[0],), device=x.device)
        eps = torch.randn_like(x)
        x_t = self.sqrt_abar[t, None, None, None] * x + self.sqrt_one_minus_abar[t, None, None, None] * eps
        drop = torch.bernoulli(torch.full_like(c, self.drop_prob, dtype=torch.float))
        return F.mse_loss(self.net(x_t, c, t / self.T, drop), eps)

    @torch.no_grad()
    def sample(self, n, size, device, w=2.0):
        x = torch.randn(n, *size, device=device)
        c = torch.arange(n, device=device) % self.net.n_classes
        for i in range(self.T, 0, -1):
            t = torch.full((n,), i / self.T, device=device)
            z = torch.randn_like(x) if i > 1 else 0
            eps_cond = self.net(x, c, t, torch.zeros(n, device=device))
            eps_free = self.net(x, c, t, torch.ones(n, device=device))
            eps = eps_free + (1 + w) * (eps_cond - eps_free)
            x = self.inv_sqrt_alpha[i] * (x - eps * self.eps_coef[i]) + self.beta[i].sqrt() * z
        return x


def main():
    device = "cuda:0"
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    data = datasets.MNIST("./data", train=True, download=True, transform=transform)
    loader = DataLoader(data, batch_size=64, shuffle=True)
    ddpm = DDPM(ContextUnet()).to(device)
    optim = torch.optim.Adam(ddpm.parameters(), lr=1e-4)
    for epoch in range(20):
        ddpm.train()
        optim.param_groups[0]["lr"] = 1e-4 * (1 - epoch / 20)
        loss_ema = None
        for x, c in loader:
            optim.zero_grad()
            loss = ddpm(x.to(device), c.to(device))
            loss.backward()
            loss_ema = loss.item() if loss_ema is None else 0.95 * loss_ema + 0.05 * loss.item()
            optim.step()
        ddpm.eval()
        images = ddpm.sample(20, (1, 28, 28), device)
        print(f"epoch {epoch}: loss {loss_ema:.4f}, samples in [{images.min():.2f}, {images.max():.2f}]")


if __name__ == "__main__":
    main()
