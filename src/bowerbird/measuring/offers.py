"""What follows from samples and what they are held against, for each medium: the needs of metrics that it fulfils."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from bowerbird.data.fetch import cache_folder
from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import Compared, Context, Copies, Sides, Written, with_extractor
from bowerbird.metrics import averages
from bowerbird.metrics.cache import FeatureCache, FeatureSet
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.harmony import Music, copied_runs, least_run, steps
from bowerbird.metrics.measurement import Protocol, settings
from bowerbird.metrics.wording import copied_spans, least_span, share_of_form

Offers = dict[str, Callable[[Context], Any]]

OF_FEATURES = ("extractor", "features", "training_features")
"""Needs that an extractor fulfils."""
INSTEAD = ", and pixels are compared by the sliced Wasserstein distance"
"""What samples and real pictures are measured by without an extractor."""

FORMS = ((4, 5), (4, 7), (8, 5), (8, 7))
"""Lines and characters of the verse forms that are looked for."""
OF_A_FORM = 0.95
"""Share of the reference texts from which on they count as verses of one form."""


def protocol_of(data: Any, split: str) -> Protocol:
    """What every measurement against a split of these data states."""
    return Protocol(
        reference=data.name, split=split, fingerprint=data.fingerprint, preprocessing=settings(data.preprocessing)
    )


# --------------------------------------------------------------------------------------------------------- pictures


def picture_offers(
    pictures: Callable[[Context], Sides[Tensor]],
    extractor: Callable[[Context], Extractor] | None,
    training: Tensor | None = None,
    held_out: Tensor | None = None,
) -> Offers:
    """All that follows from samples and real pictures; memorisation needs training and held-out ones of one source.

    Without an extractor there are only the pictures themselves.
    """
    offers: Offers = {"pictures": pictures}
    if extractor is None:
        return offers
    offers |= {"extractor": extractor, "features": _compared}
    if training is not None and held_out is not None:
        known = training, held_out
        offers["training_features"] = lambda context: tuple(_kept(context, images) for images in known)
    return offers


def _compared(context: Context) -> Compared:
    extractor, pictures = context["extractor"], context["pictures"]
    made, real = FeatureSet.of(extractor, pictures.samples), _kept(context, pictures.reference)
    return Compared(extractor, made, real, with_extractor(context.protocol, extractor))


def _kept(context: Context, images: Tensor) -> FeatureSet:
    """Features of real pictures, kept in the cache."""
    return FeatureCache(cache_folder()).of(context["extractor"], images)


# ------------------------------------------------------------------------------------------------------------ texts


def text_sides(protocol: Protocol, samples: list[str], reference: list[str], training: list[str]) -> Sides[list[str]]:
    """Texts beside as many unseen ones, chosen at random with a fixed seed."""
    if not samples or not reference:
        raise BowerbirdError("Text metrics need at least one sample and one reference text.")
    return Sides.of(protocol, samples, averages.subset(reference, len(samples)), training)


def text_offers(
    texts: Callable[[Context], Sides[list[str]]], form: Callable[[Context], tuple[int, int] | None],
    span: int | None = None,
) -> Offers:  # fmt: skip
    """All that follows from texts."""
    return {"texts": texts, "form": form, "copies": lambda context: _text_copies(context, span)}


def _text_copies(context: Context, span: int | None) -> Copies:
    """Of characters; ``span`` None takes the least length that suits the script of the reference."""
    texts = context["texts"]
    found = copied_spans([*texts.samples, *texts.reference], texts.training)
    n, unseen = len(texts.samples), texts.reference
    least = least_span(unseen) if span is None else span
    return Copies(found[:n], found[n:], least, from_training(texts), {"unseen": len(unseen)})


def from_training(sides: Sides[Any]) -> Protocol:
    """Of what is looked for in all of the training data."""
    return replace(sides.protocol, split="train", n_reference=len(sides.training or ()))


def form_of(texts: list[str]) -> tuple[int, int] | None:
    """Lines and characters of the verse form that nearly all texts have, None without one."""
    return next((form for form in FORMS if share_of_form(texts, *form) >= OF_A_FORM), None)


# ------------------------------------------------------------------------------------------------------------ music


def music_sides(
    protocol: Protocol, samples: list[Music], reference: list[Music], training: list[Music]
) -> Sides[list[Music]]:
    if not samples or not reference:
        raise BowerbirdError("Music metrics need at least one sample and one reference piece.")
    return Sides.of(protocol, samples, reference, training)


def music_offers(pieces: Callable[[Context], Sides[list[Music]]], written: Written) -> Offers:
    """All that follows from pieces of music."""
    offers: Offers = {"pieces": pieces, "music": lambda context: written, "copies": _music_copies}
    return offers | ({"voices": lambda context: written} if written.grid else {})


def _music_copies(context: Context) -> Copies:
    """Of frames, or of notes by pitch and distance of onsets; from as many unseen pieces as samples."""
    pieces, written = context["pieces"], context["music"]
    kind, n = written.kind, len(pieces.samples)
    unseen = averages.subset(pieces.reference, n)
    rows = [[steps(piece, kind) for piece in part] for part in ([*pieces.samples, *unseen], pieces.training)]
    found = copied_runs(*rows)
    parameters = {"step": written.step, "unseen": len(unseen)}
    span = least_run(kind, written.frame_quarters)
    return Copies(found[:n], found[n:], span, from_training(pieces), parameters)
