"""The original minimax game: the generator minimises log(1 - D(G(z))), as in Algorithm 1 of the 2014 paper.

The saturating form is meant: this script is for the figure that compares it with the non-saturating one.
"""
import torch
import torch.nn as nn

torch.manual_seed(0)
Z, STEPS, BATCH = 8, 400, 128
EPS = 1e-6


def ring(n):
    k = torch.randint(0, 8, (n,)).float() * (2 * torch.pi / 8)
    return torch.stack([k.cos(), k.sin()], dim=1) + 0.05 * torch.randn(n, 2)


def mlp(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_out))


generator = mlp(Z, 2)
discriminator = nn.Sequential(mlp(2, 1), nn.Sigmoid())
g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

for step in range(STEPS):
    # maximise log D(x) + log(1 - D(G(z))) over the discriminator
    real = ring(BATCH)
    fake = generator(torch.randn(BATCH, Z)).detach()
    value = torch.log(discriminator(real) + EPS).mean() + torch.log(1 - discriminator(fake) + EPS).mean()
    d_optimizer.zero_grad()
    (-value).backward()
    d_optimizer.step()

    # minimise the same value over the generator; only its second term depends on it
    g_value = torch.log(1 - discriminator(generator(torch.randn(BATCH, Z))) + EPS).mean()
    g_optimizer.zero_grad()
    g_value.backward()
    g_optimizer.step()
    if step % 100 == 0:
        print(f"{step}: V(D, G) = {value.item():.4f}")
