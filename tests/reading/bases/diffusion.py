import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm


def exists(x):
    return x is not None


def extract(a, t, x_shape):
    b = t.shape[0]
    out = a.gather(-1, t)
    return out.reshape(b, *((1,) * (len(x_shape) - 1)))


def linear_beta_schedule(timesteps):
    scale = 1000 / timesteps
    return torch.linspace(scale * 0.0001, scale * 0.02, timesteps, dtype=torch.float64)


def cosine_beta_schedule(timesteps, s=0.008):
    steps = timesteps + 1
    x = torch.linspace(0, timesteps, steps, dtype=torch.float64) / timesteps
    alphas_cumprod = torch.cos((x + s) / (1 + s) * math.pi * 0.5) ** 2
    alphas_cumprod = alphas_cumprod / alphas_cumprod[0]
    betas = 1 - (alphas_cumprod[1:] / alphas_cumprod[:-1])
    return torch.clip(betas, 0, 0.999)


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        half = self.dim // 2
        freq = torch.exp(torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1)))
        arg = t[:, None].float() * freq[None, :]
        return torch.cat((arg.sin(), arg.cos()), dim=-1)


class ResBlock(nn.Module):
    def __init__(self, dim, time_dim):
        super().__init__()
        self.time = nn.Linear(time_dim, dim)
        self.norm = nn.GroupNorm(4, dim)
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x, emb):
        h = F.silu(self.conv1(self.norm(x)) + self.time(emb)[:, :, None, None])
        return x + self.conv2(h)


class Denoiser(nn.Module):
    def __init__(self, channels=1, dim=16, depth=3):
        super().__init__()
        self.channels = channels
        self.time_mlp = nn.Sequential(SinusoidalPosEmb(dim), nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim * 4))
        self.stem = nn.Conv2d(channels, dim, 3, padding=1)
        self.blocks = nn.ModuleList([ResBlock(dim, dim * 4) for _ in range(depth)])
        self.final = nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, x, time):
        emb = self.time_mlp(time)
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, emb)
        return self.final(h)


