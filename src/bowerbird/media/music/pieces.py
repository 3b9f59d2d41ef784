"""Music data: pieces as tokens.  Bach's chorales are a grid (``grid``), MIDI files and ABC tunes events (``events``).

Each piece is bos + its tokens + eos.  A piece longer than the context becomes several examples, which begin where the
one before ended; only the first of them begins with bos.
"""

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bowerbird import config
from bowerbird.data import builtin, files, split
from bowerbird.data.listing import official_splits
from bowerbird.data.names import naturally, visible
from bowerbird.data.split import SPLITS
from bowerbird.data.tokens import Rows, TokenData, TokenSet, flat, framed, pieces
from bowerbird.errors import BowerbirdError
from bowerbird.media.music import abc
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.events import TICKS, EventCodec
from bowerbird.media.music.grid import GridCodec
from bowerbird.media.music.score import Piece, midi_songs, read_midi
from bowerbird.spec import Spec, Tokens

__all__ = ["TransposedRows", "open_music"]

MIDI_SUFFIXES = (".mid", ".midi", ".rmi", ".kar")
ABC_SUFFIX = ".abc"
LONGEST_CONTEXT = 512
"""Tokens, unless a context is asked for."""
SEMITONES = 3
"""Transposition moves training pieces by at most so many."""
CHORALES = "chorales"
CHORALE_VOICES = ("soprano", "alto", "tenor", "bass")
CHORALE_QPM = 76.0
FRAME_QUARTERS = {"quarter": 1.0, "16th": 0.25}

T = TypeVar("T", bytes, str)


@dataclass
class TransposedRows(Rows):
    """Rows that are moved by -``SEMITONES`` … ``SEMITONES`` semitones, drawn anew for each row of each batch."""

    pitched: Bool[Tensor, " vocab"] | None = None
    """Which tokens are pitches."""

    def batch(self, indices: Int64[Tensor, "b"], device: torch.device | str = "cpu") -> dict[str, Any]:
        """As ``Rows``; drawn from torch's global generator on the CPU, so that it is the same on every device."""
        fields = super().batch(indices)
        assert self.pitched is not None
        semitones = torch.randint(-SEMITONES, SEMITONES + 1, (len(indices), 1))
        fields["x"] = fields["x"] + torch.where(self.pitched[fields["x"]], semitones, 0)
        return fields | {name: fields[name].to(device) for name in ("x", "weight")}


def open_music(data: config.Data) -> TokenData:
    """The pieces of a source as tokens, split; errors say what is wrong with it."""
    if data.source == CHORALES:
        return _chorales(data.music)
    return _collection(Path(data.source).expanduser(), data.music)


# ------------------------------------------------------------------------------------------------------ chorales


def _chorales(options: config.Music) -> TokenData:
    pack = builtin.load(CHORALES)
    grids = np.split(pack[options.grid].astype(np.int64), pack[f"{options.grid}_offsets"][1:-1])
    parts = {name: [grids[i] for i in np.flatnonzero(pack["split"] == name)] for name in SPLITS}
    frame, margin = FRAME_QUARTERS[options.grid], _margin(options)
    codec = GridCodec.of(parts["train"], CHORALE_VOICES, frame, CHORALE_QPM, margin)
    tokens = {name: [codec.encode(grid) for grid in part] for name, part in parts.items()}
    sets, spec = _examples(codec, tokens, options)
    n_frames = sum(map(len, grids))
    return TokenData(
        name=CHORALES,
        spec=spec,
        preprocessing=_preprocessing(spec, options, split.RULE["test", "train", "val"]) | {"grid": options.grid},
        skipped=0,
        fingerprint=_fingerprint(parts),
        contents=f"{len(grids)} pieces in {codec.n_voices} voices, {n_frames:,} frames of a {options.grid} note, "
        f"{codec.vocab_size} tokens, context {_target(spec).context}",
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
    )


# -------------------------------------------------------------------------------------------------- MIDI and ABC


