"""Sound: notes become a waveform by adding sines, and a sample of music three files to hear, see and play.

A tone of pitch p sounds at f = 440 · 2^((p - 69) / 12) Hz:

    tone(t) = envelope(t) · Σ_k a_k · decay_k(t) · sin(2π f_k t),    f_k = k f sqrt(1 + B k²)

with the partials a_k, the decay and the stiffness B of a ``Timbre``.  The envelope rises and falls along a raised
cosine, so nothing clicks; partials above 0.45 of the sample rate are left out, so nothing aliases.  Voices are spread
from left to right, a little reverberation is added, and the loudest sample lies at ``PEAK``, so nothing clips.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bowerbird.data.writing import data_uri, png_bytes, save_png, wav_bytes, write_atomically, write_wav
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.pianoroll import pianoroll
from bowerbird.media.music.score import Note, Piece, Voice, write_midi

SAMPLE_RATE_HZ = 22_050
PEAK = 0.9
"""Largest absolute sample, of full scale 1."""
LONGEST_S = 600.0
"""What lies later in a piece is not rendered."""
REVERBERATION_S = 1.1
"""Time in which it falls by 60 dB."""
WET = 0.22
"""Its share of the energy, before it is dampened."""
FADE_S = 0.05
SPREAD = 0.5
"""How far the outer voices are from the middle: 0 all in the middle, 1 quite left and right."""
SOUNDFONT_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)
RENDER_TIMEOUT_S = 300


@dataclass(frozen=True)
class Timbre:
    """How an instrument sounds."""

    partials: tuple[float, ...]
    """a_1, a_2, …"""
    attack_s: float
    release_s: float
    decay_per_s: float = 0.0
    """Rate at which the first partial of A4 dies away; higher partials and higher tones do so faster."""
    stiffness: float = 0.0
    """B: how far the partials of a stiff string lie above the multiples of its pitch."""


PIANO = Timbre((1.0, 0.55, 0.36, 0.26, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02), 0.004, 0.18, 0.9, 2e-4)
ORGAN = Timbre((1.0, 0.62, 0.22, 0.30, 0.06, 0.12, 0.03, 0.10), 0.035, 0.12)
SUSTAINED = range(16, 80)
"""General MIDI's programs from the organs to the pipes sound until they are released; guitars and basses do not …"""
PLUCKED = range(24, 40)
"""… nor do these."""


