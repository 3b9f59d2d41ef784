"""The Hugging Face layout: a folder with config.json, model.safetensors and tokenizer.json, for ``transformers``.

Language models have one of its own architectures (``export.architectures``); a model of pictures brings its code along.
"""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from bowerbird import spec
from bowerbird.data import tokenizers
from bowerbird.data.kinds import beginning, require_content
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.writing import write_atomically
from bowerbird.errors import BowerbirdError
from bowerbird.export import adapter
from bowerbird.export.architectures import ARCHITECTURES, TRANSPOSED, Table, context_of, kind_of
from bowerbird.export.checkpoint import Checkpoint, from_run, require_language_model
from bowerbird.export.graph import network_file, source
from bowerbird.export.layout import Tensors
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
    require_one_network,
)  # fmt: skip
from bowerbird.models.base import Piece
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.registry import exports
from bowerbird.samplers.decoding import Sampling

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION = "generation_config.json"
NO_WEIGHTS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Constants that old files hold."""
DTYPES = {"f32": "float32", "f16": "float16"}


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
        net, context = architecture.net(table, str(folder)), context_of(table, architecture.context)
    except KeyError as error:
        raise BowerbirdError(f"{folder / CONFIG} lacks {error}.") from error
    except ValueError as error:  # a configuration that no Transformer can have
        raise BowerbirdError(f"{folder / CONFIG}: {error}") from error
    plain = _plain(tensors, net, prefix="transformer." if kind == "gpt2" else "", where=str(folder))
    weights = architecture.layout.read(plain, net, str(folder))
    tokenizer = tokenizer or tokenizers.read(folder)
    return Checkpoint(net, context, weights, tokenizer, _sampling(folder, tokenizer.eos))


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


def _json(file: Path) -> Table:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BowerbirdError(f"{file.parent} is not a model folder: it has no {file.name}.") from error
    except (ValueError, RecursionError, OSError) as error:
        require_content(beginning(file), file)
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
            require_content(beginning(file), file)
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
    kind = required_kind(net)
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


def required_kind(net: TransformerConfig) -> str:
    """``kind_of`` a net; BowerbirdError where there is none."""
    if kind := kind_of(net):
        return kind
    raise BowerbirdError(
        "This Transformer is neither a Llama or a relative (positions rotary, norm rms, activation swiglu, no "
        "bias; of qk_norm, unturned and attention_bias = qkv at most one) nor a GPT-2 (positions learned, norm "
        "layer, activation gelu or gelu-tanh), so transformers has no code for it."
    )


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


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _text(table: Table) -> str:
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------------- the target


@exports.register("huggingface")
class HuggingFace(Target):
    """A folder for transformers."""

    runtime = "transformers"
    precisions = ("f32", "f16")

    def require(self, trained: Trained) -> None:
        require_one_network(trained)
        if not isinstance(trained.spec.target, spec.Tensors):
            required_kind(require_language_model(trained))

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
        if isinstance(trained.spec.target, spec.Tensors):
            return (
                "```python\nfrom transformers import AutoModel\n\n"
                'network = AutoModel.from_pretrained(".", trust_remote_code=True)\n```\n\n'
                "This is the network alone; `sampler.json` says how to sample with it. `trust_remote_code` runs "
                "`network.py`; read it first."
            )
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
