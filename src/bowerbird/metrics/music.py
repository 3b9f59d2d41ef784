"""Music metrics: does generated music have the notes, the harmony and the voice leading of the data, or copies of it?

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

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.averages import mean, overlap, ratio, subset
from bowerbird.metrics.copied import covered, longest, matches
from bowerbird.metrics.measurement import METRICS, Measurement, Protocol, measured, with_data

Grid = Int[np.ndarray, "_ voices"]
Notes = Float[np.ndarray, "_ 3"]
Piece = Grid | Notes
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

OVERLAP_METRICS = ("pitch_class_overlap", "duration_overlap")
PARALLEL_METRICS = ("parallel_fifths", "parallel_octaves")
RUN_METRICS = ("longest_copied_run", "longest_transposed_run", "copied_share")
MIDI_METRICS = (*OVERLAP_METRICS, "scale_consistency", *RUN_METRICS)
MUSIC_METRICS = (*MIDI_METRICS, *PARALLEL_METRICS)

_MAJOR = np.isin(np.arange(12), [0, 2, 4, 5, 7, 9, 11])
SCALES = np.stack([np.roll(_MAJOR, tonic) for tonic in range(12)])
"""Pitch classes of the 12 major scales; each natural minor scale has those of the major scale three semitones up."""


def measure_music(
    samples: Sequence[Piece],
    reference: Sequence[Piece],
    training: Sequence[Piece],
    *,
    kind: Kind,
    frame_quarters: float = 1.0,
    metrics: Sequence[str] | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen ``MUSIC_METRICS`` (None: all that apply to the kind), in the order of ``METRICS``.

    ``reference`` are unseen pieces, ``training`` those that the model learnt from.  Each protocol has, as 'data', what
    real pieces give: overlaps of the training pieces, otherwise values of the reference (for copies, of at most as many
    pieces as samples).  ``frame_quarters`` is the length of a frame of a grid.  ``protocol`` names the reference data
    and may have parameters of its own (how the samples were drawn).
    """
    if not samples or not reference:
        raise BowerbirdError("Music metrics need at least one sample and one reference piece.")
    applicable = MUSIC_METRICS if kind == "grid" else MIDI_METRICS
    for name in metrics or ():
        if name not in applicable:
            raise unknown(f"metric of music of kind {kind}", name, applicable)
    metrics = applicable if metrics is None else metrics
    protocol = replace(protocol, n_generated=len(samples), n_reference=len(reference))
    results = []
    if set(metrics) & {*OVERLAP_METRICS, "scale_consistency"}:
        made, real, learnt = (notes_of(pieces, kind, frame_quarters) for pieces in (samples, reference, training))
        results += _notes_metrics(made, real, learnt, protocol)
    if set(metrics) & set(PARALLEL_METRICS):
        results += _parallel_metrics(samples, reference, protocol)
    if set(metrics) & set(RUN_METRICS):
        results += _run_metrics(samples, reference, training, kind, frame_quarters, protocol)
    order = list(METRICS)
    return sorted((m for m in results if m.name in metrics), key=lambda m: order.index(m.name))


# ------------------------------------------------------------------------------------------------------------ notes


def notes_of(pieces: Sequence[Piece], kind: Kind, frame_quarters: float = 1.0) -> list[Notes]:
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


def scale_consistency(notes: Notes) -> float:
    """Share in [7/12 … 1] of the notes that lie in the scale that fits best; not a number without notes."""
    counts = pitch_classes(notes)
    return float((SCALES @ counts).max() / counts.sum()) if len(notes) else float("nan")


def _notes_metrics(
    samples: Sequence[Notes], reference: Sequence[Notes], training: Sequence[Notes], protocol: Protocol
) -> list[Measurement]:
    results = []
    for name, histogram in zip(OVERLAP_METRICS, (pitch_classes, durations), strict=True):
        made = np.stack([histogram(piece) for piece in samples])
        real = np.sum([histogram(piece) for piece in reference], axis=0)
        learnt = sum((histogram(piece) for piece in training), start=np.zeros_like(real))
        draws = np.random.default_rng(0).multinomial(len(made), np.full(len(made), 1 / len(made)), size=RESAMPLES)
        stderr = float(overlap(draws @ made, real).std()) if len(made) > 1 else None
        settled = with_data(protocol, float(overlap(learnt, real)), notes="counted once each", ticks=TICKS)
        results.append(measured(name, float(overlap(made.sum(0), real)), settled, stderr))
    value, stderr = mean([scale_consistency(piece) for piece in samples if len(piece)])
    real_value, _ = mean([scale_consistency(piece) for piece in reference if len(piece)])
    settled = with_data(protocol, real_value, scales="major and natural minor")
    return [*results, measured("scale_consistency", value, settled, stderr)]


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


def _parallel_metrics(samples: Sequence[Grid], reference: Sequence[Grid], protocol: Protocol) -> list[Measurement]:
    made, real = [parallels(piece) for piece in samples], [parallels(piece) for piece in reference]
    results = []
    for name in ("fifths", "octaves"):
        value, stderr = ratio([100 * getattr(p, name) for p in made], [p.changes for p in made])
        real_value, _ = ratio([100 * getattr(p, name) for p in real], [p.changes for p in real])
        results.append(measured(f"parallel_{name}", value, with_data(protocol, real_value), stderr))
    return results


# ----------------------------------------------------------------------------------------------------------- copies


def steps(piece: Piece, kind: Kind) -> Int[np.ndarray, "steps columns"]:
    """Rows that are equal where two pieces are: frames of a grid; of notes, each with what leads to the next one."""
    if kind == "grid":
        return piece.astype(np.int64)
    onset, pitch = _in_order(piece)
    return np.stack([pitch[:-1], np.diff(onset), pitch[1:]], axis=1)


def transposable_steps(piece: Piece, kind: Kind) -> Int[np.ndarray, "steps columns"]:
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


def _run_metrics(
    samples: Sequence[Piece], reference: Sequence[Piece], training: Sequence[Piece], kind: Kind, frame_quarters: float,
    protocol: Protocol,
) -> list[Measurement]:  # fmt: skip
    n, unseen = len(samples), subset(reference, len(samples))
    span = round(SPAN_QUARTERS / frame_quarters) if kind == "grid" else SPAN_NOTES - 1
    step = f"frame of {frame_quarters:g} quarters" if kind == "grid" else "note"
    protocol = replace(protocol, split="train", n_reference=len(training))
    results = []
    for name, rows in (("longest_copied_run", steps), ("longest_transposed_run", transposable_steps)):
        runs = copied_runs([rows(p, kind) for p in (*samples, *unseen)], [rows(p, kind) for p in training])
        extra = 0 if rows is steps and kind == "grid" else 1  # k steps from one to the next make k + 1
        top, real = (max(longest(run) for run in part) + extra for part in (runs[:n], runs[n:]))
        results.append(measured(name, top, with_data(protocol, real, step=step, unseen=len(unseen))))
        if rows is steps:
            made, heard = [[(covered(run, span), len(run)) for run in part] for part in (runs[:n], runs[n:])]
            share, stderr = ratio(*zip(*made, strict=True))
            settled = with_data(protocol, ratio(*zip(*heard, strict=True))[0], step=step, span=span, unseen=len(unseen))
            results.append(measured("copied_share", share, settled, stderr))
    return results
