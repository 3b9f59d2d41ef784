"""Non-saturating GAN with one-sided label smoothing, R1 and an averaged generator."""
import copy
import torch
import torch.nn as nn
import torch.nn.functional as F

LATENT, R1_GAMMA, R1_EVERY, SMOOTH, DECAY = 16, 1.0, 4, 0.9, 0.99


class G(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(LATENT, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 256), nn.Sigmoid())

    def forward(self, z):
        return self.layers(z).view(-1, 1, 16, 16)


class D(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(512, 1))

    def forward(self, x):
        return self.layers(x)[:, 0]


def r1_penalty(d, real):
    real = real.detach().requires_grad_(True)
    (grad,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
    return grad.pow(2).flatten(1).sum(1).mean()


def train(images, epochs=3, batch=32):
    g, d = G(), D()
    averaged = copy.deepcopy(g).requires_grad_(False)
    g_opt = torch.optim.Adam(g.parameters(), 1e-3, betas=(0.0, 0.99))
    d_opt = torch.optim.Adam(d.parameters(), 1e-3, betas=(0.0, 0.99))
    step = 0
    for epoch in range(epochs):
        for x in images[torch.randperm(len(images))].split(batch):
            z = torch.rand(len(x), LATENT) * 2 - 1
            with torch.no_grad():
                fake = g(z)
            real_score, fake_score = d(x), d(fake)
            d_loss = F.binary_cross_entropy_with_logits(real_score, torch.full_like(real_score, SMOOTH))
            d_loss = d_loss + F.binary_cross_entropy_with_logits(fake_score, torch.zeros_like(fake_score))
            if step % R1_EVERY == 0:
                d_loss = d_loss + R1_GAMMA / 2 * R1_EVERY * r1_penalty(d, x)
            d_opt.zero_grad()
            d_loss.backward()
            d_opt.step()

            score = d(g(torch.rand(len(x), LATENT) * 2 - 1))
            g_loss = F.softplus(-score).mean()
            g_opt.zero_grad()
            g_loss.backward()
            g_opt.step()
            with torch.no_grad():
                for old, new in zip(averaged.parameters(), g.parameters()):
                    old.lerp_(new, 1 - DECAY)
            step += 1
        print(epoch, d_loss.item(), g_loss.item())
    return averaged


if __name__ == "__main__":
    torch.manual_seed(0)
    corpus = (torch.rand(256, 1, 16, 16) > 0.7).float()
    best = train(corpus)
    with torch.no_grad():
        grid = best(torch.rand(9, LATENT) * 2 - 1)
    print(grid.shape, grid.min().item(), grid.max().item())
