"""Networks of sequences: no look into the future, one answer however the tokens are fed, and what each part is."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets import attention as forms
from bowerbird.nets.attention import attention, bias_where, causal_attention, causal_bias, explicit_attention
from bowerbird.nets.lora import LoRAConfig, adapt
from bowerbird.nets.normalization import token_norm
from bowerbird.nets.positions import positions_within, rotated, rotation, sinusoids
from bowerbird.nets.rnn import RNNConfig
from bowerbird.nets.roles import NetConfig, SequenceNet
from bowerbird.nets.transformer import TransformerConfig

VOCAB, CONTEXT = 11, 20
SMALL: dict[str, Any] = dict(n_layer=2, n_head=4, n_embd=32)
TRANSFORMERS = {
    "default": TransformerConfig(**SMALL),
    "gpt2": TransformerConfig(**SMALL, positions="learned", activation="gelu-tanh", bias=True),
    "llama": TransformerConfig(**SMALL, norm="rms", activation="swiglu", n_kv_head=2, tied=False),
    "sines": TransformerConfig(**SMALL, positions="sinusoidal", bias=True, n_kv_head=1),
}
RNNS = {
    "lstm": RNNConfig(cell="lstm", n_embd=12),
    "gru": RNNConfig(cell="gru", n_embd=12, n_hidden=16, tied=False, n_layer=1),
}
ALL = TRANSFORMERS | RNNS
CHUNKS = {"one by one": [1] * CONTEXT, "mixed": [5, 1, 1, 7, 1, 5], "all": [CONTEXT]}


def named(configs: dict[str, Any]) -> list[Any]:
    return [pytest.param(config, id=name) for name, config in configs.items()]


def perturbed(net: nn.Module) -> Any:
    """The net in evaluation mode and far from its initialisation, where attention is nearly uniform."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net.eval()


def language_model(config: NetConfig) -> SequenceNet:
    return perturbed(config.language_model(VOCAB, CONTEXT))


def some_tokens(n: int = 3, length: int = CONTEXT) -> Tensor:
    return torch.randint(VOCAB, (n, length), generator=torch.Generator().manual_seed(0))


def in_chunks(net: SequenceNet, tokens: Tensor, sizes: list[int]) -> Tensor:
    state = net.initial_state(len(tokens), tokens.shape[1])
    logits = []
    for chunk in tokens.split(sizes, dim=1):
        piece, state = net(chunk, state)
        logits.append(piece)
    return torch.cat(logits, dim=1)


# ----------------------------------------------------------------------------------------------- what all promise


