"""Decodes every moving picture of a source once, into a pack: a clip of f frames is a picture f times as high.

The frames of a clip lie one below the other in a pack of pictures (``data.packing``), so that clips go there from their
files one by one, never through memory together, and a large pack is mapped.  How many clips a film gives is known when
it has been decoded, so what a killed process has left is made anew.
"""

import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from bowerbird import config
from bowerbird.data import files, packing
from bowerbird.data.kinds import FIRST_BYTES, instead
from bowerbird.data.listing import official_splits
from bowerbird.data.packing import Log, Packed
from bowerbird.data.unused import Unreadable, Unused
from bowerbird.errors import BowerbirdError
from bowerbird.media.video import reading
from bowerbird.media.video.films import av, has_av
from bowerbird.media.video.reading import About, Wanted

LARGEST_DEFAULT_SIZE, SIZE_STEP = 64, 8
STILL = "still picture{s}"
READING = 2
"""The version of the pixels that are made of a file; a pack of another one is made anew."""
SMALL_BYTES = 1 << 20
"""Files that together are smaller than this are decoded in every process: that takes a moment."""


class Gathered(NamedTuple):
    """Clips as tall pictures, and what there is to say about them."""

    clips: Packed
    names: list[str]
    """The file of each clip."""
    unused: Unused
    notes: Unused
    """What was done to files, as reasons."""
    note: str
    """Why they lie in memory, where that was not meant."""


class Gathering:
    """One source of moving pictures and the wish for their frames, rate, size and colour."""

    def __init__(self, path: Path, source: files.Files, listed: list[str], data: config.Data):
        self.path, self.source, self.listed, self.data = path, source, listed, data
        self.stamps = files.stamps(source, listed)
        self.names: list[str] = []
        self.unused, self.notes = Unused(), Unused()

    def gathered(self) -> Gathered:
        """From the cache, or made now; BowerbirdError if it fits nowhere, or nothing can be read."""
        if sum(stamp[0] for stamp in self.stamps) < SMALL_BYTES:
            found, note = self._decoded(Log(io.BytesIO()), None), ""
        else:
            found, note = packing.cached(self._key(), self._decoded)
        said = json.loads(found.note)
        return Gathered(found, said["names"], Unused(**said["unused"]), Unused(**said["notes"]), note)

    def _key(self) -> str:
        """A hash of all that the pixels follow from, without reading any of them."""
        wish = (self.data.size, self.data.channels, self.data.video)
        tools = (READING, packing.VERSION, PIL.__version__, has_av() and av().__version__)
        where = self.path.resolve() if self.path.is_dir() else self.path.name
        listed = "\n".join(f"{name}\0{stamp}" for name, stamp in zip(self.listed, self.stamps, strict=True))
        said = f"clips {wish} {tools} {where}\n{listed}"
        return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:32]

    def _decoded(self, log: Log, folder: Path | None) -> Packed:
        self.names, self.unused, self.notes = [], Unused(), Unused()
        headers = {name: about for name in self.listed if (about := self._about(name))}
        if not headers:
            hint = (
                " To make a clip of the frames in a folder, join them into one GIF or film."
                if STILL in self.unused.counts
                else ""
            )
            raise BowerbirdError(
                f"None of the {len(self.listed):,} files in {self.path} is a clip: {self.unused}.{hint}"
            )
        wanted = self._wanted([*headers.values()])
        self._fits(len(headers), wanted, folder)
        log.begin(0, 0)
        log.begin(wanted.n_frames * wanted.height, wanted.width)
        what = f"{self.path.name}: decoding {len(headers):,} clips"
        for name, about in packing.shown(headers.items(), what, len(headers), folder):
            self._take(name, about, wanted, log)
        said = {"names": self.names, "unused": asdict(self.unused), "notes": asdict(self.notes)}
        official = official_splits(self.names)
        return packing.packed(log, self.names, lambda clip: clip, official, slice(None), folder, json.dumps(said))

    def _about(self, name: str) -> About | None:
        content = b""
        try:
            content = reading.content(self.source, name)
            return reading.about(name, content)
        except Unreadable as why:
            what = STILL if str(why) == "still" else f"{why} file{{s}}"
            self.unused.add(instead(content[:FIRST_BYTES]) or what, name)
            return None

    def _wanted(self, headers: list[About]) -> Wanted:
        video, colours = self.data.video, sum(one.in_colour for one in headers)
        height, width = _size([(one.height, one.width) for one in headers], self.data.size)
        channels = {"auto": 3 if 2 * colours > len(headers) else 1, "grey": 1, "rgb": 3}[self.data.channels]
        pieces = video.longer == "pieces"
        return Wanted(video.frames, video.rate_hz, height, width, channels, pieces, video.shorter == "loop")

    def _take(self, name: str, about: About, wanted: Wanted, log: Log) -> None:
        clips, was_cut = reading.clips(name, reading.content(self.source, name), wanted)
        for clip in clips:
            log.append((about.height, about.width), tall(clip[None])[0])
            self.names.append(name)
        seconds = wanted.n_frames / wanted.rate_hz
        if was_cut:
            self.notes.add(f"longer than {seconds:g} s, cut at the end", name)
        if about.seconds < seconds - 1 / wanted.rate_hz:
            what = "play again from the beginning" if wanted.loops else "stay at the last frame"
            self.notes.add(f"shorter than {seconds:g} s, which {what}", name)
        if not about.regular:
            self.notes.add("with frames that last differently long, brought to one rate", name)
        if about.has_alpha:
            self.notes.add("with transparency, laid on white", name)

    def _fits(self, n_files: int, wanted: Wanted, folder: Path | None) -> None:
        n_bytes = 2 * n_files * wanted.n_frames * wanted.height * wanted.width * wanted.n_channels
        what = f"At {wanted.width}x{wanted.height} the {n_files:,} clips of {self.path}"
        packing.require_room(n_bytes, folder, what, "a smaller --data.size or --data.video.frames")


def tall(clips: np.ndarray) -> np.ndarray:
    """Clips (n, f, h, w, c) as pictures (n, f·h, w, c), their frames one below the other."""
    n, frames, height, width, channels = clips.shape
    return clips.reshape(n, frames * height, width, channels)


def _size(sizes: list[tuple[int, int]], side: int | None) -> tuple[int, int]:
    """(height, width): as asked for; as stored when all agree and are small; else a square as large as most are."""
    if side:
        return side, side
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_DEFAULT_SIZE:
        return sizes[0]
    median = int(np.median([min(size) for size in sizes]))
    chosen = min(LARGEST_DEFAULT_SIZE, median - median % SIZE_STEP or median)
    return chosen, chosen
