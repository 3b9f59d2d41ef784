"""One stream of tokens: our cached steps against a plain GPT that reads the whole row again for every token.

The plain network has the same layers and the same weights as ours and is written as a textbook would: modules, the
fused attention of torch, no cache, logits of the last position only.  Both draw greedily, so the tokens must agree.
With ``--parts`` training is timed as well: with either form of attention, and against the plain network.

With ``--transformers`` a Llama of the same sizes is timed against transformers' own ``generate``, with
draws on both sides; the package is an extra (``hub``).

``--nanogpt FOLDER`` (a checkout of karpathy/nanoGPT) times that one's ``generate`` and training step as its users call
them, on random weights of the same sizes, with draws at temperature 1; with ``--compile`` our training step is
compiled, as by ``train.compile``, and nanoGPT's is not.
"""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from paired import compare
from torch import Tensor, nn

from bowerbird.draws import Draws
from bowerbird.machine import bf16_is_faster, keep_freed_memory
from bowerbird.models.autoregressive import AutoregressiveConfig, TokenOptions
from bowerbird.models.base import Batch
from bowerbird.nets import attention as forms
from bowerbird.nets.transformer import Transformer, TransformerConfig
from bowerbird.spec import Spec, Tokens

VOCAB = 65
SIZES = [(4, 4, 128, 64), (6, 6, 384, 256)]
"""n_layer, n_head, n_embd, context: the small and the large network of character Shakespeare."""


class PlainBlock(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.n_head = n_head
        self.norm1, self.norm2 = nn.LayerNorm(n_embd, bias=False), nn.LayerNorm(n_embd, bias=False)
        self.qkv, self.out = nn.Linear(n_embd, 3 * n_embd, bias=False), nn.Linear(n_embd, n_embd, bias=False)
        self.up, self.down = nn.Linear(n_embd, 4 * n_embd, bias=False), nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length, n_embd = x.shape
        q, k, v = (
            part.view(n, length, self.n_head, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(n_embd, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, length, n_embd))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    """A GPT with learned positions and tied embeddings, with the weights of one of ours."""

    def __init__(self, ours: Transformer):
        super().__init__()
        c, self.context = ours.config, ours.embedding.context
        self.token, self.position = nn.Embedding(VOCAB, c.n_embd), nn.Embedding(self.context, c.n_embd)
        self.blocks = nn.ModuleList(PlainBlock(c.n_embd, c.n_head) for _ in range(c.n_layer))
        self.norm = nn.LayerNorm(c.n_embd, bias=False)
        self.head = nn.Linear(c.n_embd, VOCAB, bias=False)
        weights = {
            name.replace("embedding.", "").replace("attention_norm", "norm1").replace("mlp_norm", "norm2")
            .replace("attention.", "").replace("mlp.", ""): weight
            for name, weight in ours.state_dict().items()
        }  # fmt: skip
        self.load_state_dict(weights | {"head.weight": weights["token.weight"]})

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -1]))

    @torch.no_grad()
    def generate(self, tokens: Tensor, n_tokens: int) -> Tensor:
        for _ in range(n_tokens):
            logits = self(tokens[:, -self.context :])
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
        return tokens


@torch.inference_mode()
def generate(net: Transformer, tokens: Tensor, n_tokens: int) -> Tensor:
    """Our way: one state for the whole row."""
    row = tokens.new_empty(len(tokens), tokens.shape[1] + n_tokens)
    row[:, : tokens.shape[1]] = tokens
    state = net.initial_state(len(tokens), row.shape[1])
    for end in range(tokens.shape[1], row.shape[1]):
        logits, state = net(tokens, state)
        tokens = logits[:, -1].argmax(-1, keepdim=True)
        row[:, end : end + 1] = tokens
    return row


def network(n_layer: int, n_head: int, n_embd: int, context: int) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, positions="learned")
    net = config.language_model(VOCAB, context).eval()
    with torch.no_grad():
        net.embedding.token.weight.mul_(10)  # logits far from ties, so that greedy rows may be compared
    return net


def generation(sizes: tuple[int, int, int, int], pairs: int) -> None:
    net = network(*sizes)
    plain, prompt = PlainGPT(net).eval(), torch.zeros(1, 1, dtype=torch.long)
    n_tokens = sizes[-1] - 1
    ours, peer = partial(generate, net, prompt, n_tokens), partial(plain.generate, prompt, n_tokens)
    assert torch.equal(ours(), peer()), "both must write the same"
    name = f"{n_tokens} tokens, {sizes[0]}×{sizes[2]}"
    compare(name, ours, peer, "reading the row again", pairs)


