"""Clips as data: three splits of uint8 frames of one size, number and rate, with what is known about each clip.

Which clip lies in which split is decided by its content (``data.split``), unless folders say it.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bowerbird import config
from bowerbird.data import builtin, catalogue, fetch, files, packing, packs, split
from bowerbird.data.columns import LABEL, Columns, given_columns, label_origin, no_column
from bowerbird.data.kinds import not_read
from bowerbird.data.listing import BESIDE, CAPTIONS, Listing, official_splits
from bowerbird.data.metadata import CAPTION, described
from bowerbird.data.names import base, naturally, printable, suffix, visible
from bowerbird.data.packing import Packed
from bowerbird.data.split import SPLITS
from bowerbird.data.unused import Unused
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.media.video import FILMS, bouncing, films, reading
from bowerbird.media.video.gathering import Gathering, tall
from bowerbird.media.video.reading import ANIMATIONS
from bowerbird.spec import Classes, Field, Spec, Tensors

FIRST = "first"
"""Name of what is given where a clip is made from its first frame."""
SUFFIXES = (*ANIMATIONS, *FILMS)
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
        x = to_float(self.clips[indices].to(device))
        if self.flip:
            mirrored = (torch.rand(len(indices)) < 0.5).to(device).view(-1, 1, 1, 1, 1)
            x = torch.where(mirrored, x.flip(-1), x)
        given = {name: values[indices].to(device) for name, values in self.given.items()}
        return {"x": x, "given": given | ({FIRST: x[:, :, 0]} if self.first else {})}


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
    clips: Packed
    """As pictures n_frames times as high."""
    n_frames: int
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
            raise no_column(self, name, FIRST)
        return self.columns[name]


def open_video(data: config.Data) -> ClipData:
    """The clips of a source, split; errors say what is wrong with it."""
    record = catalogue.data_record(data.source)
    found = _from_files(Path(data.source).expanduser(), data) if record is None else _known(record, data)
    where = split.assign(found.clips.digests, found.split)
    columns = _columns(found, data, where == "train")
    _, height, width, channels = found.clips.shape
    frame = Tensors((channels, height // found.n_frames, width))
    first: dict[str, Field] = {FIRST: frame} if FIRST in data.given else {}
    clip = Tensors((channels, found.n_frames, *frame.shape[1:]))
    rows = {name: np.flatnonzero(where == name) for name in SPLITS}
    return ClipData(
        name=found.name,
        spec=Spec("video", clip, columns.fields | first, films.codec(found.rate_hz, columns.codec)),
        preprocessing=_preprocessing(found, data),
        fingerprint=_fingerprint(found, rows, columns),
        not_used=found.unused,
        notes=found.notes,
        label_from=label_origin(found, data),
        **{name: _set(found, columns, rows[name], data, name) for name in SPLITS},
    )


def _columns(found: Clips, data: config.Data, in_training: np.ndarray) -> Columns:
    """The first frame is no column."""
    others = tuple(name for name in data.given if name != FIRST)
    if data.given and not others:
        return Columns({}, {})
    return given_columns(found, replace(data, given=others), in_training)


def _set(found: Clips, columns: Columns, rows: np.ndarray, data: config.Data, name: str) -> ClipSet:
    given = {key: torch.from_numpy(values[rows]) for key, values in columns.values.items()}
    clips = found.clips[rows].tensor().unflatten(2, (found.n_frames, -1))
    return ClipSet(clips, given, FIRST in data.given, data.flip and name == "train")


def _preprocessing(found: Clips, data: config.Data) -> dict[str, str | int]:
    _, height, width, channels = found.clips.shape
    shape = {"width": width, "height": height // found.n_frames, "channels": channels, "frames": found.n_frames}
    times = {"rate_hz": f"{found.rate_hz:g}", "longer": data.video.longer, "shorter": data.video.shorter}
    return shape | times | {"split": split.RULE[split.present(found.split)]}


def _fingerprint(found: Clips, rows: dict[str, np.ndarray], columns: Columns) -> str:
    """Read from beside the pack, if the same clips were once hashed with the same columns."""
    sets = {name: found.clips[rows[name]] for name in SPLITS}
    _, height, *others = found.clips.shape
    shape = (found.n_frames, height // found.n_frames, *others)
    start = hashlib.sha256(repr((found.rate_hz, columns.fields)).encode())

    def of_content() -> str:
        digest = start.copy()
        for name, clips in sets.items():
            digest.update(f"{name} {(len(clips), *shape)}".encode())
            for part in clips.chunks():
                digest.update(part.transpose(0, 2, 3, 1).tobytes())
            for values in columns.values.values():
                digest.update(values[rows[name]].tobytes())
        return digest.hexdigest()[:16]

    known = start.copy()
    for name, clips in sets.items():
        known.update(f"{name} {shape} {clips.identity}".encode())
        for values in columns.values.values():
            known.update(values[rows[name]].tobytes())
    return packing.remembered(found.clips.folder, f"fingerprint-{known.hexdigest()[:32]}", of_content)


# ------------------------------------------------------------------------------------------------------ from where


def _known(record: catalogue.Record, data: config.Data) -> Clips:
    """A set by name: computed, or from its pack."""
    if record.made_from:
        pack, n_frames = builtin.load(record.made_from), min(bouncing.FRAMES, data.video.frames)
        made = {name: [*bouncing.clips(pack, name, n_frames)] for name in SPLITS}
        every = [clip for clips in made.values() for clip in clips]
        splits = np.repeat(SPLITS, [len(clips) for clips in made.values()])
        columns = {LABEL: np.array([label for _, label in every])}
        clips = _resized(np.stack([x for x, _ in every]), data)
        return Clips(record.name, Packed.of(tall(clips)), clips.shape[1], bouncing.RATE_HZ, columns, splits)
    pack = packs.read(fetch.needed(record.name))
    images, rate, frames = pack.pop("images"), float(pack.pop("rate_hz")), int(pack.pop("frames"))
    clips = _resized(images.reshape(-1, frames, *images.shape[1:]), data)
    return Clips(record.name, Packed.of(tall(clips)), clips.shape[1], rate, split=pack.pop("split"), columns=pack)


def _resized(
    clips: UInt8[np.ndarray, "n f h w c"], data: config.Data
) -> UInt8[np.ndarray, "n frames height width channels"]:
    """In the size, colour and number of frames that is asked for."""
    _, frames, height, width, channels = clips.shape
    n_channels = {"auto": channels, "grey": 1, "rgb": 3}[data.channels]
    clips = clips[:, : min(frames, data.video.frames)]
    high, wide = (data.size, data.size) if data.size else (height, width)
    if (high, wide, n_channels) != (height, width, channels):
        clips = np.stack([_fitted(clip, high, wide, n_channels) for clip in clips])
    return clips


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
    found = Gathering(path, source, listing.names, data).gathered()
    if len(found.clips) == 1:
        raise BowerbirdError(
            f"{path} holds one clip, of which nothing remains to measure with; bring more, or say "
            "--data.video.longer pieces."
        )
    splits = official_splits(found.names)
    said = described(source, listing, found.names, splits, CAPTION in (*data.given, data.label), "clip")
    return Clips(
        printable(path.resolve().name), found.clips, data.video.frames, data.video.rate_hz, said.columns, splits,
        said.origins, listing.unused + found.unused + said.unused,
        [*filter(None, [source.note, *said.notes, str(found.notes), found.note])],
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
            unused.add(not_read(name, "other file{s}"), name)
    return Listing(naturally(found), captions, unused)
