"""What is known about each file, in the form that a model can be given: one class, several attributes, captions."""

from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bowerbird import config
from bowerbird.data import tokenizers
from bowerbird.data.metadata import MISSING
from bowerbird.data.names import natural
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.unused import Unused
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.spec import Classes, Field, Tokens

LABEL = "label"
DEFAULT_LABELS = ("folder", LABEL, "class")
"""The label is the first of these columns that sorts the examples into classes."""
CAPTION_VOCABULARY = 2048
"""The largest vocabulary that a caption tokenizer learns."""
LONGEST_CAPTION = 64
"""In tokens; the rest is cut off."""


class Collected(Protocol):
    """A source after decoding: its name, and columns of strings (n,) about its n examples."""

    name: str
    thing: str
    """What an example is, in a word."""
    columns: dict[str, np.ndarray]
    origins: dict[str, str]
    """Where each column comes from, in words."""
    unused: Unused
    """What was seen and not used."""

    def column(self, name: str) -> np.ndarray:
        """BowerbirdError where there is none of this name."""


def no_column(found: Collected, name: str, *also: str) -> BowerbirdError:
    """The error for a column that a source does not have; ``also`` can be named beside its columns."""
    if found.columns:
        return unknown(f"column of {found.name}", name, [*found.columns, *also])
    seen = f" Not used: {found.unused}." if found.unused else ""
    return BowerbirdError(
        f"{found.name} has no column '{name}'. Columns come from sub-folders, from metadata.csv, .tsv, .jsonl or "
        f".parquet, and from text files beside the {found.thing}s.{seen}"
    )


class Columns(NamedTuple):
    """What each example comes with."""

    fields: dict[str, Field]
    values: dict[str, np.ndarray]
    """One row for each example."""
    codec: str = ""
    """The caption tokenizer as JSON."""
    wordings: dict[str, np.ndarray] = {}
    """Captions that can be said in other words: tokens (n, wording, length)."""


def given_columns(found: Collected, data: config.Data, in_training: np.ndarray) -> Columns:
    """The fields, their values, and the tokenizer of the captions.

    ``data.given`` names columns: those with few values become attributes, those with texts captions.  Without it, the
    label is the only field.  Class frequencies and the tokenizer come from the training examples alone.
    """
    if not data.given:
        names, numbers = choose_label(found, data.label)
        return Columns({LABEL: _classes(names, numbers, in_training)}, {LABEL: numbers}) if names else Columns({}, {})
    fields: dict[str, Field] = {}
    values: dict[str, np.ndarray] = {}
    captions = {}
    for name in data.given:
        column = found.column(name)
        if name in data.wordings or _is_text(column[_is_said(column)]):
            captions[name] = np.where(_is_said(column), column, "").tolist()
        else:
            names, values[name] = _numbered(column)
            fields[name] = _classes(names, values[name], in_training)
    ways = {name: found.column(name).tolist() for name in data.wordings}
    own = [name for name in captions if name in ways]
    if ways and len(own) != 1:
        raise BowerbirdError(
            f"--data.wordings are those of one caption, but --data.given names {len(own)} of them; name one in both."
        )
    if not captions:
        return Columns(fields, values)
    tokenizer = _tokenizer(captions | ways, data, in_training)
    for name, texts in captions.items():
        fields[name], values[name] = tokenized(texts, tokenizer)
    return Columns(fields, values, tokenizer.to_json(), {name: _wordings(ways, name, tokenizer) for name in own})


def _wordings(ways: dict[str, list[str]], own: str, tokenizer: Tokenizer) -> np.ndarray:
    """Tokens (n, wording, length); an empty text gives way to the caption of the column ``own``."""
    said = [text or caption for way in ways.values() for text, caption in zip(way, ways[own], strict=True)]
    _, rows = tokenized(said, tokenizer)
    return rows.reshape(len(ways), len(ways[own]), -1).swapaxes(0, 1)


