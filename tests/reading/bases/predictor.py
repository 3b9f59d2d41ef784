"""Denoising autoencoder on MNIST with a frozen, pretrained encoder."""
import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms


def get_args():
    p = argparse.ArgumentParser()
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--accumulate", type=int, default=4)
    p.add_argument("--noise", type=float, default=0.3)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--save", action="store_true", help="write the decoder after training")
    return p.parse_args()


class ConvEncoder(nn.Module):
    def __init__(self, width=16, code=32):
        super().__init__()
        self.c1 = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.c2 = nn.Conv2d(width, width * 2, 3, stride=2, padding=1)
        self.fc = nn.Linear(width * 2 * 7 * 7, code)

    def forward(self, x):
        x = F.relu(self.c1(x))
        x = F.relu(self.c2(x))
        return self.fc(x.flatten(1))


class ConvDecoder(nn.Module):
    def __init__(self, width=16, code=32):
        super().__init__()
        self.width = width
        self.fc = nn.Linear(code, width * 2 * 7 * 7)
        self.d1 = nn.ConvTranspose2d(width * 2, width, 4, stride=2, padding=1)
        self.d2 = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, z):
        x = F.relu(self.fc(z)).view(-1, self.width * 2, 7, 7)
        x = F.relu(self.d1(x))
        return torch.sigmoid(self.d2(x))


def corrupt(x, level):
    return (x + level * torch.randn_like(x)).clamp(0, 1)


def validate(encoder, decoder, loader, level):
    encoder.eval()
    decoder.eval()
    total, n = 0.0, 0
    with torch.no_grad():
        for x, _ in loader:
            out = decoder(encoder(corrupt(x, level)))
            total += F.mse_loss(out, x, reduction="sum").item()
            n += x.numel()
    return total / n


def main():
    args = get_args()
    torch.manual_seed(0)
    full = datasets.MNIST("data", train=True, download=True, transform=transforms.ToTensor())
    n_val = len(full) // 10
    train_set, val_set = random_split(full, [len(full) - n_val, n_val])
    train_loader = DataLoader(train_set, batch_size=args.batch_size, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=args.batch_size)

    encoder, decoder = ConvEncoder(), ConvDecoder()
    for p in encoder.parameters():
        p.requires_grad = False
    optimizer = torch.optim.Adam(decoder.parameters(), lr=args.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)

    for epoch in range(args.epochs):
        decoder.train()
        optimizer.zero_grad()
        for i, (x, _) in enumerate(train_loader):
            with torch.no_grad():
                code = encoder(corrupt(x, args.noise))
            out = decoder(code)
            loss = F.mse_loss(out, x) / args.accumulate
            loss.backward()
            if (i + 1) % args.accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()
        print(f"epoch {epoch}: validation {validate(encoder, decoder, val_loader, args.noise):.5f}")
    if args.save:
        torch.save(decoder.state_dict(), "decoder.pt")


if __name__ == "__main__":
    main()
