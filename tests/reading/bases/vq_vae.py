import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


class VectorQuantizer(nn.Module):
    def __init__(self, num_embeddings, embedding_dim, commitment_cost=0.25):
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.commitment_cost = commitment_cost
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        self.embedding.weight.data.uniform_(-1 / num_embeddings, 1 / num_embeddings)

    def forward(self, inputs):
        # BCHW -> BHWC
        inputs = inputs.permute(0, 2, 3, 1).contiguous()
        flat = inputs.view(-1, self.embedding_dim)
        distances = (flat.pow(2).sum(1, keepdim=True)
                     - 2 * flat @ self.embedding.weight.t()
                     + self.embedding.weight.pow(2).sum(1))
        indices = distances.argmin(dim=1)
        quantized = self.embedding(indices).view(inputs.shape)

        e_latent_loss = F.mse_loss(quantized.detach(), inputs)
        q_latent_loss = F.mse_loss(quantized, inputs.detach())
        loss = q_latent_loss + self.commitment_cost * e_latent_loss

        quantized = inputs + (quantized - inputs).detach()
        counts = torch.bincount(indices, minlength=self.num_embeddings).float()
        probs = counts / counts.sum()
        perplexity = torch.exp(-(probs * torch.log(probs + 1e-10)).sum())
        return quantized.permute(0, 3, 1, 2).contiguous(), loss, perplexity


class VQVAE(nn.Module):
    def __init__(self, hidden=32, dim=16, codes=64):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, hidden, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(hidden, dim, 1),
        )
        self.quantizer = VectorQuantizer(codes, dim)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(dim, hidden, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(hidden, 3, 4, 2, 1), nn.Tanh(),
        )

    def forward(self, x):
        z = self.encoder(x)
        quantized, vq_loss, perplexity = self.quantizer(z)
        return self.decoder(quantized), vq_loss, perplexity


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
train_set = datasets.CIFAR10("./data", train=True, download=True, transform=transform)
train_loader = DataLoader(train_set, batch_size=32, shuffle=True)

model = VQVAE().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

model.train()
for epoch in range(10):
    recon_total, perplexity_total = 0.0, 0.0
    for x, _ in train_loader:
        x = x.to(device)
        optimizer.zero_grad()
        x_recon, vq_loss, perplexity = model(x)
        recon_error = F.mse_loss(x_recon, x)
        loss = recon_error + vq_loss
        loss.backward()
        optimizer.step()
        recon_total += recon_error.item()
        perplexity_total += perplexity.item()
    n = len(train_loader)
    print(f"epoch {epoch}: recon {recon_total / n:.4f} perplexity {perplexity_total / n:.1f}")
