"""Music: does what was generated have the notes, the harmony and the voice leading of the data, or copies of it?

A piece is either a *grid*, an int array (frames, voices) of MIDI pitches with -1 for a rest, or *notes*, a float array
(notes, 3) of onset and duration in quarter notes and pitch, without drums.  In a grid a pitch that stays in its voice
from frame to frame is one note.

    overlap     Σ min(p_samples, p_data) of two histograms over all notes: pitch classes; durations to 1/12 quarter
    scale       share of a piece's notes in one of 24 scales, major and natural minor, the best one
                (Mogren 2016, arXiv:1611.09904); the minor ones are those of the relative major keys
    parallels   two voices a fifth (an octave or unison) apart, compound intervals included, that both move in the same
                direction to the same interval; per 100 changes of chord, for all pairs of voices
    copies      the longest run of frames, or of notes by pitch and distance of onsets, that a training piece has;
                as it is, and in any key.  (In any key, a run that begins in silence counts from its first sound.)

Standard errors are over samples: of overlaps by a bootstrap, of the others as of means and ratios.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from bowerbird.metrics.averages import Average, overlap
from bowerbird.metrics.copied import matches

Grid = Int[np.ndarray, "_ voices"]
Notes = Float[np.ndarray, "_ 3"]
Music = Grid | Notes
Kind = Literal["grid", "midi"]

REST = -1
TICKS = 12
"""Durations and distances of onsets are rounded to this part of a quarter note."""
LONGEST = 16 * TICKS
"""Longer durations, in ticks, share the last bin."""
RESAMPLES = 200
"""Draws of the bootstrap."""
SPAN_QUARTERS, SPAN_NOTES = 16, 32
"""Least copied run that counts towards the copied share: four bars of a grid, or so many notes."""

_MAJOR = np.isin(np.arange(12), [0, 2, 4, 5, 7, 9, 11])
SCALES = np.stack([np.roll(_MAJOR, tonic) for tonic in range(12)])
"""Pitch classes of the 12 major scales; each natural minor scale has those of the major scale three semitones up."""


# ------------------------------------------------------------------------------------------------------------ notes


def notes_of(pieces: Sequence[Music], kind: Kind, frame_quarters: float = 1.0) -> list[Notes]:
    """Every piece as notes."""
    return [grid_notes(piece, frame_quarters) if kind == "grid" else piece for piece in pieces]


def grid_notes(grid: Grid, frame_quarters: float = 1.0) -> Notes:
    """The notes of a grid by onset, then voice: each run of one pitch in one voice."""
    found = [np.empty((0, 3))]
    for voice in grid.T:
        starts = np.flatnonzero(np.diff(voice, prepend=REST - 1))
        lengths = np.diff(starts, append=len(voice))
        notes = np.stack([starts * frame_quarters, lengths * frame_quarters, voice[starts]], axis=1)
        found.append(notes[voice[starts] != REST])
    notes = np.concatenate(found)
    return notes[np.argsort(notes[:, 0], kind="stable")]


def pitch_classes(notes: Notes) -> Int[np.ndarray, "12"]:
    """How many notes have each pitch class, C first."""
    return np.bincount(notes[:, 2].astype(np.int64) % 12, minlength=12)


def durations(notes: Notes) -> Int[np.ndarray, " ticks"]:
    """How many notes last 0, 1, 2 … ``LONGEST`` ticks."""
    ticks = np.rint(notes[:, 1] * TICKS).astype(np.int64)
    return np.bincount(ticks.clip(0, LONGEST), minlength=LONGEST + 1)


def histogram_overlap(
    histogram: Callable[[Notes], Int[np.ndarray, " bins"]], samples: Sequence[Notes], reference: Sequence[Notes]
) -> Average:
    """The shared area of both sides' histograms over all notes, and its standard error by a bootstrap over samples."""
    made = np.stack([histogram(piece) for piece in samples])
    real = np.sum([histogram(piece) for piece in reference], axis=0)
    draws = np.random.default_rng(0).multinomial(len(made), np.full(len(made), 1 / len(made)), size=RESAMPLES)
    return float(overlap(made.sum(0), real)), float(overlap(draws @ made, real).std()) if len(made) > 1 else None


