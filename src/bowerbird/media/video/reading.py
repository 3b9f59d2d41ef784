"""From files to frames: what a file shows at given times, in one size, or why it cannot be used.

Times in a file need not be regular: a frame lasts until the next one, so frame k of a clip is the last one that begins
at or before k / rate.  Transparency is laid on white.  Frames that nobody asked for are decoded and thrown away one by
one, so memory does not grow with length or size of a film.

not used    empty, damaged or truncated, one frame alone, larger than ``LARGEST_SIDE``
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from bowerbird.data import files
from bowerbird.data.names import suffix
from bowerbird.data.unused import Unreadable
from bowerbird.media.video.films import av

LARGEST_SIDE = 8192
LARGEST_BYTES = 1 << 31
STILL_MS = 100
"""What browsers make of frames that state no time, or less than 20 ms …"""
LEAST_MS = 20
LONGEST_S = 3600.0
ANIMATIONS = (".gif", ".webp", ".png", ".apng", ".avif")
TOL = 1e-3
"""Part of a frame: times in files are rounded to milliseconds."""
TURNS = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""By the signs of a display matrix."""
Frames = UInt8[np.ndarray, "f h w c"]


class Shown(NamedTuple):
    """A frame of a file."""

    begins_s: float
    lasts_s: float
    image: Image.Image


class About(NamedTuple):
    """What is known of a file before it is used."""

    width: int
    height: int
    in_colour: bool
    has_alpha: bool
    regular: bool
    """Whether all of its frames last equally long."""
    seconds: float


def content(source: files.Files, name: str) -> bytes:
    """The bytes of a file; Unreadable if it is empty, damaged or too large."""
    try:
        with source.open(name) as file:
            found = file.read(LARGEST_BYTES + 1)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable("damaged") from error
    if not found:
        raise Unreadable("empty")
    if len(found) > LARGEST_BYTES:
        raise Unreadable("too large")
    return found


def shown(name: str, raw: bytes) -> Iterator[Shown]:
    """The frames of a file in their order; Unreadable, maybe after some of them, for what is wrong with it."""
    if suffix(name) in ANIMATIONS:
        return _of_animation(raw)
    return _of_film(raw)


def _of_animation(raw: bytes) -> Iterator[Shown]:
    begins = 0
    try:
        with Image.open(io.BytesIO(raw)) as file:
            _bounded(*file.size)
            n_frames = getattr(file, "n_frames", 1)
            if n_frames == 1:
                raise Unreadable("still")
            for number in range(n_frames):
                file.seek(number)
                image = file.convert("RGBA" if file.has_transparency_data else "RGB" if file.mode != "L" else "L")
                stated = file.info.get("duration", 0)  # of the frame that was decoded last
                lasts = stated if stated >= LEAST_MS else STILL_MS
                yield Shown(begins / 1000, lasts / 1000, image)
                begins += lasts
    except Unreadable:
        raise
    except Exception as error:  # decoders answer a broken file with almost any exception
        raise Unreadable("damaged or truncated") from error


def _of_film(raw: bytes) -> Iterator[Shown]:
    try:
        with av().open(io.BytesIO(raw)) as container:
            if not container.streams.video:
                raise Unreadable("without a picture")
            stream = container.streams.video[0]
            stream.thread_count = 1
            _bounded(stream.width, stream.height)
            usual = float(1 / stream.average_rate) if stream.average_rate else STILL_MS / 1000
            yield from _timed(container.decode(stream), usual, _promised_s(stream, container))
    except av().FFmpegError as error:
        raise Unreadable("damaged or truncated") from error


