"""Language models of other programs become runs, and runs become files of other programs."""

from pathlib import Path

from bowerbird import registry
from bowerbird.errors import BowerbirdError
from bowerbird.export.target import CARD, Parity, Precision, Target, Trained, placed


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
    """Writes the model of a run folder to ``out`` in the format ``to``, with a model card, and returns ``out``.

    The files are loaded back in the program that they are for and compared with the run's model at two batch sizes;
    RunFailed, and nothing is written, if they differ.  ``out`` is a folder, or for a format of one file that file.
    f16 halves the size and rounds the weights; f32 is exact.
    """
    prove(Trained(run, precision), registry.exports.get(to)(), out, to)
    return out


def exports_of(run: Path) -> list[str]:
    """The formats that can carry a run's model, as each of them says."""
    trained = Trained(run)
    return [name for name in registry.exports.names() if _carries(registry.exports.get(name)(), trained)]


def _carries(target: Target, trained: Trained) -> bool:
    try:
        target.require(trained)
    except BowerbirdError:
        return False
    return True


def prove(trained: Trained, target: Target, out: Path, to: str) -> list[Parity]:
    """``export_model``, and how near the outputs of what was written came to the model's."""
    from bowerbird.export.card import card

    if trained.precision not in target.precisions:
        known = ", ".join(target.precisions)
        raise BowerbirdError(
            f"The format {to} does not support the precision {trained.precision}; it supports {known}."
        )
    if out.is_file() and not target.file:
        raise BowerbirdError(f"{out} is a file, but the format {to} writes a folder; choose another --out.")
    target.require(trained)
    with placed(out, target) as folder:
        target.write(trained, folder)
        parity = target.compare(trained, folder)
        (folder / CARD).write_text(card(trained, target, to, parity), encoding="utf-8")
    return parity