@pytest.mark.parametrize("config", named(ALL))
def test_no_gradient_flows_to_the_future(config: NetConfig) -> None:
    """Logits after token i depend on every token up to i, and on none behind."""
    net, tokens = language_model(config), some_tokens(1)
    read: list[Tensor] = []

    def make_leaf(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        read.append(embedded.detach().requires_grad_())
        return read[0]

    net.get_submodule("embedding").register_forward_hook(make_leaf)
    logits, _ = net(tokens)
    (vectors,) = read
    for i in (0, 7, CONTEXT - 1):
        (to,) = torch.autograd.grad(logits[0, i].square().sum(), vectors, retain_graph=True)
        assert not to[0, i + 1 :].any()
        assert to[0, : i + 1].abs().amax(-1).min() > 0


@pytest.mark.parametrize("gradients", [torch.inference_mode, torch.enable_grad], ids=["inference", "gradients"])
@pytest.mark.parametrize("sizes", list(CHUNKS.values()), ids=list(CHUNKS))
@pytest.mark.parametrize("config", named(ALL))
def test_any_chunks_give_the_logits_of_the_whole(config: NetConfig, sizes: list[int], gradients: Any) -> None:
    """Without gradients single tokens go through ``Step``, with them through the modules."""
    net, tokens = language_model(config), some_tokens()
    whole = net(tokens)[0].detach()
    assert whole.std() > 0.1, "logits that say nothing would hide a mistake"
    with gradients():
        chunked = in_chunks(net, tokens, sizes)
    torch.testing.assert_close(chunked.detach(), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", named(ALL))
@torch.inference_mode()
def test_rows_of_a_state_go_on_as_those_rows(config: NetConfig) -> None:
    net, tokens = language_model(config), some_tokens()
    index = torch.tensor([2, 0, 2, 1])
    state = net.initial_state(3, CONTEXT)
    _, state = net(tokens[:, :9], state)
    assert state is not None
    chosen, before = state.rows(index), tokens[index]
    logits, _ = net(before[:, 9:10], chosen)
    torch.testing.assert_close(logits[:, 0], net(before[:, :10])[0][:, -1], rtol=1e-5, atol=1e-5)
    logits, _ = net(tokens[:, 9:10], state)  # the original is as it was
    torch.testing.assert_close(logits[:, 0], net(tokens[:, :10])[0][:, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", named(ALL))
def test_every_parameter_has_a_gradient(config: NetConfig) -> None:
    net = language_model(config)
    net(some_tokens())[0].square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize("config", named(ALL))
def test_it_starts_by_knowing_nothing_and_can_learn(config: NetConfig) -> None:
    torch.manual_seed(0)
    net, tokens = config.language_model(VOCAB, CONTEXT), some_tokens()

    def nll() -> Tensor:
        return F.cross_entropy(net(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten())

    assert nll().item() == pytest.approx(torch.tensor(float(VOCAB)).log().item(), rel=0.1)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nll().backward()
        optimizer.step()
    assert nll() < 1.2


@pytest.mark.parametrize(
    "config",
    [TransformerConfig(**SMALL, dropout=0.5), RNNConfig(n_embd=12, dropout=0.5)],
    ids=["transformer", "rnn"],
)
def test_dropout_acts_in_training_only(config: NetConfig) -> None:
    net, tokens = language_model(config), some_tokens()
    assert torch.equal(net(tokens)[0], net(tokens)[0])
    net.train()
    assert not torch.equal(net(tokens)[0], net(tokens)[0])


# ------------------------------------------------------------------------------------------------------ attention


def heads(n_head: int, n_kv_head: int, token: int, key: int, d: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, n_head, token, d), torch.randn(2, n_kv_head, key, d), torch.randn(2, n_kv_head, key, d)


def by_definition(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Token by token and head by head, in float64."""
    out = torch.zeros_like(q, dtype=torch.float64)
    for h in range(q.shape[1]):
        shared = h * k.shape[1] // q.shape[1]
        for i in range(q.shape[2]):
            logits = (k[:, shared].double() * q[:, h, i, None].double()).sum(-1) / q.shape[-1] ** 0.5
            weights = logits[:, visible[i]].softmax(-1)
            out[:, h, i] = (weights[..., None] * v[:, shared, visible[i]].double()).sum(1)
    return out.to(q.dtype)


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "fused"])
@pytest.mark.parametrize(("token", "key"), [(7, 7), (1, 7), (3, 7), (70, 70)])
@pytest.mark.parametrize(("n_head", "n_kv_head"), [(4, 4), (4, 2), (4, 1)])
def test_both_forms_of_causal_attention_are_its_definition(
    n_head: int, n_kv_head: int, token: int, key: int, explicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = heads(n_head, n_kv_head, token, key)
    visible = torch.ones(token, key, dtype=torch.bool).tril(key - token)
    monkeypatch.setattr(forms, "_explicit_is_faster", lambda k, biased: explicit)
    expected = by_definition(q, k, v, visible)
    torch.testing.assert_close(causal_attention(q, k, v), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(attention(q, k, v, bias_where(visible)), expected, rtol=1e-5, atol=1e-5)


def test_a_causal_bias_ends_at_the_last_key() -> None:
    q = torch.zeros(1)
    assert causal_bias(2, 4, q).tolist() == [[0, 0, 0, -torch.inf], [0, 0, 0, 0]]


def test_explicit_attention_can_be_differentiated_twice() -> None:
    q, k, v = (x[:, :1, :3, :2].double().requires_grad_() for x in heads(4, 4, 3, 3))
    form = partial(explicit_attention, bias=causal_bias(3, 3, q))
    assert torch.autograd.gradgradcheck(form, (q, k, v))


def test_grouped_queries_with_repeated_weights_are_multi_head_attention() -> None:
    """Heads 0 and 1 share the first keys and values, heads 2 and 3 the second."""
    grouped, full = TransformerConfig(**SMALL, n_kv_head=2), TransformerConfig(**SMALL)
    few, many = language_model(grouped), language_model(full)
    weights = few.state_dict()
    for name, weight in weights.items():
        if "qkv" in name:
            q, k, v = weight.unflatten(0, (8, 8)).split([4, 2, 2])
            weights[name] = torch.cat([q, k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)]).flatten(0, 1)
    many.load_state_dict(weights)
    tokens = some_tokens()
    torch.testing.assert_close(few(tokens)[0], many(tokens)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", named(TRANSFORMERS))
def test_packed_documents_do_not_see_one_another(config: NetConfig) -> None:
    net, tokens = language_model(config), some_tokens(2)
    document = torch.tensor([[1] * 6 + [2] * 10 + [0] * 4, [3] * 1 + [5] * 19])
    packed, _ = net(tokens, None, document)
    assert torch.isfinite(packed).all()
    for row, begin, end in [(0, 0, 6), (0, 6, 16), (1, 0, 1), (1, 1, 20)]:
        alone, _ = net(tokens[row : row + 1, begin:end])
        torch.testing.assert_close(packed[row, begin:end], alone[0], rtol=1e-5, atol=1e-5)
    alone, _ = net(tokens[:1, :16])
    assert (packed[0, 6:16] - alone[0, 6:]).abs().max() > 0.01, "without documents it must make a difference"


# ------------------------------------------------------------------------------------------------------ positions


def test_rotated_products_depend_on_the_distance_alone() -> None:
    """And at distance zero they are those of the vectors themselves: turning keeps lengths and angles."""
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)

    def product(i: int, j: int) -> float:
        turns = [rotation(torch.tensor([place]), 16, 10_000.0) for place in (i, j)]
        return (rotated(q, turns[0]) * rotated(k, turns[1])).sum().item()

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-4)
    assert product(9, 9) == pytest.approx((q * k).sum().item(), abs=1e-6)
    assert abs(product(5, 2) - product(5, 3)) > 1e-3


def test_a_plane_is_turned_by_position_times_frequency() -> None:
    """The plane (k, k + d/2) at position p, as a complex number, times exp(i p base^(-2k/d))."""
    x = torch.randn(1, 1, 5, 8)
    out = rotated(x, rotation(torch.arange(5), 8, 100.0))
    planes = torch.complex(x[..., :4], x[..., 4:])
    angles = torch.arange(5)[:, None] * 100.0 ** (-torch.arange(4) / 4)
    expected = planes * torch.polar(torch.ones(5, 4), angles)
    torch.testing.assert_close(torch.complex(out[..., :4], out[..., 4:]), expected)


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoids(torch.arange(30), 8)
    assert table[0].tolist() == [0, 1] * 4
    for place, k in [(3, 0), (29, 2)]:
        angle = torch.tensor(place / 10_000 ** (2 * k / 8))
        torch.testing.assert_close(table[place, 2 * k : 2 * k + 2], torch.stack([angle.sin(), angle.cos()]))


def test_positions_begin_again_in_every_document() -> None:
    document = torch.tensor([[1, 1, 1, 2, 7, 7, 0, 0], [4, 4, 4, 4, 4, 4, 4, 4]])
    assert positions_within(document).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], list(range(8))]


@pytest.mark.parametrize("config", named(TRANSFORMERS))
def test_the_order_of_tokens_matters(config: NetConfig) -> None:
    net, tokens = language_model(config), torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    last = net(tokens)[0][:, -1]
    assert (last[0] - last[1]).abs().max() > 1e-3


# --------------------------------------------------------------------------------------------------- Transformers


def test_rms_norm_is_its_equation() -> None:
    x, norm = torch.randn(3, 16), token_norm("rms", 16, 0.1, bias=True)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight)


@pytest.mark.parametrize(
    ("n_embd", "n_head", "activation", "width"),
    [(576, 9, "swiglu", 1536), (128, 4, "swiglu", 384), (96, 4, "swiglu", 256), (128, 4, "gelu", 512)],
)
def test_default_widths(n_embd: int, n_head: int, activation: Any, width: int) -> None:
    assert TransformerConfig(n_embd=n_embd, n_head=n_head, activation=activation).width == width


def test_published_sizes() -> None:
    """GPT-2 small has 124,439,808 parameters, SmolLM2-135M 134,515,008; counted without allocating them."""
    gpt2 = TransformerConfig(12, 12, n_embd=768, positions="learned", activation="gelu-tanh", bias=True)
    smol = TransformerConfig(30, 9, 3, 576, 1536, norm="rms", activation="swiglu", rope_base=100_000.0)
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in c.language_model(v, 1024).parameters()) for c, v in [(gpt2, 50257), (smol, 49152)]
        ]
    assert sizes == [124_439_808, 134_515_008]


def test_initial_weights() -> None:
    """0.02 everywhere, but 0.02 / √(branches) where a branch ends; norms begin as such and biases at zero."""
    torch.manual_seed(0)
    config = TransformerConfig(n_layer=3, n_encoder_layer=2, n_embd=128, bias=True, positions="learned")
    branches = {"blocks": 9, "encoder": 4}
    for name, p in config.translator(50, 20, 30).named_parameters():
        last = name.endswith(("out.weight", "down.weight"))
        std = 0.02 / (branches[name.partition(".")[0]] if last else 1) ** 0.5
        if p.dim() == 2:
            assert p.std().item() == pytest.approx(std, rel=0.05), name
        else:
            assert torch.equal(p, torch.full_like(p, float("norm.weight" in name))), name


@torch.inference_mode()
def test_a_state_without_room_says_so() -> None:
    net = language_model(TransformerConfig(**SMALL))
    state = net.initial_state(1, 3)
    net(some_tokens(1, 3), state)
    with pytest.raises(BowerbirdError, match="room for 3 tokens"):
        net(some_tokens(1, 1), state)


@torch.inference_mode()
def test_learned_positions_end_and_rotary_ones_do_not() -> None:
    tokens = some_tokens(1, CONTEXT + 1)
    learned = language_model(TransformerConfig(**SMALL, positions="learned"))
    with pytest.raises(BowerbirdError, match="knows 20 positions"):
        learned(tokens)
    with pytest.raises(BowerbirdError, match="knows 20 positions"):
        learned.initial_state(1, CONTEXT + 1)
    assert torch.isfinite(language_model(TransformerConfig(**SMALL))(tokens)[0]).all()


@torch.inference_mode()
def test_adapted_layers_take_part_in_steps() -> None:
    net, tokens = language_model(TransformerConfig(**SMALL)), some_tokens()
    plain, _ = net(tokens)
    adapt(net, LoRAConfig(rank=2))
    for name, p in net.named_parameters():
        if name.endswith("lora_B"):
            p.normal_(std=0.1)
    whole, _ = net(tokens)
    assert (whole - plain).abs().max() > 0.1
    torch.testing.assert_close(in_chunks(net, tokens, [1] * CONTEXT), whole, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_weights_in_bf16_and_autocast_agree_with_themselves() -> None:
    """A bf16 logit has 8 bits: cached and uncached differ by some roundings, not by a forgotten token."""
    net, tokens = language_model(TransformerConfig(**SMALL, norm="rms", activation="swiglu")), some_tokens()
    exact, _ = net(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        cast = in_chunks(net, tokens, CHUNKS["mixed"])
    stored = in_chunks(net.bfloat16(), tokens, CHUNKS["mixed"])
    for logits in (cast, stored):
        assert (logits.float() - exact).square().mean().sqrt() < 0.03 * exact.std()


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (TransformerConfig, {"n_embd": 100, "n_head": 3}),
        (TransformerConfig, {"n_head": 4, "n_kv_head": 3}),
        (TransformerConfig, {"n_head": 4, "n_embd": 12}),
        (TransformerConfig, {"n_layer": 0}),
        (TransformerConfig, {"dropout": 1.0}),
        (TransformerConfig, {"positions": "sinusoidal", "n_head": 1, "n_embd": 3}),
        (RNNConfig, {"n_hidden": 7}),
        (RNNConfig, {"n_layer": 0}),
        (RNNConfig, {"dropout": -0.1}),
    ],
)
def test_impossible_hyperparameters_are_refused(cls: type[NetConfig], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=cls.__name__.removesuffix("Config").lower()):
        cls(**wrong)


# ---------------------------------------------------------------------------------------------- against the field


def llama_weights(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Ours under the names of Hugging Face's Llama, as docs/nets.md lists them."""
    for name, weight in net.state_dict().items():
        if not name.startswith("blocks."):
            names = {"embedding.token": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
            yield names[name.removesuffix(".weight")] + ".weight", weight
            continue
        _, i, part = name.removesuffix(".weight").split(".", 2)
        layer = f"model.layers.{i}."
        if part == "attention.qkv":
            d = weight.shape[1] // 4
            for own, piece in zip("qkv", weight.split([4 * d, 2 * d, 2 * d]), strict=True):
                yield f"{layer}self_attn.{own}_proj.weight", piece
        elif part == "mlp.up":
            for own, piece in zip(("gate", "up"), weight.chunk(2), strict=True):
                yield f"{layer}mlp.{own}_proj.weight", piece
        else:
            names = {"attention_norm": "input_layernorm", "attention.out": "self_attn.o_proj"}
            names |= {"mlp_norm": "post_attention_layernorm", "mlp.down": "mlp.down_proj"}
            yield f"{layer}{names[part]}.weight", weight


def gpt2_weights(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Ours under the names of Hugging Face's GPT-2, which stores products input × output."""
    names = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"}
    names |= {"mlp_norm": "ln_2", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    outer = {"embedding.token": "wte", "embedding.position": "wpe", "norm": "ln_f"}
    for name, weight in net.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            yield f"transformer.{outer[layer]}.{kind}", weight
            continue
        _, i, part = layer.split(".", 2)
        yield f"transformer.h.{i}.{names[part]}.{kind}", weight.t() if weight.dim() == 2 else weight
    yield "lm_head.weight", net.state_dict()["embedding.token.weight"]


@torch.inference_mode()
def test_it_is_llama() -> None:
    transformers = pytest.importorskip("transformers", reason="compares with Hugging Face's Llama")
    config = TransformerConfig(
        2, 4, 2, 32, 48, norm="rms", norm_tol=1e-3, activation="swiglu", tied=False, rope_base=500.0
    )
    ours = language_model(config)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-3, tie_word_embeddings=False, max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        )
    ).eval()  # fmt: skip
    theirs.load_state_dict(dict(llama_weights(ours)))
    tokens = some_tokens()
    torch.testing.assert_close(ours(tokens)[0], theirs(tokens).logits, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_it_is_gpt2() -> None:
    transformers = pytest.importorskip("transformers", reason="compares with Hugging Face's GPT-2")
    config = TransformerConfig(**SMALL, positions="learned", activation="gelu-tanh", bias=True)
    ours = language_model(config)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4)
    ).eval()
    theirs.load_state_dict(dict(gpt2_weights(ours)))
    tokens = some_tokens()
    torch.testing.assert_close(ours(tokens)[0], theirs(tokens).logits, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- translation


def translation(config: TransformerConfig) -> tuple[Any, Tensor, Tensor, Tensor]:
    net = perturbed(config.translator(VOCAB, 12, CONTEXT))
    is_source = torch.arange(12) < torch.tensor([12, 5, 1])[:, None]
    return net, some_tokens(3, 12), is_source, some_tokens(3)


@pytest.mark.parametrize("config", named(TRANSFORMERS))
def test_padding_of_the_source_changes_nothing(config: TransformerConfig) -> None:
    net, source, is_source, tokens = translation(config)
    together, _ = net(tokens, net.encode(source, is_source))
    other, _ = net(tokens, net.encode(source.masked_fill(~is_source, 3), is_source))
    assert torch.equal(together, other)
    for i, length in enumerate(is_source.sum(1).tolist()):
        part = slice(i, i + 1)
        alone, _ = net(tokens[part], net.encode(source[part, :length], is_source[part, :length]))
        torch.testing.assert_close(together[part], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", named(TRANSFORMERS))
def test_a_translation_depends_on_all_of_its_source_and_not_on_its_own_future(config: TransformerConfig) -> None:
    net, source, is_source, tokens = translation(config)
    logits, _ = net(tokens, net.encode(source, is_source))
    for row, length in enumerate(is_source.sum(1).tolist()):
        for place in {0, length - 1}:
            changed = source.clone()
            changed[row, place] = (changed[row, place] + 1) % VOCAB
            difference = (net(tokens, net.encode(changed, is_source))[0] - logits).abs().amax(-1)
            assert difference[row].min() > 0
            assert not difference[[r for r in range(3) if r != row]].any()
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCAB
    difference = (net(changed, net.encode(source, is_source))[0] - logits).abs().amax((0, 2))
    assert not difference[:9].any()
    assert difference[9:].min() > 0


@pytest.mark.parametrize("sizes", list(CHUNKS.values()), ids=list(CHUNKS))
@pytest.mark.parametrize("config", named(TRANSFORMERS))
@torch.inference_mode()
def test_a_translation_in_chunks_is_the_translation(config: TransformerConfig, sizes: list[int]) -> None:
    net, source, is_source, tokens = translation(config)
    index = torch.tensor([1, 1, 0])
    memory = net.encode(source, is_source).rows(index)
    whole, _ = net(tokens[index], net.encode(source[index], is_source[index]))
    state, logits = net.initial_state(3, CONTEXT), []
    for chunk in tokens[index].split(sizes, dim=1):
        piece, state = net(chunk, memory, state)
        logits.append(piece)
    torch.testing.assert_close(torch.cat(logits, dim=1), whole, rtol=1e-5, atol=1e-5)


def test_every_parameter_of_a_translator_has_a_gradient() -> None:
    net, source, is_source, tokens = translation(TransformerConfig(**SMALL, n_encoder_layer=1, positions="learned"))
    assert len(net.encoder) == 1
    net(tokens, net.encode(source, is_source))[0].square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


# ---------------------------------------------------------------------------------------------- recurrent networks


def test_an_lstm_is_its_equations() -> None:
    net = perturbed(RNNConfig(n_embd=6, n_layer=1).language_model(VOCAB, CONTEXT))
    tokens, layers = some_tokens(2, 5), net.layers
    h = c = torch.zeros(2, 6)
    for t in range(5):
        x = net.embedding.weight[tokens[:, t]]
        gates = x @ layers.weight_ih_l0.t() + h @ layers.weight_hh_l0.t() + layers.bias_ih_l0 + layers.bias_hh_l0
        i, f, g, o = gates.chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    expected = h @ net.embedding.weight.t() + net.bias
    torch.testing.assert_close(net(tokens)[0][:, -1], expected, rtol=1e-5, atol=1e-5)


def test_forget_gates_start_open() -> None:
    layers = RNNConfig(n_embd=6).language_model(VOCAB, CONTEXT).layers
    for layer in range(2):
        bias = getattr(layers, f"bias_ih_l{layer}") + getattr(layers, f"bias_hh_l{layer}")
        assert bias[6:12].tolist() == [1] * 6


@pytest.mark.parametrize("config", named(RNNS))
def test_a_detached_state_stops_the_gradient(config: NetConfig) -> None:
    net, tokens = language_model(config), some_tokens(1)
    _, state = net(tokens[:, :10])
    assert state is not None
    kept, cut = net(tokens[:, 10:], state)[0], net(tokens[:, 10:], state.detached())[0]
    assert torch.equal(kept, cut)
    weight = next(p for name, p in net.named_parameters() if "weight_hh" in name)
    through, stopped = (torch.autograd.grad(logits.square().sum(), weight)[0] for logits in (kept, cut))
    assert (through - stopped).abs().max() > 1e-4


def test_a_recurrent_network_refuses_packed_rows() -> None:
    net = language_model(RNNS["lstm"])
    with pytest.raises(BowerbirdError, match="documents"):
        net(some_tokens(), None, torch.ones(3, CONTEXT, dtype=torch.long))


def test_which_nets_are_recurrent() -> None:
    assert language_model(RNNS["lstm"]).recurrent
    assert not language_model(TRANSFORMERS["default"]).recurrent
    with pytest.raises(BowerbirdError, match=r"cannot be a translator; use transformer"):
        RNNS["lstm"].translator(VOCAB, 5, 5)