def _promised_s(stream: Any, container: Any) -> float:
    """How long the film says that it is; 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _timed(decoded: Iterator[Any], usual_s: float, promised_s: float) -> Iterator[Shown]:
    """Each frame with how long it lasts, which the beginning of the next one says."""
    held, first = None, None
    for frame in decoded:
        first = frame.time if first is None else first
        begins = (frame.time or 0.0) - (first or 0.0)
        if held is not None:
            yield held._replace(lasts_s=max(0.0, begins - held.begins_s))
        held = Shown(begins, usual_s, _image(frame))
    if held is None or held.begins_s == 0:
        raise Unreadable("empty" if held is None else "still")
    yield held
    if held.begins_s + held.lasts_s < promised_s - 2 * usual_s - 0.5:
        raise Unreadable("damaged or truncated")


def _image(frame: Any) -> Image.Image:
    """One decoded frame as players show it, with its alpha where the film has any."""
    has_alpha = any(part.is_alpha for part in frame.format.components)
    stored = Image.fromarray(frame.to_ndarray(format="rgba" if has_alpha else "rgb24"))
    turn = _turn(frame)
    return stored if turn is None else stored.transpose(turn)


def _turn(frame: Any) -> Image.Transpose | None:
    """How a frame is turned or mirrored to be shown, as phones write it.

    The display matrix (a b u, c d v, x y w) takes a pixel at (x, y) to (a x + c y, b x + d y); of a, b, c, d the signs
    are needed alone.  Other angles than multiples of 90 degrees are left as they are.
    """
    for part in frame.side_data:
        if part.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = np.sign(np.frombuffer(part, np.int32)).tolist()
            return TURNS.get((a, b, c, d))
    return None


def _bounded(width: int, height: int) -> None:
    if max(width, height) > LARGEST_SIDE:
        raise Unreadable(f"too large (a side of more than {LARGEST_SIDE:,} pixels)")


def about(name: str, raw: bytes) -> About:
    """What its first frames say, and how long it lasts in all; every frame is decoded once."""
    first, lasting, seconds = None, set(), 0.0
    in_colour = has_alpha = False
    for number, one in enumerate(shown(name, raw)):
        if first is None:
            first = one.image.size
        if number % 8 == 0:
            in_colour |= _in_colour(one.image)
        has_alpha |= one.image.mode == "RGBA"
        lasting.add(round(one.lasts_s, 2))
        seconds = one.begins_s + one.lasts_s
    assert first is not None
    if seconds > LONGEST_S:
        raise Unreadable("too long (more than an hour)")
    return About(*first, in_colour, has_alpha, max(lasting) - min(lasting) < 0.02, seconds)


def _in_colour(image: Image.Image) -> bool:
    """Whether channels differ by more than a film's coding of grey makes them differ."""
    small = np.asarray(on_white(image).resize((32, 32))).astype(int)
    return bool(np.ptp(small, axis=-1).max() > 16)


def on_white(image: Image.Image) -> Image.Image:
    """RGB, with white where a picture is transparent."""
    if image.mode == "RGBA":
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image)
        return paper.convert("RGB")
    return image.convert("RGB")


def fitted(image: Image.Image, height: int, width: int, n_channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The middle of a picture in this size: cut to its proportions, reduced by Lanczos' filter, laid on white."""
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    image = on_white(image)
    return np.asarray(image.convert("L"))[..., None] if n_channels == 1 else np.asarray(image)


class Wanted(NamedTuple):
    """The clips that are to be made of each file."""

    n_frames: int
    rate_hz: float
    height: int
    width: int
    n_channels: int
    in_pieces: bool
    loops: bool


def clips(name: str, raw: bytes, wanted: Wanted) -> tuple[list[Frames], bool]:
    """The clips of a file, and whether something of it was left out at its end."""
    n = wanted.n_frames
    frames: list[np.ndarray] = []
    for one in shown(name, raw):
        due = math.ceil((one.begins_s + one.lasts_s) * wanted.rate_hz - TOL) - len(frames)
        if due > 0:
            frames += [fitted(one.image, wanted.height, wanted.width, wanted.n_channels)] * due
        if not wanted.in_pieces and len(frames) > n:
            break
    if wanted.in_pieces and len(frames) > n:
        return [np.stack(frames[i : i + n]) for i in range(0, len(frames) - n + 1, n)], len(frames) % n > 0
    return [np.stack(_filled(frames, n, wanted.loops))], len(frames) > n


def _filled(frames: list[np.ndarray], n: int, loops: bool) -> list[np.ndarray]:
    """As many frames as a clip has: from the beginning again, or the last one held."""
    missing = max(0, n - len(frames))
    again = (frames * -(-n // len(frames)))[len(frames) : n] if loops else [frames[-1]] * missing
    return (frames + again)[:n]
