"""A vocabulary as GGUF files keep it, to and from the tokenizer.json of the package ``tokenizers``.

A GGUF file has no tokenizer.json but a list of tokens, each with a type, the merges (or scores from which they follow),
and the name of the rule by which text is cut into words before bytes are merged.  The rules themselves are code inside
llama.cpp; the ones that Llama models use are written down here as data.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers as hf

from bowerbird.data.tokenizers import CHARACTERS, Tokenizer, byte_names
from bowerbird.errors import BowerbirdError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens.  Text is searched for user-defined ones before anything else; control ones stand for no text."""

Json = dict[str, Any]


def _byte_level(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _split(pattern: str) -> Json:
    """Words are what matches ``pattern``, and what lies between."""
    rule = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return _sequence(rule, _byte_level(use_regex=False))


_LETTERS_AND_NUMBERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = _byte_level(use_regex=True)
_WORDS_AND_DIGITS = _sequence({"type": "Digits", "individual_digits": True}, _WORDS)
_NUMBERS_OF_THREE = _split(_LETTERS_AND_NUMBERS.replace("NUMBER", r"\p{N}{1,3}"))
RULES: dict[str, Json] = {
    "gpt-2": _WORDS,
    "smollm": _WORDS_AND_DIGITS,
    "starcoder": _WORDS_AND_DIGITS,
    "refact": _WORDS_AND_DIGITS,
    "command-r": _WORDS_AND_DIGITS,
    "llama-bpe": _NUMBERS_OF_THREE,
    "llama3": _NUMBERS_OF_THREE,
    "llama-v3": _NUMBERS_OF_THREE,
    "qwen2": _split(_LETTERS_AND_NUMBERS.replace("NUMBER", r"\p{N}")),
}
"""Pre-tokenizers by the names that llama.cpp knows them by; the first of equal ones is the one that is written."""
WHOLE_WORDS = {"llama-bpe", "llama3", "llama-v3"}
"""Rules whose words, when they are tokens, are taken without merging; their texts begin with bos."""
SPACE = "▁"
"""How SentencePiece writes a space."""


# -------------------------------------------------------------------------------------------------- from GGUF


def read(metadata: Mapping[str, Any], where: str) -> str:
    """The text of the tokenizer.json that a GGUF file's metadata describe; ``where`` names the file in errors."""
    tokens: list[str] = list(metadata.get("tokenizer.ggml.tokens", ()))
    types: list[int] = list(metadata.get("tokenizer.ggml.token_type", ())) or [NORMAL] * len(tokens)
    kind, rule = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "")
    if kind == "gpt2" and set(types) <= {CONTROL, USER_DEFINED, UNUSED}:
        parts = _characters(tokens, types)
    elif kind == "gpt2":
        parts = _bytes(metadata, tokens, rule, where)
    elif kind == "llama":
        parts = _sentencepiece(metadata, tokens)
    else:
        raise BowerbirdError(f"{where} has a tokenizer of the kind '{kind}'; known: gpt2 (byte-level BPE) and llama.")
    added = [
        _added(i, token, special=kind_of != USER_DEFINED)
        for i, (token, kind_of) in enumerate(zip(tokens, types, strict=True))
        if kind_of in (CONTROL, UNKNOWN) or (kind_of == USER_DEFINED and parts["model"]["type"] == "BPE")
    ]
    begins = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama" or rule in WHOLE_WORDS)
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    head: Json = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None}
    head["post_processor"] = beginning(tokens[bos], bos) if begins and bos is not None else None
    try:
        return hf.Tokenizer.from_str(json.dumps(head | parts)).to_str()
    except Exception as error:  # the package raises nothing narrower
        raise BowerbirdError(f"The vocabulary of {where} cannot be made into a tokenizer: {error}.") from error


