"""A GAN on digits with the R1 penalty on real images."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

latent, gamma = 32, 10.0
generator = nn.Sequential(nn.Linear(latent, 128), nn.LeakyReLU(0.2), nn.Linear(128, 784), nn.Tanh())
discriminator = nn.Sequential(nn.Linear(784, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.0, 0.99))
d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.0, 0.99))
transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
loader = DataLoader(datasets.MNIST("data", download=True, transform=transform), batch_size=32, shuffle=True)

for epoch in range(10):
    for images, _ in loader:
        real = images.flatten(1).requires_grad_(True)
        scores = discriminator(real)
        real_loss = F.softplus(-scores).mean()
        (slope,) = torch.autograd.grad(outputs=scores.sum(), inputs=real, create_graph=True)
        fake = generator(torch.randn(real.size(0), latent)).detach()
        fake_loss = F.softplus(discriminator(fake)).mean()
        d_loss = real_loss + fake_loss + gamma / 2 * slope.square().sum(1).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()

        g_loss = F.softplus(-discriminator(generator(torch.randn(real.size(0), latent)))).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
    print(epoch, d_loss.item(), g_loss.item())
