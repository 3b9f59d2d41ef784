"""The architectures of transformers that are ours under other names, as its config.json describes them.

Llama (rotary positions, RMSNorm, SwiGLU, no biases); its relatives Mistral, Qwen2 (biases of queries, keys and values),
Qwen3 (norms of queries and keys) and SmolLM3 (blocks without rotary positions); GPT-2 (learned positions, LayerNorm,
GELU, biases; its linear layers are stored transposed).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from bowerbird.errors import BowerbirdError
from bowerbird.export.checkpoint import Checkpoint
from bowerbird.export.layout import Layout
from bowerbird.nets.positions import RopeScaling
from bowerbird.nets.transformer import TransformerConfig

LLAMA = Layout(
    {"embedding.token": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    "model.layers.{}.",
    {
        "attention_norm": ("input_layernorm",),
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.out": ("self_attn.o_proj",),
        "mlp_norm": ("post_attention_layernorm",),
        "mlp.up": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down": ("mlp.down_proj",),
    },
    biased=False,
    qk_norms={"attention.q_norm": ("self_attn.q_norm",), "attention.k_norm": ("self_attn.k_norm",)},
)
GPT2 = Layout(
    {
        "embedding.token": "transformer.wte",
        "embedding.position": "transformer.wpe",
        "norm": "transformer.ln_f",
        "head": "lm_head",
    },
    "transformer.h.{}.",
    {
        "attention_norm": ("ln_1",),
        "attention.qkv": ("attn.c_attn",),
        "attention.out": ("attn.c_proj",),
        "mlp_norm": ("ln_2",),
        "mlp.up": ("mlp.c_fc",),
        "mlp.down": ("mlp.c_proj",),
    },
    biased=True,
)
TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
"""GPT-2's linear layers, kept (in, out)."""
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
ARCHITECTURE_NAMES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
"""Those that we write; a Mistral is written as the Llama that it is."""
ACTIVATIONS = {"gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh", "gelu": "gelu"}

Table = dict[str, Any]


class Architecture(NamedTuple):
    """A kind of model that config.json can describe."""

    layout: Layout
    net: Callable[[Mapping[str, Any], str], TransformerConfig]
    config: Callable[[Checkpoint], Table]
    context: str
    """What its config.json calls the most tokens that are read at once."""


def is_llama(net: TransformerConfig) -> bool:
    """Whether this is the architecture of Llama or of a relative."""
    return (net.positions, net.norm, net.activation, net.bias) == ("rotary", "rms", "swiglu", False)


def is_gpt2(net: TransformerConfig) -> bool:
    """Whether this is the architecture of GPT-2, biases or not."""
    return (
        (net.positions, net.norm) == ("learned", "layer") and net.activation != "swiglu" and net.kv_heads == net.n_head
    )


def kind_of(net: TransformerConfig) -> str:
    """The model_type of transformers that computes what this net does; "" for none."""
    if is_gpt2(net):
        return "gpt2"
    special = {"qwen2": net.attention_bias == "qkv", "qwen3": net.qk_norm, "smollm3": bool(net.unturned)}
    found = [kind for kind, has in special.items() if has]
    return "" if not is_llama(net) or len(found) > 1 else (found or ["llama"])[0]


# ---------------------------------------------------------------------------------- config.json as a network


def _llama_net(table: Mapping[str, Any], where: str) -> TransformerConfig:
    """Llama and its relatives."""
    kind = table["model_type"]
    rope: Mapping[str, Any] = table.get("rope_parameters") or table.get("rope_scaling") or {}
    _require(where, "the activation silu", table.get("hidden_act", "silu") == "silu", f"{table.get('hidden_act')}")
    _require(where, "MLPs without biases", not table.get("mlp_bias"), "mlp_bias = true")
    n_head, n_embd, d = table["num_attention_heads"], table["hidden_size"], table.get("head_dim")
    return TransformerConfig(
        n_layer=table["num_hidden_layers"],
        n_head=n_head,
        n_kv_head=table.get("num_key_value_heads"),
        n_embd=n_embd,
        head_dim=None if d is None or d * n_head == n_embd else d,
        n_ff=table["intermediate_size"],
        positions="rotary",
        norm="rms",
        activation="swiglu",
        tied=bool(table.get("tie_word_embeddings", kind == "smollm3")),
        norm_tol=float(table.get("rms_norm_eps", 1e-6)),
        rope_base=float(rope.get("rope_theta", table.get("rope_theta", 10_000.0))),
        rope_scaling=_rope_scaling(rope, table, where),
        unturned=_unturned(table) if kind == "smollm3" else (),
        attention_bias="qkv" if kind == "qwen2" else "all" if table.get("attention_bias") else "none",
        qk_norm=kind == "qwen3",
    )


