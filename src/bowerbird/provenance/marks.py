"""Looks for watermarks: in a picture's pixels, in the noise that a run made it of, in the words of a text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Inverts
from bowerbird.provenance import containers, spectrum, written
from bowerbird.provenance.verdict import Layer
from bowerbird.samplers import greenlist, noisemark
from bowerbird.spec import Tensors, Tokens
from bowerbird.training.rundir import RunDir, load_model


def in_pixels(shown: Any) -> Iterator[Layer]:
    """The pattern in a picture's pixels, that of this user's key and the public one."""
    if min(shown.size) < spectrum.SMALLEST_READ:
        yield Layer("watermark", "unknown", f"pictures below {spectrum.SMALLEST_READ} pixels are too small to show one")
        return
    pixels = spectrum.middle(np.asarray(shown))
    seen = [spectrum.detect(pixels, key) for key in dict.fromkeys((greenlist.own_key(), greenlist.PUBLIC_KEY))]
    best = max(seen)
    details = {"z": round(best.z, 2), "threshold": round(best.threshold, 2)}
    says = f"z = {best.z:.1f}; by chance above {best.threshold:.1f} once in {1 / spectrum.FALSE_ALARMS:,.0f} pictures"
    yield Layer("watermark", "ours" if best.found else "unknown", f"{'' if best.found else 'none: '}{says}", details)


def in_noise(shown: Any, run: Path) -> Iterator[Layer]:
    """The mark in the noise that a run's model would have made a picture of; ``shown`` None: the file is none."""
    rundir = RunDir.open(run)
    if shown is None or not rundir.model_file.is_file():
        return
    shape = rundir.spec_of(rundir.model_file).target
    if not isinstance(shape, Tensors) or shown.size != shape.shape[:0:-1]:
        return
    model, _ = load_model(run)
    if not isinstance(model, Inverts):
        return
    pixels = np.asarray(shown.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[shape.shape[0]]), np.float32)
    x = torch.from_numpy(pixels / 127.5 - 1).reshape(shape.shape[1], shape.shape[2], -1).permute(2, 0, 1)[None]
    noise = torch.cat([model.noise_of(one) for one in (x, x.flip(-1))])
    largest = max(float(noisemark.z(noise, key).max()) for key in (greenlist.own_key(), greenlist.PUBLIC_KEY))
    found = largest > noisemark.threshold()
    says = f"z = {largest:.1f} with {run}; by chance above {noisemark.threshold():.1f} once in 1,000,000 pictures"
    details = {"run": str(run), "z": round(largest, 2), "threshold": round(noisemark.threshold(), 2)}
    yield Layer("watermark in noise", "ours" if found else "unknown", f"{'' if found else 'none: '}{says}", details)


def in_words(data: bytes, run: Path) -> Iterator[Layer]:
    """Green tokens in a text, as a run's own tokenizer splits it."""
    rundir = RunDir.open(run)
    if containers.kind_of(data) is not None or not containers.is_text(data) or not rundir.model_file.is_file():
        return
    spec = rundir.spec_of(rundir.model_file)
    if spec.medium != "text" or not isinstance(spec.target, Tokens):
        return
    tokenizer, texts = Tokenizer.from_spec(spec), [str(row["text"]) for row in written.rows(data) if "text" in row]
    text = "\n".join(texts) or data.decode("utf-8", "replace")
    tokens, n_unknown = _tokens(text, tokenizer)
    seen = [greenlist.score(tokens, key) for key in dict.fromkeys((greenlist.own_key(), greenlist.PUBLIC_KEY))]
    best = min(seen, key=lambda score: score.p)
    says = f"{best.green} of {best.tokens} tokens of {run} are green, z = {best.z:.1f}, by chance with p = {best.p:.1g}"
    if best.tokens < greenlist.FEWEST:
        says = f"{best.tokens} tokens are too few; {greenlist.FEWEST} are needed"
    if n_unknown:
        says += f"; {n_unknown:,} of {len(text):,} characters are not in its vocabulary and were left out"
    details = {"run": str(run), "tokens": best.tokens, "green": best.green, "z": round(best.z, 2), "p": best.p}
    details["characters_left_out"] = n_unknown
    yield Layer("watermark in words", "ours" if best.found else "unknown", says, details)


def _tokens(text: str, tokenizer: Tokenizer) -> tuple[torch.Tensor, int]:
    """A text's tokens, and how many characters were left out because the tokenizer does not know them."""
    known = text if _knows(tokenizer, text) else "".join(filter(_known_characters(text, tokenizer).__contains__, text))
    return torch.tensor(tokenizer.encode(known), dtype=torch.long), len(text) - len(known)


def _known_characters(text: str, tokenizer: Tokenizer) -> set[str]:
    return {character for character in set(text) if _knows(tokenizer, character)}


def _knows(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except BowerbirdError:
        return False
    return True
