"""A preview: a few samples, written so that a person sees at a glance how a model does.

Images become a sheet (.png), texts a .txt with one sample after the other, translations a .txt that sets them beside
their sources and references, music what one needs to look at and listen to it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bowerbird.data.tokens import TokenData
from bowerbird.media.image.pictures import save_png, sheet
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.sound import write_music
from bowerbird.media.text.tokenizers import Tokenizer
from bowerbird.models.base import GenerativeModel, Translates
from bowerbird.spec import ImageSpec, TokenSpec, to_uint8
from bowerbird.training.rundir import write_atomically


def previewer(data: Any, seed: int) -> Callable[[GenerativeModel, Path], None]:
    """What the trainer is handed to show a model with."""
    return lambda model, stem: write_preview(model, data, stem, seed=seed)


def write_preview(model: GenerativeModel, data: Any, stem: Path, *, seed: int = 0) -> None:
    """Draws ``spec.n_preview`` samples, or translates as many validation sources, into files that begin with ``stem``.

    ``data`` is what ``open_data`` returned for the model's training.
    """
    if isinstance(model, Translates):
        write_text(_translations(model, data), stem.with_suffix(".txt"))
        return
    x = model.sample(data.spec.n_preview, generator=torch.Generator().manual_seed(seed))
    if isinstance(data.spec, ImageSpec):
        save_png(stem.with_suffix(".png"), sheet(to_uint8(x).cpu()))
    else:
        _write_sequences(data.spec, x.cpu(), stem)


def write_real(data: TokenData, stem: Path) -> None:
    """Test examples in the form of a preview."""
    batch = data.evaluation("test").examples.batch(torch.arange(min(data.spec.n_preview, len(data.test))))
    if "source" in batch:
        pairs = zip(texts_of(data.spec, batch["source"]), texts_of(data.spec, batch["x"]), strict=True)
        write_text(["\n".join(pair) for pair in pairs], stem.with_suffix(".txt"))
    else:
        _write_sequences(data.spec, batch["x"], stem)


def _write_sequences(spec: TokenSpec, x: Tensor, stem: Path) -> None:
    if spec.kind in ("grid", "midi"):
        write_music(x[0], MusicCodec.from_json(spec.codec), stem)
    else:
        write_text(texts_of(spec, x), stem.with_suffix(".txt"))


def texts_of(spec: TokenSpec, x: Iterable[Tensor]) -> list[str]:
    """The text of each row of tokens."""
    tokenizer = Tokenizer.from_spec(spec)
    return [tokenizer.decode(row.tolist()) for row in x]


def write_text(texts: list[str], path: Path) -> None:
    """One text after the other, an empty line between them."""
    text = "\n\n".join(text.strip("\n") for text in texts) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def _translations(model: Any, data: Any) -> list[str]:
    batch = data.val.batch(torch.arange(min(len(data.val), data.spec.n_preview)), model.device)
    sources, references = texts_of(data.spec, batch["source"]), texts_of(data.spec, batch["x"])
    tokenizer = Tokenizer.from_spec(data.spec)
    made = [tokenizer.decode(row.tolist()) for row in model.translate(batch["source"])]
    return ["\n".join(lines) for lines in zip(sources, made, references, strict=True)]
