"""Imported language models of many makers compute what transformers does, and are written as what they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tokenizers as hf
import torch

from bowerbird import config
from bowerbird.data import tokenizers
from bowerbird.data.tokenizers import SPECIALS, Tokenizer
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.export import export_model, gguf, huggingface, import_model
from bowerbird.export.architectures import kind_of
from bowerbird.export.checkpoint import Checkpoint, from_run
from bowerbird.samplers.decoding import Sampling
from bowerbird.training.rundir import load_model

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'bowerbird[hub]'")

CONTEXT = 48
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "vocab_size": 300, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 3.0, "original_max_position_embeddings": 16}
YARN_FAST = YARN | {"beta_fast": 8, "attention_factor": 1.3}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama-3.1": ("Llama", {"rope_parameters": LLAMA3}, "llama"),
    "linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, "llama"),
    "yarn": ("Llama", {"rope_parameters": YARN}, "llama"),
    "yarn-fast": ("Qwen3", {"rope_parameters": YARN_FAST, "head_dim": 16}, "qwen3"),
    "biases": ("Llama", {"attention_bias": True}, "llama"),
    "head_dim": ("Llama", {"head_dim": 12}, "llama"),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}, "llama"),
    "window": ("Mistral", {"sliding_window": 20}, "llama"),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, "qwen2"),
    "qwen3": ("Qwen3", {"head_dim": 16}, "qwen3"),
    "qwen3-biases": ("Qwen3", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}, "qwen3"),
    "smollm3": ("SmolLM3", {}, "smollm3"),
    "smollm3-odd": ("SmolLM3", {"no_rope_layers": [0, 1, 1, 0]}, "smollm3"),
}  # fmt: skip


def tokenizer() -> Tokenizer:
    return tokenizers.chosen("byte", ["text"], [], 300, SPECIALS)


def made(folder: Path, family: str, **settings: Any) -> Any:
    """A model of transformers whose weights all matter, saved with a tokenizer."""
    torch.manual_seed(0)
    described = getattr(transformers, f"{family}Config")(**SIZES | settings)
    model = transformers.AutoModelForCausalLM.from_config(described).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
    model.save_pretrained(folder)
    for name, text in tokenizer().files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return model


def theirs(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens).logits


def ours(of: Checkpoint, tokens: torch.Tensor) -> torch.Tensor:
    model = of.net.language_model(of.vocab_size, of.context).eval()
    model.load_state_dict(of.weights)
    with torch.no_grad():
        return model(tokens)[0]


def some_tokens(of: Checkpoint) -> torch.Tensor:
    return torch.randint(300, (2, of.context), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_before_and_after(tmp_path: Path, name: str) -> None:
    family, settings, kind = MODELS[name]
    model = made(tmp_path / "theirs", family, **settings)
    read = huggingface.read(tmp_path / "theirs")
    assert read.context == (20 if name == "window" else CONTEXT)
    tokens = some_tokens(read)
    assert (theirs(model, tokens) - ours(read, tokens)).abs().max() <= 1e-4
    written = huggingface.write(read, tmp_path / "ours")
    assert json.loads((written / "config.json").read_text())["model_type"] == kind
    again = transformers.AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32).eval()
    assert (theirs(again, tokens) - theirs(model, tokens)).abs().max() <= 1e-4
    assert huggingface.read(written).net == read.net


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "smollm3-odd", "llama-3.1", "yarn-fast", "biases"])
def test_one_token_at_a_time_is_the_same(tmp_path: Path, name: str) -> None:
    family, settings, _ = MODELS[name]
    made(tmp_path, family, **settings)
    read = huggingface.read(tmp_path)
    model = read.net.language_model(read.vocab_size, read.context).eval()
    model.load_state_dict(read.weights)
    tokens = some_tokens(read)
    with torch.inference_mode():
        state = model.initial_state(2, read.context)
        assert state.step is not None  # type: ignore[attr-defined]
        logits = torch.cat([model(tokens[:, i : i + 1], state)[0] for i in range(read.context)], 1)
        assert (logits - model(tokens)[0]).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["linear", "head_dim", "mistral", "qwen2", "qwen3"])
def test_gguf_keeps_them(tmp_path: Path, name: str) -> None:
    family, settings, kind = MODELS[name]
    made(tmp_path / "theirs", family, **settings)
    read = huggingface.read(tmp_path / "theirs")
    again = gguf.read(gguf.write(read, tmp_path / "model.gguf"))
    tokens = some_tokens(read)
    assert torch.equal(ours(read, tokens), ours(again, tokens)) and kind_of(again.net) == kind


def test_gguf_keeps_the_scaling_of_llama_3(tmp_path: Path) -> None:
    settings = {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 8192}, "head_dim": 16}
    made(tmp_path / "theirs", "Llama", **settings)
    read = huggingface.read(tmp_path / "theirs")
    again = gguf.read(gguf.write(read, tmp_path / "model.gguf"))
    assert again.net == read.net and again.net.rope_scaling.factor == 8
    made(tmp_path / "yarn", "Llama", rope_parameters=YARN)
    with pytest.raises(BowerbirdError, match=r"linear or Llama 3\.1"):
        gguf.write(huggingface.read(tmp_path / "yarn"), tmp_path / "yarn.gguf")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": YARN | {"mscale": 1.0}}, "mscale"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    made(tmp_path, "Llama", **settings)
    with pytest.raises(BowerbirdError, match=named):
        huggingface.read(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "m", "Llama")
    core = hf.Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    core.add_tokens([f"<new {i}>" for i in range(60)])
    core.save(str(tmp_path / "m" / "tokenizer.json"))
    last = core.get_vocab_size() - 1
    with pytest.raises(BowerbirdError, match=f"token number {last}, but the embedding has only 300 rows"):
        import_model(tmp_path / "m", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_a_tied_head_that_differs_is_refused(tmp_path: Path, family: str) -> None:
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": CONTEXT} if family == "GPT2" else {}
    made(tmp_path, family, tie_word_embeddings=True, **sizes)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    embedding = next(w for name, w in tensors.items() if name.endswith(("embed_tokens.weight", "wte.weight")))
    safetensors.torch.save_file(tensors | {"lm_head.weight": embedding.clone()}, tmp_path / "model.safetensors")
    huggingface.read(tmp_path)  # a copy of the embedding says nothing new
    safetensors.torch.save_file(tensors | {"lm_head.weight": embedding + 1}, tmp_path / "model.safetensors")
    with pytest.raises(BowerbirdError, match=r"lm_head\.weight differs from the embedding"):
        huggingface.read(tmp_path)


@pytest.mark.parametrize("name", ["smollm3-odd", "yarn-fast", "qwen2"])
def test_the_run_of_an_imported_model_keeps_its_net(tmp_path: Path, name: str) -> None:
    family, settings, _ = MODELS[name]
    made(tmp_path / "m", family, **settings)
    read = huggingface.read(tmp_path / "m")
    run = import_model(tmp_path / "m", tmp_path / "run")
    assert from_run(run).net == read.net
    assert config.load(str(run / "fine-tune.toml")).model.net == read.net  # type: ignore[attr-defined]
    tokens = some_tokens(read)
    with torch.no_grad():
        assert torch.equal(load_model(run)[0].net(tokens)[0], ours(read, tokens))  # type: ignore[operator]


# ---------------------------------------------------------------------------------------------------- generation


def test_generation_defaults_survive_the_round_trip(tmp_path: Path) -> None:
    made(tmp_path / "m", "Llama", vocab_size=300)
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [2, 7, 9]}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(said))
    eos = tokenizers.read(tmp_path / "m").eos
    wanted = Sampling(temperature=0.6, top_k=20, top_p=0.95, also_eos=tuple(i for i in (2, 7, 9) if i != eos))
    run = import_model(tmp_path / "m", tmp_path / "run")
    assert from_run(run).sampling == wanted
    folder = export_model(run, tmp_path / "exported", "huggingface")
    theirs = transformers.GenerationConfig.from_pretrained(folder)
    assert (theirs.do_sample, theirs.temperature, theirs.top_k, theirs.top_p) == (True, 0.6, 20, 0.95)
    assert set(theirs.eos_token_id) == {eos, 2, 7, 9}
    again = import_model(folder, tmp_path / "again")
    assert from_run(again).sampling == wanted


def test_generation_defaults_survive_gguf(tmp_path: Path) -> None:
    made(tmp_path / "m", "Llama")
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [2, 7]}
    (tmp_path / "m" / "generation_config.json").write_text(json.dumps(said))
    read = huggingface.read(tmp_path / "m")
    assert gguf.read(gguf.write(read, tmp_path / "model.gguf")).sampling == read.sampling


def test_without_do_sample_the_most_probable_token_is_taken(tmp_path: Path) -> None:
    made(tmp_path, "Llama")
    (tmp_path / "generation_config.json").write_text('{"do_sample": false, "eos_token_id": 2}')
    assert huggingface.read(tmp_path).sampling.temperature == 0
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": -1}')
    with pytest.raises(BowerbirdError, match="temperature = -1"):
        huggingface.read(tmp_path)


def test_every_end_token_ends_a_text(tmp_path: Path) -> None:
    made(tmp_path / "m", "Llama")
    eos = tokenizers.read(tmp_path / "m").eos
    others = [i for i in range(300) if i != eos]
    (tmp_path / "m" / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "eos_token_id": [eos, *others]})
    )
    model, _ = load_model(import_model(tmp_path / "m", tmp_path / "run"))
    assert [tokens.tolist() for tokens in model.stream(2, None, None, Draws(0))] == [[eos, eos]]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------- adapters


def adapter(folder: Path, base: Any, **settings: Any) -> dict[str, torch.Tensor]:
    """An adapter folder as PEFT writes it, and the weights of its model with it."""
    ranks = {"q_proj": 4, "down_proj": 2}
    table = {
        "peft_type": "LORA", "base_model_name_or_path": "somebody/base", "r": 4, "lora_alpha": 8, "bias": "none",
        "target_modules": list(ranks), "rank_pattern": {"down_proj": 2}, "alpha_pattern": {r"layers.0.*.q_proj": 2},
        "fan_in_fan_out": False, "modules_to_save": None, "use_dora": False, "use_rslora": False, **settings,
    }  # fmt: skip
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(table))
    g, tensors, state = torch.Generator().manual_seed(3), {}, dict(base.state_dict())
    for name, weight in base.state_dict().items():
        module = name.removesuffix(".weight")
        if (rank := ranks.get(module.rpartition(".")[2])) is None:
            continue
        a, b = torch.randn(rank, weight.shape[1], generator=g), torch.randn(weight.shape[0], rank, generator=g)
        tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
        alpha = 2 if "layers.0." in module and rank == 4 else 8
        state[name] = weight + alpha / (rank**0.5 if table["use_rslora"] else rank) * b @ a
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")
    return state


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_is_merged_with_the_model_beside_it(tmp_path: Path, rslora: bool) -> None:
    base = made(tmp_path / "base", "Qwen2")
    base.load_state_dict(adapter(tmp_path / "adapter", base, use_rslora=rslora))
    read = huggingface.read(tmp_path / "adapter")
    tokens = some_tokens(read)
    assert (theirs(base, tokens) - ours(read, tokens)).abs().max() <= 1e-3
    assert import_model(tmp_path / "adapter", tmp_path / "run").is_dir()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"), ({"peft_type": "IA3"}, "IA3"),
    ],
)  # fmt: skip
def test_an_adapter_that_is_not_understood_is_named(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    adapter(tmp_path / "adapter", made(tmp_path / "base", "Llama"), **settings)
    with pytest.raises(BowerbirdError, match=named):
        huggingface.read(tmp_path / "adapter")


def test_an_adapter_without_its_model_says_where_to_put_it(tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", made(tmp_path / "other", "Llama"))
    with pytest.raises(BowerbirdError, match=r"adapter of the model 'somebody/base', which is not here; put .*base"):
        huggingface.read(tmp_path / "adapter")
