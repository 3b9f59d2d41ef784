"""A vector quantiser whose codebook follows a moving average of the vectors that choose it."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Quantiser(nn.Module):
    def __init__(self, codes=64, width=8, decay=0.99):
        super().__init__()
        self.decay = decay
        book = torch.randn(codes, width)
        self.register_buffer("book", book)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("book_avg", book.clone())

    def forward(self, x):
        flat = x.reshape(-1, x.size(-1))
        indices = torch.cdist(flat, self.book).argmin(1)
        choices = F.one_hot(indices, len(self.book)).float()
        quantised = self.book[indices].view_as(x)
        if self.training:
            self.counts.mul_(self.decay).add_(choices.sum(0), alpha=1 - self.decay)
            sums = (choices.t() @ flat).detach()
            self.book_avg.mul_(self.decay).add_(sums, alpha=1 - self.decay)
            self.book.copy_(self.book_avg / (self.counts + 1e-5)[:, None])
        commitment = F.mse_loss(x, quantised.detach())
        return x + (quantised - x).detach(), commitment


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 4, 2, 1))
        self.quantiser = Quantiser()
        self.decoder = nn.Sequential(nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1))

    def forward(self, x):
        quantised, commitment = self.quantiser(self.encoder(x).permute(0, 2, 3, 1))
        return self.decoder(quantised.permute(0, 3, 1, 2)), commitment


loader = DataLoader(datasets.MNIST("data", download=True, transform=transforms.ToTensor()), batch_size=32, shuffle=True)
model = Autoencoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(5):
    for images, _ in loader:
        optimizer.zero_grad()
        output, commitment = model(images)
        loss = F.mse_loss(output, images) + 0.25 * commitment
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