def choose_label(found: Collected, column: str | None) -> tuple[list[str], np.ndarray]:
    """Class names in natural order and the class number of each example; no names if nothing tells them apart."""
    name = label_column(found, column)
    return _numbered(found.columns[name]) if name else ([], np.zeros(0, np.int64))


def label_column(found: Collected, column: str | None) -> str:
    """The column that is the label: the one asked for, or the first that sorts all into classes; "" for none."""
    if column is not None and column not in found.columns:
        known = ", ".join(found.columns) or "none, since it has neither sub-folders nor metadata"
        raise BowerbirdError(f"{found.name} has no label column '{column}'; its columns: {known}.")
    for name in DEFAULT_LABELS if column is None else (column,):
        if name not in found.columns:
            continue
        n_values, n = len(np.unique(found.columns[name])), len(found.columns[name])
        if _is_identity(n_values, n):
            if column is not None:
                raise BowerbirdError(
                    f"The column '{column}' of {found.name} has {n_values} values for {n} {found.thing}s: "
                    "too many to be classes."
                )
        elif n_values > 1 or column is not None:
            return name
    return ""


def label_origin(found: Collected, data: config.Data) -> str:
    """Where the label comes from, such as "folders"; "" if there is none, or the set is not of files."""
    name = "" if data.given else label_column(found, data.label)
    origin = found.origins.get(name, "")
    return f"{origin}, column {name}" if name not in ("folder", LABEL, "") and origin else origin


def _numbered(column: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The values in natural order, and the number of each row's."""
    values, numbers = np.unique(column, return_inverse=True)
    order = sorted(range(len(values)), key=lambda i: natural(str(values[i])))
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values))
    return [str(values[i]) for i in order], rank[numbers]


def _classes(names: list[str], numbers: np.ndarray, in_training: np.ndarray) -> Classes:
    return Classes(tuple(names), tuple(np.bincount(numbers[in_training], minlength=len(names)).tolist()))


def _is_identity(n_values: int, n: int) -> bool:
    """Whether a column names examples (an identifier, a caption) rather than classes."""
    return n >= 20 and n_values > n / 2


MOST_ATTRIBUTES = 256
"""The most values of an attribute; a column with more holds texts, and so does one that differs for most examples."""


def _has_words(value: str) -> bool:
    """Whether a value has several words; Chinese and Japanese have no spaces between them."""
    return " " in value.strip() or (len(value) > 4 and not value.isascii())


def _is_said(column: np.ndarray) -> np.ndarray:
    """Of which examples a column says something."""
    return (column != "") & (column != MISSING)


def _is_text(column: np.ndarray) -> bool:
    """Whether the values of those examples that have one are texts."""
    n_values = len(np.unique(column))
    if n_values == len(column) > 1 and all(map(_has_words, column.tolist())):
        return True  # of few examples too
    return n_values > MOST_ATTRIBUTES or _is_identity(n_values, len(column))


def _tokenizer(captions: dict[str, list[str]], data: config.Data, in_training: np.ndarray) -> Tokenizer:
    kind = "bpe" if data.text.tokenizer == "auto" else data.text.tokenizer
    every = [text for texts in captions.values() for text in texts]
    training = [texts[row] for texts in captions.values() for row in np.flatnonzero(in_training)]
    size = min(data.text.vocab_size, CAPTION_VOCABULARY)
    return tokenizers.chosen(kind, training, every, size, tokenizers.SPECIALS)


def tokenized(texts: list[str], tokenizer: Tokenizer) -> tuple[Tokens, np.ndarray]:
    """The captions as tokens, each ending in eos, padded at the end to the longest."""
    ids, begin = tokenizer.encode_all(texts)
    said = [ids[i : min(j, i + LONGEST_CAPTION - 1)].tolist() for i, j in pairwise(begin)]
    rows = [torch.tensor([*tokens, tokenizer.eos]) for tokens in said]
    padded: Tensor = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad)
    field = Tokens(tokenizer.vocab_size, LONGEST_CAPTION, tokenizer.bos, tokenizer.eos, tokenizer.pad)
    return field, padded.numpy()
