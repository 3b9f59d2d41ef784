"""Speech and other short sounds: sound files as log-mel spectrograms; written as WAV, with a picture of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, registry
from bowerbird.media.medium import Medium

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from bowerbird.media.speech.soundset import SoundData
    from bowerbird.spec import Spec

PLAYED = 8
"""Most samples that a page or a preview lets hear."""
PAUSE_S = 0.2


@registry.media.register("speech")
class SpeechMedium(Medium):
    """uint8 spectrograms in memory, float32 in [-1, 1] in tensors (``bowerbird.media.speech.spectrogram``)."""

    name = "speech"
    modalities = ("speech",)
    settings = ("names", "label", "given", "speech")
    suffixes = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au")
    n_samples, n_preview, n_measured = 10, 20, 600

    def open(self, data: config.Data) -> "SoundData":
        from bowerbird.media.speech.soundset import open_speech

        return open_speech(data)

    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        """Waveforms: float32 arrays (samples,) in [-1, 1], up to the silence that each ends in."""
        from bowerbird.media.speech.spectrogram import heard

        return heard(x, spec)

    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        from bowerbird.data.writing import save_png, write_wav
        from bowerbird.eightbit import to_uint8
        from bowerbird.media.speech.sheets import sheet, spectrogram
        from bowerbird.media.speech.spectrogram import Mel, seen
        from bowerbird.provenance.labelling import marked_sheet

        rate_hz = Mel.from_json(spec.codec).rate_hz
        for name, waveform, picture in zip(names, self.decoded(x, spec), to_uint8(seen(x, spec))[:, 0], strict=True):
            write_wav(folder / f"{name}.wav", waveform[None], rate_hz)
            save_png(folder / f"{name}.png", spectrogram(picture))
        save_png(folder / "sheet.png", marked_sheet(sheet(x, given, spec)))
        return [{"file_name": f"{name}.wav"} for name in names]

    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        """A sheet, and the first samples one after the other."""
        from bowerbird.data.writing import save_png, write_wav
        from bowerbird.media.speech.sheets import sheet
        from bowerbird.media.speech.spectrogram import Mel
        from bowerbird.provenance.labelling import marked_sheet

        rate_hz = Mel.from_json(spec.codec).rate_hz
        write_wav(stem.with_suffix(".wav"), joined(self.decoded(x[:PLAYED], spec), rate_hz)[None], rate_hz)
        save_png(stem.with_suffix(".png"), marked_sheet(sheet(x, given, spec)))

    def preview_given(self, spec: "Spec") -> dict[str, "Tensor"]:
        """A column of each class of the first field that has few."""
        import torch

        from bowerbird.media.speech.sheets import ROWS, first_classes

        found = first_classes(spec)
        return {found[0]: torch.arange(len(found[1].names)).repeat(ROWS)} if found else {}

    def png(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> bytes:
        from bowerbird.data.writing import png_bytes
        from bowerbird.media.speech.sheets import sheet
        from bowerbird.provenance.labelling import marked_sheet

        return png_bytes(marked_sheet(sheet(x, given, spec)))

    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        """The sheet, and a player for each of the first samples."""
        from bowerbird.data.writing import data_uri, wav_bytes
        from bowerbird.media.speech.spectrogram import Mel

        rate_hz = Mel.from_json(spec.codec).rate_hz
        sounds = (wav_bytes(one[None], rate_hz) for one in self.decoded(x[:PLAYED], spec))
        players = "".join(f'<audio controls src="{data_uri(sound, "audio/wav")}"></audio>' for sound in sounds)
        return f'<p><img alt="{len(x)} spectrograms" src="{data_uri(self.png(x, given, spec))}"><br>{players}</p>'


def joined(waveforms: "list[np.ndarray]", rate_hz: int, pause_s: float = PAUSE_S) -> "np.ndarray":
    """One after the other, with pauses."""
    import numpy as np

    pause = np.zeros(round(pause_s * rate_hz), np.float32)
    return np.concatenate([part for one in waveforms for part in (one, pause)][:-1])