def scale_consistency(notes: Notes) -> float:
    """Share in [7/12 … 1] of the notes that lie in the scale that fits best; not a number without notes."""
    counts = pitch_classes(notes)
    return float((SCALES @ counts).max() / counts.sum()) if len(notes) else float("nan")


# -------------------------------------------------------------------------------------------------------- parallels


class Parallels(NamedTuple):
    """Counts of one piece."""

    fifths: int
    octaves: int
    """With unisons."""
    changes: int
    """Frames whose chord differs from that of the frame before."""


def parallels(grid: Grid) -> Parallels:
    """Parallel fifths and octaves between all pairs of voices, from each frame to the next."""
    before, after = grid[:-1].astype(np.int64), grid[1:].astype(np.int64)
    fifths = octaves = 0
    for i, j in combinations(range(grid.shape[1]), 2):
        sounding = ((before[:, [i, j]] != REST) & (after[:, [i, j]] != REST)).all(1)
        moves = after - before
        together = sounding & (np.sign(moves[:, i]) * np.sign(moves[:, j]) > 0)
        old, new = np.abs(before[:, i] - before[:, j]) % 12, np.abs(after[:, i] - after[:, j]) % 12
        fifths += int((together & (old == 7) & (new == 7)).sum())
        octaves += int((together & (old == 0) & (new == 0)).sum())
    return Parallels(fifths, octaves, int((before != after).any(1).sum()))


# ----------------------------------------------------------------------------------------------------------- copies


def steps(piece: Music, kind: Kind) -> Int[np.ndarray, "steps columns"]:
    """Rows that are equal where two pieces are: frames of a grid; of notes, each with what leads to the next one."""
    if kind == "grid":
        return piece.astype(np.int64)
    onset, pitch = _in_order(piece)
    return np.stack([pitch[:-1], np.diff(onset), pitch[1:]], axis=1)


def transposable_steps(piece: Music, kind: Kind) -> Int[np.ndarray, "steps columns"]:
    """As ``steps``, but equal wherever two pieces are in any key; both kinds have one row for each step to the next."""
    if kind == "midi":
        onset, pitch = _in_order(piece)
        return np.stack([np.diff(pitch), np.diff(onset)], axis=1)
    grid = piece.astype(np.int64)
    sounding = grid != REST
    first = np.argmax(sounding, axis=1)
    pitch = np.where(sounding.any(1), grid[np.arange(len(grid)), first], REST)
    last = np.maximum.accumulate(np.where(pitch != REST, np.arange(len(grid)), 0))
    pitch = pitch[last]  # in silence, the pitch before it
    chord = np.where(sounding, grid - pitch[:, None], -1000)
    return np.concatenate([chord[:-1], chord[1:], np.diff(pitch)[:, None]], axis=1)


def _in_order(notes: Notes) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Onsets in ticks and pitches, by onset and then pitch."""
    onset, pitch = np.rint(notes[:, 0] * TICKS).astype(np.int64), notes[:, 2].astype(np.int64)
    order = np.lexsort((pitch, onset))
    return onset[order], pitch[order]


def copied_runs(
    samples: Sequence[Shaped[np.ndarray, "_ columns"]], training: Sequence[Shaped[np.ndarray, "_ columns"]]
) -> list[Int[np.ndarray, "_"]]:
    """For each row of each sample, how many rows from there on follow one another in a training piece too."""
    pieces = [*samples, *training]
    rows = np.concatenate(pieces)
    symbols = np.zeros(len(rows), np.int64)
    for column in rows.T:
        span = int(column.max(initial=0)) - int(column.min(initial=0)) + 1
        symbols = np.unique(symbols * span + column - column.min(initial=0), return_inverse=True)[1]
    ends = np.cumsum([len(piece) for piece in pieces])[:-1]
    parts = np.split(symbols, ends)
    return matches(parts[: len(samples)], parts[len(samples) :])


def least_run(kind: Kind, frame_quarters: float = 1.0) -> int:
    """Rows of a copied run from which on it counts towards the copied share."""
    return round(SPAN_QUARTERS / frame_quarters) if kind == "grid" else SPAN_NOTES - 1
