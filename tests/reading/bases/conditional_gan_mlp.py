# 用 PyTorch 实现最简单的 GAN，在 MNIST 上生成手写数字
import torch
import torch.nn as nn
import matplotlib.pyplot as plt
from torchvision import datasets, transforms

# 超参数
BATCH_SIZE = 64
EPOCHS = 30
Z_DIM = 100
LR = 2e-4

transform = transforms.Compose([
    transforms.ToTensor(),
    transforms.Normalize(mean=[0.5], std=[0.5]),
])
train_set = datasets.MNIST(root='./mnist', train=True, transform=transform, download=True)
train_loader = torch.utils.data.DataLoader(train_set, batch_size=BATCH_SIZE, shuffle=True)


# 生成器：输入噪声，输出图片
class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(Z_DIM, 256)
        self.fc2 = nn.Linear(256, 512)
        self.fc3 = nn.Linear(512, 784)
        self.relu = nn.ReLU()
        self.tanh = nn.Tanh()

    def forward(self, x):
        x = self.relu(self.fc1(x))
        x = self.relu(self.fc2(x))
        return self.tanh(self.fc3(x))


# 判别器：输入图片，输出为真的概率
class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.net(x)


G = Generator().cuda()
D = Discriminator().cuda()
criterion = nn.BCELoss()
g_optimizer = torch.optim.Adam(G.parameters(), lr=LR, betas=(0.5, 0.999))
d_optimizer = torch.optim.Adam(D.parameters(), lr=LR, betas=(0.5, 0.999))


def show_images(images, epoch):
    images = (images + 1) / 2
    plt.figure(figsize=(4, 4))
    for k in range(16):
        plt.subplot(4, 4, k + 1)
        plt.imshow(images[k].reshape(28, 28), cmap='gray')
        plt.axis('off')
    plt.savefig('epoch_%d.png' % epoch)
    plt.show()


for epoch in range(EPOCHS):
    d_total, g_total = 0, 0
    for step, (images, _) in enumerate(train_loader):
        n = images.size(0)
        images = images.view(n, -1).cuda()
        real_labels = torch.ones(n, 1).cuda()
        fake_labels = torch.zeros(n, 1).cuda()

        # 训练判别器
        noise = torch.randn(n, Z_DIM).cuda()
        fake_images = G(noise)
        d_loss_real = criterion(D(images), real_labels)
        d_loss_fake = criterion(D(fake_images.detach()), fake_labels)
        d_loss = d_loss_real + d_loss_fake
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()

        # 训练生成器
        noise = torch.randn(n, Z_DIM).cuda()
        new_images = G(noise)
        g_loss = criterion(D(new_images), real_labels)
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()

        d_total += d_loss.item()
        g_total += g_loss.item()
    print('第 %d 轮  判别器损失: %.4f  生成器损失: %.4f'
          % (epoch + 1, d_total / len(train_loader), g_total / len(train_loader)))
    with torch.no_grad():
        samples = G(torch.randn(16, Z_DIM).cuda()).cpu().numpy()
    show_images(samples, epoch + 1)
