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

    @property
    def called(self) -> str:
        """Its name, or what General MIDI says of a voice without one."""
        return self.name or ("drums" if self.is_drum else f"program {self.program}")


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
    unended: bool = False
    """The file has notes without an end, which are left out."""

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


def midi_songs(raw: bytes) -> list[bytes]:
    """The songs of a MIDI file, each as a file with a true header: one, or one per track in a file of type 2.

    RIFF wrappers (.rmi), foreign chunks and too low numbers of tracks are put right; ValueError says, in a few words,
    why a file cannot be read whole.
    """
    raw = _without_riff(raw)
    if not raw.startswith(b"MThd"[: len(raw)]):
        raise ValueError("no valid MIDI")
    kind, declared, division = (int.from_bytes(raw[at : at + 2], "big") for at in (8, 10, 12))
    tracks = _tracks(raw, declared)
    if kind > 2:
        raise ValueError(f"MIDI of an unknown type ({kind})")
    if division >= 0x8000:
        raise ValueError("timed in SMPTE frames instead of beats")
    if division == 0:
        raise ValueError("without a beat length")
    if kind == 2:
        return [_midi_file(division, [track]) for track in tracks]
    return [_midi_file(division, tracks)]


def read_midi(raw: bytes) -> Piece:
    """The piece in a MIDI file; ValueError says, in a few words, why there is none."""
    songs = midi_songs(raw)
    if len(songs) != 1:
        raise ValueError(f"MIDI with {len(songs)} songs")
    score = _parsed(songs[0])
    per_quarter = score.ticks_per_quarter
    voices: list[Voice] = []
    notes: list[Note] = []
    for track in score.tracks:
        if len(track.notes) == 0:
            continue
        columns = track.notes.numpy()
        onset = np.maximum(columns["time"], 0) / per_quarter
        duration = np.maximum(columns["duration"], 0) / per_quarter
        rows = zip(
            onset.tolist(), duration.tolist(), columns["pitch"].tolist(), columns["velocity"].tolist(), strict=True
        )
        notes += [Note(q, length, pitch, len(voices), velocity) for q, length, pitch, velocity in rows]
        voices.append(_unlike(voices, Voice(track.name.strip(), track.program, track.is_drum)))
    unended = _parsed(_with_every_note_ended(songs[0])).note_num() > len(notes)
    if not notes:
        raise ValueError("with notes that never end" if unended else "without notes")
    meters = [believable(Meter(m.time / per_quarter, m.numerator, m.denominator)) for m in score.time_signatures]
    tempos = [Tempo(t.time / per_quarter, t.qpm) for t in score.tempos if 1 < t.qpm < 1000]
    notes.sort()
    return Piece(notes, tuple(voices), from_beginning(meters), from_beginning_tempos(tempos, notes[0]), unended)


def _unlike(others: Sequence[Voice], voice: Voice) -> Voice:
    """The voice itself, with a number if another track is called the same: two hands of a piano stay two voices."""
    alike = sum(other[1:] == voice[1:] and other.name.startswith(voice.name) for other in others)
    return voice._replace(name=f"{voice.name or 'track'} {alike + 1}") if voice in others else voice


def _parsed(raw: bytes) -> Any:  # symusic's stubs do not know the attributes of a score
    from symusic import Score

    try:
        return Score.from_midi(raw)
    except Exception as error:  # symusic raises RuntimeError, ValueError and its own kinds, undocumented
        raise ValueError("no valid MIDI") from error


def _without_riff(raw: bytes) -> bytes:
    """The MIDI file inside of a RIFF file of the kind RMID."""
    if raw[:4] != b"RIFF" or raw[8:12] != b"RMID":
        return raw
    at = 12
    while at + 8 <= len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        if raw[at : at + 4] == b"data":
            return raw[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise ValueError("cut short")


def _tracks(raw: bytes, declared: int) -> list[bytes]:
    """What the chunks MTrk hold; there must be as many as the header says, and each as long as it says itself."""
    at = 8 + int.from_bytes(raw[4:8], "big")
    if len(raw) < max(14, at):
        raise ValueError("cut short")
    tracks: list[bytes] = []
    while at + 8 <= len(raw):
        end = at + 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
        if raw[at : at + 4] == b"MTrk":
            tracks.append(raw[at + 8 : end])
        if end > len(raw) and (raw[at : at + 4] == b"MTrk" or len(tracks) < declared):
            raise ValueError("cut short")
        at = end
    if len(tracks) < declared or raw[at:].startswith(b"MTrk"):
        raise ValueError("cut short")
    return tracks


def _midi_file(division: int, tracks: list[bytes]) -> bytes:
    header = b"MThd" + (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in (1, len(tracks), division))
    return header + b"".join(b"MTrk" + len(track).to_bytes(4, "big") + track for track in tracks)


def _with_every_note_ended(song: bytes) -> bytes:
    """The song with the ends of all possible notes at the ends of its tracks; shows which notes have none there."""
    ends = b"".join(b"".join(bytes((0, 0x80 | channel, pitch, 0)) for pitch in range(128)) for channel in range(16))
    division, at, tracks = int.from_bytes(song[12:14], "big"), 14, []
    while at < len(song):
        end = at + 8 + int.from_bytes(song[at + 4 : at + 8], "big")
        track = song[at + 8 : end]
        tracks.append(track[:-3] + ends[1:] if track.endswith(b"\xff\x2f\x00") else track + ends)
        at = end
    return _midi_file(division, tracks)


def from_beginning(meters: list[Meter]) -> tuple[Meter, ...]:
    """In order, the last one of each onset, common time before the first."""
    latest = {0.0: COMMON_TIME} | {meter.onset: meter for meter in sorted(meters, key=lambda meter: meter.onset)}
    return tuple(latest.values())


def from_beginning_tempos(tempos: list[Tempo], first_note: Note | None = None) -> tuple[Tempo, ...]:
    """In order, the last one of each onset.  The first holds from the beginning, unless this note comes before it:
    then the default tempo does."""
    if first_note is not None and tempos and min(tempos).onset > first_note.onset:
        tempos = [Tempo(0.0, DEFAULT_TEMPO), *tempos]
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


def believable(meter: Meter) -> Meter:
    """The metre itself, or common time in place of bars of one beat or longer than ``LONGEST_BAR``."""
    if meter.beats > 1 and meter.unit > 0 and meter.quarters <= LONGEST_BAR:
        return meter
    return COMMON_TIME._replace(onset=meter.onset)
