"""GGUF: the one file in which llama.cpp keeps a model; here of the architectures Llama, Qwen2 and Qwen3.

It holds metadata (sizes, vocabulary, chat template) and tensors, most of them quantised: blocks of 32 or 256 numbers
share a scale, and the package ``gguf`` says what they stand for.  A Llama's queries and keys have other rows:
llama.cpp turns neighbouring features of a head, we (as Hugging Face) features half a head apart,

    their row 2k + j of a head = our row k + j d/2,     k < d/2,  j in {0, 1}.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.data.kinds import beginning, require_content
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError
from bowerbird.export import vocabulary
from bowerbird.export.architectures import kind_of
from bowerbird.export.bounds import inside
from bowerbird.export.checkpoint import Checkpoint, from_run, require_language_model
from bowerbird.export.layout import Layout, Tensors
from bowerbird.export.target import Parity, Precision, Target, Trained, compared_logits, package
from bowerbird.nets.positions import RopeScaling
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.registry import exports
from bowerbird.samplers.decoding import Sampling

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
    qk_norms={"attention.q_norm": ("attn_q_norm",), "attention.k_norm": ("attn_k_norm",)},
)
KINDS = ("llama", "qwen2", "qwen3")
FREQUENCIES = "rope_freqs.weight"
"""By what each plane of rotary positions is slowed down (Llama 3.1 and later)."""


def neighbours(w: Float[Tensor, "rows n_in"], n_head: int) -> Float[Tensor, "rows n_in"]:
    """Rows half a head apart become neighbours: our order to llama.cpp's."""
    return w.unflatten(0, (n_head, 2, -1)).transpose(1, 2).reshape(w.shape)


def halves(w: Float[Tensor, "rows n_in"], n_head: int) -> Float[Tensor, "rows n_in"]:
    """Neighbouring rows become half a head apart: the inverse of ``neighbours``."""
    return w.unflatten(0, (n_head, -1, 2)).transpose(1, 2).reshape(w.shape)


def _package() -> Any:
    return package("gguf")


def _heads(name: str, net: TransformerConfig) -> int | None:
    """How many heads the rows of a tensor belong to, if their order is another one."""
    if kind_of(net) != "llama":
        return None
    return {"attn_q.weight": net.n_head, "attn_k.weight": net.kv_heads}.get(name.split(".", 2)[-1])


# ----------------------------------------------------------------------------------------------------- reading


def read(file: Path) -> Checkpoint:
    """The language model in a GGUF file, dequantised; BowerbirdError says what is not understood."""
    try:
        if not inside(file):
            raise ValueError("its metadata lead beyond its end")
        reader = _package().GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OSError) as error:
        require_content(beginning(file), file)
        raise BowerbirdError(f"{file} is not a whole GGUF file: {error}.") from error
    try:
        found = {tensor.name: tensor for tensor in reader.tensors}
        net = _net(metadata, found.keys(), str(file))
        if FREQUENCIES in found:
            slowed_by = _dequantised(found.pop(FREQUENCIES), str(file))
            net = replace(net, rope_scaling=_llama3(slowed_by, net, str(file)))
        context = int(metadata[f"{metadata['general.architecture']}.context_length"])
        tokenizer = _tokenizer(metadata, str(file))
    except KeyError as error:
        raise BowerbirdError(f"{file} lacks {error}.") from error
    except (ValueError, IndexError) as error:
        raise BowerbirdError(f"{file}: {error}") from error
    tensors: Tensors = {}
    for one in found.values():
        w = _dequantised(one, str(file))
        n_head = _heads(one.name, net)
        tensors[one.name] = w if n_head is None else halves(w, n_head)
    return Checkpoint(net, context, LAYOUT.read(tensors, net, str(file)), tokenizer, _sampling(metadata))