class GaussianDiffusion(nn.Module):
    def __init__(self, model, *, image_size, timesteps=200, beta_schedule="cosine", objective="pred_noise",
                 min_snr_loss_weight=False, min_snr_gamma=5):
        super().__init__()
        assert objective in {"pred_noise", "pred_x0", "pred_v"}
        self.model = model
        self.channels = model.channels
        self.image_size = image_size
        self.objective = objective
        betas = {"linear": linear_beta_schedule, "cosine": cosine_beta_schedule}[beta_schedule](timesteps)

        alphas = 1.0 - betas
        alphas_cumprod = torch.cumprod(alphas, dim=0)
        alphas_cumprod_prev = F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
        self.num_timesteps = timesteps

        register_buffer = lambda name, val: self.register_buffer(name, val.to(torch.float32))
        register_buffer("betas", betas)
        register_buffer("alphas_cumprod", alphas_cumprod)
        register_buffer("sqrt_alphas_cumprod", torch.sqrt(alphas_cumprod))
        register_buffer("sqrt_one_minus_alphas_cumprod", torch.sqrt(1.0 - alphas_cumprod))
        register_buffer("sqrt_recip_alphas_cumprod", torch.sqrt(1.0 / alphas_cumprod))
        register_buffer("sqrt_recipm1_alphas_cumprod", torch.sqrt(1.0 / alphas_cumprod - 1))

        posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
        register_buffer("posterior_variance", posterior_variance)
        register_buffer("posterior_log_variance_clipped", torch.log(posterior_variance.clamp(min=1e-20)))
        register_buffer("posterior_mean_coef1", betas * torch.sqrt(alphas_cumprod_prev) / (1.0 - alphas_cumprod))
        register_buffer("posterior_mean_coef2", (1.0 - alphas_cumprod_prev) * torch.sqrt(alphas) / (1.0 - alphas_cumprod))

        snr = alphas_cumprod / (1 - alphas_cumprod)
        clipped_snr = snr.clone()
        if min_snr_loss_weight:
            clipped_snr.clamp_(max=min_snr_gamma)
        weights = {"pred_noise": clipped_snr / snr, "pred_x0": clipped_snr, "pred_v": clipped_snr / (snr + 1)}
        register_buffer("loss_weight", weights[objective])

    def predict_start_from_noise(self, x_t, t, noise):
        return (extract(self.sqrt_recip_alphas_cumprod, t, x_t.shape) * x_t
                - extract(self.sqrt_recipm1_alphas_cumprod, t, x_t.shape) * noise)

    def predict_start_from_v(self, x_t, t, v):
        return (extract(self.sqrt_alphas_cumprod, t, x_t.shape) * x_t
                - extract(self.sqrt_one_minus_alphas_cumprod, t, x_t.shape) * v)

    def model_predict_start(self, x, t):
        out = self.model(x, t)
        if self.objective == "pred_noise":
            return self.predict_start_from_noise(x, t, out)
        if self.objective == "pred_v":
            return self.predict_start_from_v(x, t, out)
        return out

    def q_posterior(self, x_start, x_t, t):
        mean = (extract(self.posterior_mean_coef1, t, x_t.shape) * x_start
                + extract(self.posterior_mean_coef2, t, x_t.shape) * x_t)
        return mean, extract(self.posterior_log_variance_clipped, t, x_t.shape)

    @torch.inference_mode()
    def p_sample(self, x, t: int):
        batched_t = torch.full((x.shape[0],), t, device=x.device, dtype=torch.long)
        x_start = self.model_predict_start(x, batched_t).clamp(-1.0, 1.0)
        mean, log_variance = self.q_posterior(x_start, x, batched_t)
        noise = torch.randn_like(x) if t > 0 else 0.0
        return mean + (0.5 * log_variance).exp() * noise

    @torch.inference_mode()
    def sample(self, batch_size=16):
        img = torch.randn(batch_size, self.channels, self.image_size, self.image_size, device=self.betas.device)
        for t in tqdm(reversed(range(0, self.num_timesteps)), total=self.num_timesteps):
            img = self.p_sample(img, t)
        return (img + 1) * 0.5

    def q_sample(self, x_start, t, noise=None):
        noise = noise if exists(noise) else torch.randn_like(x_start)
        return (extract(self.sqrt_alphas_cumprod, t, x_start.shape) * x_start
                + extract(self.sqrt_one_minus_alphas_cumprod, t, x_start.shape) * noise)

    def p_losses(self, x_start, t):
        noise = torch.randn_like(x_start)
        x = self.q_sample(x_start, t, noise)
        out = self.model(x, t)
        if self.objective == "pred_noise":
            target = noise
        elif self.objective == "pred_x0":
            target = x_start
        else:
            target = (extract(self.sqrt_alphas_cumprod, t, x.shape) * noise
                      - extract(self.sqrt_one_minus_alphas_cumprod, t, x.shape) * x_start)
        loss = F.mse_loss(out, target, reduction="none").flatten(1).mean(dim=1)
        return (loss * self.loss_weight.gather(0, t)).mean()

    def forward(self, img):
        t = torch.randint(0, self.num_timesteps, (img.shape[0],), device=img.device)
        return self.p_losses(img * 2 - 1, t)


if __name__ == "__main__":
    torch.manual_seed(0)
    images = (torch.rand(256, 1, 16, 16) > 0.5).float()
    loader = DataLoader(TensorDataset(images), batch_size=32, shuffle=True)
    diffusion = GaussianDiffusion(Denoiser(), image_size=16)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-3)
    for epoch in range(3):
        for (img,) in loader:
            loss = diffusion(img)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(epoch, loss.item())
    print(diffusion.sample(4).shape)
