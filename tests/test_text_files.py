"""Files of text as users have them: encodings, ends of lines, tables of every form, and what is said of the rest."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import shutil
import sys
import tarfile
import tracemalloc
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bowerbird.config import Data, Text
from bowerbird.data import files, tables, tokenizers
from bowerbird.data.kinds import no_text
from bowerbird.data.tokenizers import SPECIALS
from bowerbird.data.tokens import Rows, TokenData
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.text import corpus, textfiles
from bowerbird.media.text.textfiles import Room, TextFile
from bowerbird.models.seq2seq import Seq2SeqConfig
from bowerbird.spec import Tensors

ALL = "train+val+test"
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))


def opened(path: Path | str, modality: str = "auto", **text: object) -> TokenData:
    data = open_data(Data(str(path), modality=modality, text=Text(**text)))  # type: ignore[arg-type]
    assert isinstance(data, TokenData)
    return data


def refusal(path: Path | str, modality: str = "auto", **text: object) -> str:
    """The sentence with which a source is refused."""
    with pytest.raises(BowerbirdError) as caught:
        opened(path, modality, **text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def file_of(path: Path, encoding: str = "auto", limit: int = 1 << 30) -> TextFile:
    return TextFile(files.Folder(path.parent), path.name, encoding, Room(limit))


def pairs_of(data: TokenData) -> list[tuple[str, str]]:
    return sorted(data.pairs(ALL))


# ---------------------------------------------------------------------------------------------- reported cases


@pytest.fixture
def cases(shared: Path) -> Path:
    folder = shared.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"needs the collection of reported cases at {folder}")
    return folder


def test_unquoted_commas_are_refused_at_their_line(cases):
    found = refusal(cases / "11-csv-unquoted-comma" / "unq.csv")
    assert found == "unq.csv: line 2 has 4 cells, the header 2; quote texts that contain commas."


@pytest.mark.parametrize("name", ["train", "b", "u"])
def test_parallel_files_are_cut_at_line_feeds_alone(cases, name):
    found = dict(pairs_of(opened(f"{cases}/12-parallel-carriage-return/par/{name}.{{en,de}}")))
    assert len(found) == 10 and found["Hello 3"] == "Hallo 3" and found["Hello 9"] == "Hallo 9"
    odd = {"train": ("Hello 7", "Hallo 7\r y"), "b": ("Hello 2\r x", "Hallo 2"), "u": ("Hello 2\u2028 x", "Hallo 2")}
    assert odd[name] in found.items()


def test_tsv_is_not_guessed(cases):
    folder = cases / "13-tsv-guesses"
    assert "its columns: 'english', 'german'" in refusal(folder / "hdr.tsv")
    by_name = opened(folder / "hdr.tsv", source="english", target="german")
    assert pairs_of(by_name) == [(f"Hello {i}", f"Hallo {i}") for i in range(10)]
    sides = opened(folder / "tatoeba.tsv")
    assert pairs_of(sides)[0] == ("Let us try 0.", "試してみよう 0") and len(pairs_of(sides)) == 10
    assert sides.summary().endswith("columns 2 and 4 are source and target; columns not used: '1', '3'")
    excel = opened(folder / "excel.tsv")
    assert ('He said "hi" 0', 'Er sagte "hallo" 0') in pairs_of(excel)
    assert excel.summary().endswith("quotation marks enclose cells, as Excel writes them")


# ------------------------------------------------------------------------------------------------- what ships

SHIPPED = {
    "shakespeare": ("78c35c4dcf0e3b67", "54c586ffca0f6fdf", "78eae7efde77556b"),
    "tang": ("5e742dc489ce3ca8", "5e9600731d3b2a29", "372a166cbefa62f9"),
    "tang-5": ("8b1076f41372f44f", "ddd57c8eac4b6be9", "ba27c29b541a7dca"),
    "tatoeba": ("5abb82c2b0b2882c", "efa350dcd805c8b7", "800787174d26b8bf"),
    "names": ("fe0080b76f2847db", "324271677c92db12", "5e14f7fd54156a56"),
}
"""Fingerprint, and SHA-256 of tokens and of the tokenizer, as they have been from the start."""


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_has_the_tokens_it_always_had(name):
    data, digest = opened(name), hashlib.sha256()
    for split in (data.train, data.val, data.test):
        parts = [split.tokens]
        if isinstance(split, Rows):
            parts += [split.begin, split.end, *(split.source or ())]
        for part in parts:
            digest.update(part.numpy().tobytes())
    codec = hashlib.sha256(data.spec.codec.encode())
    assert (data.fingerprint, digest.hexdigest()[:16], codec.hexdigest()[:16]) == SHIPPED[name]
    assert data.skipped == 0


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_long_texts_become_the_tokens_of_their_parts(monkeypatch, kind):
    monkeypatch.setattr(tokenizers, "PIECE", 3)
    monkeypatch.setattr(tokenizers, "BATCH", 2)
    texts = ["", "ab明月cdefgh", "x", "", "éé", "abcabc"]
    made = tokenizers.chosen(kind, texts, [], 300, SPECIALS)
    ids, offsets = made.encode_all(texts)
    assert [made.decode(ids[a:b].tolist()) for a, b in pairwise(offsets)] == texts
    assert ids.dtype == np.int32


def test_a_long_text_has_the_fingerprint_of_its_json(tmp_path, monkeypatch):
    text = 'a "quoted" line\n\nand \\ 明月 \x01\n\n' * 9
    path = put(tmp_path / "a.txt", text)
    whole = opened(path).fingerprint
    monkeypatch.setattr("bowerbird.media.text.documents.PIECE", 7)
    assert opened(path).fingerprint == whole
    digest = hashlib.sha256(b"text")
    for split in ("train", "val", "test"):
        digest.update(json.dumps([split, opened(path).texts(split), [], []], ensure_ascii=False).encode())
    assert whole == digest.hexdigest()[:16]


# -------------------------------------------------------------------------------------------------- encodings

CHINESE = "人工智能是计算机科学的一个分支，它企图了解智能的实质。\n我们今天去公园，天气很好。\n这是第三行。\n"
TAIWAN = "人工智慧是電腦科學的一個分支，它企圖瞭解智慧的實質。\n我們今天去公園，天氣很好。\n這是第三行。\n"
JAPANESE = "今日はいい天気ですね。\n私は学校に行きます。\nこれはペンです。\n"
KOREAN = "오늘은 날씨가 좋습니다.\n나는 학교에 갑니다.\n이것은 책입니다.\n"
RUSSIAN = "Сегодня хорошая погода.\nЯ иду в школу.\nЭто третья строка.\n"
FRENCH = "Le café était fermé.\nNous irons à la plage.\nÇa va très bien.\n"
WRITTEN = [
    ("gbk", CHINESE, "gb18030"),
    ("big5", TAIWAN, "big5"),
    ("shift_jis", JAPANESE, "shift_jis"),
    ("euc_jp", JAPANESE, "euc_jp"),
    ("euc_kr", KOREAN, "euc_kr"),
    ("cp1251", RUSSIAN, "cp1251"),
    ("koi8_r", RUSSIAN, "koi8_r"),
    ("latin-1", FRENCH, "cp1252"),
    ("cp1250", "Dziś jest ładna pogoda.\nIdę do szkoły.\nŻółta łódź.\n", "cp1250"),
    ("utf-16-le", CHINESE, "utf-16-le"),
    ("utf-16-be", CHINESE, "utf-16-be"),
    ("utf-16-le", FRENCH, "utf-16-le"),
    ("utf-16-be", FRENCH, "utf-16-be"),
]


@pytest.mark.parametrize(("encoding", "text", "proposed"), WRITTEN)
def test_other_encodings_are_refused_by_offset_and_read_on_request(tmp_path, encoding, text, proposed):
    raw = text.encode(encoding)
    path = put(tmp_path / "a.txt", raw)
    try:
        raw.decode()
        at = raw.index(0)
    except UnicodeDecodeError as error:
        at = min(error.start, raw.find(0) % len(raw))
    found = refusal(path)
    assert found.startswith(f"a.txt is not UTF-8 at byte {at} (0x{raw[at]:02x})")
    assert found.endswith(f"it may be {proposed}: use --data.text.encoding {proposed}.")
    for name in (encoding, proposed):
        assert sorted(opened(path, encoding=name).texts(ALL)) == sorted(text.splitlines())


@pytest.mark.parametrize(
    ("encoding", "text", "proposed"),
    [
        ("gbk", "床前明月光\n疑是地上霜\n举头望明月\n低头思故乡\n", "gb18030"),
        ("big5", "床前明月光\n疑是地上霜\n舉頭望明月\n低頭思故鄉\n", "big5"),
        ("shift_jis", "東京\n大阪\n名古屋\nりんご\n", "shift_jis"),
        ("euc_jp", "東京\n大阪\n名古屋\nりんご\n", "euc_jp"),
        ("euc_kr", "김민수\n이영희\n도서관\n김치찌개\n", "euc_kr"),
        ("koi8_r", "Иван Петров\nАнна Смирнова\nяблоко\n", "koi8_r"),
        ("cp1252", "Noël\ngarçon\nà côté\noù\n", "cp1252"),
        ("utf-16-be", "床前明月光疑是地上霜", "utf-16-be"),
        ("utf-16-le", "산에는 꽃 피네", "utf-16-le"),
    ],
)
def test_the_encoding_of_a_few_words_is_named_first(tmp_path, encoding, text, proposed):
    assert f"it may be {proposed}" in refusal(put(tmp_path / "a.txt", text.encode(encoding)))


def test_what_few_bytes_cannot_tell_is_said(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    assert "it may be gb18030 or else " in refusal(put(tmp_path / "a.txt", "на дороге б".encode("koi8_r")))
    assert "it cannot be told which encoding it has" in refusal(put(tmp_path / "a.txt", noise))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("named", ["auto", "utf-8", "gb18030"])
def test_a_byte_order_mark_decides(tmp_path, encoding, named):
    for path in (
        put(tmp_path / "a.txt", CHINESE.encode(encoding)),
        put(tmp_path / "a.csv", ("text\n" + CHINESE).encode(encoding)),
    ):
        assert sorted(opened(path, encoding=named).texts(ALL)) == sorted(CHINESE.splitlines())


def test_big_endian_without_a_mark_is_not_taken_for_little_endian(tmp_path):
    path = put(tmp_path / "a.txt", FRENCH.encode("utf-16-be"))
    assert sorted(opened(path, encoding="utf-16").texts(ALL)) == sorted(FRENCH.splitlines())


def test_damaged_text_is_not_taken_for_another_encoding(tmp_path):
    path = put(tmp_path / "a.txt", (CHINESE * 9).encode() + b"\xff" + CHINESE.encode())
    at = len((CHINESE * 9).encode())
    assert refusal(path) == f"a.txt is not UTF-8 at byte {at} (0xff), though the text around it is; correct that place."
    assert "it may be utf-8: use" in refusal(put(tmp_path / "b.txt", CHINESE), encoding="ascii")


def test_what_is_no_text(tmp_path):
    made = {"a gzip file": gzip.compress(b"x"), "an xz file": lzma.compress(b"x"), "a bzip2 file": bz2.compress(b"x")}
    for what, raw in made.items():
        assert f"a.txt is {what} by its first bytes" in refusal(put(tmp_path / "a.txt", raw))
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    assert "a.csv is not UTF-8 at byte" in refusal(put(tmp_path / "a.csv", noise))
    nul = put(tmp_path / "a.txt", "a line\nwith a \0 in it\nx\n")
    assert "a.txt holds a NUL character at byte 14, as files that are no text do; remove it" in refusal(nul)
    assert "with a \0 in it" in opened(nul, encoding="utf-8").texts(ALL)


def test_archives_documents_and_pictures_are_named(tmp_path):
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.txt", "a\nb\nc\n")
    with tarfile.open(fileobj=outer, mode="w") as tar:
        member = tarfile.TarInfo("last.zip")
        member.size = len(inner.getvalue())
        tar.addfile(member, io.BytesIO(inner.getvalue()))
    for name, raw in {"a.tar": outer.getvalue(), "a": outer.getvalue(), "a.7z": b"7z\xbc\xaf\x27\x1c"}.items():
        assert f"{name} is an archive, which is not read as it is; unpack it" in refusal(put(tmp_path / name, raw))
    assert "a.docx is a document" in refusal(put(tmp_path / "a.docx", inner.getvalue()))
    assert sorted(opened(put(tmp_path / "zip", inner.getvalue())).texts(ALL)) == ["a", "b", "c"]
    assert "x.txt is a picture by its first bytes" in refusal(put(tmp_path / "x.txt", b"\xff\xd8\xff\xe0\0\x10JFIF"))


def test_marks_of_bytes_and_of_ends_of_files_are_no_text(tmp_path):
    corpus = opened(put(tmp_path / "a.txt", "one\n\ufefftwo\nthree\n\x1a"))
    assert sorted(corpus.texts(ALL)) == ["one", "three", "two"]
    assert "mark (U+FEFF) at the beginning of 1 of the texts was dropped" in corpus.summary()
    assert "1 empty" in corpus.summary()


def test_unknown_encodings_are_named(tmp_path):
    path = put(tmp_path / "a.txt", "a\nb\n")
    assert refusal(path, encoding="gbkk") == "There is no encoding of text 'gbkk'; did you mean 'gbk'?"
    for name in ("base64", "rot13", "hex", "", "a\0b"):
        found = refusal(path, encoding=name)
        assert "There is no encoding of text" in found and "big5, " in found and "bz2" not in found


@given(
    raw=st.binary(max_size=60),
    encoding=st.sampled_from(["utf-8", "gb18030", "big5", "shift_jis", "utf-16-le", "euc_kr"]),
)
@settings(max_examples=200, deadline=None)
def test_the_offset_is_that_of_the_first_wrong_byte(tmp_path_factory, raw, encoding):
    path = put(tmp_path_factory.mktemp("raw") / "a.txt", raw)
    marked = raw.startswith(tuple(textfiles.MARKS))
    for chunk in (1, 7, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(textfiles, "CHUNK", chunk)
            try:
                want = raw.decode(encoding)
            except UnicodeDecodeError as error:
                if not marked and not no_text(raw) and b"\0" not in raw:
                    for read in (file_of(path, encoding).text, lambda: list(file_of(path, encoding).lines())):
                        with pytest.raises(BowerbirdError, match=f"at byte {error.start} "):
                            read()
            else:
                if not marked:
                    want = want.removeprefix("\ufeff").replace("\r\n", "\n")
                    assert file_of(path, encoding).text() == (want if "\n" in want else want.replace("\r", "\n"))


# ------------------------------------------------------------------------------------------------ ends of lines

ODD_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@given(lines=st.lists(st.text("ab" + ODD_ENDS), min_size=2, max_size=6), crlf=st.booleans(), last=st.booleans())
@settings(max_examples=100, deadline=None)
def test_only_line_feeds_end_lines(tmp_path_factory, lines, crlf, last):
    lines = [line.rstrip("\r") for line in lines]
    end = "\r\n" if crlf else "\n"
    path = put(tmp_path_factory.mktemp("lines") / "a.txt", end.join(lines) + end * last)
    assert list(file_of(path).lines()) == (lines if last or lines[-1] else lines[:-1])
    assert file_of(path).text() == "\n".join(lines) + "\n" * last


def test_classic_mac_files_have_lines(tmp_path):
    path = put(tmp_path / "a.txt", b"abc\rde\rf\r")
    assert sorted(opened(path).texts(ALL)) == ["abc", "de", "f"]
    table = put(tmp_path / "a.csv", b'id,text\r1,"a, b"\r2,c\r')
    assert sorted(opened(table).texts(ALL)) == ["a, b", "c"]


# ------------------------------------------------------------------------------------------------- compression


def test_compressed_text_is_the_same_text(tmp_path):
    text = "".join(f"line {i}\n" for i in range(50))
    plain = opened(put(tmp_path / "a.txt", text))
    for end, compress in ((".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)):
        assert opened(put(tmp_path / f"a.txt{end}", compress(text.encode()))).fingerprint == plain.fingerprint


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.xz", "a.csv.bz2", "a.tsv.gz", "a.zip"])
def test_a_bomb_is_refused_before_memory_fills(tmp_path, name):
    n_megabytes = 48
    raw = b"a" * (n_megabytes << 20)
    path = tmp_path / name
    if name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside/a.txt", raw)
    else:
        path.write_bytes({".gz": gzip, ".xz": lzma, ".bz2": bz2}[path.suffix].compress(raw))
    del raw
    tracemalloc.start()
    try:
        found = refusal(path, max_mb=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "larger than 2 MB" in found and "--data.text.max-mb" in found
    assert peak < 16 << 20  # of which 8 are the dictionary of xz


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_columns_that_are_not_read_take_no_memory(tmp_path, name):
    rows = [{"text": f"text {i}", "page": "abcdefgh" * 2500} for i in range(300)]
    raw = (
        "\n".join(map(json.dumps, rows))
        if "json" in name
        else "text,page\n" + "".join(f"{row['text']},{row['page']}\n" for row in rows)
    )
    n_bytes = len(raw)
    path = put(tmp_path / name, gzip.compress(raw.encode()) if name.endswith(".gz") else raw)
    del rows, raw
    tracemalloc.start()
    try:
        found = corpus.read(Data(str(path)), path, name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.texts) == 300 and list(found.unused) == ["page"]
    assert n_bytes > 6_000_000 and peak < (1_500_000 if "json" in name else 3_500_000)


def test_the_limit_is_that_of_all_files_together(tmp_path):
    for i in range(3):
        put(tmp_path / "many" / f"{i}.txt", f"{i}" * 700_000)
    assert "1.txt: the text is larger than 1 MB" in refusal(tmp_path / "many", max_mb=1)
    assert len(opened(tmp_path / "many", max_mb=3).texts(ALL)) == 3


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.txt.bz2"])
def test_half_a_file_is_refused(tmp_path, name):
    compress = {".gz": gzip, ".xz": lzma, ".bz2": bz2}[Path(name).suffix].compress
    whole = compress(np.random.default_rng(0).integers(97, 122, 90_000, np.uint8).tobytes())
    assert "cannot be unpacked" in refusal(put(tmp_path / name, whole[: len(whole) // 2]))


# ------------------------------------------------------------------------------------------------------ tables

MESSAGES = [
    [{"role": "user", "content": f"{n} + 1?"}, {"role": "assistant", "content": f"it is {n + 1}"}] for n in range(6)
]
SHARED_GPT = [
    [{"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]} for m in one] for one in MESSAGES
]
ASKED = [(one[0]["content"], one[1]["content"]) for one in MESSAGES]
CHATS = {
    "messages": [{"messages": one} for one in MESSAGES],
    "sharegpt": [{"id": "x", "conversations": one} for one in SHARED_GPT],
    "alpaca": [{"instruction": a, "input": "", "output": b} for a, b in ASKED],
    "prompt": [{"prompt": a, "completion": b} for a, b in ASKED],
    "prompt of messages": [{"prompt": one[:1], "completion": one[1:]} for one in MESSAGES],
    "question": [{"question": a, "answer": b, "label": 3} for a, b in ASKED],
    "dolly": [{"instruction": a, "response": b, "context": None} for a, b in ASKED],
    "written out": [{"messages": json.dumps(one)} for one in MESSAGES],
    "parts": [
        {"messages": [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in one]}
        for one in MESSAGES
    ],
    "lists": MESSAGES,
}


def written(folder: Path, rows: list) -> list[Path]:
    """Rows as a list of JSON, as lines of JSON, and as lines in a file called .json."""
    lines = "\n".join(map(json.dumps, rows))
    return [
        put(folder / "a.json", json.dumps(rows)),
        put(folder / "a.jsonl", lines),
        put(folder / "lines.json", lines),
    ]


@pytest.mark.parametrize("form", CHATS)
def test_every_form_of_chats_is_the_same_chats(tmp_path, form):
    want = opened(put(tmp_path / "want.jsonl", "\n".join(json.dumps({"messages": one}) for one in MESSAGES)))
    for path in written(tmp_path, CHATS[form])[: 2 if form == "lists" else 3]:
        found = opened(path)
        assert found.fingerprint == want.fingerprint and found.spec.chat_template, path


def test_input_and_system_are_part_of_the_chat(tmp_path):
    rows = [{"instruction": "Add.", "output": f"{n}"} for n in range(5)]
    rows += [{"instruction": "Add.", "input": "1, 2", "system": "Be exact.", "output": "3"}]
    data = opened(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))), tokenizer="byte", context=200)
    batch = data.split(ALL).batch(torch.arange(len(data.split(ALL))))
    texts = [tokenizers.Tokenizer.from_spec(data.spec).decode(row.tolist()) for row in batch["x"]]
    assert any("system\nBe exact." in text and "user\nAdd.\n\n1, 2" in text for text in texts)
    assert sum("1, 2" in text for text in texts) == 1


def test_questions_are_pairs_on_request(tmp_path):
    path = written(tmp_path, CHATS["alpaca"])[0]
    assert pairs_of(opened(path, "pairs")) == sorted(ASKED)
    assert "--data.modality pairs makes pairs of them" in opened(path).summary()


def test_translations_of_hugging_face(tmp_path):
    rows = [{"id": i, "translation": {"en": f"the {i}", "de": f"das {i}"}} for i in range(5)]
    for path in written(tmp_path, rows):
        assert pairs_of(opened(path)) == [(f"the {i}", f"das {i}") for i in range(5)]
        assert pairs_of(opened(path, source="de", target="en")) == [(f"das {i}", f"the {i}") for i in range(5)]


def test_texts_in_json(tmp_path):
    texts = ["one", "two\nlines", "three"]
    for content in (texts, {"text": texts, "n": [1, 2, 3]}, {"data": [{"text": text} for text in texts]}):
        assert sorted(opened(put(tmp_path / "a.json", json.dumps(content))).texts(ALL)) == sorted(texts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a": 1, "b": 2}', "must be a list of objects.*an object with the keys 'a', 'b'"),
        ("a.json", '{"a": [1], "b": []}', "must be a list of objects"),
        ("a.json", "3", "must be a list of objects"),
        ("a.json", '[{"text": "a"}, 3]', "a.json, item 2 must be a JSON object"),
        ("a.json", '[{"text": "a"}', "a.json is not JSON"),
        ("a.json", "[" * 100_000, "a.json is not JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1 is not JSON"),
        ("a.json", '["\\ud800"]', "half of a surrogate pair"),
        (
            "a.jsonl",
            '{\n  "text": "a"\n}',
            "line 1 is not JSON: it ends within.*every line must be an object.* a .json",
        ),
        ("a.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "c"}', "its columns: 'prompt', 'chosen', 'rejected'"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}', "no message of the role assistant"),
        ("a.jsonl", '{"question": "a", "answer": 3}', "is the number 3, not a text"),
        ("a.csv", "text,text\na,b\nc,d\n", "two columns 'text'"),
        ("a.csv", 'text\nfine\n"opens\nlost\nlost\n', "line 3 is not CSV: a quotation mark opens in this row.*line 5"),
        ("a.csv", 'text\n"opens\nlost "too" \nlost\n', "line 2 is not CSV: a quotation mark opens in this row.*line 3"),
        ("a.csv", "id,body\n1,x\n", "its columns: 'id', 'body'. Name the right ones with --data.text.text.*by number"),
        ("a.csv", "text\na, b\nc\n", "line 2 has 2 cells, the header 1; quote texts that contain commas"),
        ("a.tsv", "a\tb\nc\td\te\n", "line 2 has 3 cells, the first line 2"),
        ("a.tsv", "one\ttwo\tthree\nfour\tfive\tsix\n", "its columns: '1' .'one' ….*'3' .'three'"),
        ("a.tsv", "1\teng\tHello.\n2\tdeu\tHallo.\n", "its columns: '1'"),
        ("a.tsv", "n\twhat\n1\ta\n2\tb\n3\tc\n", "its columns: 'n', 'what'"),
        ("a.tsv", "sentence_en\tsentence_de\nHi\tHallo\n", "its columns: 'sentence_en', 'sentence_de'"),
        ("a.tsv", "en\tzh\nHi\t嗨\n", "its columns: 'en', 'zh'"),
        ("a.tsv", "native_text\tforeignText\nHi\t嗨\n", "its columns: 'native_text', 'foreignText'"),
        ("a.tsv", "原文\t译文\nHi\t嗨\n", "its columns: '原文', '译文'"),
    ],
)
def test_tables_that_are_refused(tmp_path, name, content, message):
    found = refusal(put(tmp_path / name, content))
    assert re.search(message, found), found


def test_columns_by_number_and_by_name(tmp_path):
    rows = [("spam", "Win, now!"), ("ham", "See you."), ("ham", "OK.")]
    bare = put(tmp_path / "a.csv", "".join(f'{a},"{b}"\n' for a, b in rows))
    data = opened(bare, text="2")
    assert sorted(data.texts(ALL)) == sorted(b for _, b in rows)
    assert "the first line is data: 'spam, Win, now!'" in data.summary() and "columns not used: '1'" in data.summary()
    headed = put(tmp_path / "b.csv", "label,message\n" + "".join(f'{a},"{b}"\n' for a, b in rows))
    for name in ("message", "Message", "2"):
        assert sorted(opened(headed, text=name).texts(ALL)) == sorted(b for _, b in rows)
    pandas = put(tmp_path / "c.csv", "0,1\n" + "".join(f'{a},"{b}"\n' for a, b in rows))
    assert sorted(opened(pandas, text="1").texts(ALL)) == sorted(b for _, b in rows)


def test_what_the_user_names_comes_before_what_is_usual(tmp_path):
    path = put(tmp_path / "a.csv", "source,target,summary\na,b,c\nd,e,f\n")
    assert sorted(opened(path, text="summary").texts(ALL)) == ["c", "f"]
    assert pairs_of(opened(path, source="target", target="summary")) == [("b", "c"), ("e", "f")]


def test_other_delimiters_are_said(tmp_path):
    data = opened(put(tmp_path / "a.csv", "text;n\na, b;1\nc;2\n"))
    assert sorted(data.texts(ALL)) == ["a, b", "c"] and "semicolons separate the cells" in data.summary()
    assert sorted(opened(put(tmp_path / "b.csv", "sep=;\ntext;n\na, b;1\nc;2\n")).texts(ALL)) == ["a, b", "c"]
    assert "line 3 has 1 cell" in refusal(put(tmp_path / "c.csv", "sep=;\ntext;n\na\nc;2\n"))


def test_cells_that_a_spreadsheet_adds_at_the_end_are_none(tmp_path):
    assert sorted(opened(put(tmp_path / "a.csv", "text,n\na,1,,\nb,2,,\n")).texts(ALL)) == ["a", "b"]


def test_a_tsv_of_one_column_and_a_txt_of_pairs(tmp_path):
    assert sorted(opened(put(tmp_path / "a.tsv", "one\ntwo\n")).texts(ALL)) == ["one", "two"]
    anki = put(tmp_path / "deu.txt", "Go.\tGeh.\tCC-BY 2.0\nHi.\tHallo.\tCC-BY 2.0\nNo.\tNein.\tCC-BY 2.0\n")
    assert "every line of deu.txt has 2 tabs; if these are pairs, add --data.modality pairs" in opened(anki).summary()
    assert pairs_of(opened(anki, "pairs")) == [("Go.", "Geh."), ("Hi.", "Hallo."), ("No.", "Nein.")]


def test_labels_are_not_sources_in_silence(tmp_path):
    lines = "".join(f"{('ham', 'spam')[n % 2]}\tmessage {n}\n" for n in range(40))
    assert "column 1 is taken for source, but looks like a label" in opened(put(tmp_path / "a.tsv", lines)).summary()
    sums = opened(put(tmp_path / "c.tsv", "".join(f"{n} + 1\t{n + 1}\n" for n in range(9))))
    assert ("3 + 1", "4") in pairs_of(sums) and "column 2 is taken for target, but looks like numbers" in sums.summary()
    numbered = "".join(f"{n}\tfrom {n}\tto {n}\n" for n in range(40))
    assert "columns 2 and 3 are source and target" in opened(put(tmp_path / "b.tsv", numbered)).summary()


cells = st.text(st.sampled_from('ab "\t\n,'), min_size=1, max_size=8).filter(str.strip)
rows = st.lists(st.tuples(cells, cells), min_size=1, max_size=8)


@given(rows)
@settings(max_examples=150, deadline=None)
def test_what_excel_quotes_is_read_as_it_was(rows):
    buffer = io.StringIO()
    csv.writer(buffer, dialect="excel-tab", lineterminator="\n").writerows(rows)
    lines = buffer.getvalue().removesuffix("\n").split("\n")
    both = any("\t" in cell and "\n" in cell for row in rows for cell in row)
    found, quoted = tables.tsv_cells(lines, "a.tsv")
    if not both:
        assert [tuple(row) for _, row in found] == rows
        assert quoted == ('"' in buffer.getvalue())


@pytest.mark.parametrize(
    "lines",
    [
        ['"Yes," he said.\t"Ja", sagte er.'],
        ['5" pipe\tRohr', 'a "b" c\td'],
        ['"Hello\tHallo', "one\teins", 'world"\tWelt'],
        ['"a"\tb', 'c\td "e"'],
    ],
)
def test_quotation_marks_of_the_text_stay(lines):
    found, quoted = tables.tsv_cells(lines, "a.tsv")
    assert not quoted and [row for _, row in found] == [line.split("\t") for line in lines]


@given(st.lists(anything.filter(str.strip), min_size=2, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_csv_json_and_encodings(tmp_path_factory, texts):
    texts = [text.replace("\r", "") for text in texts]
    texts = [text for text in texts if text.strip()]
    folder = tmp_path_factory.mktemp("any")
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([["text", "n"], *((text, "1") for text in texts)])
    for encoding in ("utf-8", "utf-16", "gb18030"):
        table = put(folder / "a.csv", buffer.getvalue().encode(encoding))
        rows_ = tables.csv_cells(file_of(table, "auto" if encoding == "utf-16" else encoding).lines(), "a.csv")[0]
        assert [row for _, row in rows_] == [["text", "n"], *([text, "1"] for text in texts)]
    lines = put(folder / "a.jsonl", "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    assert [row["text"] for _, row in tables.json_lines(file_of(lines).lines(), "a.jsonl").rows(["text"])] == texts


# ----------------------------------------------------------------------------------------------------- parquet


def test_parquet_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(put(tmp_path / "a.parquet", b"PAR1")) == "Reading a.parquet needs pyarrow: pip install pyarrow."


def test_parquet_is_read_like_json(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [{"text": f"text {i}", "n": i} for i in range(5)]
    translations = [{"translation": {"en": f"the {i}", "de": f"das {i}"}} for i in range(5)]
    for rows in (texts, translations, CHATS["messages"], CHATS["sharegpt"], CHATS["alpaca"]):
        want = opened(put(tmp_path / "a.json", json.dumps(rows)))
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
        assert opened(tmp_path / "a.parquet").fingerprint == want.fingerprint
    parquet.write_table(arrow.Table.from_pylist(texts), tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.parquet", "data/train-00000-of-00001.parquet")
    assert len(opened(tmp_path / "a.zip").texts(ALL)) == 5
    raw = (tmp_path / "a.parquet").read_bytes()
    assert "cannot be read as Parquet" in refusal(put(tmp_path / "b.parquet", raw[:-20]))
    parquet.write_table(arrow.Table.from_pylist(texts), tmp_path / "d.parquet", compression="none")
    raw = (tmp_path / "d.parquet").read_bytes()
    assert "utf-8" in refusal(put(tmp_path / "d.parquet", raw.replace(b"text 3", b"te\xff\xff 3")))
    big = [{"text": f"{i}" * 300_000} for i in range(9)]
    parquet.write_table(arrow.Table.from_pylist(big), tmp_path / "c.parquet")
    assert "larger than 1 MB" in refusal(tmp_path / "c.parquet", max_mb=1)


# ------------------------------------------------------------------------------------- what is said of the rest


def test_files_that_are_not_read_are_counted(tmp_path):
    put(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    for name in ("README.md", "notes.txt", "info.json", "scan.pdf", "b.docx"):
        put(tmp_path / name, "x")
    data = opened(tmp_path)
    assert sorted(data.texts(ALL)) == ["one", "two"]
    said = "not read: 3 files beside the data (README.md …), 2 files of another kind (b.docx …)"
    assert data.summary().endswith(said)


def test_documents_of_markdown_and_their_read_me(tmp_path):
    for name in ("README.md", "LICENSE.txt", "a.md", "b.md", "c.txt"):
        put(tmp_path / name, f"# {name}\n\nText.")
    data = opened(tmp_path)
    assert sorted(data.texts(ALL)) == [f"# {name}\n\nText." for name in ("a.md", "b.md", "c.txt")]
    assert "not read: 2 files beside the data (LICENSE.txt …)" in data.summary()
    assert opened(put(tmp_path / "one" / "a.md", "# Title\nText. " * 9)).preprocessing["layout"] == "stream"


def test_a_json_beside_texts_is_data_only_if_texts_are_not_more(tmp_path):
    put(tmp_path / "dataset.json", '["one", "two"]')
    put(tmp_path / "README.md", "x")
    assert sorted(opened(tmp_path).texts(ALL)) == ["one", "two"]
    for name in ("a.txt", "b.txt"):
        put(tmp_path / name, name)
    data = opened(tmp_path)
    assert sorted(data.texts(ALL)) == ["a.txt", "b.txt"]
    assert "not read: 2 files beside the data (README.md …)" in data.summary()


def test_empty_items_copies_and_lost_characters_are_counted(tmp_path):
    put(tmp_path / "a.csv", 'text,n\none,1\n" ",2\none,3\nlo\ufffdst,4\n,5\n')
    summary = opened(tmp_path / "a.csv").summary()
    assert "skipped 2 (2 empty (a.csv, line 3 …))" in summary
    assert "1 is a copy of others" in summary and "U+FFFD in 1 of the texts" in summary
    lines = opened(put(tmp_path / "a.txt", "one\n\u3000\ntwo\n"))
    assert "skipped 1 (1 empty (a.txt, document 2))" in lines.summary()
    yml = put(
        tmp_path / "a.yml", "conversations:\n" + "".join(f"- - q{i}\n  - a{i}\n" for i in range(3)) + "- - alone\n"
    )
    assert "skipped 1 (1 without an answer (a.yml: alone))" in opened(yml).summary()


def test_splits_that_are_none_are_said(tmp_path):
    for name in ("train", "test"):
        put(tmp_path / f"{name}.jsonl", "".join(f'{{"text": "{name} {i}"}}\n' for i in range(4)))
    assert opened(tmp_path).preprocessing["split"].startswith("official test")
    put(tmp_path / "more.jsonl", '{"text": "more"}\n')
    assert "not official splits here, since more.jsonl is not one of them" in opened(tmp_path).summary()
    shards = tmp_path / "shards"
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"):
        put(shards / f"{name}.jsonl", f'{{"text": "{name}"}}\n')
    assert opened(shards).texts("test") == ["test-00000-of-00001"] and len(opened(shards).texts("train")) == 2


def test_a_name_that_says_nothing(tmp_path):
    path = put(tmp_path / "corpus.log", "one\ntwo\n")
    assert "The name of corpus.log does not say what it holds" in refusal(path)
    assert sorted(opened(path, "text").texts(ALL)) == ["one", "two"]
    assert "The suffix of corpus.log does not say how to read it" in refusal(path, "chat")
    put(tmp_path / "other.log", "three")
    assert sorted(opened(tmp_path, "text").texts(ALL)) == ["one\ntwo\n", "three"]
    assert "holds no text" in refusal(tmp_path, "chat")


def test_a_folder_of_parallel_files_is_told_how_to_be_given(tmp_path):
    for name in ("train.de", "train.en", "val.de", "val.en"):
        put(tmp_path / name, "x\n")
    assert refusal(tmp_path).endswith(f"name parallel files as '{tmp_path}/train.{{de,en}}'.")


def test_texts_named_like_pictures_belong_to_them(tmp_path, tiny):
    shutil.copytree(tiny / "upper", tmp_path, dirs_exist_ok=True)
    for image in list(tmp_path.glob("*.png")):
        put(image.with_suffix(".txt"), "a caption")
        put(image.with_name(f"{image.name}.json"), "{}")
    assert not isinstance(open_data(Data(str(tmp_path))), TokenData)


def test_parallel_files_can_be_in_another_encoding(tmp_path):
    put(tmp_path / "a.zh", CHINESE.encode("gb18030"))
    put(tmp_path / "a.tw", TAIWAN.encode("gb18030"))
    assert "a.zh is not UTF-8 at byte 0" in refusal(f"{tmp_path}/a.{{zh,tw}}")
    found = pairs_of(opened(f"{tmp_path}/a.{{zh,tw}}", encoding="gb18030"))
    assert found == sorted(zip(CHINESE.splitlines(), TAIWAN.splitlines(), strict=True))


def test_what_is_wrong_with_a_message_is_named(tmp_path):
    contents = {
        "the content of a message is the number 42, not a text (message 2)": '"content": 42',
        "is null, not a text, and its tool_calls are not read": '"content": null, "tool_calls": [{"id": "1"}]',
        "is a list with a part of the type image": '"content": [{"type": "text"}, {"type": "image_url"}]',
        "a message has no content": '"text": "Hi"',
    }
    for said, content in contents.items():
        line = f'{{"messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", {content}}}]}}\n'
        assert said in refusal(put(tmp_path / "a.jsonl", line))
    assert "is the number 42" in refusal(put(tmp_path / "b.json", '[{"instruction": "x", "output": 42}]'))


def test_families_say_which_learns_pairs_and_chats(tmp_path):
    chats = opened(put(tmp_path / "a.jsonl", '{"question": "a", "answer": "b"}\n' * 4)).spec
    with pytest.raises(BowerbirdError, match="contains chats; bring pairs .*--data.modality pairs"):
        Seq2SeqConfig().build(chats)
    pairs = opened(put(tmp_path / "a.tsv", "one\teins\ntwo\tzwei\nthree\tdrei\n")).spec
    with pytest.raises(BowerbirdError, match=r"contains pairs of texts; choose the family seq2seq \(recipe translator"):
        pairs.needs(Tensors, "vae")
