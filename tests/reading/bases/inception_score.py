"""Frechet distance between real and generated images with Inception features."""
import numpy as np
import torch
import torch.nn as nn
from torchvision import models


class FeatureExtractor(nn.Module):
    """Everything of Inception but its classifier."""

    def __init__(self):
        super().__init__()
        self.net = models.inception_v3(pretrained=True)
        self.net.fc = nn.Identity()

    def forward(self, x):
        out = self.net(x)
        return out[0] if isinstance(out, tuple) else out


class Generator(nn.Module):
    def __init__(self, nz=64, ngf=16):
        super().__init__()
        self.nz = nz
        self.net = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0), nn.BatchNorm2d(ngf * 4), nn.ReLU(),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1), nn.BatchNorm2d(ngf * 2), nn.ReLU(),
            nn.ConvTranspose2d(ngf * 2, 3, 4, 2, 1), nn.Tanh(),
        )

    def forward(self, z):
        return self.net(z[:, :, None, None])


def activations(extractor, batches, device):
    feats = []
    extractor.eval()
    with torch.no_grad():
        for x in batches:
            x = x.to(device)
            x = nn.functional.interpolate(x, size=(75, 75), mode="bilinear", align_corners=False)
            feats.append(extractor(x).cpu().numpy())
    return np.concatenate(feats)


def statistics(feats):
    return feats.mean(axis=0), np.cov(feats, rowvar=False)


def frechet(mu1, s1, mu2, s2):
    values = np.linalg.eigvals(s1 @ s2)
    trace = np.sqrt(np.clip(values.real, 0, None)).sum()
    return float(((mu1 - mu2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * trace)


def generated(generator, n_batches, batch_size, device):
    generator.eval()
    with torch.no_grad():
        for _ in range(n_batches):
            z = torch.randn(batch_size, generator.nz, device=device)
            yield generator(z)


def compute_fid(generator, real_batches, n_batches=4, batch_size=32, device="cpu"):
    extractor = FeatureExtractor().to(device)
    real = statistics(activations(extractor, real_batches, device))
    fake = statistics(activations(extractor, generated(generator, n_batches, batch_size, device), device))
    return frechet(*real, *fake)


if __name__ == "__main__":
    torch.manual_seed(0)
    reals = [torch.rand(32, 3, 16, 16) * 2 - 1 for _ in range(4)]
    print("FID: %.3f" % compute_fid(Generator(), reals))
