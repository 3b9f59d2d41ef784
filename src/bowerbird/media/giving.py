"""Turns what a user gives, in words and files, into the tensors that a model takes.

a class     its name                                    hair=short09
tokens      a text, by the run's own tokenizer          a prompt, a caption, a sentence to translate
a picture   a file, or a folder of files                resized to what the model takes
a sound     a file, or a folder of files                as its spectrogram
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image.supplied import supplied
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.media.speech.supplied import supplied as sounds
from bowerbird.spec import NO_TOKEN, Classes, Spec, Tensors, Tokens


def read_given(spec: Spec, words: Mapping[str, Any], n: int | None) -> tuple[dict[str, Tensor], int | None, list[str]]:
    """Tensors for a model of this spec, how many samples they are for, and the names of the files they come from.

    A value applies to all samples, or is a sequence with one value per sample; with n None, the longest sets n.
    BowerbirdError for names that the model does not know, with the nearest ones.
    """
    found: dict[str, Tensor] = {}
    names: list[str] = []
    for name, value in words.items():
        key = _field(spec, name)
        found[key], files_read = _values(spec, key, value)
        names = files_read or names
    lengths = {len(value) for value in found.values() if len(value) > 1}
    if len(lengths) > 1:
        counts = " and ".join(map(str, sorted(lengths)))
        raise BowerbirdError(f"The inputs have {counts} values; give one value each, or equally many.")
    n = n if n is not None else max(lengths, default=len(names) or None)
    if names and n is not None and n != len(names):
        names = [names[i % len(names)] + (f"-{i // len(names)}" if i >= len(names) else "") for i in range(n)]
    if n is None:
        return found, None, names
    if not names and lengths and lengths != {n}:
        raise BowerbirdError(
            f"{min(lengths)} values are given for {n} samples; give one value for all, or one for each."
        )
    return {key: _repeated(value, n) for key, value in found.items()}, n, names


def _field(spec: Spec, name: str) -> str:
    """The name of what is given; "prompt" and "source" stand for whatever text or picture the model takes."""
    if name in spec.given and (name != "prompt" or spec.medium == "text"):
        return name
    kind: Any = {"prompt": Tokens, "source": Tensors}.get(name)
    alike = [key for key, field in spec.given.items() if kind and isinstance(field, kind) and key != name]
    if alike:
        return alike[0]
    if name == "prompt":
        raise BowerbirdError(f"--prompt does not apply: this run makes {_made(spec)} without a text prompt.")
    if name == "source":
        raise BowerbirdError(f"--source does not apply: this run makes {_made(spec)} without a source picture.")
    if not spec.given.keys() - {"prompt"}:
        raise BowerbirdError(f"This run was trained without labels, so '{name}' does not apply.")
    raise unknown("input", name, [key for key in spec.given if key != "prompt"])


def _made(spec: Spec) -> str:
    return {"image": "images", "text": "text"}.get(spec.medium, spec.medium)


def _repeated(value: Tensor, n: int) -> Tensor:
    return value[torch.arange(n) % len(value)]


def _values(spec: Spec, name: str, value: Any) -> tuple[Tensor, list[str]]:
    field = spec.given[name]
    if isinstance(value, Tensor):
        return value, []
    several = list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if isinstance(value, np.ndarray) and value.ndim == 4:  # pictures in one array (n, h, w, c)
        several = list(value)
    if isinstance(field, Classes):
        return torch.tensor([_class_number(name, field, one) for one in several]), []
    if isinstance(field, Tokens):
        return _tokens(spec, name, field, [str(one) for one in several]), []
    if spec.medium == "speech":
        return sounds(several, Mel.from_json(spec.codec))
    return supplied(several, field.shape)


def _class_number(name: str, field: Classes, value: Any) -> int:
    if isinstance(value, int) and 0 <= value < len(field.names):
        return value
    if str(value) not in field.names:
        raise unknown(name, str(value), field.names)
    return field.names.index(str(value))


# ------------------------------------------------------------------------------------------------------------- tokens


def encode_prompt(spec: Spec, tokenizer: Tokenizer, text: str) -> Tensor:
    """The tokens that a completion of ``text`` begins with."""
    target: Any = spec.target
    start = [target.bos] if target.start == (target.bos,) else []
    return torch.tensor(start + tokenizer.encode(text) if text else list(target.start))


def _tokens(spec: Spec, name: str, field: Tokens, texts: list[str]) -> Tensor:
    tokenizer = Tokenizer.from_spec(spec)
    if name == "prompt":
        rows, pad = [encode_prompt(spec, tokenizer, text) for text in texts], NO_TOKEN
    else:
        rows, pad = [torch.tensor([*tokenizer.encode(text), field.eos]) for text in texts], field.pad
        for text, row in zip(texts, rows, strict=True):
            if len(row) == 1 or not text.strip():
                raise BowerbirdError(f"The {name} is empty; say what, with --prompt TEXT.")
            if len(row) > field.context:
                raise BowerbirdError(
                    f"The {name} '{text[:30]}…' has {len(row)} tokens; this model reads at most {field.context}."
                )
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
