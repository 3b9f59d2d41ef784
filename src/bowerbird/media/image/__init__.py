"""Pictures: folders and archives of image files, built-in and fetched sets; written as PNG."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, registry
from bowerbird.data.kinds import SUFFIXES
from bowerbird.media.medium import Medium

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from bowerbird.media.image.imageset import ImageData
    from bowerbird.spec import Spec

SHEET_IMAGES = 256
"""Most pictures on the sheet beside the written files."""


@registry.media.register("image")
class ImageMedium(Medium):
    """uint8 pixels in files, float32 in [-1, 1] in tensors."""

    name = "image"
    modalities = ("images",)
    suffixes = SUFFIXES
    settings = (
        "names",
        "size",
        "channels",
        "label",
        "given",
        "wordings",
        "held_out",
        "from_",
        "to",
        "paired",
        "halves",
        "flip",
        "binarize",
    )
    n_samples, n_preview, n_measured = 64, 64, 10_000

    def open(self, data: config.Data) -> "ImageData":
        from bowerbird.media.image.imageset import open_images

        return open_images(data)

    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        """uint8 arrays (h, w, c)."""
        from bowerbird.eightbit import to_uint8

        return list(to_uint8(x).permute(0, 2, 3, 1).contiguous().cpu().numpy())

    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        from bowerbird.data.writing import save_png

        rows = []
        for name, image in zip(names, self._pictures(x), strict=True):
            rows.append({"file_name": save_png(folder / f"{name}.png", image).name})
        few = {key: value[:SHEET_IMAGES] for key, value in given.items()}
        self.preview(x[:SHEET_IMAGES], few, spec, folder / "sheet")
        return rows

    def encoded(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> list[dict[str, bytes]]:
        from bowerbird.data.writing import png_bytes

        return [{".png": png_bytes(image)} for image in self._pictures(x)]

    def _pictures(self, x: "Tensor") -> "Iterator[Image]":
        from bowerbird.eightbit import to_uint8
        from bowerbird.media.image.pictures import picture
        from bowerbird.provenance.labelling import marked

        return (marked(picture(image)) for image in to_uint8(x).cpu())

    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        from bowerbird.data.writing import save_png

        save_png(stem.with_suffix(".png"), self._sheet(x, given, spec))

    def _sheet(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> "Image":
        from bowerbird.media.image.sheets import samples_sheet
        from bowerbird.provenance.labelling import marked_sheet

        return marked_sheet(samples_sheet(x, given, spec))

    def preview_given(self, spec: "Spec") -> dict[str, "Tensor"]:
        """A column of each class."""
        from bowerbird.media.image.sheets import sheet_labels

        labels = sheet_labels(spec)
        return {} if labels is None else {"label": labels}

    def real(self, data: Any, stem: Path) -> None:
        """Test images in the places that samples of the same classes have."""
        from bowerbird.data.writing import save_png
        from bowerbird.media.image.sheets import real_sheet

        save_png(stem.with_suffix(".png"), real_sheet(data.test, data.spec))

    def png(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> bytes:
        from bowerbird.data.writing import png_bytes

        return png_bytes(self._sheet(x, given, spec))

    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        from bowerbird.data.writing import data_uri

        return f'<img alt="{len(x)} samples" src="{data_uri(self.png(x, given, spec))}">'
