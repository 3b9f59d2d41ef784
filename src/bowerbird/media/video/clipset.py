"""Clips as data: three splits of uint8 frames of one size, number and rate, with what is known about each clip.

Which clip lies in which split is decided by its content (``data.split``), unless folders say it.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bowerbird import config, machine
from bowerbird.data import builtin, catalogue, fetch, files, packs, split
from bowerbird.data.columns import LABEL, Columns, given_columns, label_origin
from bowerbird.data.listing import BESIDE, CAPTIONS, Listing, official_splits
from bowerbird.data.metadata import CAPTION, described
from bowerbird.data.names import base, naturally, printable, suffix, visible
from bowerbird.data.split import SPLITS
from bowerbird.data.unused import Unreadable, Unused
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.video import FILMS, bouncing, films, reading
from bowerbird.media.video.reading import ANIMATIONS, About, Wanted
from bowerbird.spec import Classes, Field, Spec, Tensors

FIRST = "first"
"""Name of what is given where a clip is made from its first frame."""
SUFFIXES = (*ANIMATIONS, *FILMS)
LARGEST_DEFAULT_SIZE, SIZE_STEP = 64, 8
NAMED = 5
"""Most classes that a summary names."""


@dataclass
class ClipSet:
    """One split: clips as stored, and what each is made from."""

    clips: UInt8[Tensor, "n c f h w"]
    given: dict[str, Tensor] = field(default_factory=dict)
    first: bool = False
    """The first frame is given."""
    flip: bool = False
    """Batches are mirrored from left to right at random."""
    lengths = None

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        """``x``, the clips in [-1, 1], and what is ``given`` with them, on the device."""
        x = from_bytes(self.clips[indices].to(device))
        if self.flip:
            mirrored = (torch.rand(len(indices)) < 0.5).to(device).view(-1, 1, 1, 1, 1)
            x = torch.where(mirrored, x.flip(-1), x)
        given = {name: values[indices].to(device) for name, values in self.given.items()}
        return {"x": x, "given": given | ({FIRST: x[:, :, 0]} if self.first else {})}


def to_bytes(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[-1, 1] to 0…255, rounded to nearest."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_bytes(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse."""
    return x.float() / 127.5 - 1


@dataclass
class ClipData:
    """All splits of one source, and what was done to its clips."""

    name: str
    spec: Spec
    train: ClipSet
    val: ClipSet
    test: ClipSet
    preprocessing: dict[str, str | int]
    fingerprint: str
    not_used: Unused
    notes: list[str]
    label_from: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty when there are none."""
        label = self.spec.given.get(LABEL)
        return label.names if isinstance(label, Classes) else ()

    @property
    def skipped(self) -> int:
        """Files that cannot be used."""
        return len(self.not_used)

    def summary(self) -> str:
        """One line: how many clips, of what size and rate, what is given, the splits, what was not used."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        channels, frames, height, width = self.train.clips.shape[1:]
        made_from = ", ".join(map(self._given, self.spec.given)) or "no labels"
        colour = "grey" if channels == 1 else "colour"
        return "; ".join(
            [
                f"{self.name}: {sum(sizes.values()):,} clips of {frames} frames at {films.rate_hz(self.spec):.4g} per "
                f"second, {width}x{height} {colour}, {made_from}",
                ", ".join(f"{name} {size:,}" for name, size in sizes.items()),
                f"not used: {self.not_used}" if self.not_used else "none skipped",
                *self.notes,
            ]
        )

    def _given(self, name: str) -> str:
        match self.spec.given[name]:
            case Classes(names):
                few = ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
                where = f" (from {self.label_from})" if name == LABEL and self.label_from else ""
                return f"{name} {few}{where}"
            case Tensors():
                return "each from its first frame"
        return f"{name} (texts)"


@dataclass
class Clips:
    """A source after decoding, before what is given and the splits are chosen."""

    name: str
    clips: UInt8[np.ndarray, "n f h w c"]
    rate_hz: float
    columns: dict[str, np.ndarray]
    split: np.ndarray
    """The official split of each clip, "" where there is none."""
    origins: dict[str, str] = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    notes: list[str] = field(default_factory=list)
    thing = "clip"

    def column(self, name: str) -> np.ndarray:
        """BowerbirdError where there is none of this name."""
        if name not in self.columns:
            raise unknown(f"column of {self.name}", name, [*self.columns, FIRST])
        return self.columns[name]