def _net(metadata: Mapping[str, Any], names: Collection[str], where: str) -> TransformerConfig:
    kind = metadata.get("general.architecture")
    if kind not in KINDS:
        raise BowerbirdError(f"{where} holds a model of the architecture '{kind}'; known: {', '.join(KINDS)}.")
    own = {name.removeprefix(f"{kind}."): value for name, value in metadata.items() if name.startswith(f"{kind}.")}
    n_head, n_embd = int(own["attention.head_count"]), int(own["embedding_length"])
    d = int(own.get("attention.key_length", n_embd // n_head))
    for key in ("rope.dimension_count", "attention.value_length"):
        if own.get(key, d) != d:
            raise BowerbirdError(f"{where} has {kind}.{key} = {own[key]}; our Transformer rotates all {d} features.")
    return TransformerConfig(
        n_layer=int(own["block_count"]),
        n_head=n_head,
        n_kv_head=int(own.get("attention.head_count_kv", n_head)),
        n_embd=n_embd,
        head_dim=None if d * n_head == n_embd else d,
        n_ff=int(own["feed_forward_length"]),
        positions="rotary",
        norm="rms",
        activation="swiglu",
        tied="output.weight" not in names,
        norm_tol=_shortest(own["attention.layer_norm_rms_epsilon"]),
        rope_base=_shortest(own.get("rope.freq_base", 10_000.0)),
        rope_scaling=_scaling(own, where),
        attention_bias="qkv" if "blk.0.attn_q.bias" in names else "none",
        qk_norm="blk.0.attn_q_norm.weight" in names,
    )


def _scaling(own: Mapping[str, Any], where: str) -> RopeScaling:
    kind = own.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise BowerbirdError(f"{where} scales its rotary positions by '{kind}'; only linear is supported.")
    return RopeScaling("linear", _shortest(own["rope.scaling.factor"])) if kind == "linear" else RopeScaling()


def _llama3(slowed_by: Float[Tensor, " n_planes"], net: TransformerConfig, where: str) -> RopeScaling:
    """The scaling that all models of Meta have since Llama 3.1, if the numbers are its."""
    scaling = RopeScaling("llama3", float(slowed_by.max()))
    if not torch.allclose(_slowed_by(replace(net, rope_scaling=scaling)), slowed_by, rtol=1e-3):
        raise BowerbirdError(f"{where} scales its rotary positions differently from Llama 3.1.")
    return scaling


def _slowed_by(net: TransformerConfig) -> Float[Tensor, " n_planes"]:
    omega = net.rope_base ** (-torch.arange(net.d // 2) / (net.d // 2))
    return omega / net.rope_scaling.slowed(omega, net.rope_base)


SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}
"""Our names of what llama.cpp keeps as general.sampling.…"""


def _sampling(metadata: Mapping[str, Any]) -> Sampling:
    said = {ours: metadata.get(f"general.sampling.{theirs}") for ours, theirs in SAMPLING.items()}
    eos, ends = metadata["tokenizer.ggml.eos_token_id"], ("eot", "eom")
    also = {metadata.get(f"tokenizer.ggml.{end}_token_id", eos) for end in ends} - {eos}
    numbers = {name: _shortest(value) for name, value in said.items() if value is not None}
    if "top_k" in numbers:
        numbers["top_k"] = int(numbers["top_k"])
    return Sampling(**numbers, also_eos=tuple(sorted(map(int, also))))  # type: ignore[arg-type]


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
        raise BowerbirdError(f"{where} is quantised as {kind}, which the package gguf cannot dequantise.") from error
    return torch.from_numpy(numbers.reshape(tuple(reversed(tensor.shape.tolist()))))


# ----------------------------------------------------------------------------------------------------- writing


def write(checkpoint: Checkpoint, file: Path, precision: Precision = "f32") -> Path:
    """Writes the file and returns it; f16 halves it, norms stay in float32.

    BowerbirdError for an architecture or a tokenizer that llama.cpp does not know.
    """
    require_architecture(checkpoint.net)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda part: _write(checkpoint, part, precision))
    return file


def require_architecture(net: TransformerConfig) -> None:
    """BowerbirdError for what llama.cpp does not know."""
    if kind_of(net) not in KINDS or net.attention_bias == "all":
        raise BowerbirdError(
            "This Transformer is not a Llama, Qwen2 or Qwen3, so it cannot be written as GGUF; train with "
            "model.net.positions = rotary, norm = rms, activation = swiglu, bias = false to export to gguf."
        )
    plain = RopeScaling("llama3", net.rope_scaling.factor)
    if net.rope_scaling.kind == "yarn" or (net.rope_scaling.kind == "llama3" and net.rope_scaling != plain):
        raise BowerbirdError("GGUF is written only with linear or Llama 3.1 scaling of rotary positions.")


def _write(checkpoint: Checkpoint, file: Path, precision: Precision) -> None:
    net = checkpoint.net
    writer = _package().GGUFWriter(file, kind_of(net))
    for key, value in (
        _metadata(checkpoint, precision) | vocabulary.write(checkpoint.tokenizer, checkpoint.vocab_size)
    ).items():
        _add(writer, key, value)
    if net.rope_scaling.kind == "llama3":
        writer.add_tensor(FREQUENCIES, _slowed_by(net).numpy())
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
    own: dict[str, Any] = {
        "context_length": checkpoint.context,
        "block_count": net.n_layer,
        "embedding_length": net.n_embd,
        "feed_forward_length": net.width,
        "attention.head_count": net.n_head,
        "attention.head_count_kv": net.kv_heads,
        "attention.layer_norm_rms_epsilon": net.norm_tol,
        "rope.dimension_count": net.d,
        "rope.freq_base": net.rope_base,
        "vocab_size": checkpoint.vocab_size,
    }
    if net.head_dim is not None:
        own |= {"attention.key_length": net.d, "attention.value_length": net.d}
    if net.rope_scaling.kind == "linear":
        own |= {"rope.scaling.type": "linear", "rope.scaling.factor": net.rope_scaling.factor}
    architecture = {f"{kind_of(net)}.{name}": value for name, value in own.items()}
    return {"general.file_type": int(kind)} | architecture | _sampling_metadata(checkpoint.sampling)


def _sampling_metadata(sampling: Sampling) -> dict[str, Any]:
    """What differs from the defaults; of further tokens that end a text there is room for two."""
    usual = Sampling()
    numbers: dict[str, Any] = {
        f"general.sampling.{theirs}": getattr(sampling, ours)
        for ours, theirs in SAMPLING.items()
        if getattr(sampling, ours) != getattr(usual, ours)
    }
    if len(sampling.also_eos) > 2:
        raise BowerbirdError(f"GGUF has room for three end-of-text tokens, not for {len(sampling.also_eos) + 1}.")
    ends = zip(("eot", "eom"), sampling.also_eos, strict=False)
    return numbers | {f"tokenizer.ggml.{end}_token_id": token for end, token in ends}


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


# ------------------------------------------------------------------------------------------------------- the target


@exports.register("gguf")
class GGUF(Target):
    """A file for llama.cpp."""

    runtime = "Bowerbird, from the file as the package gguf reads it; llama.cpp itself was not run"
    file = "model.gguf"
    precisions = ("f32", "f16")

    def require(self, trained: Trained) -> None:
        require_architecture(require_language_model(trained))

    def write(self, trained: Trained, folder: Path) -> None:
        write(from_run(trained.path), folder / self.file, trained.precision)

    def compare(self, trained: Trained, folder: Path) -> list[Parity]:
        again = read(folder / self.file)
        net = again.net.language_model(again.vocab_size, again.context).eval()
        net.load_state_dict(again.weights)
        return compared_logits(trained, lambda tokens: net(tokens)[0], matrices_only=True)

    def usage(self, trained: Trained) -> str:
        return f"```sh\nllama-cli -m {self.file} -p Once\n```"
