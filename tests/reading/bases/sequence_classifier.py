import math
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class ToyReviews(Dataset):
    """Token sequences of different lengths; the class is the parity of the count of token 7."""

    def __init__(self, n=512, vocab=30, max_len=24):
        g = torch.Generator().manual_seed(3)
        self.items = []
        for _ in range(n):
            length = int(torch.randint(5, max_len + 1, (1,), generator=g))
            ids = torch.randint(1, vocab, (length,), generator=g)
            self.items.append((ids, int((ids == 7).sum() % 2)))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def collate(items):
    ids = nn.utils.rnn.pad_sequence([x for x, _ in items], batch_first=True, padding_value=0)
    labels = torch.tensor([y for _, y in items])
    return ids, labels


class LearnedPositions(nn.Module):
    def __init__(self, max_len, dim):
        super().__init__()
        self.table = nn.Embedding(max_len, dim)

    def forward(self, x):
        positions = torch.arange(x.size(1), device=x.device)
        return x + self.table(positions)


class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x, pad):
        b, t, d = x.shape
        h = self.heads
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        q, k, v = (a.reshape(b, t, h, d // h).permute(0, 2, 1, 3) for a in (q, k, v))
        dots = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(d // h)
        dots = dots.masked_fill(pad[:, None, None, :], torch.finfo(dots.dtype).min)
        weights = torch.softmax(dots, dim=-1)
        out = torch.einsum("bhij,bhjd->bhid", weights, v)
        out = out.permute(0, 2, 1, 3).reshape(b, t, d)
        return self.to_out(out)


class Layer(nn.Module):
    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 2), nn.GELU(), nn.Linear(dim * 2, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, pad):
        x = x + self.dropout(self.attn(self.norm1(x), pad))
        return x + self.dropout(self.mlp(self.norm2(x)))


class TextClassifier(nn.Module):
    def __init__(self, vocab=30, dim=48, heads=4, depth=2, classes=2, dropout=0.1, max_len=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim, padding_idx=0)
        self.positions = LearnedPositions(max_len, dim)
        self.layers = nn.ModuleList([Layer(dim, heads, dropout) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)

    def forward(self, ids):
        pad = ids == 0
        x = self.positions(self.embed(ids))
        for layer in self.layers:
            x = layer(x, pad)
        keep = (~pad).unsqueeze(-1).float()
        pooled = (x * keep).sum(dim=1) / keep.sum(dim=1)
        return self.head(pooled)


def evaluate(model, loader):
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for ids, labels in loader:
            correct += (model(ids).argmax(-1) == labels).sum().item()
            total += labels.numel()
    return correct / total


def main():
    torch.manual_seed(0)
    train_loader = DataLoader(ToyReviews(), batch_size=32, shuffle=True, collate_fn=collate)
    model = TextClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for epoch in range(5):
        model.train()
        running = 0.0
        for ids, labels in train_loader:
            logits = model(ids)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
        print(f"epoch {epoch} loss {running / len(train_loader):.3f} accuracy {evaluate(model, train_loader):.3f}")


main()