def open_video(data: config.Data) -> ClipData:
    """The clips of a source, split; errors say what is wrong with it."""
    record = catalogue.data_record(data.source)
    found = _from_files(Path(data.source).expanduser(), data) if record is None else _known(record, data)
    where = split.assign(split.digests(found.clips), found.split)
    columns = _columns(found, data, where == "train")
    _, frames, height, width, channels = found.clips.shape
    first: dict[str, Field] = {FIRST: Tensors((channels, height, width))} if FIRST in data.given else {}
    codec = films.codec(found.rate_hz, columns.codec)
    clips = torch.from_numpy(found.clips.transpose(0, 4, 1, 2, 3).copy())
    return ClipData(
        name=found.name,
        spec=Spec("video", Tensors((channels, frames, height, width)), columns.fields | first, codec),
        preprocessing=_preprocessing(found, data),
        fingerprint=_fingerprint(found, where, columns),
        not_used=found.unused,
        notes=found.notes,
        label_from=label_origin(found, data),
        **{name: _set(clips, columns, np.flatnonzero(where == name), data, name) for name in SPLITS},
    )


def _columns(found: Clips, data: config.Data, in_training: np.ndarray) -> Columns:
    """The first frame is no column."""
    others = tuple(name for name in data.given if name != FIRST)
    if data.given and not others:
        return Columns({}, {})
    return given_columns(found, replace(data, given=others), in_training)


def _set(clips: Tensor, columns: Columns, rows: np.ndarray, data: config.Data, name: str) -> ClipSet:
    given = {key: torch.from_numpy(values[rows]) for key, values in columns.values.items()}
    return ClipSet(clips[torch.from_numpy(rows)], given, FIRST in data.given, data.flip and name == "train")


def _preprocessing(found: Clips, data: config.Data) -> dict[str, str | int]:
    _, frames, height, width, channels = found.clips.shape
    shape = {"width": width, "height": height, "channels": channels, "frames": frames}
    times = {"rate_hz": f"{found.rate_hz:g}", "longer": data.video.longer, "shorter": data.video.shorter}
    return shape | times | {"split": split.RULE[split.present(found.split)]}


def _fingerprint(found: Clips, where: np.ndarray, columns: Columns) -> str:
    digest = hashlib.sha256(repr((found.rate_hz, columns.fields)).encode())
    for name in SPLITS:
        rows = np.flatnonzero(where == name)
        digest.update(f"{name} {found.clips[rows].shape}".encode() + found.clips[rows].tobytes())
        for values in columns.values.values():
            digest.update(values[rows].tobytes())
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------ from where


def _known(record: catalogue.Record, data: config.Data) -> Clips:
    """A set by name: computed, or from its pack."""
    if record.made_from:
        made = {name: [*bouncing.clips(builtin.load(record.made_from), name)] for name in SPLITS}
        every = [clip for clips in made.values() for clip in clips]
        splits = np.repeat(SPLITS, [len(clips) for clips in made.values()])
        columns = {LABEL: np.array([label for _, label in every])}
        return _resized(Clips(record.name, np.stack([x for x, _ in every]), bouncing.RATE_HZ, columns, splits), data)
    pack = packs.read(fetch.needed(record.name))
    images, rate, frames = pack.pop("images"), float(pack.pop("rate_hz")), int(pack.pop("frames"))
    clips = images.reshape(-1, frames, *images.shape[1:])
    return _resized(Clips(record.name, clips, rate, split=pack.pop("split"), columns=pack), data)


def _resized(found: Clips, data: config.Data) -> Clips:
    """In the size, colour and number of frames that is asked for."""
    _, frames, height, width, channels = found.clips.shape
    n_channels = {"auto": channels, "grey": 1, "rgb": 3}[data.channels]
    clips = found.clips[:, : min(frames, data.video.frames)]
    high, wide = (data.size, data.size) if data.size else (height, width)
    if (high, wide, n_channels) != (height, width, channels):
        clips = np.stack([_fitted(clip, high, wide, n_channels) for clip in clips])
    return replace(found, clips=clips)


