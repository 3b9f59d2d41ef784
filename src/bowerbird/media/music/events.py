"""Music as a sequence of events, for any number of instruments: REMI (Huang and Yang 2020, "Pop Music Transformer",
section 3), with the pitch and the instrument of a note in one token.

    piece     bar*
    bar       Bar(metre) [Tempo] moment*           a tempo stands where it changes
    moment    Position note+                       position in the bar in 1/12 quarters
    note      Note(voice, pitch) [Velocity] Duration

The notes of a moment are ordered by voice, then from low to high.  Twelfths of a quarter hold sixteenths and triplets
alike.  There is a token for every metre, tempo, voice, velocity and duration of the training data and for every pitch
between the lowest and the highest of each voice; velocities are left out when there is but one.  What other music has
beyond that is written with the nearest token.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.score import Meter, Note, Piece, Tempo, Voice, from_beginning_tempos

TICKS = 12
"""Per quarter."""
DURATIONS = (*range(1, 4 * TICKS + 1), *range(5 * TICKS, 16 * TICKS + 1, TICKS))
"""In ticks: exact up to four quarters, then whole quarters."""
VELOCITY_STEP = 16
"""Velocities are kept in 8 steps."""
TEMPO_STEP = math.log(1.06)
"""Neighbouring tempos differ by 6 %."""
SLOWEST = 20.0
LONGEST_SILENCE = 4
"""Bars without a note in a row; longer silences are shortened."""
MOST_NAMES = 8
"""Tracks are told apart by name when the training data have at most so many kinds …"""
MOST_PROGRAMS = 24
"""… else by instrument when those are at most so many, else by General MIDI's sixteen families of instruments."""
FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass",
    "reed", "pipe", "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects",
)  # fmt: skip
DRUMS = Voice("drums", 0, is_drum=True)


class Part(NamedTuple):
    """A voice with the range of its pitches in the training data."""

    voice: Voice
    low: int
    high: int


