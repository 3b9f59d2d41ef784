"""Samples as files: pictures, texts or music, each with where it came from.

A folder of samples can be measured, or trained on, as it is: images are PNG files with metadata.jsonl, texts one
samples.jsonl, music MIDI files.
"""

import json
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.measuring.answers import check_options, draw, draw_tokens
from bowerbird.media.image.pictures import picture, save_png, sheet
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.sound import write_music
from bowerbird.media.preview import texts_of, write_text
from bowerbird.media.text.completing import complete, translate
from bowerbird.models.base import GenerativeModel, Translates
from bowerbird.spec import ImageSpec, TokenSpec
from bowerbird.training.rundir import explaining_full_disk, load_model, write_atomically

SHEET_IMAGES = 256
N_TOKENS = 256
"""Length of a continuation unless said otherwise."""


def sample(
    run_dir: Path | str,
    *,
    n: int | None = None,
    seed: int = 0,
    label: str | None = None,
    prompt: str | None = None,
    out: Path | str | None = None,
    options: dict[str, Any] | None = None,
) -> Path:
    """Draws n samples (64 images, 8 texts or 1 piece of music unless said) into the folder ``out`` and returns it.

    ``label`` is a class name of the training data, ``prompt`` a text to continue or translate.  ``options`` are the
    family's own (steps, guidance, temperature …); one that the family does not have is an error.
    """
    if n is not None and n < 1:
        raise BowerbirdError(f"The number of samples must be at least 1, not {n}.")
    model, spec = load_model(run_dir)
    options = dict(options or {})
    folder = Path(out) if out else Path(run_dir) / "samples" / f"seed-{seed}"
    origin = {"generated_by": str(run_dir), "seed": seed}
    if isinstance(spec, ImageSpec):
        if prompt is not None:
            raise BowerbirdError("This run makes images from no text, so --prompt means nothing to it.")
        number = None if label is None else class_number(spec.classes, label)
        with explaining_full_disk(folder):
            _images(model, folder, n or 64, seed, number, origin, options)
        return folder
    if label is not None:
        raise BowerbirdError("This run was trained without labels, so --label means nothing to it.")
    with explaining_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if spec.kind in ("grid", "midi"):
            if prompt is not None:
                raise BowerbirdError("This run makes music, so --prompt means nothing to it.")
            _music(model, spec, folder, n or 1, seed, origin, options)
        else:
            _texts(model, spec, folder, n, seed, prompt, origin, options)
    return folder


def class_number(classes: tuple[str, ...], label: str) -> int:
    if not classes:
        raise BowerbirdError("This run was trained without labels, so --label means nothing to it.")
    if label not in classes:
        raise unknown("label", label, classes)
    return classes.index(label)


def _images(
    model: GenerativeModel,
    folder: Path,
    n: int,
    seed: int,
    number: int | None,
    origin: dict[str, Any],
    options: dict[str, Any],
) -> None:
    drawn = draw(model, n, seed=seed, class_number=number, options=options)
    rows = []
    for i, image in enumerate(drawn.images):
        row: dict[str, Any] = {"file_name": f"{i:05d}.png", **origin}
        if drawn.label is not None:
            row["label"] = model.spec.classes[int(drawn.label[i])]
        save_png(folder / row["file_name"], picture(image))
        rows.append(row)
    save_png(folder / "sheet.png", sheet(drawn.images[:SHEET_IMAGES]))
    _write_rows(rows, folder / "metadata.jsonl")


def _texts(
    model: GenerativeModel,
    spec: TokenSpec,
    folder: Path,
    n: int | None,
    seed: int,
    prompt: str | None,
    origin: dict[str, Any],
    options: dict[str, Any],
) -> None:
    if isinstance(model, Translates):
        if not (prompt or "").strip():
            raise BowerbirdError("This run translates; say what, with --prompt TEXT.")
        sources = [line for line in str(prompt).splitlines() if line.strip()]
        check_options(model, options, "translate")
        texts = translate(model, sources, options)
        rows = [{"source": a, "text": b, **origin} for a, b in zip(sources, texts, strict=True)]
    elif prompt is None:
        texts = texts_of(spec, draw_tokens(model, n or spec.n_preview, seed, options))
        rows = [{"text": text, **origin} for text in texts]
    else:
        check_options(model, options, "complete")
        n_tokens = options.pop("n_tokens", N_TOKENS)
        texts = complete(model, [prompt] * (n or 1), n_tokens=n_tokens, seed=seed, options=options)
        rows = [{"prompt": prompt, "text": text, **origin} for text in texts]
    _write_rows(rows, folder / "samples.jsonl")
    write_text(texts, folder / "samples.txt")


def _music(
    model: GenerativeModel,
    spec: TokenSpec,
    folder: Path,
    n: int,
    seed: int,
    origin: dict[str, Any],
    options: dict[str, Any],
) -> None:
    codec = MusicCodec.from_json(spec.codec)
    for i, row in enumerate(draw_tokens(model, n, seed, options)):
        write_music(row, codec, folder / f"{i:05d}")
    _write_rows([{"file_name": f"{i:05d}.mid", **origin} for i in range(n)], folder / "metadata.jsonl")


def _write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