def _fitted(clip: UInt8[np.ndarray, "f h w c"], height: int, width: int, n_channels: int) -> np.ndarray:
    """In this size and colour: by means of whole pixels where they divide, which is fast, else as files are."""
    frames, high, wide, channels = clip.shape
    if high % height == 0 and wide % width == 0 and channels == n_channels:
        k = (high // height) * (wide // width)
        sums = clip.reshape(frames, height, high // height, width, -1, channels).sum((2, 4), dtype=np.uint32)
        return ((sums + k // 2) // k).astype(np.uint8)
    images = films.as_images(clip)
    return np.stack([reading.fitted(image, height, width, n_channels) for image in images])


def _from_files(path: Path, data: config.Data) -> Clips:
    single = path.is_file() and path.suffix.lower() in SUFFIXES
    source: files.Files = files.Folder(path.parent) if single else files.open_files(path, data.names)
    listing = _listing(source, path.name if single else "")
    if not listing.names:
        raise BowerbirdError(f"{path} holds no moving pictures ({', '.join(SUFFIXES)}).")
    decoding = Decoding(source, listing.names, data)
    if not decoding.clips:
        raise BowerbirdError(f"None of the {len(listing.names):,} files in {path} is a clip: {decoding.unused}.")
    if len(decoding.clips) == 1:
        raise BowerbirdError(
            f"{path} holds one clip, of which nothing remains to measure with; bring more, or say "
            "--data.video.longer pieces."
        )
    splits = official_splits(decoding.names)
    said = described(source, listing, decoding.names, splits, CAPTION in (*data.given, data.label), "clip")
    return Clips(
        printable(path.resolve().name), np.stack(decoding.clips), data.video.rate_hz, said.columns, splits,
        said.origins, listing.unused + decoding.unused + said.unused,
        [*filter(None, [source.note, *said.notes, str(decoding.notes)])],
    )  # fmt: skip


def _listing(source: files.Files, single: str) -> Listing:
    """The moving pictures of a source, without what lies beside them as a matter of course."""
    names = [single] if single else visible(source.names())
    unused = Unused() + source.unused
    is_beside = BESIDE.fullmatch
    found = [name for name in names if suffix(name) in SUFFIXES and not is_beside(base(name))]
    stems = {name.rsplit(".", 1)[0]: name for name in found}
    captions = {}
    for name in set(names) - set(found):
        stem = name.rsplit(".", 1)[0]
        if suffix(name) in CAPTIONS and stem in stems:
            captions[stems[stem]] = name
        elif not is_beside(base(name)):
            unused.add("other file{s}", name)
    return Listing(naturally(found), captions, unused)


class Decoding:
    """All files of a source as clips, ``names`` with the file of each; what could not be used, and what was done."""

    def __init__(self, source: files.Files, listed: list[str], data: config.Data):
        self.source, self.data = source, data
        self.clips: list[np.ndarray] = []
        self.names: list[str] = []
        self.unused, self.notes = Unused(), Unused()
        headers = {name: about for name in listed if (about := self._about(name))}
        if headers:
            wanted = self._wanted([*headers.values()])
            _has_room(len(headers), wanted, self.data.source)
            for name, about in headers.items():
                self._take(name, about, wanted)

    def _about(self, name: str) -> About | None:
        try:
            return reading.about(name, reading.content(self.source, name))
        except Unreadable as why:
            self.unused.add("picture{s} that do not move" if str(why) == "still" else f"{why} file{{s}}", name)
            return None

    def _wanted(self, headers: list[About]) -> Wanted:
        video, colours = self.data.video, sum(one.in_colour for one in headers)
        height, width = _size([(one.height, one.width) for one in headers], self.data.size)
        channels = {"auto": 3 if 2 * colours > len(headers) else 1, "grey": 1, "rgb": 3}[self.data.channels]
        pieces = video.longer == "pieces"
        return Wanted(video.frames, video.rate_hz, height, width, channels, pieces, video.shorter == "loop")

    def _take(self, name: str, about: About, wanted: Wanted) -> None:
        clips, was_cut = reading.clips(name, reading.content(self.source, name), wanted)
        self.clips += clips
        self.names += [name] * len(clips)
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


def _size(sizes: list[tuple[int, int]], side: int | None) -> tuple[int, int]:
    """(height, width): as asked for; as stored when all agree and are small; else a square as large as most are."""
    if side:
        return side, side
    if len(set(sizes)) == 1 and max(sizes[0]) <= LARGEST_DEFAULT_SIZE:
        return sizes[0]
    median = int(np.median([min(size) for size in sizes]))
    chosen = min(LARGEST_DEFAULT_SIZE, median - median % SIZE_STEP or median)
    return chosen, chosen


def _has_room(n_files: int, wanted: Wanted, source: str) -> None:
    n_bytes = 2 * n_files * wanted.n_frames * wanted.height * wanted.width * wanted.n_channels
    free = machine.available_memory(torch.device("cpu"))
    if free is not None and n_bytes > free:
        raise BowerbirdError(
            f"At {wanted.width}x{wanted.height} the {n_files:,} clips of {source} take {n_bytes / 2e9:.1f} GB, but "
            f"{free / 1e9:.1f} GB of memory are free for them and a copy; choose a smaller --data.size or "
            "--data.video.frames."
        )
