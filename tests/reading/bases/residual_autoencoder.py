"""A small convolutional autoencoder of two residual stages, on digits."""

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class Residual(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.block = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, hidden, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1, bias=False),
        )

    def forward(self, x):
        return x + self.block(x)


class Autoencoder(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, width, 4, 2, 1), Residual(width, 8), nn.Conv2d(width, 4, 4, 2, 1))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4, width, 4, 2, 1), Residual(width, 8), nn.ConvTranspose2d(width, 1, 4, 2, 1)
        )

    def forward(self, x):
        return torch.sigmoid(self.decoder(self.encoder(x)))


loader = DataLoader(datasets.MNIST("data", download=True, transform=transforms.ToTensor()), batch_size=32, shuffle=True)
model = Autoencoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(5):
    for images, _ in loader:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy(model(images), images)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: {loss.item():.4f}")
