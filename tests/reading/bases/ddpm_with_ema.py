import copy
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.utils import save_image
from tqdm import tqdm


class Diffusion:
    def __init__(self, noise_steps=1000, beta_start=1e-4, beta_end=0.02, img_size=32, device="cuda"):
        self.noise_steps = noise_steps
        self.img_size = img_size
        self.device = device
        self.beta = torch.linspace(beta_start, beta_end, noise_steps).to(device)
        self.alpha = 1.0 - self.beta
        self.alpha_hat = torch.cumprod(self.alpha, dim=0)

    def noise_images(self, x, t):
        sqrt_alpha_hat = torch.sqrt(self.alpha_hat[t])[:, None, None, None]
        sqrt_one_minus_alpha_hat = torch.sqrt(1 - self.alpha_hat[t])[:, None, None, None]
        eps = torch.randn_like(x)
        return sqrt_alpha_hat * x + sqrt_one_minus_alpha_hat * eps, eps

    def sample_timesteps(self, n):
        return torch.randint(low=0, high=self.noise_steps, size=(n,))

    def sample(self, model, n):
        model.eval()
        with torch.no_grad():
            x = torch.randn((n, 3, self.img_size, self.img_size)).to(self.device)
            for i in tqdm(list(reversed(range(0, self.noise_steps)))):
                t = (torch.ones(n) * i).long().to(self.device)
                predicted_noise = model(x, t)
                alpha = self.alpha[t][:, None, None, None]
                alpha_hat = self.alpha_hat[t][:, None, None, None]
                beta = self.beta[t][:, None, None, None]
                noise = torch.randn_like(x) if i > 0 else torch.zeros_like(x)
                x = 1 / torch.sqrt(alpha) * (x - ((1 - alpha) / torch.sqrt(1 - alpha_hat)) * predicted_noise) + torch.sqrt(beta) * noise
        model.train()
        x = (x.clamp(-1, 1) + 1) / 2
        return x


class EMA:
    def __init__(self, beta):
        self.beta = beta

    @torch.no_grad()
    def update(self, ema_model, model):
        for ema_params, params in zip(ema_model.parameters(), model.parameters()):
            ema_params.mul_(self.beta).add_(params, alpha=1 - self.beta)
        for ema_buffer, buffer in zip(ema_model.buffers(), model.buffers()):
            ema_buffer.copy_(buffer)


class Block(nn.Module):
    def __init__(self, c_in, c_out, emb_dim, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.norm = nn.BatchNorm2d(c_out)
        self.emb = nn.Linear(emb_dim, c_out)

    def forward(self, x, emb):
        return F.silu(self.norm(self.conv(x)) + self.emb(emb)[:, :, None, None])


class UNet(nn.Module):
    def __init__(self, c=3, dim=16, emb_dim=64):
        super().__init__()
        self.emb_dim = emb_dim
        self.down1 = Block(c, dim, emb_dim)
        self.down2 = Block(dim, dim * 2, emb_dim, stride=2)
        self.mid = Block(dim * 2, dim * 2, emb_dim)
        self.up = nn.ConvTranspose2d(dim * 2, dim, 4, 2, 1)
        self.merge = Block(dim * 2, dim, emb_dim)
        self.outc = nn.Conv2d(dim, c, 1)

    def pos_encoding(self, t):
        inv_freq = 1.0 / (10000 ** (torch.arange(0, self.emb_dim, 2, device=t.device).float() / self.emb_dim))
        angles = t[:, None].float() * inv_freq[None]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, x, t):
        emb = self.pos_encoding(t)
        x1 = self.down1(x, emb)
        x2 = self.mid(self.down2(x1, emb), emb)
        x = torch.cat([self.up(x2), x1], dim=1)
        return self.outc(self.merge(x, emb))


def train():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.makedirs("results", exist_ok=True)
    tf = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
    dataloader = DataLoader(datasets.CIFAR10("data", download=True, transform=tf), batch_size=16, shuffle=True)
    model = UNet().to(device)
    ema_model = copy.deepcopy(model).eval().requires_grad_(False)
    ema = EMA(0.995)
    optimizer = optim.AdamW(model.parameters(), lr=3e-4)
    mse = nn.MSELoss()
    diffusion = Diffusion(device=device)
    for epoch in range(100):
        for images, _ in tqdm(dataloader):
            images = images.to(device)
            t = diffusion.sample_timesteps(images.shape[0]).to(device)
            x_t, noise = diffusion.noise_images(images, t)
            predicted_noise = model(x_t, t)
            loss = mse(noise, predicted_noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ema.update(ema_model, model)
        print("epoch", epoch, "mse", loss.item())
        if epoch % 10 == 0:
            sampled_images = diffusion.sample(ema_model, n=8)
            save_image(sampled_images, f"results/{epoch}.jpg")
            torch.save(ema_model.state_dict(), "results/ema.pt")


if __name__ == "__main__":
    train()