@dataclass(frozen=True)
class EventCodec(MusicCodec):
    """Pieces ⇄ tokens."""

    meters: tuple[tuple[int, int], ...]
    """(beats, unit)."""
    tempos: tuple[int, int]
    """Lowest and highest tempo step."""
    parts: tuple[Part, ...]
    velocities: tuple[int, ...]
    """Velocity steps."""
    longest: int
    """Index of the longest duration."""

    @classmethod
    def of(cls, pieces: Sequence[Piece], margin: int = 0) -> "EventCodec":
        """The codec of training data, with ``margin`` semitones more on both sides of the range of each voice."""
        meters = {(m.beats, m.unit) for piece in pieces for m in piece.meters if m.onset < piece.quarters}
        tempos = [_tempo_step(tempo.qpm) for piece in pieces for tempo in piece.tempos]
        velocities = sorted({note.velocity // VELOCITY_STEP for piece in pieces for note in piece.notes})
        longest = max(_duration_index(note.duration) for piece in pieces for note in piece.notes)
        parts = _parts(pieces, margin)
        return cls(tuple(sorted(meters)), (min(tempos), max(tempos)), parts, tuple(velocities), longest)

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> "EventCodec":
        parts = tuple(Part(Voice(*voice), low, high) for voice, low, high in table["parts"])
        meters = tuple((beats, unit) for beats, unit in table["meters"])
        low, high = table["tempos"]
        return cls(meters, (low, high), parts, tuple(table["velocities"]), table["longest"])

    def to_json(self) -> str:
        names = ("meters", "tempos", "parts", "velocities", "longest")
        return json.dumps({"kind": "midi"} | {name: getattr(self, name) for name in names})

    @cached_property
    def events(self) -> list[tuple[str, int, int]]:
        """What each token means: kind of event and up to two numbers."""
        longest_bar = max(_bar_ticks(*meter) for meter in self.meters)
        return [
            *[("special", i, 0) for i in range(self.n_specials)],
            *[("bar", beats, unit) for beats, unit in self.meters],
            *[("tempo", step, 0) for step in range(self.tempos[0], self.tempos[1] + 1)],
            *[("position", tick, 0) for tick in range(longest_bar)],
            *[("velocity", step, 0) for step in self.velocities if len(self.velocities) > 1],
            *[("duration", i, 0) for i in range(self.longest + 1)],
            *[("note", v, p) for v, part in enumerate(self.parts) for p in range(part.low, part.high + 1)],
        ]

    @cached_property
    def _token(self) -> dict[tuple[str, int, int], int]:
        return {event: token for token, event in enumerate(self.events)}

    @property
    def vocab_size(self) -> int:
        return len(self.events)

    @property
    def pitched(self) -> Bool[np.ndarray, " vocab"]:
        return np.array([kind == "note" and not self.parts[v].voice.is_drum for kind, v, _ in self.events])

    # ------------------------------------------------------------------------------------------ music to tokens

    def encode(self, piece: Piece) -> list[int]:
        """The tokens of a piece; a voice that has no counterpart among ours is left out."""
        token, bars = self._token, _Bars(piece.meters, self.meters)
        part_of = [self.part(voice) for voice in piece.voices]
        tempos = [(round(tempo.onset * TICKS), self._nearest_tempo(tempo.qpm)) for tempo in piece.tempos]
        tokens: list[int] = []
        bar, position, tempo = None, None, None
        for tick, v, pitch, duration, step in self._rows(piece.notes, part_of):
            number, meter, at = bars.locate(tick)
            if number != bar:
                first = number if bar is None else max(bar + 1, number - LONGEST_SILENCE)
                tokens += [token["bar", *bars.meter(n)] for n in range(first, number)] + [token["bar", *meter]]
                current = tempos[max(0, bisect_right(tempos, (tick - at, math.inf)) - 1)][1]
                if current != tempo:
                    tokens.append(token["tempo", current, 0])
                bar, position, tempo = number, None, current
            if at != position:
                tokens.append(token["position", at, 0])
                position = at
            tokens.append(token["note", v, pitch])
            if len(self.velocities) > 1:
                tokens.append(token["velocity", step, 0])
            tokens.append(token["duration", duration, 0])
        return tokens

    def _rows(self, notes: Iterable[Note], part_of: list[int | None]) -> list[tuple[int, int, int, int, int]]:
        """(tick, part, pitch, duration index, velocity step) of each note, in the order of the tokens."""
        steps = [min(self.velocities, key=lambda step: abs(step - v // VELOCITY_STEP)) for v in range(128)]
        rows = []
        for onset, duration, pitch, voice, velocity in notes:
            if (v := part_of[voice]) is not None:
                _, low, high = self.parts[v]
                pitch = _into_range(pitch, low, high)
                rows.append(
                    (round(onset * TICKS), v, pitch, min(_duration_index(duration), self.longest), steps[velocity])
                )
        return sorted(rows)

    def part(self, voice: Voice) -> int | None:
        """The voice of ours that is most like this one, if it is one of the same sort (pitches or drums)."""
        alike = [
            (mine == voice, mine.program == voice.program, mine.program // 8 == voice.program // 8, -number)
            for number, (mine, _, _) in enumerate(self.parts)
            if mine.is_drum == voice.is_drum
        ]
        return -max(alike)[-1] if alike else None

    def _nearest_tempo(self, qpm: float) -> int:
        return min(max(_tempo_step(qpm), self.tempos[0]), self.tempos[1])

    # ------------------------------------------------------------------------------------------ tokens to music

    def piece(self, tokens: Sequence[int]) -> Piece:
        """The piece that the tokens mean; what stands where it has no meaning is passed over."""
        notes: list[Note] = []
        meters: list[Meter] = []
        tempos: list[Tempo] = []
        bar, next_bar, now = 0, 0, 0
        for token in tokens:
            kind, a, b = self.events[token] if 0 <= token < len(self.events) else ("special", 0, 0)
            if kind == "bar":
                bar = now = next_bar
                next_bar = bar + _bar_ticks(a, b)
                if not meters or (meters[-1].beats, meters[-1].unit) != (a, b):
                    meters.append(Meter(bar / TICKS, a, b))
            elif kind == "tempo":
                tempos.append(Tempo(bar / TICKS, round(_tempo(a), 1)))
            elif kind == "position":
                now = bar + a
            elif kind == "note":
                notes.append(Note(now / TICKS, 1.0, b, a))
            elif kind == "velocity" and notes:
                notes[-1] = notes[-1]._replace(velocity=min(127, a * VELOCITY_STEP + VELOCITY_STEP // 2))
            elif kind == "duration" and notes:
                notes[-1] = notes[-1]._replace(duration=DURATIONS[a] / TICKS)
        voices = tuple(part.voice for part in self.parts)
        opening = Meter(0.0, *self.meters[0])
        return Piece(sorted(notes), voices, tuple(meters) or (opening,), from_beginning_tempos(tempos))


class _Bars:
    """Where the bars of a piece are: a metre holds from the first bar line at or after its onset."""

    def __init__(self, meters: Sequence[Meter], known: Sequence[tuple[int, int]]):
        self.starts, self.numbers, self.kinds = [0], [0], [_nearest(meters[0], known)]
        for meter in meters[1:]:
            kind, length = _nearest(meter, known), _bar_ticks(*self.kinds[-1])
            n_bars = max(0, math.ceil((round(meter.onset * TICKS) - self.starts[-1]) / length))
            if n_bars == 0:
                self.kinds[-1] = kind
            elif kind != self.kinds[-1]:
                self.starts.append(self.starts[-1] + n_bars * length)
                self.numbers.append(self.numbers[-1] + n_bars)
                self.kinds.append(kind)

    def locate(self, tick: int) -> tuple[int, tuple[int, int], int]:
        """Number of the bar in which a tick lies, its metre, and the ticks since its beginning."""
        i = bisect_right(self.starts, tick) - 1
        n_bars, at = divmod(tick - self.starts[i], _bar_ticks(*self.kinds[i]))
        return self.numbers[i] + n_bars, self.kinds[i], at

    def meter(self, number: int) -> tuple[int, int]:
        """The metre of a bar."""
        return self.kinds[bisect_right(self.numbers, number) - 1]


def _nearest(meter: Meter, known: Sequence[tuple[int, int]]) -> tuple[int, int]:
    own, ticks = (meter.beats, meter.unit), _bar_ticks(meter.beats, meter.unit)
    return min(known, key=lambda other: (other != own, abs(_bar_ticks(*other) - ticks)))


def _bar_ticks(beats: int, unit: int) -> int:
    return max(1, round(4 * TICKS * beats / unit))


def _tempo_step(qpm: float) -> int:
    return max(0, round(math.log(qpm / SLOWEST) / TEMPO_STEP))


def _tempo(step: int) -> float:
    return SLOWEST * math.exp(step * TEMPO_STEP)


def _duration_index(quarters: float) -> int:
    """Index of the nearest duration that there is."""
    ticks = round(quarters * TICKS)
    exact = 4 * TICKS
    return max(0, ticks - 1) if ticks <= exact else min(exact - 5 + round(quarters), len(DURATIONS) - 1)


def _into_range(pitch: int, low: int, high: int) -> int:
    """The pitch itself, or its octave nearest to the range (which may be narrower than an octave)."""
    while pitch < low and pitch + 12 <= high:
        pitch += 12
    while pitch > high and pitch - 12 >= low:
        pitch -= 12
    return min(max(pitch, low), high)


def _parts(pieces: Sequence[Piece], margin: int) -> tuple[Part, ...]:
    """The voices of training data with the ranges of their pitches, from high to low; drums last."""
    voices = {voice for piece in pieces for voice in piece.voices}
    kinds = ((_as_named, MOST_NAMES), (_by_program, MOST_PROGRAMS), (_by_family, len(voices)))
    kind = next(kind for kind, most in kinds if len({kind(voice) for voice in voices}) <= most)
    pitches: dict[Voice, set[int]] = {}
    for piece in pieces:
        of_voice = [pitches.setdefault(kind(voice), set()) for voice in piece.voices]
        for note in piece.notes:
            of_voice[note.voice].add(note.pitch)
    parts = []
    for voice, found in sorted(
        pitches.items(), key=lambda item: (item[0].is_drum, -min(item[1]) - max(item[1]), item[0])
    ):
        extra = 0 if voice.is_drum else margin
        parts.append(Part(voice, max(0, min(found) - extra), min(127, max(found) + extra)))
    return tuple(parts)


def _as_named(voice: Voice) -> Voice:
    return voice


def _by_program(voice: Voice) -> Voice:
    return DRUMS if voice.is_drum else Voice(FAMILIES[voice.program // 8], voice.program)


def _by_family(voice: Voice) -> Voice:
    return DRUMS if voice.is_drum else Voice(FAMILIES[voice.program // 8], voice.program // 8 * 8)
