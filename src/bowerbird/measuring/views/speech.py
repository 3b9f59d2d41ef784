"""Speech and other sounds."""

from functools import cached_property
from typing import Any

import torch

from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Drawn, draw
from bowerbird.measuring.context import Attributes, Context, Vocoded
from bowerbird.measuring.offers import Offers
from bowerbird.measuring.views.view import View
from bowerbird.media.speech import soundset as sounds
from bowerbird.media.speech.soundset import SoundData
from bowerbird.media.speech.spectrogram import Mel
from bowerbird.spec import Classes


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
        heard = to_uint8(mel.encoded(mel.decoded(self.drawn.x[:, 0].float())))[:, None]
        train, real = self.data.train, getattr(self.data, self.split)
        classes = {name: field.names for name, field in fields.items()}
        return Attributes(
            heard, self.drawn.given, classes, train.sounds, train.given, real.sounds, real.given, self.protocol
        )


view = SpeechView
