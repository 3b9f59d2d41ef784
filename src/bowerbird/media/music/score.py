"""Music as notes: what MIDI files, ABC tunes, tokens, sound and pictures have in common.

Time is counted in quarter notes from the beginning of the piece, pitch in semitones as MIDI does (A4 = 69).  MIDI files
are read and written by symusic, which is imported when it is first needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

DEFAULT_TEMPO = 120.0
DEFAULT_VELOCITY = 80
LONGEST_BAR = 8.0
"""Quarters.  Files that claim longer bars, or bars of one beat, do not know their metre."""
TICKS_PER_QUARTER = 480
"""Of the MIDI files that we write."""


class Note(NamedTuple):
    """One note, or one stroke of a drum."""

    onset: float
    """In quarters from the beginning of the piece."""
    duration: float
    """In quarters."""
    pitch: int
    """MIDI number, 0 … 127."""
    voice: int
    """Index of the piece's voices."""
    velocity: int = DEFAULT_VELOCITY
    """How hard it is struck, 1 … 127."""


class Voice(NamedTuple):
    """Who plays."""

    name: str
    program: int = 0
    """General MIDI's number of the instrument, 0 … 127."""
    is_drum: bool = False


class Meter(NamedTuple):
    """So many beats of a ``unit``-th note per bar, from ``onset`` on."""

    onset: float
    beats: int
    unit: int

    @property
    def quarters(self) -> float:
        return 4.0 * self.beats / self.unit


class Tempo(NamedTuple):
    """Quarters per minute, from ``onset`` on."""

    onset: float
    qpm: float


COMMON_TIME = Meter(0.0, 4, 4)


@dataclass(frozen=True)
class Piece:
    """A piece of music.  ``meters`` and ``tempos`` are in order, and the first of each holds from the beginning."""

    notes: list[Note]
    voices: tuple[Voice, ...]
    meters: tuple[Meter, ...] = (COMMON_TIME,)
    tempos: tuple[Tempo, ...] = (Tempo(0.0, DEFAULT_TEMPO),)

    @property
    def quarters(self) -> float:
        """The end of the last note."""
        return max((note.onset + note.duration for note in self.notes), default=0.0)

    def bars(self) -> list[float]:
        """Where bars begin, in quarters, up to the end of the piece; a new metre begins a new bar."""
        ends = [meter.onset for meter in self.meters[1:]] + [self.quarters]
        return [
            float(start)
            for meter, end in zip(self.meters, ends, strict=True)
            for start in np.arange(meter.onset, max(end, meter.onset), meter.quarters)
        ]

    def seconds(self, quarters: Sequence[float]) -> Float[np.ndarray, " n"]:
        """When those points of the piece are heard: t(q) = Σ over tempos of 60/qpm · (quarters played at it)."""
        starts = np.array([tempo.onset for tempo in self.tempos])
        pace = 60 / np.array([tempo.qpm for tempo in self.tempos])
        reached = np.concatenate([[0.0], np.cumsum(np.diff(starts) * pace[:-1])])
        at = np.asarray(quarters, dtype=float)
        i = np.maximum(np.searchsorted(starts, at, side="right") - 1, 0)
        return reached[i] + (at - starts[i]) * pace[i]


def read_midi(raw: bytes) -> Piece:
    """The piece in a MIDI file; ValueError says, in a few words, why there is none."""
    from symusic import Score

    _check_whole(raw)
    try:
        score: Any = Score.from_midi(raw)  # its stubs do not know its attributes
    except Exception as error:  # symusic raises RuntimeError, ValueError and its own kinds, undocumented
        raise ValueError("no valid MIDI") from error
    per_quarter = score.ticks_per_quarter
    voices: list[Voice] = []
    notes: list[Note] = []
    for track in score.tracks:
        if len(track.notes) == 0 or per_quarter < 1:
            continue
        columns = track.notes.numpy()
        onset = np.maximum(columns["time"], 0) / per_quarter
        duration = np.maximum(columns["duration"], 0) / per_quarter
        rows = zip(
            onset.tolist(), duration.tolist(), columns["pitch"].tolist(), columns["velocity"].tolist(), strict=True
        )
        notes += [Note(q, length, pitch, len(voices), velocity) for q, length, pitch, velocity in rows]
        voices.append(Voice(track.name.strip(), track.program, track.is_drum))
    if not notes:
        raise ValueError("without notes")
    meters = [believable(Meter(m.time / per_quarter, m.numerator, m.denominator)) for m in score.time_signatures]
    tempos = [Tempo(t.time / per_quarter, t.qpm) for t in score.tempos if 1 < t.qpm < 1000]
    return Piece(sorted(notes), tuple(voices), from_beginning(meters), from_beginning_tempos(tempos))


def from_beginning(meters: list[Meter]) -> tuple[Meter, ...]:
    """In order, the last one of each onset, common time before the first."""
    latest = {0.0: COMMON_TIME} | {meter.onset: meter for meter in sorted(meters, key=lambda meter: meter.onset)}
    return tuple(latest.values())


def from_beginning_tempos(tempos: list[Tempo]) -> tuple[Tempo, ...]:
    """In order, the last one of each onset; the first holds from the beginning."""
    latest = {tempo.onset: tempo for tempo in sorted(tempos, key=lambda tempo: tempo.onset)}
    first, *later = latest.values() or [Tempo(0.0, DEFAULT_TEMPO)]
    return (first._replace(onset=0.0), *later)


def write_midi(piece: Piece, path: Path) -> Path:
    """Writes the piece as a MIDI file, one track per voice, and returns its path."""
    import symusic

    def ticks(quarters: float) -> int:
        return round(quarters * TICKS_PER_QUARTER)

    score: Any = symusic.Score(TICKS_PER_QUARTER)
    for meter in piece.meters:
        score.time_signatures.append(symusic.TimeSignature(ticks(meter.onset), meter.beats, meter.unit))
    for tempo in piece.tempos:
        score.tempos.append(symusic.Tempo(ticks(tempo.onset), qpm=tempo.qpm))
    tracks: list[Any] = [symusic.Track(voice.name, voice.program, voice.is_drum) for voice in piece.voices]
    for note in piece.notes:
        length = max(1, ticks(note.duration))
        tracks[note.voice].notes.append(symusic.Note(ticks(note.onset), length, note.pitch, note.velocity))
    for track in tracks:
        score.tracks.append(track)
    score.dump_midi(path)
    return path


def _check_whole(raw: bytes) -> None:
    """A file is a chunk MThd and as many chunks MTrk as that one says, each of the length that it says itself."""
    if not raw.startswith(b"MThd"[: len(raw)]):
        raise ValueError("no valid MIDI")
    if len(raw) < 14:
        raise ValueError("cut short")
    declared = int.from_bytes(raw[10:12], "big")
    at, tracks = 0, 0
    while at + 8 <= len(raw):
        tracks += raw[at : at + 4] == b"MTrk"
        at += 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
    if at > len(raw) or tracks < declared:
        raise ValueError("cut short")


def believable(meter: Meter) -> Meter:
    """The metre itself, or common time in place of bars of one beat or longer than ``LONGEST_BAR``."""
    if meter.beats > 1 and meter.unit > 0 and meter.quarters <= LONGEST_BAR:
        return meter
    return COMMON_TIME._replace(onset=meter.onset)
