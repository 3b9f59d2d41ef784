"""From sound files to waveforms: one channel, one rate, each with what was done to it or why it is not used.

not used    empty, silent, cut short (the header promises more than is there), damaged, no finite numbers, too long
used        several channels are mixed to one, other rates are resampled; 8-bit and clipped ones are counted
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bowerbird.data import files
from bowerbird.data.kinds import FIRST_BYTES, instead
from bowerbird.data.unused import Unreadable, Unused
from bowerbird.errors import BowerbirdError

SILENT = 1e-4
"""Recordings whose loudest sample is below -80 dB of full scale hold nothing to learn …"""
FULL_SCALE = 0.99
"""… and those with runs of ``RUN`` samples beyond this were cut off above."""
RUN = 4
LONGEST_S = 7200.0
LARGEST_BYTES = 1 << 31
UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)
"""What programs that write WAV into a pipe put where the size belongs."""


class About(NamedTuple):
    """What the header of a file says."""

    rate_hz: int
    n_channels: int
    n_samples: int
    is_8_bit: bool


@dataclass
class Heard:
    """What was found in many files."""

    unused: Unused = field(default_factory=Unused)
    notes: Unused = field(default_factory=Unused)
    """What was done to those that are used, and what they are like."""


@cache
def soundfile() -> Any:
    """The package that decodes sound files."""
    try:
        return import_module("soundfile")
    except (ImportError, OSError) as error:  # OSError: the library that it loads is not there
        raise BowerbirdError("To read recordings: pip install 'bowerbird[speech]', which brings soundfile.") from error


class Reading:
    """Sound files of a source, opened one at a time."""

    def __init__(self, source: files.Files):
        self.source, self.heard = source, Heard()

    def headers(self, names: list[str]) -> dict[str, About]:
        """Of all files whose header can be read; the others are not used."""
        found = {}
        for name in names:
            try:
                with soundfile().SoundFile(io.BytesIO(self._content(name))) as file:
                    found[name] = _about(file)
            except Unreadable as why:
                self.heard.unused.add(f"{why} recording{{s}}", name)
            except soundfile().LibsndfileError:
                content = self._content(name)
                what = instead(content[:FIRST_BYTES]) or f"{'damaged' if content else 'empty'} recording{{s}}"
                self.heard.unused.add(what, name)
        return found

    def waveform(self, name: str, about: About, rate_hz: int) -> Float[np.ndarray, " samples"] | None:
        """One file in one channel, at this rate; None if it is not used, which ``heard`` then says."""
        try:
            samples = _samples(self._content(name))
        except (Unreadable, soundfile().LibsndfileError) as error:
            why = error if isinstance(error, Unreadable) else "damaged"
            self.heard.unused.add(f"{why} recording{{s}}", name)
            return None
        if about.n_channels > 1:
            self.heard.notes.add("recording{s} in several channels, mixed to one", name)
        if about.is_8_bit:
            self.heard.notes.add("recording{s} of 8 bits, whose noise is learnt too", name)
        if is_clipped(samples):
            self.heard.notes.add("clipped recording{s}, whose distortion is learnt too", name)
        if about.rate_hz != rate_hz:
            self.heard.notes.add(f"recording{{s}} of {about.rate_hz:,} Hz, resampled to {rate_hz:,}", name)
        return resampled(_mixed(samples), about.rate_hz, rate_hz)

    def _content(self, name: str) -> bytes:
        try:
            with self.source.open(name) as file:
                content = file.read(LARGEST_BYTES + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise error if isinstance(error, Unreadable) else Unreadable("damaged") from error
        if len(content) > LARGEST_BYTES:
            raise Unreadable("too large")
        return content


def _about(file: Any) -> About:
    if file.frames == 0:
        raise Unreadable("empty")
    if file.frames > LONGEST_S * file.samplerate:
        raise Unreadable("too long (more than two hours)")
    return About(file.samplerate, file.channels, file.frames, file.subtype in ("PCM_U8", "PCM_S8"))


def _samples(content: bytes) -> Float[np.ndarray, "samples channels"]:
    """Of a whole file that holds sound; Unreadable says what else it is."""
    if lacks_its_end(content):
        raise Unreadable("truncated")
    with soundfile().SoundFile(io.BytesIO(content)) as file:
        promised = file.frames
        samples: np.ndarray = file.read(dtype="float32", always_2d=True)
    if len(samples) < promised:
        raise Unreadable("truncated")
    if not np.isfinite(samples).all():
        raise Unreadable("not finite")
    if np.abs(samples - samples.mean(0)).max() < SILENT:
        raise Unreadable("silent")
    return samples


def lacks_its_end(content: bytes) -> bool:
    """Whether a WAV file is shorter than its data chunk says, which decoders overlook."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return False
    at = 12
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        if kind == b"data":
            return size not in UNKNOWN_SIZES and at + 8 + size > len(content)
        at += 8 + size + size % 2
    return True


def is_clipped(samples: Float[np.ndarray, "samples channels"]) -> bool:
    """Whether ``RUN`` samples in a row lie at full scale."""
    beyond = (np.abs(samples) >= FULL_SCALE).any(1)
    run = np.convolve(beyond, np.ones(RUN), "valid") if len(beyond) >= RUN else np.zeros(1)
    return bool(run.max() >= RUN)


def _mixed(samples: Float[np.ndarray, "samples channels"]) -> Float[np.ndarray, " samples"]:
    """The mean of the channels; the first where they cancel out."""
    mixed = samples.mean(1)
    return samples[:, 0] if np.abs(mixed).max() < SILENT else mixed


def resampled(waveform: Float[np.ndarray, " samples"], rate_hz: int, wanted_hz: int) -> Float[np.ndarray, " out"]:
    """By a polyphase filter that keeps what lies below half of both rates."""
    if rate_hz == wanted_hz:
        return waveform
    from scipy.signal import resample_poly  # a second's import, which only those pay who resample

    common = math.gcd(rate_hz, wanted_hz)
    return resample_poly(waveform, wanted_hz // common, rate_hz // common).astype(np.float32)


def pieces(waveform: Float[np.ndarray, " samples"], n: int) -> Iterator[Float[np.ndarray, " n"]]:
    """Pieces of n samples, the last of them shorter; without one that is silent."""
    for start in range(0, len(waveform), n):
        piece = waveform[start : start + n]
        if np.abs(piece).max() >= SILENT:
            yield piece
