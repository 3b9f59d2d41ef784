"""The Hugging Face layout: a folder with config.json, model.safetensors and tokenizer.json, for ``transformers``.

Two of its architectures are ours under other names: Llama (rotary positions, RMSNorm, SwiGLU, no biases) and GPT-2
(learned positions, LayerNorm, GELU, biases; its linear layers are stored transposed).
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError

from bowerbird.data import tokenizers
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError
from bowerbird.export import Precision
from bowerbird.export.checkpoint import Checkpoint, is_gpt2, is_llama
from bowerbird.export.layout import Layout, Tensors
from bowerbird.nets.transformer import TransformerConfig

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
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
NO_WEIGHTS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Constants that old files hold."""
DTYPES = {"f32": "float32", "f16": "float16"}
ACTIVATIONS = {"gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh", "gelu": "gelu"}

Table = dict[str, Any]


class Architecture(NamedTuple):
    """A kind of model that config.json can describe."""

    layout: Layout
    net: Callable[[Mapping[str, Any], str], TransformerConfig]
    config: Callable[[Checkpoint], Table]
    context: str
    """What its config.json calls the most tokens that are read at once."""


# ----------------------------------------------------------------------------------------------------- reading


def read(folder: Path) -> Checkpoint:
    """The language model in a folder; BowerbirdError says what is missing or not understood."""
    table = _json(folder / CONFIG)
    kind = table.get("model_type")
    if kind not in ARCHITECTURES:
        raise BowerbirdError(f"{folder} holds a model of the type '{kind}'; known: {', '.join(ARCHITECTURES)}.")
    architecture = ARCHITECTURES[kind]
    try:
        net, context = architecture.net(table, str(folder)), int(table[architecture.context])
    except KeyError as error:
        raise BowerbirdError(f"{folder / CONFIG} lacks {error}.") from error
    except ValueError as error:  # a configuration that no Transformer can have
        raise BowerbirdError(f"{folder / CONFIG}: {error}") from error
    tensors = _plain(_tensors(folder), net, prefix="transformer." if kind == "gpt2" else "")
    return Checkpoint(net, context, architecture.layout.read(tensors, net, str(folder)), tokenizers.read(folder))


def _llama_net(table: Mapping[str, Any], where: str) -> TransformerConfig:
    rope: Mapping[str, Any] = table.get("rope_parameters") or table.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    d = table.get("head_dim") or table["hidden_size"] // table["num_attention_heads"]
    _require(where, "rotary positions that are not rescaled", kind == "default", f"rope_type = {kind}")
    _require(where, "the activation silu", table.get("hidden_act", "silu") == "silu", f"{table.get('hidden_act')}")
    _require(where, "no biases", not (table.get("attention_bias") or table.get("mlp_bias")), "biases")
    _require(
        where, "heads that share out hidden_size", d * table["num_attention_heads"] == table["hidden_size"], f"{d}"
    )
    return TransformerConfig(
        n_layer=table["num_hidden_layers"],
        n_head=table["num_attention_heads"],
        n_kv_head=table.get("num_key_value_heads"),
        n_embd=table["hidden_size"],
        n_ff=table["intermediate_size"],
        positions="rotary",
        norm="rms",
        activation="swiglu",
        tied=bool(table.get("tie_word_embeddings", False)),
        norm_tol=float(table.get("rms_norm_eps", 1e-6)),
        rope_base=float(rope.get("rope_theta", table.get("rope_theta", 10_000.0))),
    )


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


def _require(where: str, what: str, given: bool, instead: str) -> None:
    if not given:
        raise BowerbirdError(f"{where} cannot be imported: our Transformer has {what}, this model has {instead}.")


def _json(file: Path) -> Table:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BowerbirdError(f"{file.parent} is no model folder: it has no {file.name}.") from error
    except (ValueError, OSError) as error:
        raise BowerbirdError(f"{file} cannot be read: {error}.") from error


def _tensors(folder: Path) -> Tensors:
    """All tensors of model.safetensors, or of the files that its index lists."""
    files = [folder / WEIGHTS]
    if not files[0].is_file() and (folder / INDEX).is_file():
        # The last name alone: an index of somebody else must not lead out of the folder.
        files = [folder / Path(name).name for name in sorted(set(_json(folder / INDEX)["weight_map"].values()))]
    tensors: Tensors = {}
    for file in files:
        if not file.is_file():
            raise BowerbirdError(f"{folder} has no {file.name}; weights are read from safetensors files alone.")
        try:
            tensors |= safetensors.torch.load_file(file)
        except SafetensorError as error:
            raise BowerbirdError(f"{file} cannot be read: {error}.") from error
    return tensors


def _plain(tensors: Tensors, net: TransformerConfig, prefix: str) -> Tensors:
    """Only weights, under their full names, linear layers as (out, in)."""
    plain: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith(NO_WEIGHTS) or (net.tied and name == "lm_head.weight"):
            continue
        full = name if name.startswith((prefix, "lm_head.")) else prefix + name
        plain[full] = tensor.T if full.endswith(TRANSPOSED) else tensor
    return plain


# ----------------------------------------------------------------------------------------------------- writing


def write(checkpoint: Checkpoint, folder: Path, precision: Precision = "f32") -> Path:
    """Writes the folder and returns it; BowerbirdError for an architecture unknown there."""
    net = checkpoint.net
    kind = "llama" if is_llama(net) else "gpt2" if is_gpt2(net) else ""
    if not kind:
        raise BowerbirdError(
            "This Transformer is neither a Llama (positions rotary, norm rms, activation swiglu, no bias) nor a GPT-2 "
            "(positions learned, norm layer, activation gelu or gelu-tanh), so transformers has no code for it."
        )
    architecture = ARCHITECTURES[kind]
    weights = architecture.layout.write(checkpoint.weights, net)
    tensors = {name: (w.T if name.endswith(TRANSPOSED) else w).contiguous() for name, w in weights.items()}
    if precision == "f16":
        tensors = {name: w.half() for name, w in tensors.items()}
    tokenizer = checkpoint.tokenizer
    ids = {f"{role}_token_id": getattr(tokenizer, role) for role in ("bos", "eos", "pad")}
    common = {"vocab_size": checkpoint.vocab_size, "tie_word_embeddings": net.tied, "torch_dtype": DTYPES[precision]}
    files: dict[str, str] = {
        CONFIG: _text({"model_type": kind} | architecture.config(checkpoint) | common | ids),
        "generation_config.json": _text(ids),
        **tokenizer.files(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, partial(_write_text, text=text))
    write_atomically(folder / WEIGHTS, lambda p: safetensors.torch.save_file(tensors, p, {"format": "pt"}))
    return folder


def _llama_config(checkpoint: Checkpoint) -> Table:
    net = checkpoint.net
    return {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": net.n_layer,
        "num_attention_heads": net.n_head,
        "num_key_value_heads": net.kv_heads,
        "hidden_size": net.n_embd,
        "head_dim": net.n_embd // net.n_head,
        "intermediate_size": net.width,
        "hidden_act": "silu",
        "rms_norm_eps": net.norm_tol,
        "rope_theta": net.rope_base,  # up to version 4 of transformers, …
        "rope_parameters": {"rope_type": "default", "rope_theta": net.rope_base},  # … and from 5 on
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": checkpoint.context,
    }


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


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _text(table: Table) -> str:
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


ARCHITECTURES = {
    "llama": Architecture(LLAMA, _llama_net, _llama_config, "max_position_embeddings"),
    "gpt2": Architecture(GPT2, _gpt2_net, _gpt2_config, "n_positions"),
}
