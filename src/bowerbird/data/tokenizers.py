"""A tokenizer: text → numbers of tokens and back.

Every tokenizer is an object of the package ``tokenizers`` and is kept as the text of its tokenizer.json:

    char    a token per character that the data have, in order of their code points
    word    a token per word that the data have, in small letters and without punctuation; a Han character is a word
    byte    a token per byte of UTF-8
    bpe     byte-level byte-pair encoding: text is cut into words, bytes are merged into ever longer pieces
            (Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", 2016)

and whatever a tokenizer.json of somebody else describes.  Three special tokens stand for no text: bos begins a
document, eos ends it, pad fills up a row.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from jaxtyping import Int32, Int64
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from bowerbird.data.kinds import beginning, require_content
from bowerbird.data.tensorfile import read_header
from bowerbird.errors import BowerbirdError, nearest, unknown
from bowerbird.spec import Spec, Tokens

Specials = tuple[str, str, str]
SPECIALS = ("<bos>", "<eos>", "<pad>")
"""The names of bos, eos and pad in our own tokenizers …"""
CHAT_SPECIALS = ("<|im_start|>", "<|im_end|>", "<pad>")
"""… and when they are made for chats, where a message is what begins and ends."""
ROLES = {
    "bos": ("<bos>", "<s>", "<|begin_of_text|>", "<|im_start|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("<eos>", "</s>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>"),
}
"""What the special tokens are usually called, for a tokenizer.json that comes alone."""
FILE, CONFIG_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
MANY_CHARACTERS = 8000
"""With more different characters than this, auto takes bpe."""
KINDS = ("auto", "char", "word", "byte", "bpe")
PIECE = 1 << 18
"""Characters that become tokens at once, so that no second copy of a long text is made."""
BATCH = 1024
"""Texts that the package gets at once."""
CHARACTERS = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
"""How the package spells the cutting of text into characters."""
WORDS = r"\p{Han}|[[\p{L}\p{M}\p{N}]&&[^\p{Han}]]+|\p{S}"
"""What word takes for one: Chinese is written without spaces, and a symbol says something by itself."""
MOST_UNKNOWN = 5
"""Unknown words that an error names."""


class Tokenizer:
    """Text to token ids and back; ``bos``, ``eos`` and ``pad`` are ids."""

    def __init__(self, core: hf.Tokenizer, bos: int, eos: int, pad: int, chat_template: str = ""):
        self.core = core
        self.bos, self.eos, self.pad = bos, eos, pad
        self.chat_template = chat_template
        self.vocab_size = 1 + max(core.get_vocab(with_added_tokens=True).values())

    @cached_property
    def name(self) -> str:
        """char, byte, or the kind of its model and the beginning of the SHA-256 of its tokenizer.json."""
        if self._table is not None:
            return "char" if self._is_char else "byte"
        return f"{self._description['model']['type'].lower()} {hashlib.sha256(self.to_json().encode()).hexdigest()[:8]}"

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """The tokenizer of a tokenizer.json's text, its special tokens recognised by their usual names."""
        return named(text, FILE, {})

    @classmethod
    def from_spec(cls, spec: Spec) -> "Tokenizer":
        """The tokenizer of a model's data: of its target, else of the first tokens that are given (captions)."""
        fields = [field for field in (spec.target, *spec.given.values()) if isinstance(field, Tokens)]
        return _of_codec(spec.codec, fields[0].bos, fields[0].eos, fields[0].pad, spec.chat_template)

    def to_json(self) -> str:
        """The text of its tokenizer.json."""
        return self.core.to_str(pretty=False)

    def files(self) -> dict[str, str]:
        """Name and text of the files that ``read`` reads it from again, as Hugging Face lays them out."""
        roles: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        roles |= {f"{role}_token": self.core.id_to_token(getattr(self, role)) for role in ROLES}
        files = {FILE: self.to_json(), CONFIG_FILE: json.dumps(roles, indent=2, ensure_ascii=False) + "\n"}
        return files | ({TEMPLATE_FILE: self.chat_template} if self.chat_template else {})

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; a special token written out in it is ordinary text.

        BowerbirdError names a character, or the words, that the vocabulary does not have.
        """
        return self.encode_all([text])[0].tolist()

    def encode_all(self, texts: Sequence[str]) -> tuple[Int32[np.ndarray, "t"], Int64[np.ndarray, "n_offsets"]]:
        """The tokens of all texts, one after the other, and where each text begins."""
        if self._table is None:
            batches = (self._encodings(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH))
            encoded = [np.array(ids, np.int32) for batch in batches for ids in batch]
            lengths = [len(ids) for ids in encoded]
            ids = np.concatenate(encoded) if encoded else np.empty(0, np.int32)
        elif self._is_char:
            lengths = [len(text) for text in texts]
            ids = np.empty(sum(lengths), np.int32)
            self._fill(ids, texts, "utf-32-le", np.uint32)
        else:
            lengths = [len(text) if text.isascii() else len(text.encode()) for text in texts]
            ids = np.empty(sum(lengths), np.int32)
            self._fill(ids, texts, "utf-8", np.uint8)
        return ids, np.cumsum([0, *lengths], dtype=np.int64)

    def _fill(self, ids: Int32[np.ndarray, "t"], texts: Sequence[str], encoding: str, unit: type) -> None:
        """Writes the tokens of all texts into ``ids``, by their code points or bytes."""
        table, at = self._table, 0
        assert table is not None
        for piece in _pieces(texts):
            codes: np.ndarray = np.frombuffer(piece.encode(encoding, "surrogatepass"), unit)
            found = table[np.minimum(codes, len(table) - 1)]
            if (found < 0).any():
                raise self._unknown(chr(codes[(found < 0).argmax()]))
            ids[at : at + len(found)] = found
            at += len(found)

    def encode_marked(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text in which special tokens are written out, and at which character each token begins."""
        try:
            encoding = self.core.encode(text, add_special_tokens=False)
        except Exception as error:  # the package raises nothing narrower
            for special in self.core.get_added_tokens_decoder().values():
                text = text.replace(special.content, "")
            raise self._unknown(next((c for c in text if self.core.token_to_id(c) is None), "")) from error
        return encoding.ids, [begin for begin, _ in encoding.offsets]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; special tokens are dropped, bytes that are no UTF-8 become U+FFFD."""
        return self.core.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def _plain(self) -> hf.Tokenizer:
        """The same, to which special tokens written out are ordinary text."""
        plain = hf.Tokenizer.from_str(self.to_json())
        plain.encode_special_tokens = True
        return plain

    def _encodings(self, texts: Sequence[str]) -> list[list[int]]:
        if self._is_word:
            self._check_words(texts)
        return [e.ids for e in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _check_words(self, texts: Sequence[str]) -> None:
        words = dict.fromkeys(word for text in texts for word in _words(self.core, text))
        if missing := [word for word in words if word not in self._vocabulary]:
            raise _unknown_words(missing, self._vocabulary)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self.core.get_vocab(with_added_tokens=False)

    @cached_property
    def _description(self) -> dict[str, Any]:
        table = json.loads(self.to_json())
        return {"pre_tokenizer": table["pre_tokenizer"], "normalizer": table["normalizer"], "model": table["model"]}

    @cached_property
    def _is_char(self) -> bool:
        model = self._description["model"]["type"]
        return model == "WordLevel" and self._description["pre_tokenizer"] == CHARACTERS

    @cached_property
    def _is_word(self) -> bool:
        model = self._description["model"]
        return model["type"] == "WordLevel" and not self._is_char and model["unk_token"] not in model["vocab"]

    @cached_property
    def _table(self) -> Int32[np.ndarray, "codes"] | None:
        """char: the id of each code point, -1 where there is none, and at the end; byte: of each byte; else None.

        One look-up in it is some fifty times faster than asking the package.
        """
        vocabulary = self.core.get_vocab(with_added_tokens=False)
        if self._description["normalizer"] is not None:
            return None
        if self._is_char:
            table = np.full(2 + max(map(ord, vocabulary), default=0), -1, np.int32)
            table[[ord(character) for character in vocabulary]] = list(vocabulary.values())
            return table
        model = self._description["model"]
        if model["type"] == "BPE" and not model["merges"] and vocabulary.keys() == set(byte_names()):
            return np.array([vocabulary[name] for name in byte_names()], np.int32)
        return None

    def _unknown(self, character: str) -> BowerbirdError:
        vocabulary = self.core.get_vocab(with_added_tokens=False)
        is_simplified = _only_in(character, "gb2312", not_in="big5")
        traditional = is_simplified and sum(_only_in(one, "big5", not_in="gb2312") for one in vocabulary)
        advice = "use traditional characters, as the vocabulary does" if traditional else "leave it out"
        return BowerbirdError(
            f"The character '{character}' (U+{ord(character or chr(0)):04X}) is not in the vocabulary, which has "
            f"{len(vocabulary):,} characters; {advice}."
        )


def _only_in(character: str, charset: str, *, not_in: str) -> bool:
    """Whether one character set has a character that the other lacks, as GB 2312 has the simplified ones of Chinese."""

    def has(name: str) -> bool:
        try:
            return bool(character.encode(name))
        except UnicodeEncodeError:
            return False

    return has(charset) and not has(not_in)


def _words(core: hf.Tokenizer, text: str) -> list[str]:
    normal = core.normalizer.normalize_str(text) if core.normalizer else text
    return [word for word, _ in core.pre_tokenizer.pre_tokenize_str(normal)] if core.pre_tokenizer else [normal]


def _unknown_words(missing: Sequence[str], vocabulary: Iterable[str]) -> BowerbirdError:
    """Names each with the nearest word that there is."""
    near = {word: nearest(word, vocabulary) for word in missing[:MOST_UNKNOWN]}
    named = ", ".join(f"'{word}'" + (f" (did you mean '{one}'?)" if one else "") for word, one in near.items())
    more = f" and {len(missing) - MOST_UNKNOWN} more" if len(missing) > MOST_UNKNOWN else ""
    return BowerbirdError(
        f"The vocabulary has no {'word' if len(missing) == 1 else 'words'} {named}{more}; use others."
    )


@lru_cache(maxsize=8)
def _of_codec(codec: str, bos: int, eos: int, pad: int, chat_template: str) -> Tokenizer:
    """Kept, because reading the vocabulary of a large model takes longer than answering with it."""
    try:
        inside = json.loads(codec).get("tokenizer", codec)  # of captions, beside what x itself needs
        return Tokenizer(hf.Tokenizer.from_str(inside), bos, eos, pad, chat_template)
    except Exception as error:  # the package raises nothing narrower
        raise BowerbirdError(
            f"The {FILE} of this model is missing or damaged ({error}); put it back beside its weights."
        ) from error


def _pieces(texts: Sequence[str]) -> Iterator[str]:
    """The texts joined and cut into pieces of about ``PIECE`` characters."""
    waiting: list[str] = []
    n_waiting = 0
    for text in texts:
        for begin in range(0, len(text), PIECE):
            waiting.append(text[begin : begin + PIECE])
            n_waiting += len(waiting[-1])
            if n_waiting >= PIECE:
                yield "".join(waiting)
                waiting, n_waiting = [], 0
    yield "".join(waiting)


def byte_names() -> list[str]:
    """The visible character by which byte-level tokenizers name each of the 256 bytes.

    Printable bytes of Latin-1 name themselves; the others are numbered from U+0100.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


