"""Clips as files: GIF, WebP without loss, MP4, and a strip of the frames side by side.

GIF     256 colours, chosen once for the whole clip; times are whole hundredths of a second
WebP    every pixel as it was generated
MP4     H.264 with colours at half the resolution (4:2:0), sides padded to even ones; needs PyAV
"""

import io
import json
import tempfile
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from bowerbird.errors import BowerbirdError
from bowerbird.spec import Spec

GAP = 1
"""Pixels between the frames of a strip."""
PAPER = 38
SCALED_TO = 64
"""Small frames are enlarged by the largest whole number that keeps their longer side within this many pixels."""
CRF = "17"
"""H.264: about where loss becomes visible."""


@cache
def av() -> Any:
    """The package that decodes and encodes films."""
    try:
        found = import_module("av")
    except ImportError as error:
        raise BowerbirdError("To read films such as MP4: pip install 'bowerbird[video]', which brings PyAV.") from error
    found.logging.set_level(None)  # what is wrong with a file is counted, not printed
    return found


def has_av() -> bool:
    try:
        return bool(av())
    except BowerbirdError:
        return False


def rate_hz(spec: Spec) -> float:
    """Frames per second of the clips of a spec."""
    return float(json.loads(spec.codec)["video"]["rate_hz"])


def codec(rate: float, tokenizer: str = "") -> str:
    """The rate of clips, beside the tokenizer of captions where there are any, as a spec keeps it."""
    return json.dumps({"video": {"rate_hz": rate}} | ({"tokenizer": tokenizer} if tokenizer else {}))


def pictures(clip: UInt8[np.ndarray, "f h w c"]) -> list[Image.Image]:
    """Its frames, each pixel as a square where they are small."""
    scale = max(1, SCALED_TO // max(clip.shape[1:3]))
    return as_images(clip.repeat(scale, 1).repeat(scale, 2))


def as_images(clip: UInt8[np.ndarray, "f h w c"]) -> list[Image.Image]:
    """Its frames as they are."""
    return [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in clip]


def files(frames: list[Image.Image], rate: float) -> dict[str, bytes]:
    """All files of a clip, by suffix; the strip is a picture."""
    written = {".gif": gif(frames, rate), ".webp": webp(frames, rate), ".png": _png(strip(frames))}
    return written | ({".mp4": mp4(frames, rate)} if has_av() else {})


def _png(picture: Image.Image) -> bytes:
    from bowerbird.data.writing import png_bytes

    return png_bytes(picture)


def strip(frames: list[Image.Image]) -> Image.Image:
    """The frames side by side."""
    width, height = frames[0].size
    mode = frames[0].mode
    paper = Image.new(mode, (len(frames) * (width + GAP) - GAP, height), PAPER if mode == "L" else (PAPER,) * 3)
    for i, frame in enumerate(frames):
        paper.paste(frame, (i * (width + GAP), 0))
    return paper


def durations(n: int, rate: float) -> list[int]:
    """Milliseconds of each frame, in whole hundredths of a second that add up to those of the clip."""
    ends = [round(100 * (k + 1) / rate) for k in range(n)]
    return [10 * max(1, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def gif(frames: list[Image.Image], rate: float) -> bytes:
    """An animation that runs for ever, in the 256 colours that suit all its frames best."""
    buffer = io.BytesIO()
    if frames[0].mode == "RGB":
        palette = strip(frames).quantize(256, Image.Quantize.MEDIANCUT)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    first, *others = frames
    first.save(
        buffer, "GIF", save_all=True, append_images=others, duration=durations(len(frames), rate), loop=0, disposal=1
    )
    return buffer.getvalue()


def webp(frames: list[Image.Image], rate: float) -> bytes:
    """An animation that runs for ever, without loss."""
    buffer = io.BytesIO()
    first, *others = [frame.convert("RGB") for frame in frames]
    how = {"lossless": True, "quality": 80, "method": 4}
    first.save(buffer, "WEBP", save_all=True, append_images=others, duration=round(1000 / rate), loop=0, **how)
    return buffer.getvalue()


def mp4(frames: list[Image.Image], rate: float) -> bytes:
    """H.264 in MP4, which every browser plays; encoded by one thread, so that bytes repeat."""
    with tempfile.TemporaryDirectory(prefix="bowerbird-") as folder:  # the index can be put first in a file alone
        path = Path(folder) / "film.mp4"
        with av().open(str(path), "w", options={"movflags": "+faststart"}) as container:
            _encode(container, frames, rate)
        return path.read_bytes()


def _encode(container: Any, frames: list[Image.Image], rate: float) -> None:
    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
    width, height = (side + side % 2 for side in frames[0].size)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    stream.options = {"crf": CRF}
    for frame in frames:
        even = np.asarray(frame.convert("RGB"))
        even = np.pad(even, ((0, height - even.shape[0]), (0, width - even.shape[1]), (0, 0)), "edge")
        container.mux(stream.encode(av().VideoFrame.from_ndarray(even, "rgb24")))
    container.mux(stream.encode())
