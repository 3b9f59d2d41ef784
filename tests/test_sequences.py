"""Sequences from end to end: a file of text becomes a run that is sampled, continued, measured, talked to, compared."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from bowerbird import api, cli, config
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.trained import measure_model
from bowerbird.measuring.views.music import PieceView
from bowerbird.media import open_data
from bowerbird.media.giving import encode_prompt
from bowerbird.media.music.codecs import codec_from
from bowerbird.media.music.grid import GridCodec
from bowerbird.media.text.completing import Conversation, stream_text
from bowerbird.models.autoregressive import AutoregressiveConfig, TokenOptions
from bowerbird.models.seq2seq import Seq2SeqConfig
from bowerbird.nets.lora import LoRAConfig
from bowerbird.nets.rnn import RNNConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.training.rundir import RunDir, load_model
from bowerbird.training.trainer import train

pytestmark = pytest.mark.reports

VERSES = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。", "白日依山盡，黃河入海流。"]
TINY = config.Train(steps=2, batch_size=4, device="cpu", threads=1, sample_every=2, validate_every=2, log_every=1)
SMALL_NET = TransformerConfig(n_layer=1, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequences")


@pytest.fixture(scope="module")
def poems(folder: Path) -> Path:
    """Sixty poems of two lines, one a row."""
    path = folder / "poems.jsonl"
    rows = [{"text": VERSES[i % 3] + VERSES[(i // 3) % 3] + str(i)} for i in range(60)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def poet(folder: Path, poems: Path) -> Path:
    run = config.Run(AutoregressiveConfig(net=SMALL_NET), config.Data(str(poems)), TINY)
    return api.train(run, folder / "poet", quiet=True)


@pytest.fixture(scope="module")
def translator(folder: Path) -> Path:
    path = folder / "pairs.tsv"
    path.write_text("".join(f"one {i}\tyi {i}\n" for i in range(60)))
    data = config.Data(str(path), text=config.Text(tokenizer="char"))
    return api.train(config.Run(Seq2SeqConfig(net=SMALL_NET), data, TINY), folder / "translator", quiet=True)


def test_a_run_of_text_keeps_its_tokenizer_and_previews(poet: Path) -> None:
    model, spec = load_model(poet)
    tokenizer = Tokenizer.from_spec(spec)
    assert tokenizer.decode(tokenizer.encode(VERSES[0])) == VERSES[0]
    assert (poet / "tokenizer.json").read_text() == spec.codec
    assert (poet / "samples" / "step-00000002.txt").is_file()
    assert [row["step"] for row in RunDir(poet).metrics() if "model/val_loss" in row] == [2]
    page = (poet / "report.html").read_text()
    assert "Samples while training" in page and "Step 2" in page
    assert model.spec == replace(spec, given={"prompt": spec.target})


def written(out: Path) -> list[dict]:
    """What is said of each sample."""
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def test_samples_are_text_files_with_their_origin(poet: Path, tmp_path: Path) -> None:
    out = api.sample(poet, n=3, seed=5, out=tmp_path / "a")
    rows = written(out)
    assert {path.name for path in out.iterdir()} == {"metadata.jsonl", "samples.txt", "samples.txt.aigc.json"}
    assert len(rows) == 3 and {row["seed"] for row in rows} == {5} and rows[0]["generated_by"] == str(poet)
    again = api.sample(poet, n=3, seed=5, out=tmp_path / "b")
    assert (out / "samples.txt").read_text() == (again / "samples.txt").read_text()
    more = written(api.sample(poet, n=7, seed=5, out=tmp_path / "d"))
    assert [row["text"] for row in more[:3]] == [row["text"] for row in rows]  # whatever is drawn beside it
    other = api.sample(poet, n=3, seed=6, out=tmp_path / "c")
    assert (out / "samples.txt").read_text() != (other / "samples.txt").read_text()


def test_a_prompt_is_continued_and_greedy_needs_no_seed(poet: Path, tmp_path: Path) -> None:
    options = {"temperature": 0.0, "n_tokens": 6}
    texts = []
    for seed in (0, 1):
        out = api.sample(poet, prompt="春眠", seed=seed, out=tmp_path / str(seed), options=options)
        texts += [row["text"] for row in written(out)]
    assert len(set(texts)) == 1 and texts[0].startswith("春眠")
    assert list(api.generate(poet, 1, given={"prompt": "春眠"}, options=options)) == [texts[0]]
    model, spec = load_model(poet)
    tokenizer = Tokenizer.from_spec(spec)
    prompt, chosen = encode_prompt(spec, tokenizer, "春眠"), TokenOptions(temperature=0.0, n_tokens=6)
    assert "".join(stream_text(model, tokenizer, prompt, options=chosen)) == texts[0].removeprefix("春眠")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prompt", "Q"], "The character 'Q' (U+0051) is not in the vocabulary"),
        (["--prompt", VERSES[0] * 9], "reads at most"),
        (["--label", "7"], "trained without labels"),
        (["--guidance", "2"], "There is no flag --guidance"),
    ],
)
def test_wrong_wishes_are_one_sentence(
    poet: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["sample", str(poet), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_unknown_options_from_python_are_one_sentence(poet: Path) -> None:
    with pytest.raises(BowerbirdError, match="There is no sampling option of Autoregressive 'guidance'"):
        api.sample(poet, options={"guidance": 2.0})


def test_likelihood_is_that_of_the_documents_one_by_one(poet: Path, poems: Path) -> None:
    model, _ = load_model(poet)
    data = open_data(config.Data(str(poems)))
    found = {m.name: m for m in measure_model(model, data, Measuring(metrics=("nll_per_token", "bits_per_byte")))}
    tokenizer, nll, n_tokens = Tokenizer.from_spec(data.spec), 0.0, 0
    for text in data.texts("test"):
        x = torch.tensor([[data.tokens.bos, *tokenizer.encode(text), data.tokens.eos]])
        logits = model.net(x[:, :-1])[0].log_softmax(-1)
        nll -= float(logits[0, torch.arange(x.shape[1] - 1), x[0, 1:]].sum())
        n_tokens += x.shape[1] - 1
    assert found["nll_per_token"].value == pytest.approx(nll / n_tokens, rel=1e-5)
    n_bytes = sum(len(text.encode()) for text in data.texts("test"))
    assert found["bits_per_byte"].value == pytest.approx(nll / np.log(2) / n_bytes, rel=1e-5)


def test_measuring_takes_all_that_applies(poet: Path) -> None:
    names = {m.name for m in api.measure([str(poet)], n_samples=4)[str(poet)]}
    assert {"nll_per_token", "perplexity", "distinct_1", "self_bleu", "longest_copied_span"} <= names
    with pytest.raises(BowerbirdError, match="frechet_distance"):
        api.measure([str(poet)], metrics=["frechet_distance"])


def test_other_texts_are_read_in_the_tokens_of_the_run(poet: Path, tmp_path: Path) -> None:
    known = open_data(RunDir.open(poet).config().data).texts("train")
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": text[::-1]}) + "\n" for text in known))
    measured = api.measure([str(poet)], against=str(other), metrics=["nll_per_token"])[str(poet)]
    assert measured[0].protocol.reference == "other.jsonl" and measured[0].value > 0
    other.write_text("".join(json.dumps({"text": f"text number {i}"}) + "\n" for i in range(40)))
    with pytest.raises(BowerbirdError, match="not in the vocabulary"):
        api.measure([str(poet)], against=str(other))


def test_translations(translator: Path, tmp_path: Path) -> None:
    out = api.sample(translator, prompt="one 7\none 8", out=tmp_path / "t", options={"beam": 2})
    rows = written(out)
    assert [row["source"] for row in rows] == ["one 7", "one 8"]
    measured = {m.name: m for m in api.measure([str(translator)])[str(translator)]}
    assert {"bleu", "chrf", "rougeL", "nll_per_token"} <= measured.keys()
    assert dict(measured["bleu"].protocol.parameters)["beam"] == 1
    with pytest.raises(BowerbirdError, match="needs a source; give it with --prompt"):
        api.sample(translator)
    for empty in ("", " \n"):
        with pytest.raises(BowerbirdError, match="say what, with --prompt"):
            api.sample(translator, prompt=empty)
    with pytest.raises(BowerbirdError, match="at least 1, not 0"):
        api.sample(translator, n=0, prompt="one 1")
    with pytest.raises(BowerbirdError, match="reads at most"):
        api.sample(translator, prompt="one " * 50)


def test_a_run_of_chorales_is_heard_and_seen(folder: Path, tmp_path: Path) -> None:
    data = config.Data("chorales", music=config.Music(context=64))
    net = RNNConfig(n_layer=1, n_embd=16)
    run = api.train(config.Run(AutoregressiveConfig(net=net), data, TINY), folder / "composer", quiet=True)
    out = api.sample(run, n=2, out=tmp_path / "music", options={"n_tokens": 40})
    assert {p.name for p in out.iterdir()} >= {"00000.mid", "00000.wav", "00000.png", "00001.mid", "metadata.jsonl"}
    measured = {m.name: m for m in api.measure([str(run)], n_samples=2)[str(run)]}
    assert measured["nll_per_frame"].value == pytest.approx(4 * measured["nll_per_token"].value, rel=0.02)
    assert measured["bigram_nll_per_token"].value < measured["nll_per_token"].value  # after two steps
    assert measured["bigram_nll_per_token"].value < 3.5
    assert "pitch_class_overlap" in measured and "parallel_fifths" in measured


def test_a_piece_that_is_cut_keeps_its_voices() -> None:
    data = open_data(config.Data("chorales", music=config.Music(context=64)))
    codec = codec_from(data.spec.codec)
    assert isinstance(codec, GridCodec)
    net = RNNConfig(n_layer=1, n_embd=16)
    whole = open_data(config.Data("chorales", music=config.Music(context=4096)))
    views = [PieceView(AutoregressiveConfig(net=net).build(part.spec), part, Measuring()) for part in (data, whole)]
    pieces, uncut = ([view.piece(row) for row in view.documents("test")] for view in views)
    assert len(pieces) > 2 * len(uncut)
    assert np.array_equal(np.concatenate(pieces), np.concatenate(uncut))


def test_families_of_text_are_compared(poems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, net in (("one", SMALL_NET), ("two", RNNConfig(n_layer=1, n_embd=16))):
        run = config.Run(AutoregressiveConfig(net=net), config.Data(str(poems)), TINY)
        Path(f"{name}.toml").write_text(config.dumps(run))
    report = api.compare(["one.toml", "two.toml"], data=str(poems), budget="2steps", out="compared")
    found = json.loads(report.with_suffix(".json").read_text())
    assert [row["recipe"] for row in found["table"]] == ["one", "two"]
    assert all("nll_per_token" in row["metrics"] for row in found["table"])
    page = report.read_text()
    assert VERSES[0][:5] in page and page.count('<pre class="text">') == 3


# ------------------------------------------------------------------------------------------------------------- chats


@pytest.fixture(scope="module")
def chatter(folder: Path) -> Path:
    path = folder / "chats.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"hi {i}"}, {"role": "assistant", "content": f"yes {i}"}]}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = config.Data(str(path), text=config.Text(tokenizer="byte", context=256))
    return api.train(config.Run(AutoregressiveConfig(net=SMALL_NET), data, TINY), folder / "chatter", quiet=True)


def test_a_conversation_remembers_until_its_context_is_full(chatter: Path) -> None:
    model, _ = load_model(chatter)

    def options(n_tokens: int) -> TokenOptions:
        return TokenOptions(n_tokens=min(5, n_tokens))

    talk = Conversation(model, options, system="Be kind.")
    first = "".join(talk.answer("hi 1"))
    assert [m["role"] for m in talk.messages] == ["user", "assistant"] and talk.messages[1]["content"] == first.strip()
    for i in range(12):
        list(talk.answer(f"hi {i} " + "x" * 20))
    assert len(talk.messages) < 26 and talk.messages[-2]["content"].startswith("hi 11")
    again = api.chat(chatter, system="Be kind.", options={"n_tokens": 5})
    assert "".join(again.answer("hi 1")) == first
    with pytest.raises(BowerbirdError, match="reads at most"):
        list(talk.answer("y" * 300))


def test_chat_in_the_terminal(chatter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    lines = iter(["hi 3", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert cli.main(["chat", str(chatter), "--n-tokens", "4"]) == 0
    assert len(capsys.readouterr().out) >= 1


def test_images_cannot_be_prompted(folder: Path) -> None:
    data = replace(config.Data("digits"), size=8)
    net = TransformerConfig(n_layer=1, n_head=2, n_embd=16)
    run = config.Run(AutoregressiveConfig(net=net, levels=2), data, replace(TINY, sample_every=0, validate_every=0))
    result = train(run, folder / "pixels", open_data(run.data), quiet=True)
    with pytest.raises(BowerbirdError, match="--prompt does not apply: this run makes images"):
        api.sample(result.folder, prompt="7")
    measured = {
        m.name: m.value for m in api.measure([str(result.folder)], n_reference=8, metrics=["nll"])[str(result.folder)]
    }
    assert measured["nll"] == pytest.approx(64 * np.log(2), rel=0.5)


def test_a_fine_tuned_run_keeps_adapters_apart_and_merged(poet: Path, poems: Path, folder: Path) -> None:
    model = AutoregressiveConfig(net=SMALL_NET, lora=LoRAConfig(rank=2))
    data = config.Data(str(poems), text=config.Text(tokenizer=str(poet)))
    run = api.train(
        config.Run(model, data, replace(TINY, steps=6, lr=0.05, ema_decay=0.0)),
        folder / "tuned",
        start=poet,
        quiet=True,
    )
    before, after = (safetensors.torch.load_file(path / "model.safetensors") for path in (poet, run))
    adapters = safetensors.torch.load_file(run / "adapters.safetensors")
    assert before.keys() == after.keys()
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name.rpartition(".")[0] for name in adapters} and changed
    name = min(changed)
    correction = adapters[f"{name}.lora_B"] @ adapters[f"{name}.lora_A"] * 16 / 2
    assert torch.allclose(after[f"{name}.weight"], before[f"{name}.weight"] + correction, atol=1e-6)
    shutil.move(poet / "model.safetensors", poet / "away")  # the run needs what it started from no more
    try:
        assert api.measure([str(run)], metrics=["nll_per_token"])[str(run)][0].value > 0
    finally:
        shutil.move(poet / "away", poet / "model.safetensors")
