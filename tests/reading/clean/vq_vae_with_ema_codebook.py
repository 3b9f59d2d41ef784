"""VQ-VAE whose codebook is a moving average of the encodings and has no gradient at all."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class EMAQuantizer(nn.Module):
    def __init__(self, codes=32, dim=8, decay=0.95, eps=1e-5, commitment=0.25):
        super().__init__()
        self.decay, self.eps, self.commitment = decay, eps, commitment
        embed = torch.randn(codes, dim)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.ones(codes))
        self.register_buffer("embed_sum", embed.clone())

    def forward(self, z):
        flat = z.permute(0, 2, 3, 1).reshape(-1, self.embed.size(1))
        index = torch.cdist(flat.detach(), self.embed).argmin(1)
        onehot = F.one_hot(index, self.embed.size(0)).to(flat.dtype)
        q = self.embed[index].view(z.size(0), z.size(2), z.size(3), -1).permute(0, 3, 1, 2)
        if self.training:
            with torch.no_grad():
                self.cluster_size.lerp_(onehot.sum(0), 1 - self.decay)
                self.embed_sum.lerp_(onehot.t() @ flat, 1 - self.decay)
                total = self.cluster_size.sum()
                size = (self.cluster_size + self.eps) / (total + self.eps * len(self.cluster_size)) * total
                self.embed.copy_(self.embed_sum / size[:, None])
        loss = self.commitment * F.mse_loss(z, q.detach())
        return z + (q - z).detach(), loss, index


class Model(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, dim, 4, 2, 1))
        self.quantizer = EMAQuantizer(dim=dim)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(dim, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1))

    def forward(self, x):
        q, commitment, index = self.quantizer(self.encoder(x))
        return self.decoder(q), commitment, index


def main():
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    stripes = torch.sin(torch.linspace(0, 12, 16))[None, None, None, :]
    for step in range(120):
        x = (stripes * torch.randn(16, 1, 1, 1) + 0.1 * torch.randn(16, 1, 16, 16)).clamp(-1, 1)
        out, commitment, index = model(x)
        loss = F.mse_loss(out, x) + commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(step, round(loss.item(), 4), "codes in use:", index.unique().numel())


main()
