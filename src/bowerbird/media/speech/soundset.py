"""Recordings as data: three splits of log-mel spectrograms of one shape, with what is known about each.

Spectrograms are kept with 8 bits, of 0.24 dB each, and become floats in [-1, 1] in a batch.  Which recording lies in
which split is decided by its content (``data.split``), unless folders or ``data.speech.test`` say it.
"""

import hashlib
import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64, UInt8
from torch import Tensor

from bowerbird import config
from bowerbird.data import builtin, catalogue, files, split
from bowerbird.data.columns import LABEL, Columns, given_columns, label_origin, no_column
from bowerbird.data.kinds import not_read
from bowerbird.data.listing import BESIDE, CAPTIONS, Listing, official_splits
from bowerbird.data.metadata import CAPTION, described
from bowerbird.data.names import base, naturally, printable, suffix, visible
from bowerbird.data.split import SPLITS
from bowerbird.data.unused import Unused
from bowerbird.eightbit import to_float, to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.media.speech.recordings import About, Reading, pieces, resampled
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.spec import Classes, Field, Spec, Tensors

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
HIGHEST_RATE_HZ = 24_000
COVERED = 97
"""Percent of the recordings that are no longer than an example, unless its length is set …"""
LONGEST_DEFAULT_S = 4.0
"""… to more than this."""
AT_ONCE = 256
NAMED = 5
"""Most classes that a summary names."""
CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|==|<|>)\s*(-?\d+)\s*")
SPECTROGRAM = "spectrogram"
"""Given with a waveform."""
MU, LEVELS = 255, 127
"""Curve and steps of ``to_mu_law``: 7 bits, about 32 dB above their noise."""
FIELD = r"\{([A-Za-z_]\w*)\}"
"""A name in braces."""
COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


@dataclass
class SoundSet:
    """One split: spectrograms as stored, and what each is made from."""

    sounds: UInt8[Tensor, "n 1 mel frames"]
    given: dict[str, Tensor] = field(default_factory=dict)
    waveforms: Float16[Tensor, "n 1 samples"] | None = None
    """Where they are what is learnt."""
    lengths = None

    def __len__(self) -> int:
        return len(self.sounds)

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        """``x``, the spectrograms in [-1, 1], and what is ``given`` with them, on the device.

        Where waveforms are kept, they are ``x``, and the spectrograms are given.
        """
        given = {name: values[indices].to(device) for name, values in self.given.items()}
        spectrograms = to_float(self.sounds[indices].to(device))
        if self.waveforms is None:
            return {"x": spectrograms, "given": given}
        return {"x": self.waveforms[indices].to(device).float(), "given": given | {SPECTROGRAM: spectrograms}}


