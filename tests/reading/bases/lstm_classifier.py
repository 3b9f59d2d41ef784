# 基于 LSTM 的变长序列分类
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

MAX_LEN = 20
VOCAB = 40
torch.manual_seed(1)


def make_data(n):
    """随机序列；类别由最后一个词决定"""
    seqs, labels = [], []
    for _ in range(n):
        length = int(torch.randint(4, MAX_LEN + 1, (1,)))
        s = torch.randint(1, VOCAB, (length,))
        seqs.append(s)
        labels.append(int(s[-1]) % 2)
    return seqs, torch.tensor(labels)


class LSTMClassifier(nn.Module):
    def __init__(self, vocab, emb=32, hidden=64, classes=2):
        super().__init__()
        self.hidden = hidden
        self.embedding = nn.Embedding(vocab, emb, padding_idx=0)
        self.lstm = nn.LSTM(emb, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x, lengths):
        e = self.embedding(x)
        out, _ = self.lstm(e)
        # 取每个序列最后一个有效时刻的输出
        rows = torch.arange(x.size(0))
        last = out[rows, lengths - 1]
        return self.fc(last)


def iterate(seqs, labels, batch_size, shuffle=True):
    order = torch.randperm(len(seqs)) if shuffle else torch.arange(len(seqs))
    for k in range(0, len(order), batch_size):
        idx = order[k:k + batch_size].tolist()
        x = pad_sequence([seqs[j] for j in idx], batch_first=True)
        lengths = torch.tensor([len(seqs[j]) for j in idx])
        yield x, lengths, labels[idx]


def train(model, data, epochs=8):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.5)
    for epoch in range(epochs):
        model.train()
        correct, total, loss_sum = 0, 0, 0.0
        for x, lengths, y in iterate(*data, batch_size=32):
            logits = model(x, lengths)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * y.numel()
            correct += (logits.argmax(1) == y).sum().item()
            total += y.numel()
        scheduler.step()
        print('epoch', epoch, 'loss %.4f' % (loss_sum / total), 'acc %.3f' % (correct / total))


train_data = make_data(512)
net = LSTMClassifier(VOCAB)
train(net, train_data)
