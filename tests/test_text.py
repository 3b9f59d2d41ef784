"""Text data: what is read from files, how it becomes tokens, and that nothing is lost or counted twice on the way."""

import contextlib
import gzip
import io
import json
import lzma
import math
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bowerbird.config import Data, Text
from bowerbird.data import builtin, tokenizers
from bowerbird.data.tokenizers import SPECIALS, Tokenizer
from bowerbird.data.tokens import Ragged, Rows, Stream, TokenData, framed, joined, packed, pieces, windows
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.text import chat, dialogues
from bowerbird.spec import Spec, Tokens

ODD = "Tab\tand\nline, é 明月 🐦‍⬛ <bos> \x00\u2028end"
WORDS = ["the frog jumps in", "an old pond", "and the sound of water", "明月", "x"]


def write(folder: Path, **contents: str | bytes) -> Path:
    """Files whose names have _ for the dot."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder


def tokenizer(kind: str, *texts: str, vocab_size: int = 300) -> Tokenizer:
    return tokenizers.chosen(kind, texts, [], vocab_size, SPECIALS)


def documents(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) + f" {i}" for i in range(n)]


def opened(source: Path | str, **text: object) -> TokenData:
    data = open_data(Data(str(source), text=Text(**text)))  # type: ignore[arg-type]
    assert isinstance(data, TokenData)
    return data


def kind_of(spec: Spec) -> str:
    """What the data are, by what their spec says."""
    assert spec.medium == "text" and isinstance(spec.target, Tokens)
    if spec.chat_template:
        return "chat"
    return "pairs" if "source" in spec.given else "text"


def everything(data: TokenData) -> list[str]:
    return sorted(data.texts("train+val+test"))


def counted_tokens(rows: Rows) -> list[int]:
    batch = rows.batch(torch.arange(len(rows)))
    return batch["x"][batch["weight"]].tolist()


# --------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_text_survives_its_tokens_and_its_tokenizer_json(kind):
    made = tokenizer(kind, ODD, *WORDS)
    again = Tokenizer.from_json(made.to_json())
    assert made.decode(made.encode(ODD)) == again.decode(again.encode(ODD)) == ODD
    assert made.encode(ODD) == again.encode(ODD)
    assert (again.bos, again.eos, again.pad, again.vocab_size) == (made.bos, made.eos, made.pad, made.vocab_size)
    assert max(made.encode(ODD)) < made.vocab_size
    assert made.decode([made.bos, *made.encode("x"), made.eos, made.pad]) == "x"
    assert made.encode("") == []


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_the_table_gives_what_the_package_gives(kind):
    made = tokenizer(kind, ODD)
    assert made._table is not None and made.encode(ODD) == made._encodings([ODD])[0]
    assert not set(made.encode("<bos>")) & {made.bos, made.eos, made.pad}  # written out it is ordinary text


def test_one_token_per_character_or_byte():
    assert len(tokenizer("char", ODD).encode(ODD)) == len(ODD)
    assert tokenizer("byte").encode(ODD) == list(ODD.encode())
    assert [tokenizer(kind, ODD).name for kind in ("char", "byte")] == ["char", "byte"]


def test_encoding_many_is_encoding_each():
    for kind in ("char", "byte", "bpe"):
        made = tokenizer(kind, *WORDS)
        ids, offsets = made.encode_all(["", *WORDS, ""])
        each = [ids[a:b].tolist() for a, b in pairwise(offsets)]
        assert each == [made.encode(text) for text in ["", *WORDS, ""]]


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=50, deadline=None)
def test_bytes_and_bpe_can_write_any_text(text):
    for made in ANY_TEXT:
        assert made.decode(made.encode(text)) == text


ANY_TEXT = [tokenizer("byte"), tokenizer("bpe", *WORDS)]


def test_bpe_merges_what_is_frequent_and_says_when_it_has_no_room():
    made = tokenizer("bpe", *["banana bandana"] * 50, vocab_size=270)
    assert made.vocab_size <= 270 and len(made.encode("banana")) < 4
    with pytest.raises(BowerbirdError, match="vocab_size = 258 must be at least 259"):
        tokenizer("bpe", "a", vocab_size=258)


def test_bpe_is_the_same_in_every_process():
    code = (
        "from bowerbird.data import tokenizers as t\n"
        "print(t.chosen('bpe', ['the frog jumps into the old pond'] * 3 + ['mno', 'abc'], [], 280, t.SPECIALS).name)"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    with contextlib.redirect_stdout(here := io.StringIO()):
        exec(code, {})
    assert elsewhere.stdout == here.getvalue() != ""


def test_an_unknown_character_is_named():
    for prompt in ("明 moon", "moon明"):
        with pytest.raises(BowerbirdError, match="'明' \\(U\\+660E\\) is not in the vocabulary, which has 3 char"):
            tokenizer("char", "moon").encode(prompt)
    with pytest.raises(BowerbirdError, match="'明'"):
        tokenizer("char", "moon").encode_marked("<bos>moon明")


def test_a_tokenizer_is_read_from_the_folder_that_it_was_written_to(tmp_path):
    made = tokenizer("bpe", *WORDS)
    made = Tokenizer(made.core, made.eos, made.bos, made.eos, chat_template="{{ messages }}")  # odd on purpose
    for name, text in made.files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = tokenizers.read(path)
        assert (again.bos, again.eos, again.pad, again.chat_template) == (
            made.bos,
            made.eos,
            made.pad,
            "{{ messages }}",
        )
        assert again.encode(ODD) == made.encode(ODD)
    (tmp_path / "tokenizer_config.json").unlink()
    assert tokenizers.read(tmp_path).bos == made.eos  # by their usual names


def test_chat_templates_and_tokens_of_tokenizer_config(tmp_path):
    made = tokenizer("bpe", *WORDS)
    (tmp_path / "tokenizer.json").write_text(made.to_json(), encoding="utf-8")
    config = {"eos_token": {"content": "<pad>"}, "chat_template": [{"name": "default", "template": "T"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    again = tokenizers.read(tmp_path)
    assert (again.bos, again.eos, again.chat_template) == (made.bos, made.pad, "T")


def test_what_is_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BowerbirdError, match="is not the tokenizer.json of a tokenizer"):
        tokenizers.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BowerbirdError, match="has no tokenizer.json"):
        tokenizers.read(tmp_path / "empty")
    with pytest.raises(BowerbirdError, match="did you mean 'char'"):
        tokenizer("chars", "a")
    nameless = tokenizers.hf.Tokenizer(tokenizers.models.WordLevel({"a": 0})).to_str()
    with pytest.raises(BowerbirdError, match="names no token that ends a text"):
        Tokenizer.from_json(nameless)


# -------------------------------------------------------------------------------------------------- examples


def ragged(*lengths: int) -> Ragged:
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Ragged(torch.arange(10, 10 + int(offsets[-1]), dtype=torch.int32), offsets)


def test_a_stream_example_begins_at_any_token():
    tokens = torch.arange(50, 70, dtype=torch.int32)
    stream = Stream(tokens, context=4)
    assert len(stream) == 16
    batch = stream.batch(torch.tensor([0, 7, 15]))
    assert batch["x"].tolist() == [list(range(50 + i, 55 + i)) for i in (0, 7, 15)]
    assert batch["weight"].tolist() == [[False, True, True, True, True]] * 3
    assert Stream(tokens[:3], context=4).batch(torch.tensor([0]))["x"].tolist() == [[50, 51, 52]]


def test_documents_are_framed_and_padded():
    tokens, offsets = framed(ragged(2, 0, 1), bos=1, eos=2)
    rows = Rows(tokens, offsets[:-1], offsets[1:], pad=0)
    batch = rows.batch(torch.tensor([0, 1, 2]))
    assert batch["x"].tolist() == [[1, 10, 11, 2], [1, 2, 0, 0], [1, 12, 2, 0]]
    assert batch["weight"].int().tolist() == [[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]
    assert rows.batch(torch.tensor([1]))["x"].tolist() == [[1, 2]]  # padded to the longest of the batch, no further


@given(st.lists(st.integers(0, 23), min_size=1, max_size=12), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_pieces_predict_every_token_once_and_packing_changes_none(lengths, context):
    documents = framed(ragged(*lengths), bos=1, eos=2)
    begin, end = pieces(documents.offsets, context)
    once = sorted(v for v in documents.values.tolist() if v != 1)
    plain = Rows(documents.values, begin, end, pad=0)
    assert (end - begin).max() <= context + 1
    assert sorted(counted_tokens(plain)) == once
    row_begin, row_end = packed(begin, end, context)
    rows = Rows(documents.values, row_begin, row_end, pad=0, documents=documents.offsets)
    assert (row_end - row_begin).max() <= context + 1 and len(rows) <= len(plain)
    assert sorted(counted_tokens(rows)) == once
    assert rows.n_counted() == plain.n_counted() == len(once)


def test_packed_documents_are_numbered_and_do_not_predict_one_another():
    documents = framed(ragged(1, 2, 8), bos=1, eos=2)
    begin, end = packed(*pieces(documents.offsets, 7), 7)
    batch = Rows(documents.values, begin, end, 0, documents=documents.offsets).batch(torch.arange(3))
    assert batch["x"].tolist() == [
        [1, 10, 2, 1, 11, 12, 2, 0],
        [1, 13, 14, 15, 16, 17, 18, 19],
        [19, 20, 2, 0, 0, 0, 0, 0],
    ]
    assert batch["given"]["document"].tolist() == [[1, 1, 1, 2, 2, 2, 2, 0], [1] * 8, [1, 1, 1, 0, 0, 0, 0, 0]]
    assert batch["weight"].int().tolist()[0] == [0, 1, 1, 0, 1, 1, 1, 0]


@given(st.integers(2, 60), st.integers(2, 9), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_windows_predict_the_whole_stream_once(n, context, n_start):
    tokens = torch.arange(100, 100 + n, dtype=torch.int32)
    rows = windows(tokens, [7] * n_start, context, pad=0)
    assert sorted(counted_tokens(rows)) == tokens.tolist()


def assert_same(got: dict, want: dict) -> None:
    """Two batches are equal in every field."""
    assert got.keys() == want.keys() and got.get("given", {}).keys() == want.get("given", {}).keys()
    for fields, others in ((got, want), (got.get("given", {}), want.get("given", {}))):
        assert all(torch.equal(fields[key], others[key]) for key in fields if key != "given")


def test_joined_splits_have_all_examples():
    for layout in ("stream", "documents", "packed"):
        data = opened("names", layout=layout, context=24)
        both = data.split("train+val")
        n_train = len(data.train)
        i = torch.tensor([n_train - 2, 3]) if layout == "stream" else torch.tensor([n_train, n_train + 3])
        got = both.batch(i)
        if layout != "stream":
            want = data.val.batch(torch.tensor([0, 3]))
            assert_same(got, want)
        else:
            assert torch.equal(got["x"][1], data.train.batch(torch.tensor([3]))["x"][0])
            assert len(both) == n_train + len(data.val.tokens)
    pairs = opened("tatoeba", tokenizer="byte", context=200)
    want = pairs.val.batch(torch.tensor([0, 3]))
    got = joined([pairs.train, pairs.val]).batch(torch.tensor([0, 3]) + len(pairs.train))
    assert_same(got, want)
    assert want["given"].keys() == {"source"}


# ---------------------------------------------------------------------------------------------------- formats


def formats(folder: Path, texts: list[str]) -> dict[str, Path]:
    """The same documents in every way that they can be written."""
    lines = "\n".join(texts) + "\n"
    rows = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts)
    table = "".join(f'1,"{text}"\n' for text in texts)
    write(folder, a_txt=lines, crlf_txt=b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode(), a_jsonl=rows)
    write(folder, a_csv="id,text\n" + table, a_tsv="id\ttext\n" + "".join(f"1\t{text}\n" for text in texts))
    write(folder, z_txt_gz=gzip.compress(lines.encode()), z_txt_xz=lzma.compress(lines.encode()))
    many = folder / "many"
    many.mkdir()
    for i, text in enumerate(texts):
        (many / f"{i}.txt").write_text(text, encoding="utf-8")
    with zipfile.ZipFile(folder / "many.zip", "w") as archive:
        for path in many.iterdir():
            archive.write(path, f"inside/{path.name}")
        archive.writestr("__MACOSX/._x.txt", b"\xff")
    tables = write(folder / "tables", README_txt="Read me.\n\nPlease.", a_jsonl=rows)
    return {path.name: path for path in (*folder.iterdir(), tables)}


def test_every_format_gives_the_same_documents_and_splits(tmp_path):
    texts = documents(40)
    found = {name: opened(path) for name, path in formats(tmp_path, texts).items()}
    assert len(found) == 10
    for name, data in found.items():
        assert everything(data) == sorted(texts), name
        assert sorted(data.texts("val")) == sorted(found["a.txt"].texts("val")), name
        assert kind_of(data.spec) == "text" and data.preprocessing["layout"] == "documents"
    in_order = {name: data.fingerprint for name, data in found.items() if name not in ("many", "many.zip")}
    assert len(set(in_order.values())) == 1
    assert found["many"].fingerprint == found["many.zip"].fingerprint


PAIRS = [(f"source {i}", f"Ziel {i % 7}") for i in range(30)]


def pair_formats(folder: Path) -> list[Path | str]:
    tsv = "".join(f"{a}\t{b}\tCC BY\n" for a, b in PAIRS)
    rows = "".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in PAIRS)
    write(folder, a_tsv=tsv, b_tsv="x\ttarget\tsource\n" + "".join(f"\t{b}\t{a}\n" for a, b in PAIRS), c_jsonl=rows)
    write(folder, d_csv="source,target\n" + "".join(f'"{a}",{b}\n' for a, b in PAIRS))
    sides = ["\n".join(side) + "\n" for side in zip(*PAIRS, strict=True)]
    write(folder, e_de=sides[0], e_en=sides[1], f_de_gz=gzip.compress(sides[0].encode()), f_en=sides[1])
    return [*sorted(folder.glob("?.[tjc]s*")), f"{folder}/e.{{de,en}}", f"{folder}/f.{{de,en}}"]


def test_every_format_of_pairs_gives_the_same_pairs(tmp_path):
    sources = pair_formats(tmp_path)
    assert len(sources) == 6
    prints = set()
    for source in sources:
        data = opened(source)
        assert sorted(data.pairs("train+val+test")) == sorted(PAIRS), source
        assert kind_of(data.spec) == "pairs"
        prints.add(data.fingerprint)
    assert len(prints) == 1


def test_a_batch_of_pairs(tmp_path):
    data = opened(write(tmp_path, a_tsv="abc\txy\n" * 3 + "a\tx\nb\ty\n") / "a.tsv")
    target, source = data.tokens, data.spec.given["source"]
    assert isinstance(source, Tokens) and source == replace(target, context=4, start=())
    i = data.pairs("train+val+test").index(("abc", "xy"))
    batch = data.split("train+val+test").batch(torch.tensor([i]))
    t = Tokenizer.from_spec(data.spec)
    assert batch["given"]["source"].tolist() == [[*t.encode("abc"), source.eos]]
    assert batch["x"].tolist() == [[target.bos, *t.encode("xy"), target.eos]]
    assert batch["weight"].tolist() == [[False, True, True, True]]
    assert (target.context, source.context) == (3, 4)
    short = opened(tmp_path / "a.tsv", context=3)
    assert short.skipped == 3 and "3 too long for the context" in short.summary()
    assert all(pair != ("abc", "xy") for pair in short.pairs("train+val+test"))
    assert sum(len(short.split(name)) for name in ("train", "val", "test")) == 2


def test_official_splits_of_files_and_folders(tmp_path):
    files = {"train.txt": "a\nb\nc", "valid.txt": "d\ne", "test.txt": "f"}
    for folder, at in ((tmp_path / "flat", "{}"), (tmp_path / "deep", "{}/x.txt")):
        for name, text in files.items():
            path = folder / at.format(name if at == "{}" else name.removesuffix(".txt"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        data = opened(folder)
        assert [sorted(data.texts(split)) for split in ("train", "val", "test")] == [["a", "b", "c"], ["d", "e"], ["f"]]
        assert data.preprocessing["split"] == "official"
    sides = {"train": 6, "val": 2, "test_2016_flickr": 3, "test_2017": 4}
    for name, n in sides.items():
        for side in ("de", "en"):
            path = tmp_path / f"{name}.{side}.gz"
            path.write_bytes(gzip.compress("".join(f"{side} {name} {i}\n" for i in range(n)).encode()))
    data = opened(f"{tmp_path}/train.{{de,en}}")
    assert [len(data.train), len(data.val), len(data.test)] == [6, 2, 3]
    assert data.pairs("test")[0] == ("de test_2016_flickr 0", "en test_2016_flickr 0")
    assert data.summary().endswith("; test is test_2016_flickr; not read: test_2017")


def test_layouts_of_a_txt(tmp_path):
    prose = "One.\nTwo.\n\nThree.\n \n\nFour.\n\n" * 10
    folder = write(tmp_path, prose_txt=prose, line_txt="no end " * 20, lines_txt="ab\ncd\n" * 30)
    assert [opened(folder / f"{name}.txt").preprocessing["layout"] for name in ("prose", "line", "lines")] == [
        "stream", "stream", "documents",
    ]  # fmt: skip
    assert set(everything(opened(folder / "prose.txt", layout="documents"))) == {"One.\nTwo.", "Three.", "Four."}
    stream = opened(folder / "lines.txt", layout="stream")
    assert "".join(stream.texts("train+val+test")) == "ab\ncd\n" * 30
    assert isinstance(stream.train, Stream) and stream.tokens.start == tuple(
        Tokenizer.from_spec(stream.spec).encode("\n")
    )
    line = opened(folder / "line.txt")
    assert line.tokens.start == tuple(line.train.tokens[:1].tolist())  # no end of line in its vocabulary


def test_copies_and_translations_of_one_source_stay_on_one_side(tmp_path):
    rows = [(f"s{i % 40}", f"t{i}") for i in range(400)]
    data = opened(write(tmp_path, a_tsv="".join(f"{a}\t{b}\n" for a, b in rows)) / "a.tsv")
    sides = [{source for source, _ in data.pairs(split)} for split in ("train", "val", "test")]
    assert sum(map(len, sides)) == 40 and all(sides)


def test_vocabularies_of_all_splits_and_merges_of_training_alone(tmp_path):
    path = write(tmp_path, train_txt="ab\n" * 9 + "ba", val_txt="abq\nqq", test_txt="z\nzz")
    Tokenizer.from_spec(opened(path, layout="documents").spec).encode("qz")
    first = opened(path, layout="documents", tokenizer="bpe", vocab_size=262).spec.codec
    write(tmp_path, val_txt="qqqqqqqqqqqqqqqqqqqqq\nqqqqqqqqqqqqqqqq")
    assert opened(path, layout="documents", tokenizer="bpe", vocab_size=262).spec.codec == first


def test_many_characters_make_auto_take_bpe(tmp_path, monkeypatch):
    path = write(tmp_path, a_txt="abc\nabd\nefg\nhij\n") / "a.txt"
    assert opened(path).preprocessing["tokenizer"] == "char"
    monkeypatch.setattr(tokenizers, "MANY_CHARACTERS", 8)
    assert str(opened(path).preprocessing["tokenizer"]).startswith("bpe")


def test_a_trained_run_lends_its_tokenizer(tmp_path):
    data = opened("names", tokenizer="bpe", vocab_size=300)
    (tmp_path / "tokenizer.json").write_text(data.spec.codec, encoding="utf-8")
    again = opened("names", tokenizer=str(tmp_path))
    assert again.spec == data.spec and again.fingerprint == data.fingerprint


# ----------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("source", ["shakespeare", "tang-5"])
@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
@pytest.mark.parametrize("layout", ["auto", "packed"])
def test_evaluation_covers_a_split_exactly_once(source, kind, layout):
    if source == "shakespeare" and layout == "packed":
        pytest.skip("a stream is not packed")
    data = opened(source, tokenizer=kind, layout=layout, vocab_size=400, context=20)
    found = data.evaluation("test")
    tokens = counted_tokens(found.examples)
    text = "".join(data.texts("test"))
    assert Tokenizer.from_spec(data.spec).decode(tokens) == text
    assert (found.n_tokens, found.n_bytes, found.n_characters) == (len(tokens), len(text.encode()), len(text))
    n_ends = 0 if source == "shakespeare" else len(data.texts("test"))
    assert tokens.count(data.tokens.eos) == n_ends
    if kind == "byte":  # 8 bits a byte, if nothing is known but that bytes come
        assert found.n_tokens * math.log(256) / math.log(2) / found.n_bytes == pytest.approx(
            8 * (1 + n_ends / len(text.encode()))
        )


# ------------------------------------------------------------------------------------------------------ chats

TALK: list[chat.Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi <|im_end|>"},
    {"role": "assistant", "content": "Hello,\nyou 明月."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye!"},
]
OTHER_TEMPLATE = """{{ bos_token }}{% for m in messages %}
{%- if m.role == 'user' %}[Q] {{ m.content }} [A]
{%- elif m.role == 'assistant' %}{{ ' ' ~ m.content }}{{ eos_token }}
{%- else %}{{ raise_exception('no ' ~ m.role) }}{% endif %}{% endfor %}"""
ENDS_IN_PAD = "{% for m in messages %}{{ m.content }}{{ '<pad>' if m.role == 'assistant' }}{% endfor %}"


def test_chatml():
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    messages = [{"role": "user", "content": "Hi"}]
    assert chat.render(messages, reply=True) == text
    assert chat.render([*messages, {"role": "assistant", "content": "Yo"}]) == text + "Yo<|im_end|>\n"


def test_answers_are_marked_with_what_ends_them():
    text, spans = chat.marked(TALK)
    assert [text[a:b] for a, b in spans] == ["Hello,\nyou 明月.<|im_end|>", "Bye!<|im_end|>"]
    text, spans = chat.marked(TALK[1:], OTHER_TEMPLATE, bos_token="<s>", eos_token="</s>")
    assert text.startswith("<s>[Q] Hi")
    assert [text[a:b] for a, b in spans] == [" Hello,\nyou 明月.</s>", " Bye!</s>"]


def test_templates_can_refuse_but_do_nothing_else():
    with pytest.raises(BowerbirdError, match="no system"):
        chat.render(TALK, OTHER_TEMPLATE)
    for evil in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}", "{% for", "{{ 1 / 0 }}"):
        with pytest.raises(BowerbirdError, match="chat template cannot write"):
            chat.render(TALK, evil)
    backwards = "{% for m in messages | reverse %}{{ m.content }}{% endfor %}"
    with pytest.raises(BowerbirdError, match="does not continue the prompt"):
        chat.marked(TALK, backwards)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_only_answers_are_counted(tmp_path, kind):
    byes = [[TALK[0], {"role": "user", "content": f"Bye {i}"}, TALK[4]] for i in range(4)]
    lines = "".join(json.dumps({"messages": bye}) + "\n" for bye in byes)
    lines += json.dumps({"messages": TALK}, ensure_ascii=False)
    data = opened(write(tmp_path, a_jsonl=lines) / "a.jsonl", tokenizer=kind, context=40)
    t = Tokenizer.from_spec(data.spec)
    assert kind_of(data.spec) == "chat" and data.spec.chat_template == chat.CHATML
    assert t.core.id_to_token(data.tokens.eos) == "<|im_end|>"
    for split in ("train", "val", "test"):
        found = data.evaluation(split)
        tokens = counted_tokens(found.examples)
        assert t.decode(tokens) == "".join(data.texts(split))
        assert tokens.count(data.tokens.eos) == len(data.texts(split))
        assert found.n_bytes == sum(len(text.encode()) for text in data.texts(split))
        for row in torch.arange(len(found.examples)).split(1):
            assert found.examples.batch(row)["weight"].any()
    assert set(everything(data)) == {"Hello,\nyou 明月.", "Bye!"}
    t.encode_marked(chat.render([{"role": "system", "content": "Be"}], reply=True))  # all roles can be written


def test_a_template_says_what_ends_an_answer(tmp_path):
    made = tokenizer("bpe", *WORDS)
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for name, text in Tokenizer(made.core, made.bos, made.eos, made.pad, ENDS_IN_PAD).files().items():
        (folder / name).write_text(text, encoding="utf-8")
    rows = "".join(json.dumps({"messages": TALK[1:3]}) + "\n" for _ in range(3))
    path = write(tmp_path, a_jsonl=rows) / "a.jsonl"
    assert opened(path, tokenizer=str(folder)).tokens.eos == made.pad
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BowerbirdError, match="neither a chat template nor the token"):
        opened(path, tokenizer=str(folder))


DIALOGUES = """\
categories:
- greetings
conversations:
- - Hello
  - Hi there,
    how are you?
  - 'It''s "fine"'
  - |
    Code:

      x = 1