@dataclass
class SoundData:
    """All splits of one source, and what was done to its recordings."""

    name: str
    spec: Spec
    train: SoundSet
    val: SoundSet
    test: SoundSet
    preprocessing: dict[str, str | int]
    fingerprint: str
    not_used: Unused
    notes: list[str]
    label_from: str = ""

    @property
    def skipped(self) -> int:
        """Files that cannot be used."""
        return len(self.not_used)

    def summary(self) -> str:
        """One line: how many recordings, how long, at which rate, what is given, the splits, what was not used."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        mel = Mel.from_json(self.spec.codec)
        splits = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        made_from = ", ".join(map(self._given, self.spec.given)) or "no labels"
        used = f"not used: {self.not_used}" if self.not_used else "none skipped"
        return "; ".join(
            [
                f"{self.name}: {sum(sizes.values()):,} recordings of {mel.seconds:.2f} s at {mel.rate_hz:,} Hz, "
                f"{mel.n_mels} mel bands x {mel.frames} frames, {made_from}",
                splits,
                used,
                *self.notes,
            ]
        )

    def _given(self, name: str) -> str:
        match self.spec.given[name]:
            case Classes(names):
                few = ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
                where = f" (from {self.label_from})" if name == LABEL and self.label_from else ""
                return f"{name} {few}{where}"
        return f"{name} (texts)"


@dataclass
class Recordings:
    """A source after decoding, before what is given and the splits are chosen."""

    name: str
    mel: Mel
    sounds: UInt8[Tensor, "n 1 mel frames"]
    columns: dict[str, np.ndarray]
    split: np.ndarray
    """The official split of each recording, "" where there is none."""
    waveforms: Float16[Tensor, "n 1 samples"] | None = None
    """Where they are what is learnt."""
    origins: dict[str, str] = field(default_factory=dict)
    unused: Unused = field(default_factory=Unused)
    notes: list[str] = field(default_factory=list)
    thing = "recording"

    def column(self, name: str) -> np.ndarray:
        """BowerbirdError where there is none of this name."""
        if name not in self.columns:
            raise no_column(self, name)
        return self.columns[name]


def open_speech(data: config.Data) -> SoundData:
    """The recordings of a source as spectrograms, split; errors say what is wrong with it."""
    record = catalogue.data_record(data.source)
    found = _built_in(record.name, data) if record else _from_files(Path(data.source).expanduser(), data)
    official = _official(found, data.speech.test)
    where = split.assign(split.digests(found.sounds.numpy()), official)
    columns = given_columns(found, data, where == "train")
    return SoundData(
        name=found.name,
        spec=_spec(found, columns),
        preprocessing=_preprocessing(found.mel, data, split.RULE[split.present(official)]),
        fingerprint=_fingerprint(found, where, columns),
        not_used=found.unused,
        notes=found.notes,
        label_from=label_origin(found, data),
        **{name: _set(found, columns, np.flatnonzero(where == name)) for name in SPLITS},
    )


def _spec(found: Recordings, columns: Columns) -> Spec:
    spectrogram, given = Tensors((1, *found.sounds.shape[2:])), columns.fields
    if found.waveforms is None:
        return Spec("speech", spectrogram, given, _codec(found.mel, columns))
    fields: dict[str, Field] = {**given, SPECTROGRAM: spectrogram}
    return Spec("speech", Tensors((1, found.mel.samples)), fields, _codec(found.mel, columns))


def _set(found: Recordings, columns: Columns, rows: np.ndarray) -> SoundSet:
    given = {name: torch.from_numpy(values[rows]) for name, values in columns.values.items()}
    chosen = torch.from_numpy(rows)
    waveforms = None if found.waveforms is None else found.waveforms[chosen]
    return SoundSet(found.sounds[chosen], given, waveforms)


def _codec(mel: Mel, columns: Columns) -> str:
    """The parameters of the spectrogram, beside the tokenizer of captions where there are any."""
    return mel.beside(columns.codec)


def _preprocessing(mel: Mel, data: config.Data, rule: str) -> dict[str, str | int]:
    about: dict[str, str | int] = {
        "rate_hz": mel.rate_hz,
        "n_mels": mel.n_mels,
        "frames": mel.frames,
        "hop": mel.hop,
        "n_fft": mel.n_fft,
    }
    held_out = f"official test: {data.speech.test}; " if data.speech.test else ""
    about |= {"target": "waveform"} if data.speech.target == "waveform" else {}
    return about | {"longer": data.speech.longer, "split": held_out + rule}


def _fingerprint(found: Recordings, where: np.ndarray, columns: Columns) -> str:
    digest = hashlib.sha256(repr(columns.fields).encode())
    for name in SPLITS:
        rows = np.flatnonzero(where == name)
        digest.update(f"{name} {len(rows)}".encode() + found.sounds[torch.from_numpy(rows)].numpy().tobytes())
        for values in columns.values.values():
            digest.update(values[rows].tobytes())
    return digest.hexdigest()[:16]


def _official(found: Recordings, condition: str) -> np.ndarray:
    """The splits of the folders, or test and train as the condition says."""
    if not condition:
        return found.split
    if (parts := CONDITION.fullmatch(condition)) is None:
        raise BowerbirdError(f"data.speech.test = '{condition}' is no condition; write it as index<5.")
    name, compare, number = parts.groups()
    column = found.column(name)
    if strange := [one for one in column if not re.fullmatch(r"-?\d+", one)]:
        raise BowerbirdError(f"data.speech.test compares numbers, but the column {name} holds '{strange[0]}'.")
    where = np.where(COMPARE[compare](column.astype(np.int64), int(number)), "test", "train")
    if len(np.unique(where)) == 1:
        raise BowerbirdError(f"data.speech.test = '{condition}' is true of {'all' if where[0] == 'test' else 'none'}.")
    return where


# ------------------------------------------------------------------------------------------------------ from where


def _built_in(name: str, data: config.Data) -> Recordings:
    """Waveforms of 7 bits that ship in the package."""
    pack = builtin.load(name)
    rate_hz = int(pack.pop("rate_hz"))
    coded = np.split(pack.pop("coded"), pack.pop("offsets")[1:-1])
    mel = _mel(data.speech, Counter({rate_hz: len(coded)}), [len(one) / rate_hz for one in coded])
    n_cut = sum(len(one) * mel.rate_hz > mel.samples * rate_hz for one in coded)
    waveforms = (resampled(from_mu_law(one), rate_hz, mel.rate_hz) for one in coded)
    sounds, kept = _examples(waveforms, mel, data.speech.target)
    return Recordings(name, mel, sounds, pack, pack.pop("split"), kept, notes=_cut_note(n_cut, mel))


def to_mu_law(waveform: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    """y = sign(w) log(1 + MU |w|) / log(1 + MU), in ``LEVELS`` steps from -1 to 1 (the curve of ITU-T G.711)."""
    y = np.sign(waveform) * np.log1p(MU * np.abs(waveform)) / np.log1p(MU)
    return ((y + 1) * (LEVELS / 2)).round().astype(np.uint8)


def from_mu_law(coded: UInt8[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The inverse, but for what the steps took away."""
    y = coded.astype(np.float32) * np.float32(2 / LEVELS) - 1
    return (np.sign(y) * np.expm1(np.abs(y) * np.log1p(MU)) / MU).astype(np.float32)


