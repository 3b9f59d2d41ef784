"""GGUF: the one file in which llama.cpp keeps a model; here of the Llama architecture.

It holds metadata (sizes, vocabulary, chat template) and tensors, most of them quantised: blocks of 32 or 256 numbers
share a scale, and the package ``gguf`` says what they stand for.  Queries and keys have their rows in another order:
llama.cpp turns neighbouring features of a head, we (as Hugging Face) features half a head apart,

    their row 2k + j of a head = our row k + j d/2,     k < d/2,  j in {0, 1}.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError
from bowerbird.export import Precision, vocabulary
from bowerbird.export.checkpoint import Checkpoint, is_llama
from bowerbird.export.layout import Layout, Tensors
from bowerbird.nets.transformer import TransformerConfig

LAYOUT = Layout(
    {"embedding.token": "token_embd", "norm": "output_norm", "head": "output"},
    "blk.{}.",
    {
        "attention_norm": ("attn_norm",),
        "attention.qkv": ("attn_q", "attn_k", "attn_v"),
        "attention.out": ("attn_output",),
        "mlp_norm": ("ffn_norm",),
        "mlp.up": ("ffn_gate", "ffn_up"),
        "mlp.down": ("ffn_down",),
    },
    biased=False,
)


def neighbours(w: Float[Tensor, "rows n_in"], n_head: int) -> Float[Tensor, "rows n_in"]:
    """Rows half a head apart become neighbours: our order to llama.cpp's."""
    return w.unflatten(0, (n_head, 2, -1)).transpose(1, 2).reshape(w.shape)


def halves(w: Float[Tensor, "rows n_in"], n_head: int) -> Float[Tensor, "rows n_in"]:
    """Neighbouring rows become half a head apart: the inverse of ``neighbours``."""
    return w.unflatten(0, (n_head, -1, 2)).transpose(1, 2).reshape(w.shape)


