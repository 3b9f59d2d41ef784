"""The Hugging Face layout: a folder with config.json, model.safetensors and tokenizer.json, for ``transformers``.

Some of its architectures are ours under other names: Llama (rotary positions, RMSNorm, SwiGLU, no biases); its
relatives Mistral, Qwen2 (biases of queries, keys and values), Qwen3 (norms of queries and keys) and SmolLM3 (blocks
without rotary positions); GPT-2 (learned positions, LayerNorm, GELU, biases; its linear layers are stored transposed).
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from bowerbird import spec
from bowerbird.data import tokenizers
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError
from bowerbird.export import adapter
from bowerbird.export.checkpoint import Checkpoint, from_run, is_gpt2, is_llama
from bowerbird.export.graph import network_file, source
from bowerbird.export.layout import Layout, Tensors
from bowerbird.export.onnx import sampler_settings
from bowerbird.export.target import (
    Parity,
    Precision,
    Target,
    Trained,
    compared,
    compared_logits,
    examples,
    package,
)
from bowerbird.models.base import Piece
from bowerbird.nets.positions import RopeScaling
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.registry import exports
from bowerbird.samplers.decoding import Sampling

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
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
NO_WEIGHTS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Constants that old files hold."""
DTYPES = {"f32": "float32", "f16": "float16"}
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


# ----------------------------------------------------------------------------------------------------- reading


def read(folder: Path) -> Checkpoint:
    """The language model in a folder, or that of an adapter merged with it; BowerbirdError says what is wrong."""
    if (folder / adapter.CONFIG).is_file():
        config = _json(folder / adapter.CONFIG)
        base = adapter.base(folder, config)
        own = {file.name for file in folder.iterdir()}
        tokenizer = tokenizers.read(folder if "tokenizer.json" in own else base)
        merged = adapter.merged(_tensors(base), _tensors(folder, adapter.WEIGHTS), config, str(folder))
        return _read(base, merged, tokenizer)
    return _read(folder, _tensors(folder), None)


def _read(folder: Path, tensors: Tensors, tokenizer: Tokenizer | None) -> Checkpoint:
    table = _json(folder / CONFIG)
    kind = table.get("model_type")
    if kind not in ARCHITECTURES:
        raise BowerbirdError(f"{folder} holds a model of the type '{kind}'; known: {', '.join(ARCHITECTURES)}.")
    architecture = ARCHITECTURES[kind]
    try:
        net, context = architecture.net(table, str(folder)), _context(table, architecture.context)
    except KeyError as error:
        raise BowerbirdError(f"{folder / CONFIG} lacks {error}.") from error
    except ValueError as error:  # a configuration that no Transformer can have
        raise BowerbirdError(f"{folder / CONFIG}: {error}") from error
    plain = _plain(tensors, net, prefix="transformer." if kind == "gpt2" else "", where=str(folder))
    weights = architecture.layout.read(plain, net, str(folder))
    tokenizer = tokenizer or tokenizers.read(folder)
    return Checkpoint(net, context, weights, tokenizer, _sampling(folder, tokenizer.eos))


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


def _context(table: Mapping[str, Any], name: str) -> int:
    """Most tokens that are read at once: within a sliding window every token still sees all before it."""
    window = table.get("sliding_window")
    slides = window and table.get("use_sliding_window", table["model_type"] == "mistral")
    return min(int(table[name]), int(window)) if slides and window else int(table[name])