# ------------------------------------------------------------------------------------------ making and reading


def chosen(kind: str, training: Sequence[str], others: Sequence[str], vocab_size: int, specials: Specials) -> Tokenizer:
    """The tokenizer that a configuration names, made for these texts.

    bpe learns from the training texts alone.  The vocabularies of char and word have what occurs in ``others`` too,
    without which validation and test texts could not be scored.
    """
    if kind not in KINDS:
        return read(kind)
    characters = sorted(set().union(*training, *others)) if kind in ("auto", "char") else []
    if kind == "auto":
        kind = "char" if len(characters) <= MANY_CHARACTERS else "bpe"
    if kind == "char":
        core = hf.Tokenizer(models.WordLevel({character: i for i, character in enumerate(characters)}))
        core.pre_tokenizer = pre_tokenizers.Split(hf.Regex(CHARACTERS["pattern"]["Regex"]), "isolated")  # type: ignore[index]
        core.decoder = decoders.Fuse()
    elif kind == "word":
        core = _word_level([*training, *others])
    elif kind == "byte":
        core = hf.Tokenizer(models.BPE({name: byte for byte, name in enumerate(byte_names())}, []))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.decoder = decoders.ByteLevel()
    else:
        core = _trained(training, vocab_size, specials)
    core.add_special_tokens(list(specials))
    vocabulary = core.get_vocab(with_added_tokens=True)
    bos, eos, pad = (vocabulary[special] for special in specials)
    return Tokenizer(core, bos, eos, pad)


