"""Language models of other programs become runs, and runs become files of other programs."""

from pathlib import Path
from typing import Literal

from bowerbird.errors import BowerbirdError, unknown

Precision = Literal["f32", "f16"]
"""Of the weights in an exported file."""


def import_model(source: Path, out: Path) -> Path:
    """Makes the run folder ``out`` of a pretrained language model and returns it.

    ``source`` is a folder in the Hugging Face layout, a PEFT adapter's folder, or a GGUF file, which is dequantised to
    float32; docs/pretrained.md has the architectures.
    """
    from bowerbird.export import gguf, huggingface

    if not source.exists():
        raise BowerbirdError(f"{source} does not exist; give a folder in the Hugging Face layout or a GGUF file.")
    if source.is_file() and source.suffix.lower() != ".gguf":
        raise BowerbirdError(
            f"{source} is no GGUF file; give one, or the folder of a model in the Hugging Face layout."
        )
    checkpoint = huggingface.read(source) if source.is_dir() else gguf.read(source)
    return checkpoint.to_run(out, source)


def export_model(run: Path, out: Path, to: str, precision: Precision = "f32") -> Path:
    """Writes the language model of a run folder to ``out``, a folder for huggingface, a file for gguf, and returns it.

    f16 halves the size and rounds the weights; f32 is exact.
    """
    from bowerbird.export import gguf, huggingface
    from bowerbird.export.checkpoint import from_run

    match to:
        case "huggingface":
            return huggingface.write(from_run(run), out, precision)
        case "gguf":
            return gguf.write(from_run(run), out, precision)
    raise unknown("format", to, ("huggingface", "gguf"))
