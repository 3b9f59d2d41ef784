"""Makes docs/images/demo.png from the folder of a comparison: real images and every recipe's samples, side by side.

python tools/demo_picture.py demo docs/images/demo.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROWS_SHOWN = 6
"""Rows of each sheet, which has eight."""
MARGIN, TEXT = 14, 30


def main(comparison: Path, target: Path) -> None:
    sheets = {"real digits": comparison / "real.png"}
    for run in sorted((comparison / "runs").glob("*-seed0")):
        sheets[run.name.removesuffix("-seed0")] = run / "sheet.png"
    pictures = {name: Image.open(path).convert("L") for name, path in sheets.items()}
    pictures = {name: p.crop((0, 0, p.width, p.height * ROWS_SHOWN // 8)) for name, p in pictures.items()}
    pictures = {
        name: p.resize((p.width * 2 // 3, p.height * 2 // 3), Image.Resampling.LANCZOS) for name, p in pictures.items()
    }
    width, height = next(iter(pictures.values())).size
    paper = Image.new("L", (MARGIN + 2 * (width + MARGIN), 2 * (height + TEXT + MARGIN) + MARGIN), 255)
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(size=18)
    for i, (name, picture) in enumerate(pictures.items()):
        left, top = MARGIN + i % 2 * (width + MARGIN), MARGIN + i // 2 * (height + TEXT + MARGIN)
        pen.text((left, top), name, fill=40, font=font)
        paper.paste(picture, (left, top + TEXT))
    target.parent.mkdir(parents=True, exist_ok=True)
    paper.save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