def _sampling(folder: Path, eos: int) -> Sampling:
    """What generation_config.json says, if it is there."""
    if not (folder / GENERATION).is_file():
        return Sampling()
    table = _json(folder / GENERATION)
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    said = {name: table[name] for name in names if table.get(name) is not None}
    ends = table.get("eos_token_id")
    also = tuple(i for i in (ends if isinstance(ends, list) else [ends]) if i is not None and i != eos)
    if table.get("do_sample") is False:
        said["temperature"] = 0.0
    elif table.get("do_sample"):
        said.setdefault("top_k", 50)  # what transformers does when the file does not say
    try:
        return Sampling(**said, also_eos=also)
    except (TypeError, ValueError) as error:
        raise BowerbirdError(f"{folder / GENERATION}: {error}") from error


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
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BowerbirdError(f"{file.parent} is not a model folder: it has no {file.name}.") from error
    except (ValueError, RecursionError, OSError) as error:
        raise BowerbirdError(f"{file} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise BowerbirdError(f"{file} cannot be read: it must hold a JSON object.")
    return found


def _tensors(folder: Path, name: str = WEIGHTS) -> Tensors:
    """All tensors of model.safetensors, or of the files that its index lists."""
    files = [folder / name]
    if not files[0].is_file() and (folder / INDEX).is_file():
        # The last name alone: an index of somebody else must not lead out of the folder.
        files = [folder / Path(name).name for name in sorted(set(_json(folder / INDEX)["weight_map"].values()))]
    tensors: Tensors = {}
    for file in files:
        if not file.is_file():
            raise BowerbirdError(f"{folder} has no {file.name}; weights are read only from safetensors files.")
        try:
            tensors |= safetensors.torch.load_file(file)
        except SafetensorError as error:
            raise BowerbirdError(f"{file} cannot be read: {error}.") from error
    return tensors


def _plain(tensors: Tensors, net: TransformerConfig, prefix: str, where: str) -> Tensors:
    """Only weights, under their full names, linear layers as (out, in); a tied head must be a copy and goes."""
    plain: Tensors = {}
    for name, tensor in tensors.items():
        if not name.endswith(NO_WEIGHTS):
            full = name if name.startswith((prefix, "lm_head.")) else prefix + name
            plain[full] = tensor.T if full.endswith(TRANSPOSED) else tensor
    if net.tied and (head := plain.pop("lm_head.weight", None)) is not None:
        embedding = next((w for name, w in plain.items() if name.endswith(("embed_tokens.weight", "wte.weight"))), None)
        if embedding is not None and not torch.equal(head, embedding):
            raise BowerbirdError(
                f"{where} says tie_word_embeddings = true, but its lm_head.weight differs from the embedding; set "
                f"tie_word_embeddings to false in its {CONFIG} to use the head, or delete lm_head.weight."
            )
    return plain


# ----------------------------------------------------------------------------------------------------- writing


def write(checkpoint: Checkpoint, folder: Path, precision: Precision = "f32") -> Path:
    """Writes the folder and returns it; BowerbirdError for an architecture unknown there."""
    net = checkpoint.net
    kind = kind_of(net)
    if not kind:
        raise BowerbirdError(
            "This Transformer is neither a Llama or a relative (positions rotary, norm rms, activation swiglu, no "
            "bias; of qk_norm, unturned and attention_bias = qkv at most one) nor a GPT-2 (positions learned, norm "
            "layer, activation gelu or gelu-tanh), so transformers has no code for it."
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
        GENERATION: _text(_generation(checkpoint) | {name: ids[name] for name in ids if name != "eos_token_id"}),
        **tokenizer.files(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(folder / name, partial(_write_text, text=text))
    write_atomically(folder / WEIGHTS, lambda p: safetensors.torch.save_file(tensors, p, {"format": "pt"}))
    return folder


def kind_of(net: TransformerConfig) -> str:
    """The model_type of transformers that computes what this net does; "" for none."""
    if is_gpt2(net):
        return "gpt2"
    special = {"qwen2": net.attention_bias == "qkv", "qwen3": net.qk_norm, "smollm3": bool(net.unturned)}
    found = [kind for kind, has in special.items() if has]
    return "" if not is_llama(net) or len(found) > 1 else (found or ["llama"])[0]


def _generation(checkpoint: Checkpoint) -> Table:
    """generation_config.json without bos and pad."""
    sampling, eos = checkpoint.sampling, checkpoint.tokenizer.eos
    table: Table = {"eos_token_id": [eos, *sampling.also_eos] if sampling.also_eos else eos}
    if replace(sampling, also_eos=()) == Sampling():
        return table
    numbers = {name: value for name, value in asdict(sampling).items() if name != "also_eos"}
    if sampling.temperature == 0:
        return table | {"do_sample": False, "repetition_penalty": sampling.repetition_penalty}
    return table | {"do_sample": True} | numbers


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


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _text(table: Table) -> str:
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


ARCHITECTURES = {
    kind: Architecture(LLAMA, _llama_net, _llama_config, "max_position_embeddings")
    for kind in ("llama", "mistral", "qwen2", "qwen3", "smollm3")
} | {
    "gpt2": Architecture(GPT2, _gpt2_net, _gpt2_config, "n_positions"),
}


# ------------------------------------------------------------------------------------------------------- the target


@exports.register("huggingface")
class HuggingFace(Target):
    """A folder for transformers."""

    runtime = "transformers"
    precisions = ("f32", "f16")

    def write(self, trained: Trained, folder: Path) -> None:
        if isinstance(trained.spec.target, spec.Tensors):
            write_network(trained, folder)
        else:
            write(from_run(trained.path), folder, trained.precision)

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        transformers = package("transformers", "hub")
        transformers.utils.logging.disable_progress_bar()
        if isinstance(trained.spec.target, spec.Tensors):
            name, piece = _network_of(trained)
            network = transformers.AutoModel.from_pretrained(str(folder), trust_remote_code=True).eval()
            return [compared(name, piece.module, network, lambda n: examples(piece.inputs, n))]
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return compared_logits(trained, lambda tokens: theirs(tokens).logits)

    def usage(self, trained: Trained) -> str:
        return """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
tokens = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=40)[0]))
```"""


HEAD = """
import torch
from torch import device, inf, nn
from transformers import PretrainedConfig, PreTrainedModel


class Config(PretrainedConfig):
    model_type = "bowerbird"

    def __init__(self, shapes=None, **kwargs):
        super().__init__(**kwargs)
        self.shapes = shapes or {}


class Network(PreTrainedModel):
    \"\"\"Weights by their names in the model that was trained; ``shapes`` says which there are.\"\"\"

    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.post_init()
        shapes = config.shapes
"""


def _network_of(trained: Trained) -> tuple[str, Piece]:
    """The piece that samples are drawn with."""
    name = trained.portable.procedure()["piece"]
    return name, trained.parts[name]


def write_network(trained: Trained, folder: Path) -> None:
    """A model of pictures, which transformers has no code for: its own code comes with it."""
    code, weights = source(_network_of(trained)[1], _network_of(trained)[0])
    table = {
        "model_type": "bowerbird",
        "architectures": ["Network"],
        "auto_map": {"AutoConfig": "network.Config", "AutoModel": "network.Network"},
        "shapes": {name: list(value.shape) for name, value in weights.items()},
    }
    files = {
        CONFIG: _text(table),
        "network.py": network_file(HEAD, code),
        "sampler.json": _text(sampler_settings(trained)),
    }
    for name, text in files.items():
        _write_text(folder / name, text)
    safetensors.torch.save_file(weights, folder / WEIGHTS, {"format": "pt"})
