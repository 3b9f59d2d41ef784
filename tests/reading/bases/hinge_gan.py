"""Hinge GAN with spectral normalisation and two time scales."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import spectral_norm


def conv_block(c_in, c_out):
    """Spectrally normalised strided convolution."""
    return nn.Sequential(spectral_norm(nn.Conv2d(c_in, c_out, 4, 2, 1)), nn.LeakyReLU(0.1))


class DNet(nn.Module):
    """A convolutional discriminator: three strided convolutions and a linear score."""

    def __init__(self, ch=16):
        super().__init__()
        self.body = nn.Sequential(conv_block(3, ch), conv_block(ch, ch * 2), conv_block(ch * 2, ch * 4))
        self.score = spectral_norm(nn.Linear(ch * 4, 1))

    def forward(self, x):
        h = self.body(x)
        return self.score(h.sum(dim=(2, 3))).squeeze(1)


class GNet(nn.Module):
    """A convolutional generator: a linear projection and three upsampling stages."""

    def __init__(self, z_dim=32, ch=16):
        super().__init__()
        self.z_dim = z_dim
        self.fc = nn.Linear(z_dim, ch * 4 * 16)
        self.up1 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(ch * 4, ch * 2, 3, 1, 1), nn.BatchNorm2d(ch * 2), nn.ReLU())
        self.up2 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(ch * 2, ch, 3, 1, 1), nn.BatchNorm2d(ch), nn.ReLU())
        self.up3 = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(ch, 3, 3, 1, 1), nn.Tanh())

    def forward(self, z):
        h = self.fc(z).view(z.shape[0], -1, 4, 4)
        return self.up3(self.up2(self.up1(h)))


def d_hinge(real_scores, fake_scores):
    return F.relu(1.0 - real_scores).mean() + F.relu(1.0 + fake_scores).mean()


def g_hinge(fake_scores):
    return -fake_scores.mean()


class Solver:
    def __init__(self, g, d, loader, g_lr=1e-4, d_lr=4e-4, device="cpu"):
        self.g, self.d, self.loader, self.device = g.to(device), d.to(device), loader, device
        self.g_opt = torch.optim.Adam(self.g.parameters(), g_lr, betas=(0.0, 0.999))
        self.d_opt = torch.optim.Adam(self.d.parameters(), d_lr, betas=(0.0, 0.999))

    def noise(self, n):
        return torch.randn(n, self.g.z_dim, device=self.device)

    def update_d(self, real):
        fake = self.g(self.noise(len(real))).detach()
        loss = d_hinge(self.d(real), self.d(fake))
        self.d_opt.zero_grad()
        loss.backward()
        self.d_opt.step()
        return loss.item()

    def update_g(self, n):
        self.d.requires_grad_(False)
        loss = g_hinge(self.d(self.g(self.noise(n))))
        self.g_opt.zero_grad()
        loss.backward()
        self.g_opt.step()
        self.d.requires_grad_(True)
        return loss.item()

    def train(self, epochs=10):
        for epoch in range(epochs):
            d_sum, g_sum, k = 0.0, 0.0, 0
            for real, _ in self.loader:
                real = real.to(self.device)
                d_sum += self.update_d(real)
                g_sum += self.update_g(len(real))
                k += 1
            print(f"[{epoch}] d {d_sum / k:.3f} g {g_sum / k:.3f}")


if __name__ == "__main__":
    images = torch.rand(256, 3, 32, 32) * 2 - 1
    data = torch.utils.data.TensorDataset(images, torch.zeros(256))
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
    Solver(GNet(), DNet(), loader).train(epochs=3)
