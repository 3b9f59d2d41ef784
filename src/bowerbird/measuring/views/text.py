"""Texts, chats, and what pairs of texts translate to."""

from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.measuring import answers
from bowerbird.measuring.context import Context, Sides
from bowerbird.measuring.offers import Offers, form_of, text_offers, text_sides
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.views.sequences import SequenceView
from bowerbird.media.image.imageset import SOURCE
from bowerbird.metrics.measurement import settings
from bowerbird.models.base import GenerativeModel


class WrittenView(SequenceView):
    """Sequences that are text: texts, chats, and what pairs translate to."""

    def offers(self) -> Offers:
        offers = super().offers()
        if offers and self.n_examples == len(self.evaluation.examples):
            offers |= {
                "bytes": lambda context: self.evaluation.n_bytes,
                "characters": lambda context: self.evaluation.n_characters,
            }
        return offers

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_spec(self.data.spec)

    def decoded(self, rows: list[Tensor]) -> list[str]:
        return [self.tokenizer.decode(row.tolist()) for row in rows]


class TextView(WrittenView):
    """Texts that are written without a source."""

    def offers(self) -> Offers:
        return super().offers() | text_offers(self.texts, lambda context: form_of(self.reference))

    @cached_property
    def reference(self) -> list[str]:
        """The texts of the split; of a stream, texts of the samples' length."""
        whole = self.data.texts(self.split)
        return whole if len(whole) != 1 else self.decoded(self.documents(self.split))

    def texts(self, context: Context) -> Sides[list[str]]:
        samples = self.decoded(self.rows)
        return text_sides(self.drawn_protocol, samples, self.reference, self.data.texts("train"))


class TranslationView(WrittenView):
    """Texts that are translations of others."""

    def offers(self) -> Offers:
        return super().offers() | {"translations": self.translations}

    def translations(self, context: Context) -> Sides[list[str]]:
        made = answers.translated(
            self.model, self.evaluation.examples, self.n_examples, self.options, self.request.seed
        )
        references = [target for _, target in self.data.pairs(self.split)][: self.n_examples]
        parameters = settings(answers.decoding(self.model, self.options))
        return Sides.of(replace(self.protocol, parameters=parameters), self.decoded(made), references)


def view(model: GenerativeModel, data: Any, request: Measuring) -> WrittenView:
    """Of texts that are made from a source, or from nothing."""
    return (TranslationView if SOURCE in model.spec.given else TextView)(model, data, request)
