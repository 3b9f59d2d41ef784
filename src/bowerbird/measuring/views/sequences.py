"""Sequences of tokens: what texts and music have in common."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from torch import Tensor

from bowerbird.data.tokens import Evaluation, TokenData
from bowerbird.errors import BowerbirdError
from bowerbird.measuring import answers
from bowerbird.measuring.context import Context, DocumentNats
from bowerbird.measuring.offers import Offers
from bowerbird.measuring.request import Measuring
from bowerbird.measuring.views.view import View
from bowerbird.metrics.measurement import Protocol, settings
from bowerbird.models.base import GenerativeModel


class SequenceView(View):
    """Sequences of tokens: what all of them have in common."""

    data: TokenData

    def __init__(self, model: GenerativeModel, data: TokenData, request: Measuring):
        super().__init__(model, data, request)
        if data.spec.codec != model.spec.codec:
            raise BowerbirdError(
                f"{data.name} was read into other tokens than this model's; measure it on what it was trained on, or "
                "with --data.text.tokenizer of its run folder."
            )

    def offers(self) -> Offers:
        if "nats" not in answers.abilities(self.model):
            return {}
        return {"document_nats": self.document_nats, "tokens": lambda context: self.scored[1]}

    @cached_property
    def evaluation(self) -> Evaluation:
        return self.data.evaluation(self.split)

    @property
    def n_examples(self) -> int:
        """Reference examples that enter."""
        n = len(self.evaluation.examples)
        return min(self.request.n_reference or n, n)

    @cached_property
    def scored(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], str]:
        return answers.document_nats(self.model, self.evaluation.examples, self.n_examples)

    def document_nats(self, context: Context) -> DocumentNats:
        nats, _, rows, estimator = self.scored
        parameters = settings({"estimator": estimator, "context": self.data.tokens.context})
        return DocumentNats(nats, replace(self.protocol, n_reference=len(nats), parameters=parameters), rows)

    @property
    def drawn_protocol(self) -> Protocol:
        """Of samples that were drawn with the user's options."""
        return replace(self.protocol, parameters=settings(self.options))

    @property
    def rows(self) -> list[Tensor]:
        """The tokens of every sample, padded after its end."""
        return list(self.drawn.x)

    def documents(self, split: str) -> list[Tensor]:
        """The tokens of every example of a split."""
        examples = self.data.evaluation(split).examples
        return [examples.tokens[begin:end].long() for begin, end in zip(examples.begin, examples.end, strict=True)]
