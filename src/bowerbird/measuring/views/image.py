"""Pictures."""

from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor

from bowerbird.data.columns import LABEL
from bowerbird.eightbit import to_uint8
from bowerbird.generating import Drawn, draw
from bowerbird.measuring import answers
from bowerbird.measuring.context import (
    Attributes,
    Captions,
    Context,
    Counterparts,
    Named,
    PictureNats,
    Sides,
)
from bowerbird.measuring.extractors import Choice, as_digits, choose, holds_digits, unfit
from bowerbird.measuring.offers import INSTEAD, OF_FEATURES, Offers, picture_offers
from bowerbird.measuring.views.view import View
from bowerbird.media.image.imageset import SOURCE, ImageData, ImageSet
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.matcher import Captioned, nearest_captions
from bowerbird.metrics.measurement import settings
from bowerbird.spec import Classes, Spec, Tensors, Tokens

N_RECONSTRUCTIONS = 2000
"""Most images that are encoded and decoded again."""


class PictureView(View):
    """Pictures: uint8 tensors."""

    data: ImageData

    def offers(self) -> Offers:
        """Pictures that are made from pictures have a true counterpart each, and no use for distances of sets."""
        of_model: Offers = {
            "nats": self.nats,
            "flow_nats": partial(self.nats, estimator="flow"),
            "named": self.named,
            "reconstructions": self.reconstructions,
        }
        offers = {need: of_model[need] for need in answers.abilities(self.model)}
        if _label_names(self.data.spec) != _label_names(self.model.spec):
            offers.pop("named", None)
        kinds = {type(field) for field in self.model.spec.given.values()}
        extractor = self.extractor if self.choice else None
        if kinds & {Tensors, Tokens} and not self.real.unpaired:
            offers |= {"counterparts": self.counterparts} | ({"extractor": extractor} if extractor else {})
        if Tensors in kinds:
            return offers
        if Tokens in kinds:
            offers["captions"] = self.captions
        data = self.data
        offers |= picture_offers(self.pictures, extractor, data.train.images, data.val.images)
        offers |= {"sizes": self.sizes, "cost": self.cost}
        if kinds == {Classes}:
            offers["attributes"] = self.attributes
        if LABEL in self.model.spec.given and holds_digits(data):
            offers["digits"] = self.digits
        return offers

    @cached_property
    def choice(self) -> Choice | None:
        return choose(self.request.extractor, self.data)

    @property
    def missing(self) -> dict[str, str]:
        made_from_pictures = any(isinstance(field, Tensors) for field in self.model.spec.given.values())
        return {} if self.choice else dict.fromkeys(OF_FEATURES, unfit("" if made_from_pictures else INSTEAD))

    @cached_property
    def drawn(self) -> Drawn:
        """From what the split gives, where the model is given captions or would leave classes unsaid."""
        rows, fields = torch.arange(self.n) % len(self.real), self.model.spec.given
        unsaid = any(isinstance(one, Classes) and len(one.counts) > len(one.names) for one in fields.values())
        given = {name: self.real.given[name][rows] for name in (fields if self.caption_name or unsaid else ())}
        return draw(self.model, self.n, seed=self.request.seed, given=given, options=self.options)

    @property
    def real(self) -> ImageSet:
        return self.data.split(self.split)

    @property
    def n_real(self) -> int:
        return min(len(self.real), self.request.n_reference or len(self.real))

    def pictures(self, context: Context) -> Sides[Tensor]:
        real = subset(self.real.images, self.request.n_reference)
        return Sides.of(self.protocol, to_uint8(self.drawn.x), real)

    def extractor(self, context: Context) -> Extractor:
        assert self.choice is not None
        return self.choice.load(self.model.device, self.request.precision)

    def sizes(self, context: Context) -> tuple[int, ...]:
        return self.n, self.n_real, len(self.data.train), len(self.data.val)

    def digits(self, context: Context) -> Tensor:
        digit_of = as_digits(self.data.classes)
        assert digit_of is not None
        return digit_of[self.drawn.given[LABEL]]

    def attributes(self, context: Context) -> Attributes:
        names = [*self.model.spec.given]
        asked, train, held_out = (
            {name: given[name] for name in names}
            for given in (self.drawn.given, self.data.train.given, self.data.val.given)
        )
        classes = {name: field.names for name, field in self.model.spec.given.items() if isinstance(field, Classes)}
        return Attributes(
            to_uint8(self.drawn.x), asked, classes, self.data.train.images, train, self.data.val.images, held_out,
            self.protocol,
        )  # fmt: skip

    def chosen(self, n: int | None) -> ImageSet:
        """The same n reference pictures every time, with what they are given with."""
        given = {name: subset(values, n) for name, values in self.real.given.items()}
        return ImageSet(subset(self.real.images, n), given)

    def nats(self, context: Context, *, estimator: str = "nll") -> PictureNats:
        real = self.chosen(self.request.n_reference)
        nats, said = answers.nats(self.model, real, len(real), self.request.seed, estimator)
        protocol = replace(self.protocol, n_reference=len(nats), parameters=settings({"estimator": said}))
        return PictureNats(nats, self.data.dims, protocol)

    def named(self, context: Context) -> Named:
        real = self.chosen(self.request.n_reference)
        found = answers.named(self.model, real, len(real))
        return Named(found, real.given[LABEL], replace(self.protocol, n_reference=len(real)))

    def reconstructions(self, context: Context) -> Counterparts:
        real = self.chosen(min(self.request.n_reference or N_RECONSTRUCTIONS, N_RECONSTRUCTIONS))
        made = answers.reconstructed(self.model, real, len(real))
        return Counterparts(made, real.images, replace(self.protocol, n_reference=len(made)))

    def counterparts(self, context: Context) -> Counterparts:
        """What the model makes from the same things as the real pictures of the split."""
        real = self.chosen(self.request.n_reference)
        made = answers.remade(self.model, real, len(real), self.options, self.request.seed)
        protocol = replace(
            self.protocol, n_generated=len(made), n_reference=len(made), parameters=settings(self.options)
        )
        return Counterparts(made, real.images, protocol, self._source(context, real))

    def _source(self, context: Context, real: ImageSet) -> Tensor | None:
        """The pictures that they were made from, or what copying makes of their captions."""
        if self.caption_name is None:
            return real.given.get(SOURCE)
        said, train = context.once(self.captions), self.data.train
        known = train.given[self.caption_name]
        return train.images[nearest_captions(said.asked, known, said.field.vocab_size, said.field.pad)]

    @property
    def caption_name(self) -> str | None:
        """The field that is a caption; of several the first."""
        return next((name for name, field in self.model.spec.given.items() if isinstance(field, Tokens)), None)

    def captions(self, context: Context) -> Captions:
        name, train = self.caption_name, self.data.train
        assert name is not None
        field, plain = self.model.spec.given[name], train.given[name][:, None]
        assert isinstance(field, Tokens)
        asked = self.chosen(self.request.n_reference).given[name]
        return Captions(asked, Captioned(train.images, train.wordings.get(name, plain)), field)


def _label_names(spec: Spec) -> tuple[str, ...]:
    """Empty without labels."""
    label = spec.given.get(LABEL)
    return label.names if isinstance(label, Classes) else ()


view = PictureView
