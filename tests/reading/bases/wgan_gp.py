"""Wasserstein GAN with gradient penalty on 32x32 RGB images."""
import torch
from torch import nn, autograd, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

Z_DIM = 64
LAMBDA_GP = 10.0
CRITIC_ITERS = 5
BATCH = 32
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Generator(nn.Module):
    def __init__(self, z_dim=Z_DIM, width=32):
        super().__init__()
        self.project = nn.Linear(z_dim, width * 4 * 4 * 4)
        self.up = nn.Sequential(
            nn.BatchNorm2d(width * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1),
            nn.BatchNorm2d(width * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(width * 2, width, 4, 2, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, 3, 4, 2, 1),
        )

    def forward(self, z):
        h = self.project(z)
        h = h.view(z.size(0), -1, 4, 4)
        return torch.tanh(self.up(h))


class Critic(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width * 2, 4, 2, 1),
            nn.InstanceNorm2d(width * 2, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width * 2, width * 4, 4, 2, 1),
            nn.InstanceNorm2d(width * 4, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width * 4, 1, 4, 1, 0),
        )

    def forward(self, x):
        return self.main(x).view(-1)


def gradient_penalty(critic, real, fake):
    batch_size = real.size(0)
    alpha = torch.rand(batch_size, 1, 1, 1, device=real.device)
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    scores = critic(mixed)
    gradients = autograd.grad(
        outputs=scores,
        inputs=mixed,
        grad_outputs=torch.ones_like(scores),
        create_graph=True,
        retain_graph=True,
    )[0]
    gradients = gradients.view(batch_size, -1)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean()


class WGANGP:
    def __init__(self):
        self.G = Generator().to(device)
        self.D = Critic().to(device)
        self.opt_g = optim.Adam(self.G.parameters(), lr=1e-4, betas=(0.0, 0.9))
        self.opt_d = optim.Adam(self.D.parameters(), lr=1e-4, betas=(0.0, 0.9))

    def critic_step(self, real):
        z = torch.randn(real.size(0), Z_DIM, device=device)
        with torch.no_grad():
            fake = self.G(z)
        real_score = self.D(real).mean()
        fake_score = self.D(fake).mean()
        penalty = gradient_penalty(self.D, real, fake)
        loss = fake_score - real_score + LAMBDA_GP * penalty
        self.opt_d.zero_grad()
        loss.backward()
        self.opt_d.step()
        return (real_score - fake_score).item(), penalty.item()

    def generator_step(self, batch_size):
        z = torch.randn(batch_size, Z_DIM, device=device)
        loss = -self.D(self.G(z)).mean()
        self.opt_g.zero_grad()
        loss.backward()
        self.opt_g.step()
        return loss.item()

    def fit(self, loader, epochs):
        step = 0
        for epoch in range(epochs):
            for real, _ in loader:
                distance, penalty = self.critic_step(real.to(device))
                step += 1
                if step % CRITIC_ITERS == 0:
                    g_loss = self.generator_step(real.size(0))
                    print(f"{step}: W {distance:.3f} gp {penalty:.3f} G {g_loss:.3f}")


if __name__ == "__main__":
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    data = datasets.CIFAR10("./data", train=True, download=True, transform=transform)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    WGANGP().fit(loader, epochs=50)
