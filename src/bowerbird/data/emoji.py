"""The whole set of emoji, drawn from the packages that hold it: four styles of 64×64 pixels on white.

Three packages hold SVG, which resvg renders at 64×64; one holds WebP of 256×256, which is reduced with its
transparency by Lanczos' filter and then laid on white.  An emoji is known by its code points, as emojibase writes them;
packages disagree about the variation selector FE0F, so pictures are looked up without it.  What emojibase puts into no
group, the letters of which flags are made, is left out.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bowerbird.data import packs, split
from bowerbird.errors import BowerbirdError

if TYPE_CHECKING:
    from types import ModuleType

SIDE = 64
STYLES = ("flat", "3d", "noto", "twemoji")


def require() -> "ModuleType":
    """What draws SVG; an error that says how to install it."""
    try:
        import resvg_py
    except ImportError as error:
        raise BowerbirdError(
            "Drawing the emoji needs the package resvg-py; run: pip install 'bowerbird[emoji]'"
        ) from error
    return resvg_py


def build(packages: dict[str, Path], target: Path) -> None:
    """Draws every emoji in every style that has it and writes the pack; ``packages``: style, or "names" → file."""
    emoji = names(packages["names"])
    columns: dict[str, list[str]] = {key: [] for key in ("style", *next(iter(emoji.values())))}
    sheets = []
    for style in STYLES:
        drawn = dict(_drawn(style, packages[style], emoji))
        for code in drawn:
            for key, value in {"style": style, **emoji[code]}.items():
                columns[key].append(value)
        sheets.append(packs.lossless(np.stack(list(drawn.values()))))
    arrays = {key: np.array(values) for key, values in columns.items()}
    packs.write(target, {"split": split.by_name(columns["code"]), **arrays}, sheets)


def names(package: Path) -> dict[str, dict[str, str]]:
    """What emojibase says about each emoji, by its code points, in their order."""
    with tarfile.open(package) as tar:
        english, chinese = (_json(tar, f"{language}/data.json") for language in ("en", "zh"))
        groups = {group["order"]: group["key"] for group in _json(tar, "en/messages.json")["groups"]}
    translated = {row["hexcode"]: row["label"] for row in chinese}
    return {
        row["hexcode"]: {
            "group": groups[row["group"]],
            "caption": row["label"],
            "caption_zh": translated[row["hexcode"]],
            "tags": ", ".join(row.get("tags", [])),
            "emoji": row["emoji"],
            "code": row["hexcode"],
        }
        for row in sorted(english, key=lambda row: row["hexcode"])
        if "group" in row
    }


def _drawn(style: str, package: Path, emoji: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The code points and the picture (64, 64, 3) of each emoji that the package has."""
    with tarfile.open(package) as tar:
        if style == "3d":
            files = {plain(Path(name).stem): name for name in sorted(tar.getnames()) if name.endswith(".webp")}
            yield from ((code, _reduced(tar, files[plain(code)])) for code in emoji if plain(code) in files)
            return
        icons, characters = _json(tar, "icons.json"), _json(tar, "chars.json")
    resvg = require()
    known = {plain(code): name for code, name in characters.items() if name in icons["icons"]}
    for code in emoji:
        if (name := known.get(plain(code))) is not None:
            png = resvg.svg_to_bytes(svg_string=svg(icons, name), width=SIDE, height=SIDE)
            yield code, _on_white(Image.open(io.BytesIO(bytes(png))))


def svg(icons: dict[str, Any], name: str) -> str:
    """One drawing of an Iconify collection, in the middle of a square; sizes it does not state are the collection's."""
    own = icons["icons"][name]
    width, height = (own.get(side, icons.get(side, 16)) for side in ("width", "height"))
    box = f"{own.get('left', 0)} {own.get('top', 0)} {width} {height}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}" width="{SIDE}" height="{SIDE}">{own["body"]}</svg>'


def _reduced(tar: tarfile.TarFile, name: str) -> np.ndarray:
    image = Image.open(io.BytesIO(_content(tar, name))).convert("RGBA")
    return _on_white(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _on_white(image: Image.Image) -> np.ndarray:
    paper = Image.new("RGBA", (SIDE, SIDE), "white")
    paper.alpha_composite(image.convert("RGBA"))
    return np.asarray(paper.convert("RGB"))


def plain(code: str) -> str:
    """Code points in capitals without the variation selector."""
    return code.upper().replace("-FE0F", "")


def _json(tar: tarfile.TarFile, name: str) -> Any:
    return json.loads(_content(tar, f"package/{name}"))


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None
    return member.read()
