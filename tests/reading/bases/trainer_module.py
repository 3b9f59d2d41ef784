"""A Wasserstein GAN with clipped weights, as a class that a script elsewhere starts."""

import torch
from torch import nn


class Painter(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 7), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(16, channels, 4, 2, 1), nn.Tanh(),
        )

    def forward(self, z):
        return self.net(z)


class Critic(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 1),
        )

    def forward(self, x):
        return self.net(x)


class Trainer:
    def __init__(self, args):
        self.painter, self.critic = Painter(args.channels), Critic(args.channels)
        self.painter_optimizer = torch.optim.RMSprop(self.painter.parameters(), lr=5e-5)
        self.critic_optimizer = torch.optim.RMSprop(self.critic.parameters(), lr=5e-5)
        self.batch_size, self.epochs, self.limit = 32, args.epochs, 0.01

    def noise(self):
        return torch.randn(self.batch_size, 64, 1, 1)

    def critic_step(self, images):
        fakes = self.painter(self.noise()).detach()
        loss = self.critic(fakes).mean() - self.critic(images).mean()
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        for weight in self.critic.parameters():
            weight.data.clamp_(-self.limit, self.limit)
        return loss.item()

    def painter_step(self):
        scores = self.critic(self.painter(self.noise()))
        loss = -scores.mean()
        self.painter_optimizer.zero_grad()
        loss.backward()
        self.painter_optimizer.step()
        return loss.item()

    def train(self, loader):
        for epoch in range(self.epochs):
            for number, (images, _) in enumerate(loader):
                distance = self.critic_step(images)
                if number % 2 == 1:
                    self.painter_step()
            print(f"epoch {epoch}: {-distance:.4f}")
