import torch
import torch.nn as nn
import torch.nn.functional as F


class Encoder(nn.Module):
    def __init__(self, in_channels=3, hidden=(32, 64, 128), latent_dim=64):
        super().__init__()
        layers = []
        c = in_channels
        for h in hidden:
            layers += [nn.Conv2d(c, h, 3, stride=2, padding=1), nn.BatchNorm2d(h), nn.LeakyReLU()]
            c = h
        self.conv = nn.Sequential(*layers)
        self.fc_mu = nn.Linear(c * 4 * 4, latent_dim)
        self.fc_var = nn.Linear(c * 4 * 4, latent_dim)

    def forward(self, x):
        h = self.conv(x).flatten(1)
        mu = self.fc_mu(h)
        log_var = self.fc_var(h).clamp(-12.0, 8.0)
        return mu, log_var


class Decoder(nn.Module):
    def __init__(self, out_channels=3, hidden=(128, 64, 32), latent_dim=64):
        super().__init__()
        self.fc = nn.Linear(latent_dim, hidden[0] * 4 * 4)
        layers = []
        for a, b in zip(hidden[:-1], hidden[1:]):
            layers += [nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1), nn.BatchNorm2d(b), nn.LeakyReLU()]
        layers += [nn.ConvTranspose2d(hidden[-1], hidden[-1], 3, stride=2, padding=1, output_padding=1), nn.LeakyReLU()]
        self.deconv = nn.Sequential(*layers)
        self.out = nn.Sequential(nn.Conv2d(hidden[-1], out_channels, 3, padding=1), nn.Tanh())

    def forward(self, z):
        h = self.fc(z)
        h = h.view(z.size(0), -1, 4, 4)
        return self.out(self.deconv(h))


class ConvVAE(nn.Module):
    def __init__(self, latent_dim=64, kld_weight=1.0):
        super().__init__()
        self.latent_dim = latent_dim
        self.kld_weight = kld_weight
        self.encoder = Encoder(latent_dim=latent_dim)
        self.decoder = Decoder(latent_dim=latent_dim)

    def reparameterize(self, mu, log_var):
        std = torch.exp(log_var * 0.5)
        if self.training:
            eps = torch.randn_like(std)
            return mu + eps * std
        return mu

    def forward(self, x):
        mu, log_var = self.encoder(x)
        z = self.reparameterize(mu, log_var)
        return self.decoder(z), mu, log_var

    def loss(self, recon, x, mu, log_var):
        recon_loss = F.mse_loss(recon, x, reduction="none").sum(dim=(1, 2, 3)).mean()
        kld = (-0.5 * (1 + log_var - mu ** 2 - log_var.exp()).sum(dim=1)).mean()
        return recon_loss + self.kld_weight * kld, recon_loss.detach(), kld.detach()

    @torch.no_grad()
    def sample(self, n, device):
        self.eval()
        z = torch.randn(n, self.latent_dim, device=device)
        return self.decoder(z)

    @torch.no_grad()
    def reconstruct(self, x):
        self.eval()
        return self.forward(x)[0]


def train(model, dataset, epochs=20, batch_size=64, lr=5e-4, device="cpu"):
    """dataset gives CIFAR images scaled to [-1, 1]"""
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    model.to(device)
    for epoch in range(epochs):
        model.train()
        total, seen = 0.0, 0
        for x, _ in loader:
            x = x.to(device)
            recon, mu, log_var = model(x)
            loss, rec, kld = model.loss(recon, x, mu, log_var)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * x.size(0)
            seen += x.size(0)
        print(f"epoch {epoch}: loss {total / seen:.4f} (last batch: rec {rec:.4f}, kl {kld:.4f})")


if __name__ == "__main__":
    from torchvision import datasets, transforms

    tf = transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda t: t * 2 - 1)])
    cifar = datasets.CIFAR10("data", train=True, download=True, transform=tf)
    vae = ConvVAE(latent_dim=64)
    train(vae, cifar)
    images = vae.sample(16, "cpu")
    print(images.shape)
