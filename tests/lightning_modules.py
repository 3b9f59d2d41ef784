"""A GAN and a VAE for Lightning, which takes seconds to import, and the smooth pictures that they learn."""

import logging
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("pytorch_lightning")
from bowerbird.integrations.lightning import LightningWatch  # noqa: E402

STEPS, BATCH, N_LATENT = 216, 32, 8


def pictures(n: int = 256) -> Tensor:
    """Smooth 8×8 pictures in [-1, 1] with three degrees of freedom."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.rand(3, n, 1, 1, generator=generator) * 2 - 1
    side = torch.linspace(-1, 1, 8)
    noise = 0.05 * torch.randn(n, 8, 8, generator=generator)
    return (torch.tanh(2 * a * side[:, None] + 2 * b * side + c) + noise).clamp(-1, 1)[:, None]


def perceptron(*sizes: int) -> nn.Sequential:
    layers = [part for n, m in pairwise(sizes) for part in (nn.Linear(n, m), nn.LeakyReLU(0.2))]
    return nn.Sequential(*layers[:-1])


class GAN(pl.LightningModule):
    """A GAN under manual optimisation, as people write them."""

    def __init__(self, broken: str = "", lr: float = 5e-4):
        super().__init__()
        self.automatic_optimization = False
        self.broken, self.lr = broken, lr
        self.generator = nn.Sequential(perceptron(16, 64, 64, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        self.discriminator = nn.Sequential(nn.Flatten(), perceptron(64, 64, 64, 1))

    def training_step(self, batch, _index):
        (real,) = batch
        for_generator, for_discriminator = self.optimizers()
        z = torch.randn(len(real), 16)
        fake = self.generator(1e-4 * z + 1 if self.broken == "collapsed" else z)
        real = real.requires_grad_()
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake.detach())
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        if self.broken != "saturated":
            (slope,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            loss = loss + 0.15 * slope.square().flatten(1).sum(1).mean()
        for_discriminator.zero_grad()
        self.manual_backward(loss)
        for_discriminator.step()
        logits = self.discriminator(fake)
        loss = -F.softplus(logits).mean() if self.broken == "saturated" else F.softplus(-logits).mean()
        for_generator.zero_grad()
        self.manual_backward(loss)
        for_generator.step()

    def configure_optimizers(self):
        slow, fast = (0.02, 20.0) if self.broken == "saturated" else (1.0, 1.0)
        adam = [(self.generator, self.lr * slow), (self.discriminator, self.lr * fast)]
        return [torch.optim.Adam(net.parameters(), lr, betas=(0.0, 0.99)) for net, lr in adam]


class VAE(pl.LightningModule):
    """A variational autoencoder under automatic optimisation."""

    def __init__(self, beta: float = 1.0, lr: float = 2e-3):
        super().__init__()
        self.beta, self.lr = beta, lr
        self.encoder = nn.Sequential(nn.Flatten(), perceptron(64, 64, 2 * N_LATENT))
        self.decoder = nn.Sequential(perceptron(N_LATENT, 64, 64), nn.Unflatten(1, (1, 8, 8)))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, 1)
        return mu, logvar

    def training_step(self, batch, _index):
        (x,) = batch
        mu, logvar = self.posterior(x)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        nll = ((self.decoder(z) - x).square() / (2 * 0.1**2)).flatten(1).sum(1)
        kl = (mu.square() + logvar.exp() - logvar - 1).sum(1) / 2
        loss = (nll + self.beta * kl).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


def fit(module: pl.LightningModule, *watches: LightningWatch, steps: int = STEPS, validate: bool = False) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        max_epochs=steps // 8, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=list(watches),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, check_val_every_n_epoch=8,
    )  # fmt: skip
    shown = DataLoader(TensorDataset(pictures(8 * BATCH)), BATCH, shuffle=True)
    held = DataLoader(TensorDataset(pictures(8 * BATCH + 64)[-64:]), 64) if validate else None
    trainer.fit(module, shown, held)
