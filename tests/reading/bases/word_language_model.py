import argparse
import math
import random

import torch
import torch.nn as nn

parser = argparse.ArgumentParser(description="Character-level language model")
parser.add_argument("--data", default="input.txt")
parser.add_argument("--model", default="lstm", choices=["lstm", "gru"])
parser.add_argument("--n_epochs", type=int, default=20)
parser.add_argument("--hidden_size", type=int, default=128)
parser.add_argument("--n_layers", type=int, default=2)
parser.add_argument("--learning_rate", type=float, default=0.002)
parser.add_argument("--bptt", type=int, default=50)
parser.add_argument("--batch_size", type=int, default=16)
parser.add_argument("--clip", type=float, default=0.5)
parser.add_argument("--cuda", action="store_true")
args = parser.parse_args()

text = open(args.data).read()
vocab = sorted(set(text))
char2id = {c: i for i, c in enumerate(vocab)}
ids = torch.tensor([char2id[c] for c in text])


def batchify(ids, bsz):
    n = len(ids) // bsz
    return ids[: n * bsz].view(bsz, n).t().contiguous()


def get_batch(source, i):
    seq_len = min(args.bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].reshape(-1)


class CharRNN(nn.Module):
    def __init__(self, n_chars, hidden_size, n_layers, kind):
        super().__init__()
        self.kind = kind
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.encoder = nn.Embedding(n_chars, hidden_size)
        rnn = nn.LSTM if kind == "lstm" else nn.GRU
        self.rnn = rnn(hidden_size, hidden_size, n_layers, dropout=0.2)
        self.decoder = nn.Linear(hidden_size, n_chars)

    def forward(self, x, hidden):
        output, hidden = self.rnn(self.encoder(x), hidden)
        return self.decoder(output).view(-1, self.decoder.out_features), hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        h = weight.new_zeros(self.n_layers, bsz, self.hidden_size)
        return (h, h.clone()) if self.kind == "lstm" else h


def repackage_hidden(h):
    """Wraps hidden states in new tensors, to forget their history."""
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


device = torch.device("cuda" if args.cuda else "cpu")
train_data = batchify(ids, args.batch_size).to(device)
model = CharRNN(len(vocab), args.hidden_size, args.n_layers, args.model).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)


def train_epoch():
    model.train()
    total_loss, steps = 0.0, 0
    hidden = model.init_hidden(args.batch_size)
    for i in range(0, train_data.size(0) - 1, args.bptt):
        data, targets = get_batch(train_data, i)
        hidden = repackage_hidden(hidden)
        optimizer.zero_grad()
        output, hidden = model(data, hidden)
        loss = criterion(output, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()
        total_loss += loss.item()
        steps += 1
    return total_loss / steps


def generate(prime="T", predict_len=100, temperature=0.8):
    model.eval()
    with torch.no_grad():
        hidden = model.init_hidden(1)
        inp = torch.tensor([[char2id[prime]]], device=device)
        out = prime
        for _ in range(predict_len):
            logits, hidden = model(inp, hidden)
            dist = (logits[-1] / temperature).exp()
            top = torch.multinomial(dist, 1)
            out += vocab[top.item()]
            inp = top.view(1, 1)
    return out


for epoch in range(1, args.n_epochs + 1):
    loss = train_epoch()
    print("epoch %d loss %.4f ppl %.2f" % (epoch, loss, math.exp(loss)))
    print(generate(random.choice(vocab)))