def _rope_scaling(rope: Mapping[str, Any], table: Mapping[str, Any], where: str) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require(where, f"rotary positions of the types {', '.join(ROPE_TYPES)}", kind in ROPE_TYPES, str(kind))
    if kind == "default":
        return RopeScaling()
    context = int(rope.get("original_max_position_embeddings") or table["max_position_embeddings"])
    scaling = RopeScaling(kind, float(rope["factor"]), context)
    if kind == "llama3":
        return replace(scaling, low=float(rope["low_freq_factor"]), high=float(rope["high_freq_factor"]))
    if kind == "linear":
        return scaling
    odd = [name for name in ("mscale", "mscale_all_dim") if rope.get(name)] + ["truncate"] * (
        not rope.get("truncate", 1)
    )
    _require(where, "yarn without these settings", not odd, f"yarn with {' and '.join(odd)}")
    magnitude = rope.get("attention_factor") or (0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0)
    low, high = float(rope.get("beta_slow") or 1), float(rope.get("beta_fast") or 32)
    return replace(scaling, low=low, high=high, magnitude=float(magnitude))


def _unturned(table: Mapping[str, Any]) -> tuple[int, ...]:
    """The blocks without rotary positions: those where no_rope_layers has a 0, else every fourth."""
    every = int(table.get("no_rope_layer_interval") or 4)
    turned = table.get("no_rope_layers") or [(i + 1) % every for i in range(table["num_hidden_layers"])]
    return tuple(i for i, one in enumerate(turned) if not one)


def _gpt2_net(table: Mapping[str, Any], where: str) -> TransformerConfig:
    activation = table.get("activation_function", "gelu_new")
    _require(where, f"one of the activations {', '.join(ACTIVATIONS)}", activation in ACTIVATIONS, activation)
    scaled = table.get("scale_attn_weights", True) and not table.get("scale_attn_by_inverse_layer_idx", False)
    _require(where, "attention that is scaled by 1/√d", bool(scaled), "another scale")
    return TransformerConfig(
        n_layer=table["n_layer"],
        n_head=table["n_head"],
        n_embd=table["n_embd"],
        n_ff=table.get("n_inner"),
        positions="learned",
        norm="layer",
        activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
        tied=bool(table.get("tie_word_embeddings", True)),
        bias=True,
        norm_tol=float(table.get("layer_norm_epsilon", 1e-5)),
    )


def context_of(table: Mapping[str, Any], name: str) -> int:
    """Most tokens that are read at once: within a sliding window every token still sees all before it."""
    window = table.get("sliding_window")
    slides = window and table.get("use_sliding_window", table["model_type"] == "mistral")
    return min(int(table[name]), int(window)) if slides and window else int(table[name])


def _require(where: str, what: str, given: bool, instead: str) -> None:
    if not given:
        raise BowerbirdError(f"{where} cannot be imported: our Transformer has {what}, this model has {instead}.")


# ---------------------------------------------------------------------------------- a network as config.json


def _llama_config(checkpoint: Checkpoint) -> Table:
    net = checkpoint.net
    kind = kind_of(net)
    rope: Table = {"rope_type": "default", "rope_theta": net.rope_base} | _rope_table(net.rope_scaling)
    table = {
        "architectures": [ARCHITECTURE_NAMES[kind]],
        "num_hidden_layers": net.n_layer,
        "num_attention_heads": net.n_head,
        "num_key_value_heads": net.kv_heads,
        "hidden_size": net.n_embd,
        "head_dim": net.d,
        "intermediate_size": net.width,
        "hidden_act": "silu",
        "rms_norm_eps": net.norm_tol,
        "rope_theta": net.rope_base,  # up to version 4 of transformers, …
        "rope_parameters": rope,  # … and from 5 on
        "attention_bias": net.attention_bias != "none",
        "mlp_bias": False,
        "max_position_embeddings": checkpoint.context,
    }
    if net.rope_scaling.kind != "none":
        table["rope_scaling"] = rope
    if kind == "smollm3":
        table["no_rope_layers"] = [int(i not in net.unturned) for i in range(net.n_layer)]
    if kind != "llama":
        table["use_sliding_window"] = False
    return table


def _rope_table(scaling: RopeScaling) -> Table:
    table = {
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.context,
    }
    match scaling.kind:
        case "none":
            return {}
        case "llama3":
            return table | {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
        case "yarn":
            more = {"beta_slow": scaling.low, "beta_fast": scaling.high, "attention_factor": scaling.magnitude}
            return table | more
    return table


def _gpt2_config(checkpoint: Checkpoint) -> Table:
    net = checkpoint.net
    return {
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": net.n_layer,
        "n_head": net.n_head,
        "n_embd": net.n_embd,
        "n_inner": net.width,
        "activation_function": "gelu_new" if net.activation == "gelu-tanh" else "gelu",
        "layer_norm_epsilon": net.norm_tol,
        "n_positions": checkpoint.context,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), net.dropout),
    }


ARCHITECTURES = {
    kind: Architecture(LLAMA, _llama_net, _llama_config, "max_position_embeddings")
    for kind in ("llama", "mistral", "qwen2", "qwen3", "smollm3")
} | {
    "gpt2": Architecture(GPT2, _gpt2_net, _gpt2_config, "n_positions"),
}
