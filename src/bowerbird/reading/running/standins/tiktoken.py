"""Encodings of text as tokens, one for each byte, where the vocabularies would be downloaded."""

from collections.abc import Iterable
from typing import Any


class Encoding:
    """Bytes as tokens; ``n_vocab`` says what the real vocabulary holds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_vocab = 100_277 if "100k" in name else 50_257
        self.max_token_value = self.n_vocab - 1
        self.eot_token = 256

    def encode(self, text: str, **_: Any) -> list[int]:
        """The bytes of a text."""
        return list(text.encode("utf-8"))

    encode_ordinary = encode

    def encode_batch(self, texts: Iterable[str], **_: Any) -> list[list[int]]:
        """The bytes of each text."""
        return [self.encode(text) for text in texts]

    def encode_single_token(self, text: str) -> int:
        """The first byte."""
        return self.encode(text)[0]

    def decode(self, tokens: Iterable[int], **_: Any) -> str:
        """The text of tokens that are bytes; others are left out."""
        return bytes(int(token) for token in tokens if 0 <= int(token) < 256).decode("utf-8", errors="replace")

    def decode_single_token_bytes(self, token: int) -> bytes:
        """One byte."""
        return bytes([int(token) % 256])


def get_encoding(name: str) -> Encoding:
    """The encoding of this name."""
    return Encoding(name)


def encoding_for_model(model: str) -> Encoding:
    """The encoding of a model."""
    return Encoding("cl100k_base" if model.startswith(("gpt-3", "gpt-4")) else "gpt2")