def _collection(path: Path, options: config.Music) -> TokenData:
    found, problems, others = _read(path)
    if not found:
        if len(problems) == 1:
            ((name, why),) = problems.items()
            raise BowerbirdError(f"{name} cannot be read as music: it is {why}; bring another copy of it.")
        raise BowerbirdError(f"None of the {len(problems)} pieces in {path} can be read: {_reasons(problems)}.")
    if len(found) == 1:
        raise BowerbirdError(f"{path} holds only one piece, of which nothing remains to measure with; bring more.")
    official = official_splits([name for name, _ in found])
    contents = [_content(piece) for _, piece in found]
    hashed = b"".join(hashlib.sha256(content.tobytes()).digest()[:8] for content in contents)
    where = split.assign(np.frombuffer(hashed, ">u8").astype(np.uint64), official)
    chosen = {name: np.flatnonzero(where == name).tolist() for name in SPLITS}
    codec = EventCodec.of([found[i][1] for i in chosen["train"]], _margin(options))
    tokens = {name: [codec.encode(found[i][1]) for i in numbers] for name, numbers in chosen.items()}
    sets, spec = _examples(codec, tokens, options)
    n_notes = sum(len(piece.notes) for _, piece in found)
    voices = ", ".join(part.voice.called for part in codec.parts)
    return TokenData(
        name=path.resolve().name,
        spec=spec,
        preprocessing=_preprocessing(spec, options, split.RULE[split.present(official)]),
        skipped=len(problems),
        fingerprint=_fingerprint({name: [contents[i] for i in numbers] for name, numbers in chosen.items()}),
        contents=f"{len(found):,} pieces, {n_notes:,} notes, voices: {voices}; {codec.vocab_size} tokens, "
        f"context {_target(spec).context}",
        skipped_why=_reasons(problems),
        note="; ".join(_notes(found, others, codec)),
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
    )


def _read(path: Path) -> tuple[list[tuple[str, Piece]], dict[str, str], list[str]]:
    """Name and music of every piece that can be read, in natural order, why others cannot, and what is no music."""
    single = path.is_file() and path.suffix.lower() in (*MIDI_SUFFIXES, ABC_SUFFIX)
    source = files.Folder(path.parent) if single else files.open_files(path)
    seen = [path.name] if single else naturally(visible(source.names()))
    names = list(filter(_is_music, seen))
    if not names:
        raise BowerbirdError(f"{path} holds no music ({', '.join((*MIDI_SUFFIXES, ABC_SUFFIX))}).")
    found: list[tuple[str, Piece]] = []
    problems: dict[str, str] = {}
    for name in names:
        try:
            with source.open(name) as file:
                raw = file.read()
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
            problems[name] = "damaged"
            continue
        for piece_name, piece in _pieces(name, raw):
            if isinstance(piece, str):
                problems[piece_name] = piece
            else:
                found.append((piece_name, piece))
    return found, problems, [name for name in seen if not _is_music(name)]


def _is_music(name: str) -> bool:
    return name.lower().endswith((*MIDI_SUFFIXES, ABC_SUFFIX))


def _pieces(name: str, raw: bytes) -> Iterator[tuple[str, Piece | str]]:
    """Name and music, or what is wrong with it, of every piece in a file."""
    if not name.lower().endswith(ABC_SUFFIX):
        yield from _songs(name, raw)
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # ABC is older than Unicode; its standard names Latin-1 as the other encoding
        text = raw.decode("latin-1")
    for number, tune in abc.tunes(text):
        yield f"{name}, tune {number}", _or_problem(abc.read_tune, tune)


def _songs(name: str, raw: bytes) -> Iterator[tuple[str, Piece | str]]:
    """Those of a MIDI file: one, unless it is of type 2."""
    try:
        songs = midi_songs(raw)
    except ValueError as error:
        yield name, str(error)
        return
    for number, song in enumerate(songs, 1):
        yield name if len(songs) == 1 else f"{name}, song {number}", _or_problem(read_midi, song)