def _word_level(texts: Sequence[str]) -> hf.Tokenizer:
    core = hf.Tokenizer(models.WordLevel({}))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Split(hf.Regex(WORDS), "removed", invert=True)
    spaced = decoders.Replace(hf.Regex(r"^(?=\P{Han})"), " ")
    core.decoder = decoders.Sequence([spaced, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    words = sorted({word for text in set(texts) for word in _words(core, text)})
    core.model = models.WordLevel({word: i for i, word in enumerate(words)})
    return core


def _trained(texts: Sequence[str], vocab_size: int, specials: Specials) -> hf.Tokenizer:
    if vocab_size < 256 + len(specials):
        raise BowerbirdError(
            f"data.text.vocab_size = {vocab_size} must be at least {256 + len(specials)}: a bpe has the 256 bytes and "
            f"{len(specials)} special tokens."
        )
    core = hf.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(specials), initial_alphabet=byte_names(), show_progress=False
    )
    core.train_from_iterator(texts, trainer, length=len(texts))
    return core


def read(path: Path | str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, or of the folder of a run or model that holds one.

    Its special tokens are those of a run's data or of a tokenizer_config.json, else recognised by their names; its
    chat template is a chat_template.jinja beside it or stands in tokenizer_config.json.
    """
    where = Path(path).expanduser()
    file = where / FILE if where.is_dir() else where
    if not file.is_file():
        if where.is_dir():
            raise BowerbirdError(f"The folder {where} has no {FILE}.")
        raise unknown("tokenizer or file", str(path), KINDS)
    require_content(beginning(file), file)
    config, template = _roles_of_run(file.parent), _text(file.with_name(TEMPLATE_FILE))
    if described := _text(file.with_name(CONFIG_FILE)):
        try:
            config |= dict(json.loads(described))
        except (TypeError, ValueError, RecursionError) as error:
            raise BowerbirdError(f"{file.with_name(CONFIG_FILE)} is not a JSON object: {error}.") from error
    return named(_text(file), str(file), config | ({"chat_template": template} if template else {}))


def _text(file: Path) -> str:
    """The file's text; "" when there is none."""
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise BowerbirdError(f"{file} is not UTF-8: {error}.") from error


def _roles_of_run(folder: Path) -> dict[str, Any]:
    """The ids of bos, eos and pad that a run's model was trained with."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return {}
    spec = read_header(weights).get("spec", {})
    target = spec.get("target", spec)  # version 0.1 had no target
    return {f"{role}_token": target[role] for role in ROLES if role in target}


def named(text: str, where: str, config: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a tokenizer.json's text; ``config`` is what its tokenizer_config.json says."""
    try:
        core = hf.Tokenizer.from_str(text)
    except Exception as error:  # the package raises nothing narrower
        raise BowerbirdError(f"{where} is not the tokenizer.json of a tokenizer: {error}.") from error
    ids = {role: _special(core, config.get(f"{role}_token"), names) for role, names in ROLES.items()}
    eos = ids["eos"] if ids["eos"] is not None else ids["bos"]
    if eos is None:
        raise BowerbirdError(
            f"{where} names no token that ends a text; put a {CONFIG_FILE} with eos_token (and bos_token) beside it."
        )
    bos, pad = (eos if ids[role] is None else ids[role] for role in ("bos", "pad"))
    return Tokenizer(core, int(bos or 0), eos, int(pad or 0), _template(config.get("chat_template")))


def _special(core: hf.Tokenizer, given: Any, usual: tuple[str, ...]) -> int | None:
    """The id of a special token: the one given, as an id, a name or a record with its content, else of a usual name."""
    if isinstance(given, int):
        return given
    name = given.get("content") if isinstance(given, dict) else given
    found = [core.token_to_id(one) for one in ([name] if isinstance(name, str) else usual)]
    return next((number for number in found if number is not None), None)


def _template(given: Any) -> str:
    """One template, or of several with names the one called default."""
    if isinstance(given, list):
        return next((str(one["template"]) for one in given if one.get("name") == "default"), "")
    return str(given or "")
