"""Whether music has the notes, the harmony and the voice leading of the data, or runs that were copied from it.

Protocols have, as 'data', what real pieces give: overlaps of the training pieces, otherwise values of the reference.
"""

from collections.abc import Callable
from typing import ClassVar

from bowerbird import registry
from bowerbird.measuring.context import Context, Sides, Written
from bowerbird.measuring.metric import Metric
from bowerbird.measuring.offers import from_training
from bowerbird.metrics.averages import mean, overlap, ratio, subset
from bowerbird.metrics.copied import Symbols, longest
from bowerbird.metrics.harmony import (
    TICKS,
    Music,
    Notes,
    Parallels,
    copied_runs,
    durations,
    histogram_overlap,
    notes_of,
    parallels,
    pitch_classes,
    scale_consistency,
    transposable_steps,
)
from bowerbird.metrics.measurement import Measurement, with_data


def _notes(context: Context) -> tuple[list[Notes], list[Notes], list[Notes]]:
    """Of samples, reference and training pieces."""
    pieces: Sides[list[Music]] = context["pieces"]
    written: Written = context["music"]
    made, real, learnt = (
        notes_of(part, written.kind, written.frame_quarters)
        for part in (pieces.samples, pieces.reference, pieces.training or [])
    )
    return made, real, learnt


class _Overlap(Metric):
    better = "higher"
    needs = ("pieces", "music")
    default = True
    histogram: ClassVar[Callable]

    def compute(self, context: Context) -> list[Measurement]:
        made, real, learnt = context.once(_notes)
        histogram = type(self).histogram
        value, stderr = histogram_overlap(histogram, made, real)
        counts = sum(histogram(piece) for piece in real)
        of_training = sum((histogram(piece) for piece in learnt), start=0 * counts)
        protocol = with_data(
            context["pieces"].protocol, float(overlap(of_training, counts)), notes="counted once each", ticks=TICKS
        )
        return [self.measurement(value, protocol, stderr)]


@registry.metrics.register("pitch_class_overlap")
class PitchClassOverlap(_Overlap):
    title = "pitch-class overlap"
    reading = "shared area of the histograms of notes; 'data' has that of training"
    histogram = staticmethod(pitch_classes)


@registry.metrics.register("duration_overlap")
class DurationOverlap(_Overlap):
    title = "duration overlap"
    reading = "shared area of the histograms of note lengths; 'data' has that of training"
    histogram = staticmethod(durations)


@registry.metrics.register("scale_consistency")
class ScaleConsistency(Metric):
    title = "scale consistency"
    reading = "share of a piece's notes in the major or minor scale that fits it best"
    needs = ("pieces", "music")
    default = True

    def compute(self, context: Context) -> list[Measurement]:
        made, real, _ = context.once(_notes)
        (value, stderr), (data, _) = (
            mean([scale_consistency(piece) for piece in part if len(piece)]) for part in (made, real)
        )
        protocol = with_data(context["pieces"].protocol, data, scales="major and natural minor")
        return [self.measurement(value, protocol, stderr)]


def _parallels(context: Context) -> tuple[list[Parallels], list[Parallels]]:
    """Of samples and reference pieces."""
    pieces = context["pieces"]
    return [parallels(piece) for piece in pieces.samples], [parallels(piece) for piece in pieces.reference]


class _Parallel(Metric):
    unit, better = "1/100 changes", "lower"
    needs = ("pieces", "voices")
    default = True
    kind: str

    def compute(self, context: Context) -> list[Measurement]:
        (value, stderr), (data, _) = (
            ratio([100 * getattr(p, self.kind) for p in part], [p.changes for p in part])
            for part in context.once(_parallels)
        )
        return [self.measurement(value, with_data(context["pieces"].protocol, data), stderr)]


@registry.metrics.register("parallel_fifths")
class ParallelFifths(_Parallel):
    title, kind = "parallel fifths", "fifths"
    reading = "per 100 changes of chord, over all pairs of voices"


@registry.metrics.register("parallel_octaves")
class ParallelOctaves(_Parallel):
    title, kind = "parallel octaves", "octaves"
    reading = "per 100 changes of chord, over all pairs of voices; with unisons"


class _LongestRun(Metric):
    unit = "steps"
    default = True

    def longest(self, context: Context, samples: list[Symbols], unseen: list[Symbols], extra: int) -> list[Measurement]:
        """``extra`` is 1 where k rows from one step to the next make k + 1 steps."""
        pieces = context["pieces"]
        top, real = (max(longest(run) for run in part) + extra for part in (samples, unseen))
        protocol = with_data(from_training(pieces), real, step=context["music"].step, unseen=len(unseen))
        return [self.measurement(top, protocol)]


@registry.metrics.register("longest_copied_run")
class LongestCopiedRun(_LongestRun):
    title = "longest copied run"
    reading = "of frames or notes that a training piece has; memorised where far above 'data', that of unseen pieces"
    needs = ("pieces", "music", "copies")

    def compute(self, context: Context) -> list[Measurement]:
        copies = context["copies"]
        return self.longest(context, copies.samples, copies.unseen, extra=0 if context["music"].grid else 1)


@registry.metrics.register("longest_transposed_run")
class LongestTransposedRun(_LongestRun):
    title, reading = "longest copied run in any key", "the same up to transposition"
    needs = ("pieces", "music")

    def compute(self, context: Context) -> list[Measurement]:
        pieces, kind = context["pieces"], context["music"].kind
        n = len(pieces.samples)
        both = [*pieces.samples, *subset(pieces.reference, n)]
        rows = [[transposable_steps(piece, kind) for piece in part] for part in (both, pieces.training)]
        runs = copied_runs(*rows)
        return self.longest(context, runs[:n], runs[n:], extra=1)