- - "Say \\"yes\\""
  - "yes:
    no"
- - alone
"""


def test_dialogues(tmp_path):
    first, second, alone = dialogues.parse(DIALOGUES, "a.yml")
    assert [m["content"] for m in alone] == ["alone"]
    assert [m["content"] for m in first] == ["Hello", "Hi there, how are you?", 'It\'s "fine"', "Code:\n\n  x = 1"]
    assert [m["content"] for m in second] == ['Say "yes"', "yes: no"]
    assert [m["role"] for m in first] == ["user", "assistant"] * 2
    with pytest.raises(BowerbirdError, match="a.yml, line 3 is neither"):
        dialogues.parse("x:\nconversations:\nHello\n", "a.yml")
    assert len(opened(write(tmp_path, a_yml=DIALOGUES, b_yml=DIALOGUES)).texts("train+val+test")) == 6


def test_dialogues_are_what_yaml_says(shared):
    yaml = pytest.importorskip("yaml", reason="compares with PyYAML")
    n = 0
    for path in sorted((shared / "text" / "chatterbot").glob("*/*.yml")):
        text = path.read_text(encoding="utf-8")
        lists = [one for one in yaml.safe_load(text)["conversations"] if isinstance(one, list) and len(one) > 1]
        want = {tuple(str(said).strip() for said in one) for one in lists}
        found = {tuple(m["content"].strip() for m in one) for one in dialogues.parse(text, path.name) if len(one) > 1}
        assert want <= found and len(found - want) <= 1  # a line that lost its dash is a dialogue to us
        n += len(found)
    assert n > 1000


# --------------------------------------------------------------------------------------------------- bad input

BAD: list[tuple[str, bytes, dict, str]] = [
    ("a.txt", b"abc\n\xff", {}, "a.txt is not UTF-8 at byte 4 \\(0xff\\)"),
    ("a.txt", b"", {}, "a.txt is empty"),
    ("a.txt", b" \n\n", {}, "a.txt is empty"),
    ("a.txt", b"short\n\ntext", {}, "only 11 characters; a stream needs 40"),
    ("a.txt", b"one", {"layout": "documents"}, "only one of its documents"),
    ("a.txt", b"a\nb\nc", {"tokenizer": "./none.json"}, "There is no tokenizer or file './none.json'"),
    ("a.txt.gz", b"abc", {}, "a.txt.gz cannot be unpacked"),
    ("a.csv", b"id,body\n1,x\n", {}, "has no column 'messages' or 'source' and 'target' or 'text'; its columns: 'id'"),
    ("a.csv", b"", {}, "is empty"),
    ("a.csv", b"id,text\n1,x\n2\n", {}, "a.csv: line 3 has 1 cell, the header 2"),
    ("a.csv", b'text\n"x\n', {}, "is not CSV"),
    ("a.tsv", b"a\tb\nc\td\ne\n", {}, "a.tsv: line 3 has 1 cell, the first line 2"),
    ("a.tsv", b"a\tb\nc\td\n", {"target": "zh"}, "has no column .*'zh'.* its columns: 'a', 'b'"),
    ("a.tsv", b"a\tb\nc\td\n", {"layout": "stream"}, "holds pairs, which cannot have data.text.layout = 'stream'"),
    ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', {}, "a.jsonl, line 2: text must be text"),
    ("a.jsonl", b'{"text": "a"}\n\n{"txt": "b"}\n', {}, "a.jsonl, line 3: the column 'text' is missing"),
    ("a.jsonl", b'{"text": "a"}\n{"text": ', {}, "a.jsonl, line 2 is not JSON"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', {}, "a.jsonl, line 1 is not valid text"),
    ("a.jsonl", b"[1]\n", {}, "a.jsonl, line 1 must be a JSON object"),
    ("a.jsonl", b'{"messages": []}\n', {}, "a.jsonl, line 1: messages must be a list"),
    ("a.jsonl", b'{"messages": [{"role": "user"}]}\n', {}, "line 1: a message has no content"),
    ("a.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}\n', {}, "no message of the role assistant"),
    ("a.yml", b"a: 1\n", {}, "has no list 'conversations'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "options", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_clear_sentence(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BowerbirdError, match=message) as caught:
        opened(tmp_path / name, **options)
    assert "\n" not in str(caught.value)


def test_parallel_files_must_have_as_many_lines(tmp_path):
    write(tmp_path, a_de="x\ny\nz\n", a_en="x\ny\n")
    with pytest.raises(BowerbirdError, match=r"a.en has no line 3, but a.de has 3 lines"):
        opened(f"{tmp_path}/a.{{de,en}}")
    with pytest.raises(BowerbirdError, match="There is no file .*a.fr"):
        opened(f"{tmp_path}/a.{{de,fr}}")


def test_what_is_left_out_is_said(tmp_path):
    data = opened(write(tmp_path, a_tsv="a\tb\nc\t \n\td\ne\tf\n") / "a.tsv")
    assert data.skipped == 2 and "skipped 2 (2 empty (a.tsv, line 2 …))" in data.summary()


def test_mixtures_are_refused(tmp_path):
    with pytest.raises(BowerbirdError, match="holds text and, in b.tsv, pairs"):
        opened(write(tmp_path, a_jsonl='{"text": "x"}', b_tsv="a\tb"))


# --------------------------------------------------------------------------------------------------- modality


def test_the_modality_is_recognised(tmp_path, tiny):
    rows = '{"source": "a", "target": "b", "text": "c", "messages": [{"role": "assistant", "content": "x"}]}\n' * 3
    path = str(write(tmp_path, a_jsonl=rows) / "a.jsonl")
    assert [kind_of(open_data(Data(path, modality=m)).spec) for m in ("auto", "chat", "pairs", "text")] == [
        "chat", "chat", "pairs", "text",
    ]  # fmt: skip
    assert not isinstance(open_data(Data(str(tiny))), TokenData)
    with pytest.raises(BowerbirdError, match="'tang' holds text, not images"):
        open_data(Data("tang", modality="images"))
    with pytest.raises(BowerbirdError, match="a.txt holds text, not chat"):
        open_data(Data(str(write(tmp_path, a_txt="a\nb") / "a.txt"), modality="chat"))
    with pytest.raises(BowerbirdError, match="did you mean 'shakespeare'"):
        open_data(Data("shakespear"))


def test_unknown_choices_from_python():
    layout, modality = Text(), Data("tang")
    object.__setattr__(layout, "layout", "pages")  # what the checks of these tests would not let through
    object.__setattr__(modality, "modality", "film")
    with pytest.raises(BowerbirdError, match="no data.text.layout 'pages'"):
        open_data(Data("tang", text=layout))
    with pytest.raises(BowerbirdError, match="no data.modality 'film'"):
        open_data(modality)


def test_captions_and_metadata_do_not_make_images_text(tmp_path, tiny):
    for image in (tiny / "upper").iterdir():
        (tmp_path / image.name).write_bytes(image.read_bytes())
        (tmp_path / f"{image.stem}.txt").write_text("a caption", encoding="utf-8")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "00.png", "label": "x"}\n', encoding="utf-8")
    assert not isinstance(open_data(Data(str(tmp_path))), TokenData)


# --------------------------------------------------------------------------------------------------- built in


def test_shakespeare_is_nanogpts():
    data = opened("shakespeare")
    assert data.tokens.vocab_size == 65 + 3
    assert [len(data.split(split).tokens) for split in ("train", "val+test")] == [1_003_854, 111_540]
    assert data.texts("train")[0].startswith("First Citizen:\nBefore we proceed any further")


def test_tang_quatrains():
    data = opened("tang-5")
    assert all(re.fullmatch(r"(\w{5}[，。？]){4}", poem) for poem in everything(data))
    assert data.tokens.context == 25 and len(everything(data)) == 3920
    assert set(everything(data)) < set(everything(opened("tang")))


def test_tatoeba_and_names():
    data = opened("tatoeba")
    assert len(data.pairs("train+val+test")) == 21_116 and ("Hi.", "嗨。") in data.pairs("train+val+test")
    assert len(opened("names").texts("train+val+test")) == 32_033


def test_packs_hold_the_original_texts(shared):
    originals = {"shakespeare": "tinyshakespeare.txt", "tang": "tang-quatrains.txt", "tatoeba": "tatoeba-en-zh.tsv"}
    for name, original in originals.items():
        packed_text = lzma.decompress(builtin.path(name).read_bytes())
        assert packed_text == (shared / "text" / original).read_bytes()


def test_multi30k(shared):
    data = opened(f"{shared}/text/multi30k/train.{{de,en}}", tokenizer="byte")
    assert [len(data.pairs(split)) + data.skipped * (split == "train") for split in ("train", "val", "test")] == [
        29_000, 1_014, 1_000,
    ]  # fmt: skip


def test_simplified_characters_are_refused_with_the_advice_to_use_traditional_ones():
    poems = tokenizers.chosen("char", ["明月照高樓，春江潮水連。"], [], 0, SPECIALS)
    with pytest.raises(BowerbirdError, match="use traditional characters"):
        poems.encode("明月照高楼")
    with pytest.raises(BowerbirdError, match="leave it out"):
        poems.encode("明月a")
    with pytest.raises(BowerbirdError, match="leave it out"):
        tokenizers.chosen("char", ["高楼明月"], [], 0, SPECIALS).encode("高樓")
