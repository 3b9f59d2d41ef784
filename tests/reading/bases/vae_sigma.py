# -*- coding: utf-8 -*-
# 变分自编码器（VAE）教程代码片段，数据加载部分见上一节
import torch
import torch.nn as nn
import torch.nn.functional as F


class VAE(nn.Module):
    def __init__(self, input_dim=784, h_dim=256, z_dim=10):
        super(VAE, self).__init__()
        # 编码器
        self.enc1 = nn.Linear(input_dim, h_dim)
        self.enc_mu = nn.Linear(h_dim, z_dim)
        self.enc_sigma = nn.Linear(h_dim, z_dim)
        # 解码器
        self.dec1 = nn.Linear(z_dim, h_dim)
        self.dec2 = nn.Linear(h_dim, input_dim)

    def encode(self, x):
        h = F.relu(self.enc1(x))
        mu = self.enc_mu(h)
        # softplus 保证标准差为正
        sigma = F.softplus(self.enc_sigma(h)) + 1e-6
        return mu, sigma

    def decode(self, z):
        return torch.sigmoid(self.dec2(F.relu(self.dec1(z))))

    def forward(self, x):
        mu, sigma = self.encode(x)
        z = mu + sigma * torch.randn_like(sigma)
        return self.decode(z), mu, sigma


def vae_loss(x_hat, x, mu, sigma):
    # 重构误差 + KL 散度
    rec = F.binary_cross_entropy(x_hat, x, reduction='sum')
    kl = 0.5 * torch.sum(mu ** 2 + sigma ** 2 - 2 * torch.log(sigma) - 1)
    return rec + kl, rec, kl


device = 'cuda' if torch.cuda.is_available() else 'cpu'
model = VAE().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

num_epochs = 10
for epoch in range(num_epochs):
    for i, (x, _) in enumerate(data_loader):
        x = x.to(device).view(-1, 784)
        x_hat, mu, sigma = model(x)
        loss, rec, kl = vae_loss(x_hat, x, mu, sigma)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 10 == 0:
            print("Epoch[{}/{}], Step [{}/{}], Reconst Loss: {:.4f}, KL Div: {:.4f}".format(
                epoch + 1, num_epochs, i + 1, len(data_loader), rec.item(), kl.item()))

# 从先验采样
with torch.no_grad():
    z = torch.randn(16, 10).to(device)
    out = model.decode(z).view(-1, 1, 28, 28)
    save_image(out, 'sampled.png')