def _from_files(path: Path, data: config.Data) -> Recordings:
    single = path.is_file() and path.suffix.lower() in SUFFIXES
    source: files.Files = files.Folder(path.parent) if single else files.open_files(path, data.names)
    listing = _listing(source, path.name if single else "")
    if not listing.names:
        raise BowerbirdError(f"{path} holds no recordings ({', '.join(SUFFIXES)}).")
    reading = Reading(source)
    headers = reading.headers(listing.names)
    if not headers:
        raise _none_left(path, len(listing.names), reading.heard.unused)
    rates = Counter(about.rate_hz for about in headers.values())
    lengths = [about.n_samples / about.rate_hz for about in headers.values()]
    mel = _mel(data.speech, rates, lengths)
    cutting = _Cutting(reading, headers, mel, data.speech.longer == "pieces")
    sounds, waveforms = _examples(cutting.waveforms(), mel, data.speech.target)
    if not len(sounds):
        raise _none_left(path, len(listing.names), reading.heard.unused)
    if len(sounds) == 1:
        longer = ", or set --data.speech.longer pieces" if cutting.n_cut else ""
        raise BowerbirdError(f"{path} holds one recording, so none is left to measure with; add more{longer}.")
    names = cutting.names
    splits = official_splits(names)
    said = described(source, listing, names, splits, CAPTION in (*data.given, data.label), "recording")
    columns = said.columns | _from_names(names, data.speech.pattern)
    notes = [source.note, *said.notes, *_done(reading.heard.notes), *_cut_note(cutting.n_cut, mel)]
    origins = said.origins | dict.fromkeys(columns.keys() - said.columns.keys(), "file names")
    unused = listing.unused + reading.heard.unused + said.unused
    name = printable(path.resolve().name)
    return Recordings(name, mel, sounds, columns, splits, waveforms, origins, unused, [*filter(None, notes)])


def _none_left(path: Path, n: int, unused: Unused) -> BowerbirdError:
    return BowerbirdError(f"None of the {n:,} recordings in {path} can be used: {unused}.")


def _done(notes: Unused) -> list[str]:
    return [str(notes)] if notes else []


def _cut_note(n_cut: int, mel: Mel) -> list[str]:
    return (
        [f"{n_cut:,} longer than {mel.seconds:.2f} s lose their end (to keep it: --data.speech.longer pieces)"]
        if n_cut
        else []
    )


def _listing(source: files.Files, single: str) -> Listing:
    """The sound files of a source, without what lies beside them as a matter of course."""
    names = [single] if single else visible(source.names())
    unused = Unused() + source.unused
    found = [name for name in names if suffix(name) in SUFFIXES]
    stems = {name.rsplit(".", 1)[0]: name for name in found}
    captions = {}
    for name in set(names) - set(found):
        stem = name.rsplit(".", 1)[0]
        if suffix(name) in CAPTIONS and stem in stems:
            captions[stems[stem]] = name
        elif not BESIDE.fullmatch(base(name)):
            unused.add(not_read(name, "other file{s}"), name)
    return Listing(naturally(found), captions, unused)


