"""Moving pictures: GIF, WebP and APNG animations, MP4 and other films, as clips of equally many frames of one size."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, registry
from bowerbird.media.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from bowerbird.media.video.clipset import ClipData
    from bowerbird.spec import Spec

FILMS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".ogv", ".mpg", ".mpeg", ".wmv")
"""Files that can hold nothing else; animations in files of pictures are opened where video is asked for."""
SHEET_CLIPS = 24
"""Most clips on the sheet beside the written files."""
SHOWN = 8
"""Most clips that a page shows moving."""


@registry.media.register("video")
class VideoMedium(Medium):
    """uint8 frames in memory, float32 in [-1, 1] in tensors (n, c, frames, h, w)."""

    name = "video"
    modalities = ("video",)
    settings = ("names", "size", "channels", "label", "given", "flip", "video")
    suffixes = FILMS
    n_samples, n_preview, n_measured = 8, 16, 200

    def open(self, data: config.Data) -> "ClipData":
        from bowerbird.media.video.clipset import open_video

        return open_video(data)

    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        """uint8 arrays (frames, h, w, c)."""
        from bowerbird.eightbit import to_uint8

        return list(to_uint8(x).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy())

    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        """GIF, WebP, a strip of the frames, and MP4 where PyAV is installed."""
        from bowerbird.data.writing import write_bytes
        from bowerbird.media.video import films

        for name, frames in zip(names, self._frames(x, spec), strict=True):
            for suffix, content in films.files(frames, films.rate_hz(spec)).items():
                write_bytes(folder / f"{name}{suffix}", content)
        few = {key: value[:SHEET_CLIPS] for key, value in given.items()}
        self._sheet(x[:SHEET_CLIPS], few, spec, folder / "sheet.png")
        return [{"file_name": f"{name}.gif"} for name in names]

    def _frames(self, x: "Tensor", spec: "Spec") -> "Iterator[list[Any]]":
        from bowerbird.media.video.films import pictures
        from bowerbird.provenance.labelling import marked

        return ([marked(picture) for picture in pictures(clip)] for clip in self.decoded(x, spec))

    def _sheet(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", path: Path) -> None:
        from bowerbird.data.writing import save_png
        from bowerbird.media.video.sheets import sheet
        from bowerbird.provenance.labelling import marked_sheet

        save_png(path, marked_sheet(sheet(x, given, spec)))

    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        """A sheet with a row of frames for each clip, and all clips side by side as they move."""
        from bowerbird.data.writing import write_bytes
        from bowerbird.media.video import films, sheets

        self._sheet(x, given, spec, stem.with_suffix(".png"))
        together = films.gif(sheets.together(x), films.rate_hz(spec))
        write_bytes(stem.with_suffix(".gif"), together)

    def preview_given(self, spec: "Spec") -> dict[str, "Tensor"]:
        """As many clips of each class, where there are few."""
        import torch

        from bowerbird.media.video.sheets import classes

        found = classes(spec)
        return {found[0]: torch.arange(self.n_preview) % len(found[1].names)} if found else {}

    def png(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> bytes:
        from bowerbird.data.writing import png_bytes
        from bowerbird.media.video.sheets import sheet
        from bowerbird.provenance.labelling import marked_sheet

        return png_bytes(marked_sheet(sheet(x, given, spec)))

    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        """The clips as they move, side by side."""
        from bowerbird.data.writing import data_uri
        from bowerbird.media.video import films, sheets

        moving = films.gif(sheets.together(x[:SHOWN]), films.rate_hz(spec))
        return f'<img alt="{len(x)} clips" src="{data_uri(moving, "image/gif")}">'