def _bytes(metadata: Mapping[str, Any], tokens: list[str], rule: str, where: str) -> Json:
    """Byte-level BPE."""
    if rule not in RULES:
        raise BowerbirdError(
            f"The tokenizer of {where} cuts text into words by the rule '{rule}', which is not known here "
            f"({', '.join(RULES)} are); import the model's folder with its tokenizer.json instead."
        )
    merges = [merge.split(" ") for merge in metadata.get("tokenizer.ggml.merges", ()) if merge]
    return {
        "pre_tokenizer": RULES[rule],
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(tokens, merges, ignore_merges=rule in WHOLE_WORDS),
    }


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str]) -> Json:
    """SentencePiece's BPE: of all neighbours the two whose union has the highest score are merged.

    So every cut of a token into two tokens is a merge, in the order of scores; what is no token is spelled in bytes.
    """
    scores = metadata["tokenizer.ggml.scores"]
    ids = {token: i for i, token in enumerate(tokens)}
    cuts = [
        (-scores[i], ids[token[:cut]], ids[token[cut:]])
        for token, i in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    merges = [[tokens[left], tokens[right]] for _, left, right in sorted(cuts)]
    spaces: Json = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    unknown = tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    words = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*([{"type": "Prepend", "prepend": SPACE}] if prefix else []), spaces],
        },
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [words, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _bpe(tokens, merges) | {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True},
    }


def _characters(tokens: list[str], types: list[int]) -> Json:
    """What ``write`` makes of a vocabulary of characters."""
    vocabulary = {token: i for i, token in enumerate(tokens) if types[i] == USER_DEFINED}
    return {
        "pre_tokenizer": CHARACTERS,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }


def _bpe(tokens: list[str], merges: list[list[str]], *, ignore_merges: bool = False) -> Json:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return {"type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": ignore_merges}


def _added(i: int, token: str, *, special: bool) -> Json:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": token, "special": special} | flags


def beginning(token: str, i: int) -> Json:
    """The post-processor that puts bos, the token number i, before a text."""
    first, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    special = {token: {"id": token, "ids": [i], "tokens": [token]}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": special,
    }


def begins_with_bos(tokenizer: Tokenizer) -> bool:
    """Whether it puts bos before every text: other programs then do, and our prompts too (``TokenSpec.start``)."""
    return tokenizer.core.encode("").ids[:1] == [tokenizer.bos]


# ---------------------------------------------------------------------------------------------------- to GGUF


def write(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """The metadata of a GGUF file for this tokenizer; ``vocab_size`` tokens, those that the tokenizer lacks unused.

    BowerbirdError for a tokenizer that llama.cpp could not run.
    """
    table = json.loads(tokenizer.to_json())
    model, rule = table["model"], _rule(table)
    tokens, types = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        # llama.cpp has no vocabularies of characters, but finds user-defined tokens of any spelling in a text.
        tokens[i], types[i] = token, NORMAL if model["type"] == "BPE" else USER_DEFINED
    for one in table["added_tokens"]:
        tokens[one["id"]], types[one["id"]] = one["content"], CONTROL if one["special"] else USER_DEFINED
    merges = [" ".join(pair) for pair in model.get("merges", ())]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges or [""],  # llama.cpp insists on a list, the package gguf on a first entry
        "tokenizer.ggml.bos_token_id": tokenizer.bos,
        "tokenizer.ggml.eos_token_id": tokenizer.eos,
        "tokenizer.ggml.padding_token_id": tokenizer.pad,
        "tokenizer.ggml.add_bos_token": begins_with_bos(tokenizer),
        "tokenizer.ggml.add_space_prefix": False,
    } | ({"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {})


def _rule(table: Json) -> str:
    """The name of the rule by which a tokenizer.json cuts text into words."""
    model, cutting = table["model"], table["pre_tokenizer"]
    if table["normalizer"] is None:
        if model["type"] == "WordLevel" and cutting == CHARACTERS:
            return "gpt-2"
        if model["type"] == "BPE" and not model["merges"] and set(model["vocab"]) == set(byte_names()):
            return "gpt-2"  # bytes that are never merged: any cutting will do
        for name, rule in RULES.items():
            same = _meaning(rule) == _meaning(cutting) and model.get("ignore_merges", False) == (name in WHOLE_WORDS)
            if model["type"] == "BPE" and same:
                return name
    raise BowerbirdError(
        "GGUF cannot carry this tokenizer: it is neither of characters, nor of bytes, nor a byte-level BPE that cuts "
        f"text into words by one of the rules {', '.join(RULES)}; export to huggingface instead."
    )


def _meaning(cutting: Any) -> Any:
    """A pre-tokenizer without what does not change tokens."""
    if isinstance(cutting, Mapping):
        return {key: _meaning(value) for key, value in cutting.items() if key != "trim_offsets"}
    if isinstance(cutting, Sequence) and not isinstance(cutting, str):
        return [_meaning(step) for step in cutting]
    return cutting