def _package() -> Any:
    """The package gguf, which is no part of the smallest installation."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise BowerbirdError("GGUF files need the package gguf; run: pip install 'bowerbird[export]'") from error


def _heads(name: str, net: TransformerConfig) -> int | None:
    """How many heads the rows of a tensor belong to, if they are turned."""
    return {"attn_q.weight": net.n_head, "attn_k.weight": net.kv_heads}.get(name.split(".", 2)[-1])


# ----------------------------------------------------------------------------------------------------- reading


def read(file: Path) -> Checkpoint:
    """The language model in a GGUF file, dequantised; BowerbirdError says what is not understood."""
    try:
        reader = _package().GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as error:
        raise BowerbirdError(f"{file} is not a whole GGUF file: {error}.") from error
    try:
        net = _net(metadata, {tensor.name for tensor in reader.tensors}, str(file))
        context = int(metadata["llama.context_length"])
        tokenizer = _tokenizer(metadata, str(file))
    except KeyError as error:
        raise BowerbirdError(f"{file} lacks {error}.") from error
    except (ValueError, IndexError) as error:
        raise BowerbirdError(f"{file}: {error}") from error
    tensors: Tensors = {}
    for one in reader.tensors:
        w = _dequantised(one, str(file))
        n_head = _heads(one.name, net)
        tensors[one.name] = w if n_head is None else halves(w, n_head)
    return Checkpoint(net, context, LAYOUT.read(tensors, net, str(file)), tokenizer)


def _net(metadata: Mapping[str, Any], names: set[str], where: str) -> TransformerConfig:
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise BowerbirdError(f"{where} holds a model of the architecture '{kind}'; known: llama.")
    if "rope_freqs.weight" in names or metadata.get("llama.rope.scaling.type", "none") != "none":
        raise BowerbirdError(f"{where} rescales its rotary positions, which our Transformer cannot.")
    net = TransformerConfig(
        n_layer=int(metadata["llama.block_count"]),
        n_head=int(metadata["llama.attention.head_count"]),
        n_kv_head=int(metadata.get("llama.attention.head_count_kv", metadata["llama.attention.head_count"])),
        n_embd=int(metadata["llama.embedding_length"]),
        n_ff=int(metadata["llama.feed_forward_length"]),
        positions="rotary",
        norm="rms",
        activation="swiglu",
        tied="output.weight" not in names,
        norm_tol=_shortest(metadata["llama.attention.layer_norm_rms_epsilon"]),
        rope_base=_shortest(metadata.get("llama.rope.freq_base", 10_000.0)),
    )
    d = net.n_embd // net.n_head
    for key in ("llama.rope.dimension_count", "llama.attention.key_length"):
        if metadata.get(key, d) != d:
            raise BowerbirdError(
                f"{where} has {key} = {metadata[key]}; our Transformer turns all {d} features of a head."
            )
    return net


def _shortest(value: float) -> float:
    """1e-5 for the float32 nearest to it, 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _tokenizer(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    core = hf.Tokenizer.from_str(vocabulary.read(metadata, where))
    eos = int(metadata["tokenizer.ggml.eos_token_id"])
    bos, pad = (int(metadata.get(f"tokenizer.ggml.{role}_token_id", eos)) for role in ("bos", "padding"))
    return Tokenizer(core, bos, eos, pad, metadata.get("tokenizer.chat_template", ""))


def _dequantised(tensor: Any, where: str) -> Float[Tensor, "*shape"]:
    try:
        numbers = _package().dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    except NotImplementedError as error:
        kind = tensor.tensor_type.name
        raise BowerbirdError(f"{where} is quantised as {kind}, which the package gguf cannot undo.") from error
    return torch.from_numpy(numbers.reshape(tuple(reversed(tensor.shape.tolist()))))


# ----------------------------------------------------------------------------------------------------- writing


def write(checkpoint: Checkpoint, file: Path, precision: Precision = "f32") -> Path:
    """Writes the file and returns it; f16 halves it, norms stay in float32.

    BowerbirdError for an architecture or a tokenizer that llama.cpp does not know.
    """
    if not is_llama(checkpoint.net):
        raise BowerbirdError(
            "This Transformer is no Llama, so llama.cpp has no code for it; train with model.net.positions = rotary, "
            "norm = rms, activation = swiglu, bias = false to export to gguf."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda part: _write(checkpoint, part, precision))
    return file


def _write(checkpoint: Checkpoint, file: Path, precision: Precision) -> None:
    net = checkpoint.net
    writer = _package().GGUFWriter(file, "llama")
    for key, value in (
        _metadata(checkpoint, precision) | vocabulary.write(checkpoint.tokenizer, checkpoint.vocab_size)
    ).items():
        _add(writer, key, value)
    for name, w in LAYOUT.write(checkpoint.weights, net).items():
        n_head = _heads(name, net)
        numbers = (w if n_head is None else neighbours(w, n_head)).contiguous().numpy()
        writer.add_tensor(name, numbers.astype(np.float16) if precision == "f16" and w.ndim > 1 else numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _metadata(checkpoint: Checkpoint, precision: Precision) -> dict[str, Any]:
    net, kinds = checkpoint.net, _package().LlamaFileType
    kind = kinds.MOSTLY_F16 if precision == "f16" else kinds.ALL_F32
    return {
        "general.file_type": int(kind),
        "llama.context_length": checkpoint.context,
        "llama.block_count": net.n_layer,
        "llama.embedding_length": net.n_embd,
        "llama.feed_forward_length": net.width,
        "llama.attention.head_count": net.n_head,
        "llama.attention.head_count_kv": net.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": net.norm_tol,
        "llama.rope.dimension_count": net.n_embd // net.n_head,
        "llama.rope.freq_base": net.rope_base,
        "llama.vocab_size": checkpoint.vocab_size,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    """One entry of the metadata, of the type that llama.cpp expects of it."""
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
