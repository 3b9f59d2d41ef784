import itertools
import random

import torch
import torch.nn as nn


class ResidualBlock(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(features, features, 3), nn.InstanceNorm2d(features), nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1), nn.Conv2d(features, features, 3), nn.InstanceNorm2d(features))

    def forward(self, x):
        return x + self.block(x)


class Generator(nn.Module):
    def __init__(self, ch=8, n_res=2):
        super().__init__()
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, ch, 7), nn.InstanceNorm2d(ch), nn.ReLU(inplace=True),
            nn.Conv2d(ch, ch * 2, 3, stride=2, padding=1), nn.InstanceNorm2d(ch * 2), nn.ReLU(inplace=True),
            *[ResidualBlock(ch * 2) for _ in range(n_res)],
            nn.ConvTranspose2d(ch * 2, ch, 4, stride=2, padding=1), nn.InstanceNorm2d(ch), nn.ReLU(inplace=True),
            nn.ReflectionPad2d(3), nn.Conv2d(ch, 3, 7), nn.Tanh())

    def forward(self, x):
        return self.model(x)


class Discriminator(nn.Module):
    def __init__(self, ch=8):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, ch, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ch, ch * 2, 4, 2, 1), nn.InstanceNorm2d(ch * 2), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ch * 2, 1, 3, 1, 1))

    def forward(self, x):
        return self.model(x)


class ReplayBuffer:
    """Hands out old fakes half of the time."""

    def __init__(self, max_size=50):
        self.max_size, self.data = max_size, []

    def push_and_pop(self, images):
        out = []
        for image in images.detach():
            image = image.unsqueeze(0)
            if len(self.data) < self.max_size:
                self.data.append(image)
                out.append(image)
            elif random.random() > 0.5:
                i = random.randrange(self.max_size)
                out.append(self.data[i].clone())
                self.data[i] = image
            else:
                out.append(image)
        return torch.cat(out)


G_AB, G_BA, D_A, D_B = Generator(), Generator(), Discriminator(), Discriminator()
mse, l1 = nn.MSELoss(), nn.L1Loss()
optimizer_G = torch.optim.Adam(itertools.chain(G_AB.parameters(), G_BA.parameters()), lr=2e-4, betas=(0.5, 0.999))
optimizer_D_A = torch.optim.Adam(D_A.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizer_D_B = torch.optim.Adam(D_B.parameters(), lr=2e-4, betas=(0.5, 0.999))
buffer_A, buffer_B = ReplayBuffer(), ReplayBuffer()
lambda_cyc, lambda_id = 10.0, 5.0


def against(output, value):
    return mse(output, torch.full_like(output, value))


def batches(n, size=2):
    for _ in range(n):
        yield torch.rand(size, 3, 32, 32) * 2 - 1, torch.rand(size, 3, 32, 32).pow(2) * 2 - 1


for epoch in range(2):
    for real_A, real_B in batches(6):
        optimizer_G.zero_grad()
        loss_id = l1(G_BA(real_A), real_A) + l1(G_AB(real_B), real_B)
        fake_B, fake_A = G_AB(real_A), G_BA(real_B)
        loss_gan = against(D_B(fake_B), 1.0) + against(D_A(fake_A), 1.0)
        loss_cycle = l1(G_BA(fake_B), real_A) + l1(G_AB(fake_A), real_B)
        loss_G = loss_gan + lambda_cyc * loss_cycle + lambda_id * loss_id
        loss_G.backward()
        optimizer_G.step()

        optimizer_D_A.zero_grad()
        loss_D_A = (against(D_A(real_A), 1.0) + against(D_A(buffer_A.push_and_pop(fake_A)), 0.0)) / 2
        loss_D_A.backward()
        optimizer_D_A.step()

        optimizer_D_B.zero_grad()
        loss_D_B = (against(D_B(real_B), 1.0) + against(D_B(buffer_B.push_and_pop(fake_B)), 0.0)) / 2
        loss_D_B.backward()
        optimizer_D_B.step()
    print(f"epoch {epoch} G {loss_G.item():.3f} D_A {loss_D_A.item():.3f} D_B {loss_D_B.item():.3f}")
