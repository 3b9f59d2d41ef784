"""Models that come and go, and files whose origin is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bowerbird.data.catalogue import RECORDS
from bowerbird.data.fetch import locate
from bowerbird.errors import BowerbirdError
from bowerbird.shipped import folder_of, place_beside

if TYPE_CHECKING:
    from bowerbird.provenance.verdict import Verdict


def import_model(source: Path | str, out: Path | str | None = None) -> Path:
    """Makes a run folder of a pretrained language model and returns it.

    ``source`` is a folder in the Hugging Face layout, a GGUF file, or the name of weights that `data get` fetched.
    """
    from bowerbird.export import import_model as import_pretrained

    weights = [record.name for record in RECORDS if record.kind == "weights"]
    path = locate(str(source)) if str(source) in weights else Path(source)
    if path is None:
        raise BowerbirdError(f"The weights '{source}' are not on this machine yet; run: bowerbird data get {source}")
    return import_pretrained(path, Path(out) if out else Path("runs") / Path(source).stem)


def export(run_dir: Path | str, to: str, out: Path | str | None = None) -> Path:
    """Writes a run's model in the format ``to`` (default: into RUN/export/FORMAT) and returns where it lies.

    ``to`` is onnx, diffusers, huggingface, gguf, safetensors, html or a plugin's format.  What was written is loaded
    back in the program that it is for and compared with the model at two batch sizes; RunFailed, and nothing is left,
    if they differ.
    """
    from bowerbird.export import export_model

    return export_model(folder_of(run_dir), Path(out) if out else place_beside(run_dir, "export") / to, to)


def exports_of(run_dir: Path | str) -> list[str]:
    """The formats of ``export`` that can carry a run's model."""
    from bowerbird.export import exports_of as formats_of

    return formats_of(folder_of(run_dir))


def verify(file: Path | str, *, runs: Sequence[Path | str] = (), anchors: Sequence[Path | str] = ()) -> "Verdict":
    """What the labels, signatures and watermarks of a file say: "ours", "altered", "other" or "unknown".

    ``runs`` are folders of runs that may have made it, ``anchors`` certificates of others whose signatures are trusted.
    BowerbirdError for a file that cannot be read.
    """
    from bowerbird.provenance.verifying import verify as verify_file

    return verify_file(file, runs=runs, anchors=anchors)