def _mel(wish: config.Speech, rates: Counter[int], lengths: list[float]) -> Mel:
    """The parameters that are asked for; the others follow from most of the recordings."""
    rate = wish.rate_hz or lowered(rates.most_common(1)[0][0])
    seconds = wish.seconds or min(LONGEST_DEFAULT_S, float(np.percentile(lengths, COVERED)))
    return Mel.of(rate, seconds, wish.frame_ms, wish.n_mels)


def lowered(rate_hz: int) -> int:
    """The rate, divided by the smallest whole number that brings it to at most ``HIGHEST_RATE_HZ``."""
    return rate_hz // -(-rate_hz // HIGHEST_RATE_HZ)


class _Cutting:
    """The waveforms of readable files, as long as an example; ``names`` has the file of each afterwards."""

    def __init__(self, reading: Reading, headers: dict[str, About], mel: Mel, in_pieces: bool):
        self.reading, self.headers, self.mel, self.in_pieces = reading, headers, mel, in_pieces
        self.names: list[str] = []
        self.n_cut = 0

    def waveforms(self) -> Iterator[np.ndarray]:
        for name, about in self.headers.items():
            whole = self.reading.waveform(name, about, self.mel.rate_hz)
            for piece in () if whole is None else self._cut(whole):
                self.names.append(name)
                yield piece

    def _cut(self, whole: np.ndarray) -> Iterator[np.ndarray]:
        if self.in_pieces:
            yield from pieces(whole, self.mel.samples)
        else:
            self.n_cut += len(whole) > self.mel.samples
            yield whole[: self.mel.samples]


def _examples(
    waveforms: Iterable[np.ndarray], mel: Mel, target: str
) -> tuple[UInt8[Tensor, "n 1 mel frames"], Float16[Tensor, "n 1 samples"] | None]:
    """Spectrograms as bytes, of waveforms of any length, and the waveforms where they are the target."""
    parts = [torch.zeros(0, 1, mel.n_mels, mel.frames, dtype=torch.uint8)]
    kept = [torch.zeros(0, 1, mel.samples, dtype=torch.float16)]
    following = map(partial(levelled, mel=mel), waveforms)
    while batch := list(islice(following, AT_ONCE)):
        together = torch.from_numpy(np.stack(batch))
        parts.append(to_uint8(mel.encoded(together))[:, None])
        if target == "waveform":
            kept.append(together[:, None].clamp(-1, 1).half())
    return torch.cat(parts), torch.cat(kept) if target == "waveform" else None


def levelled(waveform: Float[np.ndarray, " n"], mel: Mel) -> Float[np.ndarray, " samples"]:
    """At the level of the spectrogram, without its mean, followed by silence up to the length of an example."""
    short = waveform[: mel.samples] - waveform[: mel.samples].mean()
    rms = float(np.sqrt(np.square(short).mean()))
    padded = np.zeros(mel.samples, np.float32)
    padded[: len(short)] = short * (10 ** (mel.level_db / 20) / max(rms, 1e-9))
    return padded


def _from_names(names: list[str], pattern: str) -> dict[str, np.ndarray]:
    """A column for each name in braces of the pattern, which all file names must match, without their suffix."""
    if not pattern:
        return {}
    fields = re.findall(FIELD, pattern)
    literal = [re.escape(part) for part in re.split(FIELD, pattern)[::2]]
    if not fields or len(set(fields)) < len(fields):
        raise BowerbirdError(
            f"data.speech.pattern = '{pattern}' needs different names in braces: {{digit}}_{{speaker}}."
        )
    groups = [f"(?P<{name}>.+?)" for name in fields]
    expression = re.compile("".join(a + b for a, b in zip(literal, [*groups, ""], strict=True)))
    found = [expression.fullmatch(base(name).rsplit(".", 1)[0]) for name in names]
    if strange := [name for name, match in zip(names, found, strict=True) if match is None]:
        raise BowerbirdError(
            f"{len(strange):,} of {len(names):,} file names do not match data.speech.pattern = '{pattern}', such as "
            f"{base(strange[0])}; change the pattern, or move them elsewhere."
        )
    return {name: np.array([match[name] for match in found if match]) for name in fields}