def synthesise(piece: Piece, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Float[np.ndarray, "2 samples"]:
    """The piece as it sounds, left and right, in [-PEAK, PEAK]; begins and ends with silence.  0.5 s for no notes."""
    onsets = piece.seconds([note.onset for note in piece.notes])
    ends = piece.seconds([note.onset + note.duration for note in piece.notes])
    heard = [
        (note, onset, end - onset)
        for note, onset, end in zip(piece.notes, onsets, ends, strict=True)
        if end < LONGEST_S
    ]
    last = max((onset + length for _, onset, length in heard), default=0.0)
    mix = np.zeros((2, round((last + REVERBERATION_S + 0.5) * sample_rate_hz)), dtype=np.float32)
    gains = _gains(piece.voices)
    for (voice, pitch), notes in _by_tone(heard).items():
        timbre = _timbre(piece.voices[voice])
        longest = max(length for _, _, length in notes)
        sound = strike(pitch, sample_rate_hz) if timbre is None else tone(timbre, pitch, longest, sample_rate_hz)
        for note, onset, length in notes:
            one = sound if timbre is None else released(sound, timbre, length, sample_rate_hz)
            begin = round(onset * sample_rate_hz)
            mix[:, begin : begin + len(one)] += gains[voice][:, None] * (note.velocity / 127) ** 1.5 * one
    return _mastered(mix, sample_rate_hz)


def tone(timbre: Timbre, pitch: int, duration_s: float, sample_rate_hz: int) -> Float[np.ndarray, " samples"]:
    """A tone that is held for ``duration_s`` and then as long as its release lasts; not yet faded out."""
    t = np.arange(round((duration_s + timbre.release_s) * sample_rate_hz)) / sample_rate_hz
    f = 440 * 2 ** ((pitch - 69) / 12)
    sound = np.zeros(len(t))
    for k, a_k in enumerate(timbre.partials, 1):
        f_k = k * f * np.sqrt(1 + timbre.stiffness * k**2)
        if f_k < 0.45 * sample_rate_hz:
            rate = timbre.decay_per_s * (0.7 + 0.3 * k) * (f / 440) ** 0.6
            # Strings die away fast at first, then slowly (Weinreich 1977).
            decay = 0.75 * np.exp(-1.6 * rate * t) + 0.25 * np.exp(-0.35 * rate * t)
            sound += a_k * decay * np.sin(2 * np.pi * f_k * t)
    rising = t < timbre.attack_s
    sound[rising] *= 0.5 - 0.5 * np.cos(np.pi * t[rising] / timbre.attack_s)
    loudness = np.sqrt(np.sum(np.square(timbre.partials))) * (f / 440) ** 0.25
    return (sound / loudness).astype(np.float32)


def released(
    sound: Float[np.ndarray, " n"], timbre: Timbre, duration_s: float, sample_rate_hz: int
) -> Float[np.ndarray, " samples"]:
    """The beginning of a tone, let go after ``duration_s``."""
    n_release = round(timbre.release_s * sample_rate_hz)
    one = sound[: round(duration_s * sample_rate_hz) + n_release].copy()
    n_release = min(n_release, len(one))
    one[len(one) - n_release :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, n_release + 1) / n_release, dtype=np.float32)
    return one


def strike(pitch: int, sample_rate_hz: int) -> Float[np.ndarray, " samples"]:
    """A stroke on a drum: a body that falls in pitch and a noise; General MIDI's numbers say of which drum."""
    body_hz, body, noise, decay_s = {
        35: (55, 1.0, 0.05, 0.16), 36: (60, 1.0, 0.05, 0.14), 38: (185, 0.5, 0.6, 0.1), 40: (200, 0.5, 0.6, 0.09),
        42: (0, 0.0, 0.3, 0.03), 44: (0, 0.0, 0.3, 0.04), 46: (0, 0.0, 0.35, 0.2), 49: (0, 0.0, 0.5, 0.5),
        51: (0, 0.0, 0.3, 0.3),
    }.get(pitch, (4.0 * pitch, 0.7, 0.15, 0.12))  # fmt: skip
    t = np.arange(round(6 * decay_s * sample_rate_hz)) / sample_rate_hz
    hiss = np.diff(np.random.default_rng(pitch).standard_normal(len(t)), append=0.0)
    swinging = np.sin(2 * np.pi * body_hz * (t + 0.02 * (1 - np.exp(-t / 0.02))))
    sound = (body * swinging + 0.4 * noise * hiss) * np.exp(-t / decay_s)
    ends = np.minimum(1, np.minimum(t / 0.002, (t[-1] - t) / 0.01))
    return (sound * ends).astype(np.float32)


def _timbre(voice: Voice) -> Timbre | None:
    if voice.is_drum:
        return None
    return ORGAN if voice.program in SUSTAINED and voice.program not in PLUCKED else PIANO


def _gains(voices: Sequence[Voice]) -> list[Float[np.ndarray, "2"]]:
    """Left and right gain of each voice, of equal power."""
    places = np.linspace(-SPREAD, SPREAD, len(voices)) if len(voices) > 1 else np.zeros(1)
    angles = np.pi / 4 * (1 + places)
    return [np.array([np.cos(angle), np.sin(angle)], dtype=np.float32) for angle in angles]


