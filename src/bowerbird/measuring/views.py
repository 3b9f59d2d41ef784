"""What each medium offers to metrics: how its tokens or tensors become what can be looked at, and what there is of it.

This is the one place that knows that there are pictures, texts, music, speech and video.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bowerbird import machine
from bowerbird.data.columns import LABEL
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.tokens import Evaluation, TokenData
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Drawn, draw
from bowerbird.measuring import answers
from bowerbird.measuring.context import (
    Attributes,
    Captions,
    Context,
    Counterparts,
    DocumentNats,
    Moving,
    Named,
    PictureNats,
    SamplingCost,
    Sides,
    Vocoded,
    Written,
)
from bowerbird.measuring.extractors import Choice, as_digits, choose, choose_by_shape, holds_digits, unfit
from bowerbird.measuring.offers import (
    INSTEAD,
    OF_FEATURES,
    Offers,
    form_of,
    music_offers,
    music_sides,
    picture_offers,
    protocol_of,
    text_offers,
    text_sides,
)
from bowerbird.measuring.request import Measuring
from bowerbird.media.image.imageset import SOURCE, ImageData, ImageSet, to_uint8
from bowerbird.media.medium import Opened, medium
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.grid import GridCodec
from bowerbird.media.speech import soundset as sounds
from bowerbird.media.speech.soundset import SoundData
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.media.video import clipset as video
from bowerbird.media.video.clipset import ClipData
from bowerbird.metrics import motion
from bowerbird.metrics.chosen import subset
from bowerbird.metrics.features import Extractor
from bowerbird.metrics.harmony import Music
from bowerbird.metrics.matcher import Captioned, nearest_captions
from bowerbird.metrics.measurement import Protocol, settings
from bowerbird.metrics.ngram import fit_bigram
from bowerbird.models.base import GenerativeModel
from bowerbird.spec import Classes, Spec, Tensors, Tokens, shape_of_clip

N_RECONSTRUCTIONS = 2000
"""Most images that are encoded and decoded again."""


def context_of(model: GenerativeModel, data: Opened, request: Measuring) -> Context:
    """What can be measured of a model, beside ``data`` of its medium."""
    made, wanted = model.spec.medium, data.spec.medium
    if made != wanted:
        raise BowerbirdError(
            f"This model makes {made}, and {data.name} holds {wanted}; name other data with --against."
        )
    view = VIEWS.get(made, View)(model, data, request)
    return Context(view.protocol, view.offers(), f"this model and {data.name}", view.missing)


class View:
    """A model beside the data that it is measured against: what there is whatever the medium."""

    def __init__(self, model: GenerativeModel, data: Any, request: Measuring):
        self.model, self.data, self.request = model, data, request
        self.split = request.split or "test"
        self.n = request.n_samples or medium(data.spec.medium).n_measured
        self.options = dict(request.options)

    @property
    def protocol(self) -> Protocol:
        """Of what is measured against these data."""
        return protocol_of(self.data, self.split)

    def offers(self) -> Offers:
        return {"examples": self.examples, "cost": self.cost}

    @property
    def missing(self) -> dict[str, str]:
        """What cannot be offered on this machine, and why."""
        return {}

    @cached_property
    def drawn(self) -> Drawn:
        return draw(self.model, self.n, seed=self.request.seed, options=self.options)

    def examples(self, context: Context) -> Sides[Tensor]:
        real = getattr(self.data, self.split)
        n = min(len(real), self.request.n_reference or len(real))
        return Sides.of(self.protocol, self.drawn.x, real.batch(torch.arange(n))["x"])

    def cost(self, context: Context) -> SamplingCost:
        device = self.model.device
        where = str(machine.describe()["processor"]) + f", {torch.get_num_threads()} threads"
        if device.type == "cuda":
            where = torch.cuda.get_device_name(device)
        return SamplingCost(self.n, self.drawn.evaluations, self.drawn.seconds, where)


# --------------------------------------------------------------------------------------------------------- pictures


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


# ----------------------------------------------------------------------------------------------------------- speech


class SpeechView(View):
    """Sounds, judged as they are heard: the spectrogram of the waveform that is written, not the one that was made."""

    data: SoundData

    def offers(self) -> Offers:
        kinds = {type(field) for field in self.model.spec.given.values()}
        if sounds.SPECTROGRAM in self.model.spec.given:
            return {"cost": self.cost, "waveforms": self.waveforms}
        return super().offers() | ({"attributes": self.attributes} if kinds == {Classes} else {})

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """The recordings whose spectrograms a vocoder is given."""
        real = getattr(self.data, self.split)
        if real.waveforms is None:
            raise BowerbirdError("A vocoder is measured against waveforms; add --data.speech.target waveform.")
        batch: dict[str, Any] = real.batch(torch.arange(min(self.n, len(real))))
        return batch

    @cached_property
    def drawn(self) -> Drawn:
        if sounds.SPECTROGRAM not in self.model.spec.given:
            return draw(self.model, self.n, seed=self.request.seed, options=self.options)
        given = {name: self.recorded["given"][name] for name in self.model.spec.given}
        return draw(self.model, len(self.recorded["x"]), given=given, options=self.options)

    def waveforms(self, context: Context) -> Vocoded:
        mel = Mel.from_json(self.model.spec.codec)
        spectrograms = self.recorded["given"][sounds.SPECTROGRAM][:, 0]
        made = {"": self.drawn.x[:, 0], "griffin_lim": mel.decoded(spectrograms)}
        return Vocoded(self.recorded["x"][:, 0], made, mel.decibels, self.protocol)

    def attributes(self, context: Context) -> Attributes:
        fields = {name: field for name, field in self.model.spec.given.items() if isinstance(field, Classes)}
        for name, field in fields.items():
            theirs = self.data.spec.given.get(name)
            if not isinstance(theirs, Classes) or theirs.names != field.names:
                raise BowerbirdError(
                    f"This model was given a {name} that {self.data.name} does not have in the same classes; measure "
                    f"against data with it, as --data.given {' '.join(fields)} opens them."
                )
        mel = Mel.from_json(self.model.spec.codec)
        if Mel.from_json(self.data.spec.codec) != mel:
            raise BowerbirdError(f"The spectrograms of {self.data.name} have other parameters than this model's.")
        heard = sounds.to_bytes(mel.encoded(mel.decoded(self.drawn.x[:, 0].float())))[:, None]
        train, real = self.data.train, getattr(self.data, self.split)
        classes = {name: field.names for name, field in fields.items()}
        return Attributes(
            heard, self.drawn.given, classes, train.sounds, train.given, real.sounds, real.given, self.protocol
        )


# ------------------------------------------------------------------------------------------------------------ video


class VideoView(View):
    """Clips: uint8 tensors of frames."""

    data: ClipData

    def offers(self) -> Offers:
        extractor: Offers = {"extractor": self.extractor} if self.choice else {}
        return super().offers() | {"clips": self.clips} | extractor

    @cached_property
    def choice(self) -> Choice | None:
        channels, _, height, width = shape_of_clip(self.data.spec)
        return choose_by_shape(self.request.extractor, [(height, width, channels)])

    @property
    def missing(self) -> dict[str, str]:
        return {} if self.choice else {"extractor": unfit()}

    def extractor(self, context: Context) -> Extractor:
        assert self.choice is not None
        return self.choice.load(self.model.device, self.request.precision)

    @cached_property
    def begun(self) -> dict[str, Any]:
        """The real clips whose first frames and other inputs the samples have, in order, each as often as need be."""
        real = getattr(self.data, self.split)
        batch: dict[str, Any] = real.batch(torch.arange(self.n) % len(real))
        return batch

    @cached_property
    def drawn(self) -> Drawn:
        fields = self.model.spec.given
        asked = any(not isinstance(field, Classes) for field in fields.values())
        given = {name: self.begun["given"][name] for name in (fields if asked else ())}
        return draw(self.model, self.n, seed=self.request.seed, given=given, options=self.options)

    def clips(self, context: Context) -> Moving:
        real = subset(getattr(self.data, self.split).clips, self.request.n_reference)
        firsts, known = video.to_bytes(self.begun["x"][:, :, 0]), self.data.train.clips
        baselines = {
            "first_repeated": motion.repeated(firsts, real.shape[2]),
            "nearest_training": known[motion.nearest(firsts, known)],
        }
        protocol = replace(self.protocol, n_generated=self.n, n_reference=len(real), parameters=settings(self.options))
        return Moving(video.to_bytes(self.drawn.x), real, baselines, protocol)


# -------------------------------------------------------------------------------------------------------- sequences


def _label_names(spec: Spec) -> tuple[str, ...]:
    """Empty without labels."""
    label = spec.given.get(LABEL)
    return label.names if isinstance(label, Classes) else ()


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


class PieceView(SequenceView):
    """Music: grids of voices, or notes."""

    @cached_property
    def codec(self) -> MusicCodec:
        return MusicCodec.from_json(self.data.spec.codec)

    @property
    def written(self) -> Written:
        codec = self.codec
        return Written(True, codec.frame_quarters) if isinstance(codec, GridCodec) else Written(False)

    def offers(self) -> Offers:
        scored = super().offers()
        if scored:
            scored |= {"notes": self.notes, "bigram": self.bigram}
            scored |= {"frames": self.frames} if self.written.grid else {}
        return scored | music_offers(self.pieces, self.written)

    def pieces(self, context: Context) -> Sides[list[Music]]:
        samples = [piece for row in self.rows if len(piece := self.piece(row))]
        if not samples:
            raise BowerbirdError("The model's samples hold no notes; train it longer.")
        real, training = ([self.piece(row) for row in self.documents(part)] for part in (self.split, "train"))
        return music_sides(self.drawn_protocol, samples, [piece for piece in real if len(piece)], training)

    def piece(self, tokens: Tensor) -> Music:
        """A grid (frames, voices), or notes (notes, 3) of onset, duration and pitch, without drums."""
        tokens = self.new(tokens)
        if isinstance(self.codec, GridCodec):
            return self.codec.decode(tokens.tolist())
        piece = self.codec.piece(tokens.tolist())
        notes = [
            (note.onset, note.duration, note.pitch) for note in piece.notes if not piece.voices[note.voice].is_drum
        ]
        return np.array(notes, dtype=float).reshape(-1, 3)

    def new(self, row: Any) -> Any:
        """A row's tokens without the first, where it repeats the last of the row before: it would shift all voices."""
        return row if not len(row) or row[0] == self.codec.bos else row[1:]

    def notes(self, context: Context) -> np.ndarray:
        return np.array([len(self.codec.notes(self.new(row).tolist())) for row in self.scored[2]])

    def frames(self, context: Context) -> np.ndarray:
        codec = self.codec
        assert isinstance(codec, GridCodec)
        return np.array([(self.new(row) >= codec.rest).sum() / codec.n_voices for row in self.scored[2]])

    def bigram(self, context: Context) -> np.ndarray:
        """Nats of each row under the bigram model of the training split."""
        learnt, held_out = ([row.numpy() for row in self.documents(split)] for split in ("train", "val"))
        model, pad = fit_bigram(learnt, held_out, self.data.tokens.vocab_size), self.data.tokens.pad
        return np.array([model.nll(row[row != pad]).sum() for row in self.scored[2]])


def written_view(model: GenerativeModel, data: Any, request: Measuring) -> WrittenView:
    """Of texts that are made from a source, or from nothing."""
    return (TranslationView if SOURCE in model.spec.given else TextView)(model, data, request)


VIEWS: dict[str, Callable[[GenerativeModel, Any, Measuring], View]] = {
    "image": PictureView,
    "text": written_view,
    "music": PieceView,
    "speech": SpeechView,
    "video": VideoView,
}
"""By medium; others have what every medium has, and metrics of their own for it."""
