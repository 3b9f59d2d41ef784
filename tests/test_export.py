"""Import and export: names and orders of weights, against transformers and closed forms; vocabularies; bad files."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import gguf as package
import numpy as np
import pytest
import tokenizers as hf
import torch
from gguf import GGMLQuantizationType as Kind

from bowerbird import api, config
from bowerbird.config import Data, Run
from bowerbird.data import fetch, tokenizers
from bowerbird.data.tokenizers import SPECIALS, Tokenizer
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.export import export_model, gguf, huggingface, import_model, vocabulary
from bowerbird.export.checkpoint import Checkpoint, from_run
from bowerbird.models.autoregressive import AutoregressiveConfig, TokenOptions
from bowerbird.nets.lora import LoRAConfig, merged_state
from bowerbird.nets.positions import rotated, rotation
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.training.rundir import RunDir, load_model

LLAMA = TransformerConfig(
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=32,
    n_ff=48,
    norm="rms",
    activation="swiglu",
    norm_tol=1e-6,
    rope_base=500.0,
)
UNTIED = TransformerConfig(n_layer=1, n_head=2, n_embd=32, norm="rms", activation="swiglu", tied=False)
GPT2 = TransformerConfig(n_layer=2, n_head=4, n_embd=32, positions="learned", activation="gelu-tanh", bias=True)
PLAIN = TransformerConfig(
    n_layer=1, n_head=2, n_embd=32, n_ff=40, positions="learned", activation="gelu", norm_tol=1e-4
)
NETS = {"llama": LLAMA, "untied": UNTIED, "gpt2": GPT2, "no-bias": PLAIN}
TEXT = "The bowerbird gathers what it finds and makes art of it; 12 345 things, naïve or not: 明月!\n"
TEMPLATE = "{% for m in messages %}<bos>{{ m['content'] }}<eos>{% endfor %}"
CONTEXT = 24


def tokenizer(kind: str = "bpe", template: str = TEMPLATE) -> Tokenizer:
    made = tokenizers.chosen(kind, [TEXT * 3], [], 300, SPECIALS)
    return Tokenizer(made.core, made.bos, made.eos, made.pad, template)


def checkpoint(net: TransformerConfig, kind: str = "bpe") -> Checkpoint:
    """A model whose weights are large enough for every one of them to matter."""
    chosen = tokenizer(kind)
    model = net.language_model(chosen.vocab_size + 5, CONTEXT)
    g = torch.Generator().manual_seed(0)
    weights = {name: w + 0.2 * torch.randn(w.shape, generator=g) for name, w in model.state_dict().items()}
    return Checkpoint(net, CONTEXT, weights, chosen)


def logits(of: Checkpoint, tokens: torch.Tensor) -> torch.Tensor:
    model = of.net.language_model(of.vocab_size, of.context).eval()
    model.load_state_dict(of.weights)
    with torch.no_grad():
        return model(tokens)[0]


def some_tokens(of: Checkpoint) -> torch.Tensor:
    return torch.randint(of.vocab_size, (3, CONTEXT), generator=torch.Generator().manual_seed(1))


def assert_same(a: Checkpoint, b: Checkpoint, net: TransformerConfig | None = None) -> None:
    assert b.net == (net or a.net) and b.context == a.context
    assert b.weights.keys() == a.weights.keys()
    assert all(torch.equal(w, b.weights[name]) for name, w in a.weights.items())
    assert (b.tokenizer.bos, b.tokenizer.eos, b.tokenizer.pad) == (a.tokenizer.bos, a.tokenizer.eos, a.tokenizer.pad)
    assert b.tokenizer.chat_template == a.tokenizer.chat_template
    assert b.tokenizer.encode(TEXT) == a.tokenizer.encode(TEXT) and b.tokenizer.decode(b.tokenizer.encode(TEXT)) == TEXT


def resolved(net: TransformerConfig) -> TransformerConfig:
    """The same net with the values that stand for None."""
    return replace(net, n_kv_head=net.kv_heads, n_ff=net.width)


# ---------------------------------------------------------------------------------------------- Hugging Face layout


@pytest.mark.parametrize("net", [LLAMA, UNTIED, GPT2], ids=["llama", "untied", "gpt2"])
def test_a_folder_reads_back_as_it_was(tmp_path, net):
    original = checkpoint(net)
    read = huggingface.read(huggingface.write(original, tmp_path / "model"))
    expected = resolved(net)
    if net is GPT2:
        expected = TransformerConfig(**{**vars(expected), "n_kv_head": None})
    assert_same(original, read, expected)


@pytest.mark.parametrize("name", NETS)
def test_transformers_computes_the_same(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'bowerbird[hub]'")
    original = checkpoint(NETS[name])
    folder = huggingface.write(original, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = some_tokens(original)
    with torch.no_grad():
        difference = (theirs(tokens).logits - logits(original, tokens)).abs().max()
    assert difference <= 1e-4
    loaded = transformers.AutoTokenizer.from_pretrained(folder)
    assert loaded(TEXT, add_special_tokens=False).input_ids == original.tokenizer.encode(TEXT)
    assert (loaded.bos_token_id, loaded.eos_token_id) == (original.tokenizer.bos, original.tokenizer.eos)
    chat = loaded.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == "<bos>Hi<eos>"
    assert (theirs.generation_config.eos_token_id, theirs.config.max_position_embeddings) == (
        loaded.eos_token_id,
        CONTEXT,
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_transformers_writes_is_read_in_shards(tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'bowerbird[hub]'")
    chosen = tokenizer()
    torch.manual_seed(0)
    if kind == "llama":
        sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_key_value_heads=2)
        config = transformers.LlamaConfig(
            vocab_size=chosen.vocab_size, num_attention_heads=4, max_position_embeddings=CONTEXT, **sizes
        )
    else:
        config = transformers.GPT2Config(
            vocab_size=chosen.vocab_size, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4
        )
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    for name, text in chosen.files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    read = huggingface.read(tmp_path)
    assert read.net.tied == (kind == "gpt2")
    tokens = torch.randint(chosen.vocab_size, (2, CONTEXT))
    with torch.no_grad():
        assert (theirs(tokens).logits - logits(read, tokens)).abs().max() <= 1e-5


def test_half_precision_rounds_and_nothing_else(tmp_path):
    original = checkpoint(LLAMA)
    read = huggingface.read(huggingface.write(original, tmp_path / "model", "f16"))
    assert all(torch.equal(w.half().float(), read.weights[name]) for name, w in original.weights.items())


# --------------------------------------------------------------------------------------------------------- GGUF


@pytest.mark.parametrize("net", [LLAMA, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
def test_a_gguf_reads_back_as_it_was(tmp_path, net, kind):
    original = checkpoint(net, kind)
    assert_same(original, gguf.read(gguf.write(original, tmp_path / "model.gguf")), resolved(net))


def test_half_precision_spares_the_norms(tmp_path):
    original = checkpoint(LLAMA)
    read = gguf.read(gguf.write(original, tmp_path / "model.gguf", "f16"))
    for name, w in original.weights.items():
        assert torch.equal(w if "norm" in name else w.half().float(), read.weights[name])


def test_the_order_of_a_heads_rows():
    d, n_head = 6, 2
    w = torch.arange(n_head * d)[:, None].float()
    theirs = gguf.neighbours(w, n_head)
    for head in range(n_head):
        for k in range(d // 2):
            for j in range(2):
                assert theirs[head * d + 2 * k + j] == w[head * d + k + j * d // 2]
    assert gguf.halves(theirs, n_head).equal(w)


def test_turned_neighbours_are_turned_halves():
    """In either convention a query and a key have the same product at every pair of positions."""
    d, token = 8, 5
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, d, token, generator=g)
    turn = rotation(torch.arange(token), d, 10_000.0)
    ours = [rotated(x.T[None, None], turn)[0, 0] for x in (q, k)]
    theirs = []
    for x in (q, k):
        pairs = gguf.neighbours(x, 1).T.reshape(token, d // 2, 2)
        angle = torch.arange(token)[:, None] * 10_000.0 ** (-2 * torch.arange(d // 2) / d)
        turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle)
        theirs.append(torch.view_as_real(turned).flatten(1))
    torch.testing.assert_close(theirs[0] @ theirs[1].T, ours[0] @ ours[1].T, atol=1e-5, rtol=1e-5)


def quantised(tmp_path: Path, kind: Kind, raw: dict[str, np.ndarray] | None = None) -> tuple[Checkpoint, Checkpoint]:
    """A model, and the same read from a file whose matrices are quantised (or replaced by ``raw`` bytes)."""
    net = TransformerConfig(n_layer=1, n_head=4, n_embd=256, n_ff=256, norm="rms", activation="swiglu")
    original = checkpoint(net)
    writer = package.GGUFWriter(tmp_path / "model.gguf", "llama")
    for key, value in (
        gguf._metadata(original, "f32") | vocabulary.write(original.tokenizer, original.vocab_size)
    ).items():
        gguf._add(writer, key, value)
    for name, w in gguf.LAYOUT.write(original.weights, net).items():
        heads = gguf._heads(name, net)
        numbers = (w if heads is None else gguf.neighbours(w, heads)).contiguous().numpy()
        if w.ndim == 1:
            writer.add_tensor(name, numbers)
        elif raw is None:
            writer.add_tensor(name, package.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.tile(raw[kind.name], (len(w), w.shape[1] // 256)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return original, gguf.read(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("kind", "levels"), [(Kind.BF16, 512), (Kind.Q8_0, 254), (Kind.Q4_0, 14), (Kind.Q4_1, 15)], ids=lambda k: str(k)
)
def test_quantised_weights_lie_within_half_a_step(tmp_path, kind, levels):
    original, read = quantised(tmp_path, kind)
    for name, w in original.weights.items():
        if w.ndim == 2:
            blocks, found = w.unflatten(1, (-1, 32)), read.weights[name].unflatten(1, (-1, 32))
            step = 2 * blocks.abs().amax(-1, keepdim=True) / levels
            assert ((blocks - found).abs() <= 1.2 * step).all()
        else:
            assert torch.equal(w, read.weights[name])


def test_k_quants_by_hand(tmp_path):
    half = lambda x: np.frombuffer(np.float16(x).tobytes(), np.uint8)  # noqa: E731
    # Q4_K: d = 0.5, dmin = 0.25, eight scales 2 and minima 1 (six bits each, packed in 12 bytes), all nibbles 3.
    packed = np.array([2] * 4 + [1] * 4 + [2 | 1 << 4] * 4, np.uint8)
    q4_k = np.concatenate([half(0.5), half(0.25), packed, np.full(128, 3 | 3 << 4, np.uint8)])
    # Q6_K: low nibbles 8 and high bits 2 make 40, which means 40 - 32; sixteen scales 3; d = 0.5.
    q6_k = np.concatenate(
        [np.full(128, 8 | 8 << 4, np.uint8), np.full(64, 0b10101010, np.uint8), np.full(16, 3, np.uint8), half(0.5)]
    )
    for kind, value in ((Kind.Q4_K, 0.5 * 2 * 3 - 0.25 * 1), (Kind.Q6_K, 0.5 * 3 * 8)):
        (tmp_path / kind.name).mkdir()
        _, read = quantised(tmp_path / kind.name, kind, {"Q4_K": q4_k, "Q6_K": q6_k})
        assert all((w == value).all() for w in read.weights.values() if w.ndim == 2)


# --------------------------------------------------------------------------------------------------- vocabularies


def byte_vocabulary(rule: str, **more: object) -> dict[str, object]:
    words = ["<|x|>", *tokenizers.byte_names(), "12", "123", "Ġa"]
    types = [vocabulary.CONTROL] + [vocabulary.NORMAL] * (len(words) - 1)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": ["1 2", "12 3", "Ġ a"],
        "tokenizer.ggml.bos_token_id": 0,
        **more,
    }


@pytest.mark.parametrize(
    ("rule", "pieces"),
    [
        ("gpt-2", ["1", "2", "3", "4"]),  # " 1234": the space belongs to the word, so that 12 is merged inside
        ("smollm", ["Ġ", "1", "2", "3", "4"]),
        ("qwen2", ["Ġ", "1", "2", "3", "4"]),
        ("llama-bpe", ["Ġ", "123", "4"]),
    ],
)
def test_rules_cut_numbers_differently(rule, pieces):
    core = hf.Tokenizer.from_str(vocabulary.read(byte_vocabulary(rule), "it"))
    found = core.encode(" 1234", add_special_tokens=False).tokens
    assert found == (["Ġ", "123", "4"] if rule == "gpt-2" else pieces)
    assert core.decode(core.encode("naïve 明月 a").ids) == "naïve 明月 a"
    assert core.encode("<|x|>a", add_special_tokens=False).ids[0] == 0


def test_bos_is_put_where_the_file_says_so():
    def begin(**more: object) -> list[int]:
        return hf.Tokenizer.from_str(vocabulary.read(byte_vocabulary(**more), "it")).encode("").ids

    assert begin(rule="smollm") == [] and begin(rule="llama-bpe") == [0]
    assert begin(rule="smollm", **{"tokenizer.ggml.add_bos_token": True}) == [0]
    assert begin(rule="llama-bpe", **{"tokenizer.ggml.add_bos_token": False}) == []


@pytest.mark.parametrize("rule", vocabulary.RULES)
def test_the_rule_is_written_as_it_was_read(rule):
    text = vocabulary.read(byte_vocabulary(rule), "it")
    written = vocabulary.write(Tokenizer(hf.Tokenizer.from_str(text), 0, 0, 0), 300)
    assert vocabulary.RULES[written["tokenizer.ggml.pre"]] == vocabulary.RULES[rule]
    again = hf.Tokenizer.from_str(vocabulary.read(written, "it"))
    assert again.encode(TEXT).ids == hf.Tokenizer.from_str(text).encode(TEXT).ids
    assert written["tokenizer.ggml.tokens"][-1] == "[PAD299]"


def test_scores_become_the_merges_of_sentencepiece():
    """Against the algorithm itself: again and again the neighbours whose union has the highest score are merged."""
    rng = np.random.default_rng(0)
    alphabet = [vocabulary.SPACE, *"abc"]
    longer = sorted({"".join(rng.choice(alphabet, rng.integers(2, 5))) for _ in range(60)})
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *alphabet, *longer]
    scores = [0.0] * (len(words) - len(longer)) + rng.permutation(-np.arange(len(longer)) - 1.0).tolist()
    score = dict(zip(words, scores, strict=True))
    types = [vocabulary.UNKNOWN, *[vocabulary.CONTROL] * 2, *[vocabulary.BYTE] * 256]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types + [vocabulary.NORMAL] * (len(words) - len(types)),
        "tokenizer.ggml.bos_token_id": 1,
    }
    core = hf.Tokenizer.from_str(vocabulary.read(metadata, "it"))
    for _ in range(200):
        text = "".join(rng.choice([" ", *"abc"], rng.integers(1, 16)))
        parts = list(vocabulary.SPACE + text.replace(" ", vocabulary.SPACE))
        while unions := [(-score[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in score]:
            _, i = min(unions)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        assert core.encode(text, add_special_tokens=False).tokens == parts
        assert core.decode(core.encode(text).ids) == text
    assert core.encode("é", add_special_tokens=False).tokens[1:] == ["<0xC3>", "<0xA9>"]
    assert core.encode("a").ids[0] == 1


def test_a_tokenizer_that_llama_cpp_cannot_run(tmp_path):
    core = hf.Tokenizer(hf.models.WordPiece({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(BowerbirdError, match="GGUF cannot carry this tokenizer.*huggingface instead"):
        vocabulary.write(Tokenizer(core, 0, 0, 0), 2)


# ------------------------------------------------------------------------------------------------------ run folders


@pytest.mark.parametrize("to", ["huggingface", "gguf"])
def test_in_and_out_again(tmp_path, to):
    original = checkpoint(LLAMA)
    source = huggingface.write(original, tmp_path / "model")
    run = import_model(source, tmp_path / "run")
    assert_same(original, from_run(run), resolved(LLAMA))
    model, spec = load_model(run)
    assert (spec.medium, spec.target.context, spec.target.vocab_size) == ("text", CONTEXT, original.vocab_size)
    assert spec.chat_template == TEMPLATE and spec == replace(model.spec, given={})
    tokens = some_tokens(original)
    assert torch.equal(model.net(tokens)[0], logits(original, tokens))
    assert len(list(model.stream(1, {"prompt": tokens[:1, :4]}, TokenOptions(n_tokens=3), Draws(0)))) == 3
    assert tokenizers.read(run).encode(TEXT) == original.tokenizer.encode(TEXT)
    assert (run / "chat_template.jinja").read_text() == TEMPLATE
    out = export_model(run, tmp_path / "out.gguf", to)
    assert_same(original, huggingface.read(out) if to == "huggingface" else gguf.read(out), resolved(LLAMA))
    again = import_model(out, tmp_path / "again")
    assert_same(original, from_run(again), resolved(LLAMA))
    with pytest.raises(BowerbirdError, match="already holds a run"):
        import_model(source, run)


def test_an_imported_model_comes_with_a_recipe_that_fine_tunes_it(tmp_path):
    run = import_model(huggingface.write(checkpoint(LLAMA), tmp_path / "model"), tmp_path / "run")
    chats = [
        {"messages": [{"role": "user", "content": f"what is {i}"}, {"role": "assistant", "content": "the sun"}]}
        for i in range(40)
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    recipe = config.load(str(run / "fine-tune.toml"))
    with pytest.raises(BowerbirdError, match="name-your-own"):
        api.train(recipe, tmp_path / "no-data", quiet=True)
    text = replace(recipe.data.text, context=CONTEXT)
    recipe = replace(
        recipe,
        data=replace(recipe.data, source=str(tmp_path / "chats.jsonl"), text=text),
        train=replace(recipe.train, examples=None, steps=3, validate_every=0),
    )
    tuned = api.train(recipe, tmp_path / "tuned", quiet=True)
    before, after = from_run(run).weights, from_run(tuned).weights
    rows = after["embedding.token.weight"].shape[0]  # of the tokens that the tokenizer knows
    assert rows < len(before["embedding.token.weight"])
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name][: len(weight)])}
    assert changed and all(any(part in name for part in recipe.model.lora.targets) for name in changed)


def test_a_model_that_begins_texts_with_bos_is_prompted_so(tmp_path):
    table = json.loads(tokenizer().to_json())
    for bos in (None, "<bos>"):
        number = tokenizer().bos
        table["post_processor"] = vocabulary.beginning(bos, number) if bos else None
        core = hf.Tokenizer.from_str(json.dumps(table))
        chosen = Tokenizer(core, number, tokenizer().eos, tokenizer().pad)
        one = Checkpoint(LLAMA, CONTEXT, checkpoint(LLAMA).weights, chosen)
        assert one.spec.target.start == ((number,) if bos else tuple(chosen.encode("\n")))
        assert gguf.read(gguf.write(one, tmp_path / "it.gguf")).spec.target.start == one.spec.target.start


@pytest.mark.parametrize("start", ["bos", "text"])
def test_a_run_whose_rows_begin_with_bos_says_so_to_other_programs(tmp_path, start):
    one = checkpoint(LLAMA, "char")
    bos = one.tokenizer.bos
    spec = replace(one.spec, target=replace(one.spec.target, start=(bos,) if start == "bos" else (3,)))
    run = RunDir.create(tmp_path / "run", Run(AutoregressiveConfig(LLAMA), Data("x", "text")), {})
    run.save_model({f"net.{name}": w for name, w in one.weights.items()}, spec, 1)
    exported = gguf.read(export_model(run.path, tmp_path / "it.gguf", "gguf"))
    assert exported.tokenizer.core.encode("a").ids == [bos] * (start == "bos") + one.tokenizer.encode("a")
    assert (exported.spec.target.start == (bos,)) == (start == "bos")
    assert_same(one, exported, resolved(LLAMA))


def test_adapters_are_merged(tmp_path):
    one = checkpoint(LLAMA)
    family = AutoregressiveConfig(LLAMA, lora=LoRAConfig(rank=2))
    tuned = family.build(one.spec)
    torch.nn.init.normal_(tuned.net.blocks[0].mlp.up.lora_B)
    expected = merged_state(tuned.net)
    run = RunDir.create(tmp_path / "run", Run(family, Data("x", "text")), {})
    run.save_model(tuned.weights(), one.spec, 1)
    weights = gguf.read(export_model(run.path, tmp_path / "it.gguf", "gguf")).weights
    assert weights.keys() == expected.keys() and all(torch.equal(w, expected[name]) for name, w in weights.items())


def test_a_vocabulary_without_a_new_line(tmp_path):
    made = tokenizers.chosen("char", ["abc"], [], 300, SPECIALS)
    one = replace(checkpoint(LLAMA), tokenizer=made)
    assert one.spec.target.start == (made.bos,)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def folder(tmp_path) -> Path:
    return huggingface.write(checkpoint(LLAMA), tmp_path / "model")


def change(folder: Path, **values: object) -> None:
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "a model of the type 'mamba'; known: llama, mistral, qwen2, qwen3, smollm3, gpt2"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "lacks 'factor'"),
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "types default, linear, llama3, yarn, this model has longrope",
        ),
        ({"attention_bias": True}, "lacks the tensor 'model.layers.0.self_attn.k_proj.bias'"),
        ({"hidden_act": "gelu"}, "activation silu"),
        ({"head_dim": 64}, "attention.qkv.weight' is of shape"),
        ({"num_attention_heads": 5}, "n_head = 5 must be a multiple of n_kv_head = 2"),
        ({"num_hidden_layers": 3}, "lacks the tensor 'model.layers.2"),
        ({"num_hidden_layers": 1}, "has a tensor 'model.layers.1"),
        ({"tie_word_embeddings": False}, "lacks the tensor 'lm_head.weight'"),
        ({"intermediate_size": 47}, "blocks.0.mlp.up.weight' is of shape"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_folder_that_is_not_understood(folder, tmp_path, values, message):
    change(folder, **values)
    with pytest.raises(BowerbirdError, match=message):
        import_model(folder, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no model.safetensors"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_file(folder, tmp_path, file, message):
    (folder / file).unlink()
    with pytest.raises(BowerbirdError, match=message):
        import_model(folder, tmp_path / "run")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_cut_short(folder, tmp_path, file):
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    with pytest.raises(BowerbirdError, match="cannot be read"):
        import_model(folder, tmp_path / "run")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_a_clone_without_git_lfs_holds_is_named(folder, tmp_path, file):
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269\n")
    with pytest.raises(BowerbirdError, match=f"{file} is a Git LFS pointer, .* git lfs pull"):
        import_model(folder, tmp_path / "run")


def test_an_index_does_not_lead_out_of_its_folder(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BowerbirdError, match="has no elsewhere.safetensors"):
        import_model(folder, tmp_path / "run")


def test_a_source_that_is_neither(tmp_path):
    with pytest.raises(BowerbirdError, match="does not exist"):
        import_model(tmp_path / "absent", tmp_path / "run")
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(BowerbirdError, match="is no GGUF file"):
        import_model(tmp_path / "weights.bin", tmp_path / "run")
    (tmp_path / "weights.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BowerbirdError, match="git lfs pull"):
        import_model(tmp_path / "weights.gguf", tmp_path / "run")


@pytest.mark.parametrize("keep", [0, 3, 100, -5000])
def test_a_gguf_cut_short(tmp_path, keep):
    file = gguf.write(checkpoint(LLAMA), tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(BowerbirdError, match="is not a whole GGUF file"):
        import_model(file, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.merges", ["a zz"], "cannot be made into a tokenizer"),
        ("tokenizer.ggml.token_type", [1], "shorter"),
        ("general.architecture", "mamba", "architecture 'mamba'"),
        ("llama.rope.scaling.type", "yarn", "scales its rotary positions by 'yarn'"),
        ("llama.rope.dimension_count", 4, "rotates all 8 features"),
        ("tokenizer.ggml.pre", "unheard-of", "by the rule 'unheard-of', which is not known here"),
        ("tokenizer.ggml.model", "t5", "a tokenizer of the kind 't5'"),
        ("llama.block_count", 0, "at least 1"),
    ],
)
def test_a_gguf_that_is_not_understood(tmp_path, monkeypatch, key, value, message):
    metadata = gguf._metadata
    monkeypatch.setattr(gguf, "_metadata", lambda *given: metadata(*given) | {key: value})
    written = vocabulary.write
    monkeypatch.setattr(vocabulary, "write", lambda *given: {k: v for k, v in written(*given).items() if k != key})
    file = gguf.write(checkpoint(LLAMA), tmp_path / "model.gguf")
    with pytest.raises(BowerbirdError, match=message):
        gguf.read(file)


def test_models_that_have_no_other_form(tmp_path):
    neither = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
    with pytest.raises(BowerbirdError, match="neither a Llama .* nor a GPT-2"):
        huggingface.write(checkpoint(neither), tmp_path / "model")
    with pytest.raises(BowerbirdError, match=r"not a Llama.*model.net.positions = rotary"):
        gguf.write(checkpoint(GPT2), tmp_path / "model.gguf")
    run = import_model(huggingface.write(checkpoint(LLAMA), tmp_path / "llama"), tmp_path / "run")
    with pytest.raises(BowerbirdError, match="no export format 'onx'"):
        export_model(run, tmp_path / "out", "onx")
    from bowerbird.models.vae import VAEConfig
    from bowerbird.nets.mlp import MLPConfig

    RunDir.create(tmp_path / "vae", Run(VAEConfig(MLPConfig()), Data("digits")), {})
    with pytest.raises(BowerbirdError, match="only autoregressive Transformers"):
        export_model(tmp_path / "vae", tmp_path / "out", "gguf")


# ------------------------------------------------------------------------------------------------- a real vocabulary


def test_the_vocabulary_of_smollm2():
    """200 strings: what is encoded decodes to itself, and digits, chats and spaces are cut as its training cut them."""
    file = fetch.locate("smollm2-135m-instruct")
    if file is None:
        pytest.skip("needs the weights: bowerbird data get smollm2-135m-instruct")
    reader = package.GGUFReader(file)
    metadata = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    core = hf.Tokenizer.from_str(vocabulary.read(metadata, "it"))
    rng = np.random.default_rng(0)
    ranges = ((0x20, 0x7F), (0x20, 0x7F), (0xC0, 0x250), (0x391, 0x3CA), (0x4E00, 0x4E80), (0x1F600, 0x1F640))
    for i in range(200):
        low, high = ranges[i % len(ranges)]
        text = "".join(map(chr, rng.integers(low, high, 20))) + " 2024's "
        assert core.decode(core.encode(text).ids) == text
    assert core.encode("In 2024,").tokens == ["In", "Ġ", "2", "0", "2", "4", ","]
    assert core.encode("<|im_start|>user\nHi<|im_end|>").tokens == ["<|im_start|>", "user", "Ċ", "Hi", "<|im_end|>"]
    written = vocabulary.write(Tokenizer(core, 1, 2, 2), 49_152)
    assert written["tokenizer.ggml.tokens"] == metadata["tokenizer.ggml.tokens"]
    assert written["tokenizer.ggml.merges"] == metadata["tokenizer.ggml.merges"]
    assert written["tokenizer.ggml.token_type"] == metadata["tokenizer.ggml.token_type"]
    assert written["tokenizer.ggml.pre"] == metadata["tokenizer.ggml.pre"]


def test_a_length_beyond_the_end_of_a_gguf_file_is_refused_before_it_is_believed(tmp_path: Path) -> None:
    whole = checkpoint(LLAMA)
    gguf.write(whole, tmp_path / "model.gguf", "f32")
    content = (tmp_path / "model.gguf").read_bytes()
    at = content.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8  # type of the value, of its items
    (tmp_path / "model.gguf").write_bytes(content[:at] + (1 << 60).to_bytes(8, "little") + content[at + 8 :])
    with pytest.raises(BowerbirdError, match="metadata lead beyond its end"):
        gguf.read(tmp_path / "model.gguf")