def _by_tone(heard: Iterable[tuple[Note, float, float]]) -> dict[tuple[int, int], list[tuple[Note, float, float]]]:
    """Notes of one voice and pitch together: they are parts of one and the same tone."""
    groups: dict[tuple[int, int], list[tuple[Note, float, float]]] = {}
    for one in heard:
        groups.setdefault((one[0].voice, one[0].pitch), []).append(one)
    return groups


def _mastered(mix: Float[np.ndarray, "2 samples"], sample_rate_hz: int) -> Float[np.ndarray, "2 samples"]:
    """With reverberation, silent at both ends, the loudest sample at ``PEAK``."""
    from scipy.signal import lfilter, oaconvolve  # a second's import, which only those pay who hear music

    rng = np.random.default_rng(0)
    t = np.arange(round(REVERBERATION_S * sample_rate_hz)) / sample_rate_hz
    room = lfilter([0.3], [1, -0.7], rng.standard_normal((2, len(t)))) * np.exp(-6.9 * t / REVERBERATION_S)
    room *= WET / np.linalg.norm(room, axis=1, keepdims=True)
    early = round(0.012 * sample_rate_hz)
    echo = oaconvolve(mix, room.astype(np.float32), axes=1)[:, : mix.shape[1] - early]
    mix[:, early:] += echo
    n_fade = round(FADE_S * sample_rate_hz)
    mix[:, -n_fade:] *= np.linspace(1, 0, n_fade, dtype=np.float32)
    peak = np.abs(mix).max()
    return mix * np.float32(PEAK / peak) if peak > 0 else mix


# --------------------------------------------------------------------------------------------------------- files


def write_music(tokens: Sequence[int] | Tensor, codec: MusicCodec, stem: Path) -> list[Path]:
    """Writes a sample to play (.mid), to hear (.wav) and to look at (.png) and returns the paths.

    The sound is fluidsynth's where that program and a soundfont are installed ($BOWERBIRD_SOUNDFONT names another one),
    else that of ``synthesise``.
    """
    piece = codec.piece([int(token) for token in tokens])
    midi, wav, png = (stem.with_name(stem.name + suffix) for suffix in (".mid", ".wav", ".png"))
    midi.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(midi, lambda unfinished: write_midi(piece, unfinished))
    if not (piece.notes and _play(midi, wav)):
        write_wav(wav, synthesise(piece), SAMPLE_RATE_HZ)
    return [midi, wav, save_png(png, pianoroll(piece))]


def player(tokens: Sequence[int], codec: MusicCodec) -> str:
    """A piano roll and a player, as a piece of a page."""
    piece = codec.piece([int(token) for token in tokens])
    sound = wav_bytes(synthesise(piece), SAMPLE_RATE_HZ)
    return (
        f'<p><img alt="piano roll" src="{data_uri(png_bytes(pianoroll(piece)))}"><br>'
        f'<audio controls src="{data_uri(sound, "audio/wav")}"></audio></p>'
    )


def soundfont() -> Path | None:
    """$BOWERBIRD_SOUNDFONT, else the first soundfont where systems keep them."""
    if named := os.environ.get("BOWERBIRD_SOUNDFONT"):
        return Path(named).expanduser()
    found = (font for folder in SOUNDFONT_FOLDERS for font in sorted(Path(folder).glob("*.sf[23]")))
    return next(found, None)


def _play(midi: Path, wav: Path) -> bool:
    """Lets fluidsynth make the sound; False if it cannot."""
    program, font = shutil.which("fluidsynth"), soundfont()
    if program is None or font is None or not font.is_file():
        return False
    with tempfile.TemporaryDirectory(dir=wav.parent, prefix=".fluidsynth-") as scratch:
        made = Path(scratch) / "made.wav"
        command = [program, "-ni", "-F", str(made), "-T", "wav", "-r", "44100", "-g", "0.8", str(font), str(midi)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=RENDER_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode != 0 or not made.is_file():
            return False
        write_atomically(wav, made.replace)
    return True
