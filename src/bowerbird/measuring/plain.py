"""Measures what any program made: pictures as tensors, texts as strings, music as arrays, likelihoods as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.measuring.context import Context, DocumentNats, Sides, Written
from bowerbird.measuring.engine import measure_context
from bowerbird.measuring.offers import Offers, music_offers, music_sides, picture_offers, text_offers, text_sides
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.harmony import Kind, Music
from bowerbird.metrics.measurement import Measurement, Protocol

COUNTED = {unit: f"{unit}s" for unit in ("token", "byte", "character", "frame", "note")}
"""What a loss may be divided by, and the need that it fulfils."""


def measure_images(
    samples: UInt8[Tensor, "n c h w"],
    reference: UInt8[Tensor, "m c2 h2 w2"],
    *,
    extractor: Extractor,
    metrics: Sequence[str] | None = None,
    training: UInt8[Tensor, "M c2 h2 w2"] | None = None,
    held_out: UInt8[Tensor, "k c2 h2 w2"] | None = None,
    digits: Int[Tensor, " n"] | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen metrics of pictures (None: those that apply by default) against reference pictures.

    ``protocol`` says of the reference what it is.  ``training`` and ``held_out`` are needed for memorisation,
    ``digits`` (what each sample was asked to show) for class accuracy, which the shipped classifier judges whatever the
    extractor.  Features of reference, training and held-out images are read from the cache or added to it.
    """
    sides: Sides[Tensor] = Sides.of(protocol, samples, reference)
    offers = picture_offers(lambda context: sides, lambda context: extractor, training, held_out)
    sizes = tuple(len(images) for images in (samples, reference, training, held_out) if images is not None)
    offers["sizes"] = lambda context: sizes
    if digits is not None:
        offers["digits"] = lambda context: digits
    return measure_context(Context(protocol, offers, "these images"), metrics)


def measure_texts(
    samples: Sequence[str],
    reference: Sequence[str],
    training: Sequence[str],
    *,
    metrics: Sequence[str] | None = None,
    form: tuple[int, int] | None = None,
    span: int | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen metrics of texts (None: all that apply).

    ``reference`` are unseen texts of the kind and length of the samples: as many of them as there are samples, chosen
    at random with a fixed seed, give the value 'data' of real text that each protocol has.  ``training`` is the whole
    training text.  ``form`` is the number of lines and characters for ``text_form``.  ``span`` is the least number of
    characters of a copied span that counts (None: what suits the script of the reference).  ``protocol`` names the
    reference data and may have parameters of its own (how the samples were drawn).
    """
    sides = text_sides(protocol, list(samples), list(reference), list(training))
    offers = text_offers(lambda context: sides, lambda context: form, span)
    return measure_context(Context(protocol, offers, "these texts"), metrics)


def measure_translations(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    metrics: Sequence[str] | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen metrics of texts with one reference each (None: all that apply).

    ROUGE-Lsum goes line by line: break summaries into one sentence per line.  ``protocol`` names the reference data and
    may have parameters of its own (how it was decoded).
    """
    if len(hypotheses) != len(references):
        raise BowerbirdError(
            f"{len(hypotheses)} translations cannot be held against {len(references)} references; give one each."
        )
    if not hypotheses:
        raise BowerbirdError("There are no translations to measure.")
    sides: Sides[list[str]] = Sides.of(protocol, list(hypotheses), list(references))
    offers: Offers = {"translations": lambda context: sides}
    return measure_context(Context(protocol, offers, "these translations"), metrics)


def measure_music(
    samples: Sequence[Music],
    reference: Sequence[Music],
    training: Sequence[Music],
    *,
    kind: Kind,
    frame_quarters: float = 1.0,
    metrics: Sequence[str] | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen metrics of music (None: all that apply to the kind).

    ``reference`` are unseen pieces, ``training`` those that the model learnt from.  Each protocol has, as 'data', what
    real pieces give: overlaps of the training pieces, otherwise values of the reference (for copies, of at most as many
    pieces as samples).  ``frame_quarters`` is the length of a frame of a grid.  ``protocol`` names the reference data
    and may have parameters of its own (how the samples were drawn).
    """
    sides = music_sides(protocol, list(samples), list(reference), list(training))
    written = Written(True, frame_quarters) if kind == "grid" else Written(False)
    context = Context(protocol, music_offers(lambda context: sides, written), f"music of kind {kind}")
    return measure_context(context, metrics)


def measure_nll(
    nll: Float[np.ndarray, " n"],
    counts: Mapping[str, Shaped[np.ndarray, " n"] | int],
    *,
    bigram: Float[np.ndarray, " n"] | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The loss of n documents in every unit for which ``counts`` has their numbers.

    ``nll`` has the nats of each document over all its predicted tokens; ``counts`` its numbers of ``COUNTED``: token
    (only predicted ones), byte (UTF-8), character, frame, note; or the total of all documents, where only that is known
    (the standard error is then, relative to the value, that of the loss per token).  ``bigram`` has the nats of the
    bigram baseline for the same tokens.  ``protocol`` says of which data, and how they were read.
    """
    if not len(nll):
        raise BowerbirdError("There are no sequences whose likelihood could be measured.")
    documents = DocumentNats(nll, replace(protocol, n_reference=len(nll)))
    offers: Offers = {"document_nats": lambda context: documents}
    for unit in counts:
        if unit not in COUNTED:
            raise unknown("unit of a loss", unit, COUNTED)
        offers[COUNTED[unit]] = lambda context, unit=unit: counts[unit]  # type: ignore[misc]
    if bigram is not None:
        offers["bigram"] = lambda context: bigram
    return measure_context(Context(protocol, offers, "these likelihoods"))
