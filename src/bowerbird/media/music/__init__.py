"""Music: MIDI files, ABC tunes and Bach's chorales as tokens; written as MIDI, sound and a piano roll."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, registry
from bowerbird.media.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from bowerbird.data.tokens import TokenData
    from bowerbird.spec import Spec


@registry.media.register("music")
class MusicMedium(Medium):
    """Notes, as the tokens of a codec (``bowerbird.media.music.codec``)."""

    name = "music"
    modalities = ("music",)
    settings = ("music",)
    suffixes = (".mid", ".midi", ".rmi", ".kar", ".abc")
    n_samples, n_preview, n_measured = 1, 1, 20

    def open(self, data: config.Data) -> "TokenData":
        from bowerbird.media.music.pieces import open_music

        return open_music(data)

    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        """``score.Piece``: the notes of each sample."""
        from bowerbird.media.music.codecs import codec_from

        codec = codec_from(spec.codec)
        return [codec.piece(row.tolist()) for row in x]

    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        for name, row in zip(names, x, strict=True):
            self.preview(row[None], given, spec, folder / name)
        return [{"file_name": f"{name}.mid"} for name in names]

    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        from bowerbird.media.music.codecs import codec_from
        from bowerbird.media.music.sound import write_music

        write_music(x[0].cpu(), codec_from(spec.codec), stem)

    def png(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> bytes:
        """The piano roll of the first."""
        from bowerbird.data.writing import png_bytes
        from bowerbird.media.music.pianoroll import pianoroll

        return png_bytes(pianoroll(self.decoded(x[:1], spec)[0]))

    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        from bowerbird.media.music.codecs import codec_from
        from bowerbird.media.music.sound import player

        codec = codec_from(spec.codec)
        return "\n".join(player(row.tolist(), codec) for row in x.cpu())
