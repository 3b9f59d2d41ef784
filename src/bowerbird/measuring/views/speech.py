"""Speech and other sounds."""

from bowerbird.errors import BowerbirdError
from bowerbird.measuring.context import (
    Attributes,
    Context,
)
from bowerbird.measuring.offers import (
    Offers,
)
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
        return super().offers() | ({"attributes": self.attributes} if kinds == {Classes} else {})

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


view = SpeechView
