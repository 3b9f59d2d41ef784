"""Decoder-only language model with a key/value cache for generation."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x, cache=None):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k = torch.cat([cache[0], k], dim=2)
            v = torch.cat([cache[1], v], dim=2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        y = y.transpose(1, 2).reshape(b, t, d)
        return self.proj(y), (k, v)


class DecoderBlock(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.norm_a = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm_b = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim), nn.Dropout(dropout))

    def forward(self, x, cache=None):
        a, cache = self.attention(self.norm_a(x), cache)
        x = x + a
        return x + self.ffn(self.norm_b(x)), cache


class TinyLM(nn.Module):
    """Pre-norm Transformer, 210,432 parameters with the default sizes."""

    def __init__(self, vocab: int = 50, dim: int = 64, heads: int = 4, depth: int = 4, context: int = 128, dropout: float = 0.0):
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = nn.Embedding(context, dim)
        self.blocks = nn.ModuleList([DecoderBlock(dim, heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids, caches=None):
        start = 0 if caches is None else caches[0][0].size(2)
        pos = torch.arange(start, start + ids.size(1), device=ids.device)
        x = self.tokens(ids) + self.positions(pos)
        new_caches = []
        for i, block in enumerate(self.blocks):
            x, cache = block(x, None if caches is None else caches[i])
            new_caches.append(cache)
        return self.head(self.norm(x)), new_caches

    @torch.no_grad()
    def generate(self, ids, n, temperature=1.0, top_p=None):
        was_training = self.training
        self.eval()
        logits, caches = self(ids)
        for _ in range(n):
            probs = F.softmax(logits[:, -1] / temperature, dim=-1)
            if top_p is not None:
                sorted_probs, order = probs.sort(descending=True)
                cumulative = sorted_probs.cumsum(dim=-1)
                sorted_probs[cumulative - sorted_probs > top_p] = 0.0
                probs = torch.zeros_like(probs).scatter(-1, order, sorted_probs)
                probs = probs / probs.sum(dim=-1, keepdim=True)
            nxt = torch.multinomial(probs, 1)
            ids = torch.cat([ids, nxt], dim=1)
            logits, caches = self(nxt, caches)
        self.train(was_training)
        return ids


def perplexity(model, batches):
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for ids in batches:
            logits, _ = model(ids[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
            total += loss.item()
            count += ids[:, 1:].numel()
    return torch.exp(torch.tensor(total / count)).item()


def train_model(model, batches, epochs=3, lr=3e-4):
    opt = torch.optim.AdamW(model.parameters(), lr=lr)
    for epoch in range(epochs):
        model.train()
        for ids in batches:
            logits, _ = model(ids[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            opt.zero_grad()
            loss.backward()
            opt.step()
        print(f"epoch {epoch}: perplexity {perplexity(model, batches):.2f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    period = torch.arange(50).repeat(20)
    batches = [torch.stack([period[s : s + 33] for s in torch.randint(0, 900, (16,)).tolist()]) for _ in range(20)]
    lm = TinyLM()
    train_model(lm, batches)
    print(lm.generate(batches[0][:2, :5], 20, temperature=0.7, top_p=0.9))
