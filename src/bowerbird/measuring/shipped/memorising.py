"""Whether samples are copies of training images.

Held-out images are those of the validation split: a random part of what training images were taken from, while official
test sets can come from elsewhere (the writers of MNIST's test digits wrote none of its training digits).
"""

from dataclasses import replace

from torch import Tensor

from bowerbird import registry
from bowerbird.measuring.context import Compared, Context, all_of
from bowerbird.measuring.metric import Metric
from bowerbird.measuring.shipped.fidelity import enough
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.measurement import Measurement, Protocol, settings, with_data
from bowerbird.metrics.neighbours import Memorisation, copies, memorisation, wilson

MOST = 10_000
"""Most samples, and most held-out images, that enter."""


def _sets(context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Features of samples, of all training images and of held-out ones."""
    sets: Compared = context["features"]
    training, held_out = context["training_features"]
    samples, known = subset(sets.all("samples"), MOST), all_of(training, "training")
    return samples, known, subset(all_of(held_out, "held out"), MOST)


def _found(context: Context) -> Memorisation:
    samples, known, unseen = context.once(_sets)
    return memorisation(samples=samples, training=known, held_out=unseen)


def _protocol(context: Context) -> Protocol:
    samples, known, unseen = context.once(_sets)
    counts = {"n_training": len(known), "n_held_out": len(unseen)}
    return replace(
        context["features"].common, split="train and held out", n_generated=len(samples),
        n_reference=len(known) + len(unseen), parameters=settings(counts),
    )  # fmt: skip


class _Memorising(Metric):
    needs = ("features", "training_features")

    def by_default(self, context: Context) -> bool:
        """Not where the features of all training images would take an hour."""
        return enough(context) and context["extractor"].instant


@registry.metrics.register("copied_fraction")
class CopiedFraction(_Memorising):
    title = "copied fraction"
    reading = (
        "share of samples that are less than a third as far from one training image as from any other; 'data' in the "
        "protocol is that of unseen real images"
    )

    def compute(self, context: Context) -> list[Measurement]:
        samples, known, unseen = context.once(_sets)
        copied = copies(samples=samples, training=known)
        baseline = float(copies(samples=unseen, training=known).double().mean())
        share, n = float(copied.double().mean()), len(copied)
        stderr, interval = (share * (1 - share) / n) ** 0.5, wilson(int(copied.sum()), n)
        return [self.measurement(share, with_data(context.once(_protocol), baseline), stderr, interval)]


@registry.metrics.register("memorisation_ratio")
class MemorisationRatio(_Memorising):
    title = "memorisation ratio"
    reading = (
        "distance to the nearest training image over distance to the nearest held-out image, divided by what unseen "
        "real images give: near 1 is clean, near 0 means copies"
    )

    def compute(self, context: Context) -> list[Measurement]:
        found = context.once(_found)
        return [self.measurement(found.ratio, context.once(_protocol), found.ratio_stderr)]


@registry.metrics.register("closer_to_training")
class CloserToTraining(_Memorising):
    title = "closer to training"
    reading = (
        "share of samples whose nearest real image is a training image; without memorisation the protocol's 'chance'"
    )

    def compute(self, context: Context) -> list[Measurement]:
        found, protocol = context.once(_found), context.once(_protocol)
        with_chance = settings({**dict(protocol.parameters), "chance": found.chance})
        return [self.measurement(found.closer, replace(protocol, parameters=with_chance), found.closer_stderr)]
