"""The pictures of a file that ``compress`` made, by the run that compressed them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bowerbird.editing.action import SOURCE, Action, Edited, Request
from bowerbird.editing.compress import SUFFIX, Compress, Contents, codec_of, digest_of, from_bytes, identity
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.registry import actions


@dataclass(frozen=True)
class Original(Edited):
    """Pictures as they were, so that nothing in their files says that they were generated."""

    def save(self, folder: Path | str, *, labelled: bool = True) -> Path:
        return super().save(folder, labelled=False)


@actions.register("decompress")
@dataclass(frozen=True)
class Decompress(Action):
    """Gives back the pictures of a file that the same run compressed."""

    @classmethod
    def lacks(cls, model: Any) -> str:
        return Compress.lacks(model)

    def __call__(self, request: Request) -> Edited:
        sources = request.words.get(SOURCE)
        sources = sources if isinstance(sources, list) else [sources]
        if len(sources) != 1 or not isinstance(sources[0], str | Path):
            raise BowerbirdError(f"Decompress takes one file that compress made; give it with --source FILE{SUFFIX}.")
        path = Path(sources[0]).expanduser()
        if not path.is_file():
            raise BowerbirdError(f"The file {path} does not exist; compress writes one that ends in {SUFFIX}.")
        contents = from_bytes(path.read_bytes(), path.name)
        if contents.model != (own := identity(request.model)):
            raise BowerbirdError(
                f"{path.name} was compressed with the model {contents.model[:12]}, and this run's is {own[:12]}; only "
                "the same weights can decompress it."
            )
        images = decompressed(contents, request.model, path.name)
        return Original(
            to_float(torch.from_numpy(images)), {}, request.model.spec, dict(request.origin), contents.names,
            request.labeller, summary=f"{len(images):,} pictures, to the last bit what compress stated.",
        )  # fmt: skip


def decompressed(contents: Contents, model: Any, where: str) -> Any:
    """uint8 (n, c, h, w); BowerbirdError unless they are what was compressed."""
    n = len(contents.names)
    with progress_bar("decompressing", n) as progress:
        try:
            images = codec_of(model).unpack(contents.coded, n, contents.shape, progress)
        except ValueError:
            images = None
    if images is None or digest_of(images) != contents.pixels:
        raise BowerbirdError(
            f"The pictures of {where} do not come out as they went in: this machine rounds the network differently "
            "from the one that compressed them; decompress there, and with the same version of PyTorch."
        )
    return images
