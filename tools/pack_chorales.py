"""Makes the pack of Bach chorales from the two files of the field.

    python tools/pack_chorales.py jsb-chorales-quarter.json jsb-chorales-16th.json OUT.npz.xz

Both files hold the same 382 chorales in the same three splits, in different orders.  The sixteenth grid has four
voices in the original keys, but a frame in which a voice rests does not say which one.  The quarter grid has been
transposed to C major or A minor and an octave up, and its frames are sets of pitches without voices.  The pack holds
both in one order, each frame as (soprano, alto, tenor, bass), -1 for a rest:

    sixteenth     as in the file; in a frame with fewer pitches they go to the voices that have to move least
    quarter       as in the file but an octave lower, where it is sung; the voices are those of the sixteenth grid.  In
                  the 1.7 % of frames in which the two files differ, voices take the nearest pitches so that all sound

and checks that the sets of pitches are those of the files.  The arrays lie in an uncompressed npz inside xz.
"""

import argparse
import hashlib
import io
import itertools
import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np

VOICES = range(4)
REST = -1
SPLITS = {"train": "train", "valid": "val", "test": "test"}
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 22, "pb": 0, "lc": 4}]

Frames = list[list[float]]


def with_voices(frames: Frames) -> np.ndarray:
    """A sixteenth grid (frames, 4): pitches of an incomplete frame go to voices by least movement, never crossing."""
    full = [t for t, frame in enumerate(frames) if len(frame) == len(VOICES)]
    grid = np.full((len(frames), len(VOICES)), REST)
    for t, frame in enumerate(frames):
        nearest = frames[min(full, key=lambda other: abs(other - t))]
        chosen = min(
            itertools.combinations(VOICES, len(frame)),
            key=lambda voices: sum(abs(p - nearest[v]) for p, v in zip(frame, voices, strict=True)),
        )
        grid[t, list(chosen)] = frame
    return grid


def sets(grid: np.ndarray) -> list[set[int]]:
    return [set(row.tolist()) - {REST} for row in grid]


def counterpart(frames: Frames, grids: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The sixteenth grid of the same chorale at every quarter, moved to the key of ``frames``, and their agreement."""
    wanted = [set(frame) for frame in frames]
    best = (grids[0], -1.0)
    for grid in (grid[::4] for grid in grids if len(grid[::4]) == len(frames)):
        tops = [max(a) - max(b) for a, b in zip(wanted, sets(grid), strict=True) if a and b]
        moved = np.where(grid == REST, REST, grid + Counter(tops).most_common(1)[0][0])
        agreement = np.mean([a == b for a, b in zip(wanted, sets(moved), strict=True)])
        best = max(best, (moved, float(agreement)), key=lambda pair: pair[1])
    return best


def in_voices(frames: Frames, guide: np.ndarray) -> np.ndarray:
    """The sets of pitches as (frames, 4): every pitch sounds, and each voice is as near as can be to its guide."""
    grid = np.full(guide.shape, REST)
    for t, frame in enumerate(frames):
        if not frame:
            continue
        voices = [v for v in VOICES if guide[t, v] != REST]
        if len(voices) < len(frame):
            voices = list(VOICES)
        choices = [c for c in itertools.product(frame, repeat=len(voices)) if set(c) == set(frame)]
        grid[t, voices] = min(
            choices, key=lambda choice: sum(abs(p - guide[t, v]) for p, v in zip(choice, voices, strict=True))
        )
    return grid


def pack(quarters: dict[str, list[Frames]], sixteenths: dict[str, list[Frames]]) -> dict[str, np.ndarray]:
    quarter, sixteenth, split = [], [], []
    for name, ours in SPLITS.items():
        by_key = {id(frames): with_voices(frames) for frames in sixteenths[name]}
        order = []
        for frames in quarters[name]:
            guide, agreement = counterpart(frames, list(by_key.values()))
            if agreement < 0.8:
                raise SystemExit(f"A chorale of {name} has no counterpart in the other file.")
            voiced = in_voices(frames, guide)
            if sets(voiced) != [set(frame) for frame in frames]:
                raise SystemExit("A frame lost a pitch.")
            quarter.append(np.where(voiced == REST, REST, voiced - 12))
            order.append(next(i for i, grid in enumerate(by_key.values()) if _same(grid, guide)))
        if sorted(order) != list(range(len(by_key))):
            raise SystemExit(f"The chorales of {name} do not pair off.")
        sixteenth += [list(by_key.values())[i] for i in order]
        split += [ours] * len(order)
    arrays = {"split": np.array(split)}
    for name, grids in (("quarter", quarter), ("16th", sixteenth)):
        arrays[name] = np.concatenate(grids).astype(np.int8)
        arrays[f"{name}_offsets"] = np.cumsum([0] + [len(grid) for grid in grids]).astype(np.int32)
    return arrays


def _same(grid: np.ndarray, guide: np.ndarray) -> bool:
    """Whether ``guide`` is every fourth frame of ``grid``, transposed."""
    grid = grid[::4]
    if grid.shape != guide.shape or ((grid == REST) != (guide == REST)).any():
        return False
    return len(np.unique((guide - grid)[grid != REST])) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quarter", type=Path)
    parser.add_argument("sixteenth", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arrays = pack(*(json.loads(path.read_text()) for path in (arguments.quarter, arguments.sixteenth)))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    packed = lzma.compress(buffer.getvalue(), format=lzma.FORMAT_XZ, filters=FILTERS)
    arguments.out.write_bytes(packed)
    print(f'(File("{arguments.out.name}", {len(packed):_}, "{hashlib.sha256(packed).hexdigest()}"),)')


if __name__ == "__main__":
    main()