def training(sizes: tuple[int, int, int, int], pairs: int) -> None:
    net, context = network(*sizes), sizes[-1]
    tokens = torch.randint(VOCAB, (12, context + 1))
    fused = forms._explicit_is_faster

    def one_step(choice: object) -> None:
        forms._explicit_is_faster = choice  # type: ignore[assignment]
        logits, _ = net(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        forms._explicit_is_faster = fused

    name = f"training {sizes[0]}×{sizes[2]}, batch 12, context {context}, fused"
    compare(
        name, lambda: one_step(lambda k, biased: False), lambda: one_step(lambda k, biased: True), "explicit", pairs
    )
    plain = PlainGPT(net).train()

    def plain_step() -> None:
        x = plain.token(tokens[:, :-1]) + plain.position(torch.arange(context))
        for block in plain.blocks:
            x = block(x)
        F.cross_entropy(plain.head(plain.norm(x)).flatten(0, 1), tokens[:, 1:].flatten()).backward()

    compare(f"training {sizes[0]}×{sizes[2]}", lambda: one_step(fused), plain_step, "the plain network", pairs)


def nanogpt(folder: Path, sizes: tuple[int, int, int, int], pairs: int, compiled: bool) -> None:
    """Generation and a training step (forward, backward, AdamW) of the same sizes in both projects."""
    sys.path.insert(0, str(folder))
    peer_code = importlib.import_module("model")
    n_layer, n_head, n_embd, context = sizes
    torch.manual_seed(0)
    peer = peer_code.GPT(
        peer_code.GPTConfig(
            n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=context, vocab_size=VOCAB, dropout=0.0, bias=False
        )
    )
    spec = Spec("text", Tokens(VOCAB, context, bos=0, eos=-1, pad=0, start=(0,)))
    net = TransformerConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, positions="learned")
    ours = AutoregressiveConfig(net=net).build(spec)
    prompt, draws = torch.zeros(1, 1, dtype=torch.long), Draws(0)
    name = f"{context - 1} tokens with draws, {n_layer}×{n_embd}"
    ours.eval(), peer.eval()
    compare(
        name,
        lambda: list(ours.stream(1, {"prompt": prompt}, TokenOptions(n_tokens=context - 1), draws)),
        lambda: peer.generate(prompt, context - 1),
        "nanoGPT's generate",
        pairs,
    )
    tokens = torch.randint(VOCAB, (12, context + 1))
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    ours.train(), peer.train()
    steps = [torch.optim.AdamW(model.parameters(), 1e-4, fused=fused) for model, fused in ((ours, True), (peer, False))]

    def our_step(bf16: bool = False) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            (loss,) = ours.losses(Batch(tokens))
        loss.value.backward()
        steps[0].step()
        steps[0].zero_grad()

    def their_step() -> None:
        peer(x, y)[1].backward()
        steps[1].step()
        steps[1].zero_grad()

    name = f"training step {n_layer}×{n_embd}, batch 12, context {context}"
    if compiled:
        name += ", compiled"
        for network in ours.children():
            network.compile()
    compare(f"{name}, fp32", our_step, their_step, "nanoGPT in fp32", pairs)
    if bf16_is_faster("cpu"):
        compare(f"{name}, bf16", partial(our_step, True), their_step, "nanoGPT in fp32", pairs)


def transformers(sizes: tuple[int, int, int, int], pairs: int) -> None:
    """Generation with draws by a Llama of random weights, in both projects."""
    import transformers as peer_code

    n_layer, n_head, n_embd, context = sizes
    net = TransformerConfig(
        n_layer=n_layer, n_head=n_head, n_embd=n_embd, positions="rotary", norm="rms", activation="swiglu"
    )
    spec = Spec("text", Tokens(VOCAB, context, bos=0, eos=-1, pad=0, start=(0,)))
    ours = AutoregressiveConfig(net=net).build(spec).eval()
    peer = peer_code.LlamaForCausalLM(
        peer_code.LlamaConfig(
            vocab_size=VOCAB, hidden_size=n_embd, intermediate_size=net.width, num_hidden_layers=n_layer,
            num_attention_heads=n_head, max_position_embeddings=context, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=None, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in ours.parameters())
    prompt, draws = torch.zeros(1, 1, dtype=torch.long), Draws(0)
    new = context - 1
    compare(
        f"{new} tokens with draws, Llama {n_layer}×{n_embd}",
        lambda: list(ours.stream(1, {"prompt": prompt}, TokenOptions(n_tokens=new), draws)),
        lambda: peer.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0),
        "transformers' generate",
        pairs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="only the small network")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--nanogpt", type=Path, help="folder of nanoGPT's model.py")
    parser.add_argument("--compile", action="store_true", help="compile our side of the training step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for sizes in SIZES[: 1 if options.small else None]:
        generation(sizes, options.pairs)
        if options.nanogpt:
            nanogpt(options.nanogpt, sizes, options.pairs, options.compile)
        if options.transformers:
            transformers(sizes, options.pairs)
        if options.parts:
            training(sizes, options.pairs)


if __name__ == "__main__":
    main()