def _or_problem(read: Callable[[T], Piece], what: T) -> Piece | str:
    try:
        return read(what)
    except ValueError as error:
        return str(error)


def _content(piece: Piece) -> np.ndarray:
    """What is heard, as integers: decides about the split."""
    rows = [(round(o * TICKS), round(d * TICKS), pitch, voice) for o, d, pitch, voice, _ in piece.notes]
    return np.array(rows, dtype=np.int32)


def _reasons(problems: dict[str, str]) -> str:
    """How many pieces have which problem, and the name of the first."""
    if not problems:
        return ""
    counts = ", ".join(f"{count} {why}" for why, count in Counter(problems.values()).most_common())
    return f"{counts}; first: {next(iter(problems))}"


def _notes(found: list[tuple[str, Piece]], others: list[str], codec: EventCodec) -> Iterator[str]:
    """What was seen and is not used, other than whole pieces."""
    unended = [name for name, piece in found if piece.unended]
    foreign = [name for name, piece in found if any(codec.part(voice) is None for voice in piece.voices)]
    if others:
        yield f"other files: {len(others):,} (first: {others[0]})"
    if unended:
        yield f"pieces with notes that never end, which are left out: {len(unended):,} (first: {unended[0]})"
    if foreign:
        yield f"pieces with kinds of voices that training lacks, left out: {len(foreign):,} (first: {foreign[0]})"


# ------------------------------------------------------------------------------------------------------ examples


def _examples(
    codec: MusicCodec, tokens: dict[str, list[list[int]]], options: config.Music
) -> tuple[dict[str, TokenSet], Spec]:
    """The splits as rows, and their spec."""
    documents = {name: framed(flat(*_concatenated(part)), codec.bos, codec.eos) for name, part in tokens.items()}
    longest = max(int(part.offsets.diff().max()) for part in documents.values() if len(part))
    context = _context(options.context, longest - 1, codec.n_voices if isinstance(codec, GridCodec) else 1)
    sets: dict[str, TokenSet] = {}
    for name, (values, offsets) in documents.items():
        begin, end = pieces(offsets, context)
        if options.transpose and name == "train":
            sets[name] = TransposedRows(values, begin, end, codec.pad, pitched=torch.from_numpy(codec.pitched))
        else:
            sets[name] = Rows(values, begin, end, codec.pad)
    target = Tokens(codec.vocab_size, context, codec.bos, codec.eos, codec.pad, start=(codec.bos,))
    return sets, Spec("music", target, codec=codec.to_json())


def _concatenated(sequences: Sequence[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([token for sequence in sequences for token in sequence], dtype=np.int32)
    return values, np.cumsum([0, *map(len, sequences)])


def _context(given: int | None, longest: int, step: int) -> int:
    """A multiple of ``step``, so that every example of a grid begins with the same voice."""
    if given is not None and given < max(2, step):
        raise BowerbirdError(f"data.music.context = {given} must be at least {max(2, step)} tokens.")
    context = given or max(2, min(LONGEST_CONTEXT, longest))
    return context - context % step if context > step else context


def _margin(options: config.Music) -> int:
    return SEMITONES if options.transpose else 0


def _target(spec: Spec) -> Tokens:
    return spec.needs(Tokens, "music")


def _preprocessing(spec: Spec, options: config.Music, rule: str) -> dict[str, str | int]:
    target = _target(spec)
    return {"vocab_size": target.vocab_size, "context": target.context, "transpose": options.transpose, "split": rule}


def _fingerprint(parts: dict[str, list[np.ndarray]]) -> str:
    digest = hashlib.sha256(b"music")
    for name, arrays in parts.items():
        digest.update(name.encode())
        for array in arrays:
            digest.update(f"{array.shape}".encode() + array.astype("<i4").tobytes())
    return digest.hexdigest()[:16]
