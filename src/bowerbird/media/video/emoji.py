"""The animated Fluent emoji as clips of 16 frames of 64×64 pixels on white: about 480 that move, of one package.

An animation lasts about three seconds and then begins again, so 16 frames are spread over that time.  An emoji with a
skin tone, or as a woman or a man, moves as it does without: all of them lie on the same side of the split, which
follows from the code points that remain without these (``split.by_name``).
"""

import re
import tarfile
from pathlib import Path

import numpy as np

from bowerbird.data import packs, split
from bowerbird.data.emoji import names, plain
from bowerbird.data.unused import Unreadable
from bowerbird.media.video import reading
from bowerbird.media.video.reading import Wanted

SIDE, FRAMES, RATE_HZ = 64, 16, 16 / 3
QUALITY = 80
AT_ONCE = 200
"""Clips of one sheet: 3,200 tiles, 80 rows of them."""
TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
SIGNS = re.compile(r"-200D-264[02]")
"""Female and male."""


def require() -> None:
    """Pillow reads and writes all of it."""


def build(packages: dict[str, Path], target: Path) -> None:
    """Every animation of the package, with what emojibase says about the emoji without its skin tone."""
    known = {plain(code): row for code, row in names(packages["names"]).items()}
    rows, clips = [], []
    with tarfile.open(packages["animated"]) as tar:
        for name in sorted(name for name in tar.getnames() if name.endswith(".webp")):
            code = plain(Path(name).stem)
            untoned, tone = without_tone(code)
            if untoned in known and (clip := _clip(tar, name)) is not None:
                held = {"concept": SIGNS.sub("", untoned), "tone": tone, "code": code}
                rows.append({key: known[untoned][key] for key in ("group", "caption", "caption_zh", "emoji")} | held)
                clips.append(clip)
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    sheets = [
        packs.lossy(np.concatenate(clips[i : i + AT_ONCE]), QUALITY) for i in range(0, len(clips), AT_ONCE)
    ]  # a clip's frames one after the other
    about = {"split": split.by_name(columns["concept"]), "rate_hz": np.array(RATE_HZ), "frames": np.array(FRAMES)}
    packs.write(target, columns | about, sheets)


def without_tone(code: str) -> tuple[str, str]:
    """The code points without skin tones, and the first tone in words; "none" where there is none."""
    parts = code.split("-")
    tones = [TONES[part] for part in parts if part in TONES]
    return "-".join(part for part in parts if part not in TONES), (tones or ["none"])[0]


def _clip(tar: tarfile.TarFile, name: str) -> "np.ndarray | None":
    """None for pictures that do not move."""
    member = tar.extractfile(name)
    assert member is not None
    try:
        (clip,), _ = reading.clips(name, member.read(), Wanted(FRAMES, RATE_HZ, SIDE, SIDE, 3, False, True))
    except Unreadable:
        return None
    return clip
