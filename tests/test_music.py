"""Music: grids, events, MIDI, ABC, sound and pictures."""

import json
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bowerbird import config
from bowerbird.data import builtin
from bowerbird.data.tokens import Rows, TokenData
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.music import abc, sound
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.codecs import codec_from
from bowerbird.media.music.events import EventCodec
from bowerbird.media.music.grid import REST, GridCodec, held
from bowerbird.media.music.pianoroll import COLOURS, pianoroll
from bowerbird.media.music.pieces import SEMITONES
from bowerbird.media.music.score import Meter, Note, Piece, Tempo, Voice, read_midi, write_midi
from bowerbird.media.music.sound import ORGAN, PEAK, PIANO, SAMPLE_RATE_HZ, synthesise, write_music

VOICES = ("soprano", "alto", "tenor", "bass")
PIANO_VOICE, ORGAN_VOICE = Voice("piano", 0), Voice("organ", 19)


def chorales(**options: object) -> TokenData:
    data = open_data(config.Data("chorales", music=config.Music(**options)))  # type: ignore[arg-type]
    assert isinstance(data, TokenData)
    return data


def pieces_of(rows: Rows, codec: MusicCodec) -> list[list[int]]:
    """The tokens of each piece, without bos and eos."""
    ends = (rows.tokens == codec.eos).nonzero().flatten().tolist()
    begins = [0, *(end + 1 for end in ends[:-1])]
    return [rows.tokens[begin + 1 : end].tolist() for begin, end in zip(begins, ends, strict=True)]


def song(seed: int, n: int = 40) -> Piece:
    """Two voices and a drum, on the grid that events keep exactly."""
    rng = np.random.default_rng(seed)
    voices = (Voice("melody", 0), Voice("bass", 33), Voice("drums", 0, is_drum=True))
    notes = [
        Note(float(rng.integers(96)) / 12, float(rng.integers(1, 49)) / 12, int(rng.integers(40, 80)), v, 8 + 16 * v)
        for v in (2, 1, 0)
        for _ in range(n)
    ]
    first = Note(0.0, 1.0, 60, 0, 8)
    meters = (Meter(0.0, 3, 4), Meter(6.0, 6, 8))
    return Piece(sorted({first, *notes}), voices, meters, (Tempo(0.0, 100.0), Tempo(6.0, 60.0)))


# ------------------------------------------------------------------------------------------------------- grids


def test_the_chorales_have_their_official_splits_in_both_grids() -> None:
    for grid, n_frames in (("quarter", 23_134), ("16th", 92_536)):
        data = chorales(grid=grid)
        codec = codec_from(data.spec.codec)
        assert isinstance(codec, GridCodec) and codec.voices == VOICES
        parts = [pieces_of(getattr(data, name), codec) for name in ("train", "val", "test")]
        assert [len(part) for part in parts] == [229, 76, 77]
        assert sum(len(piece) for part in parts for piece in part) == 4 * n_frames
        assert data.spec.medium == "music" and data.spec.given == {}
        assert data.tokens.context == 512 and data.tokens.start == (codec.bos,)


def test_the_quarter_grid_is_every_fourth_frame_of_the_other_transposed() -> None:
    pack = builtin.load("chorales")
    quarter, sixteenth = (
        np.split(pack[grid].astype(int), pack[f"{grid}_offsets"][1:-1]) for grid in ("quarter", "16th")
    )
    same = total = 0
    for slow, fast in zip(quarter, sixteenth, strict=True):
        assert len(slow) == len(fast[::4])
        interval = slow - fast[::4]
        values, counts = np.unique(interval, return_counts=True)
        assert -6 <= values[counts.argmax()] <= 5  # to C major or A minor the shorter way
        same += ((interval == values[counts.argmax()]) | (slow == REST)).all(axis=1).sum()
        total += len(slow)
    assert same / total > 0.98


def test_voices_are_where_they_are_sung() -> None:
    frames = builtin.load("chorales")["16th"].astype(int)
    full = frames[(frames != REST).all(axis=1)]
    assert (full[:, 0] >= full[:, 3]).mean() > 0.999
    assert (np.diff(full, axis=1) <= 0).mean() > 0.97  # voices seldom cross
    assert full.min() == 36 and full.max() == 81


def test_the_pack_holds_the_pitches_of_the_original_files(shared: Path) -> None:
    original = json.loads((shared / "music" / "jsb-chorales-quarter.json").read_text())
    pack = builtin.load("chorales")
    wanted = [set(frame) for split in ("train", "valid", "test") for piece in original[split] for frame in piece]
    assert [{p + 12 for p in row if p != REST} for row in pack["quarter"].astype(int).tolist()] == wanted
    fast = json.loads((shared / "music" / "jsb-chorales-16th.json").read_text())
    wanted = sorted(tuple(sorted(frame)) for split in fast.values() for piece in split for frame in piece)
    assert sorted(tuple(sorted(p for p in row if p != REST)) for row in pack["16th"].tolist()) == wanted


def test_a_grid_is_its_tokens_frame_by_frame_and_voice_by_voice() -> None:
    grid = np.array([[72, 67, 64, 48], [72, REST, 65, 47], [REST, REST, REST, REST]])
    codec = GridCodec.of([grid], VOICES, 0.25, 76.0)
    tokens = codec.encode(grid)
    assert tokens[4 * 1 + 2] == codec.rest + 1 + 65 - 47 and tokens[4 * 1 + 1] == codec.rest
    assert codec.vocab_size == 3 + 1 + (72 - 47 + 1) and max(tokens) == codec.vocab_size - 1
    assert (codec.decode([codec.bos, *tokens, codec.eos, codec.pad]) == grid).all()
    assert (codec.decode(tokens[:-1]) == grid[:2]).all()  # the last frame is not complete
    assert codec.decode([]).shape == (0, 4)
    assert codec_from(codec.to_json()) == codec
    with pytest.raises(BowerbirdError, match="other voices or pitches"):
        codec.encode(grid + 1)


def test_a_repeated_pitch_is_one_held_note() -> None:
    grid = np.array([[72, 60], [72, REST], [71, 60], [71, 60]])
    assert held(grid, 0.5) == [
        Note(0.0, 0.5, 60, 1), Note(0.0, 1.0, 72, 0), Note(1.0, 1.0, 60, 1), Note(1.0, 1.0, 71, 0),
    ]  # fmt: skip


def test_examples_predict_every_token_once_and_begin_with_one_voice() -> None:
    data = chorales(grid="16th", context=90)
    assert data.tokens.context == 88  # a multiple of four
    codec = codec_from(data.spec.codec)
    rows = data.val
    assert isinstance(rows, Rows)
    assert rows.n_counted() == sum(len(piece) + 1 for piece in pieces_of(rows, codec))
    starts = (rows.tokens == codec.bos).nonzero().flatten()
    since = rows.begin - starts[torch.searchsorted(starts, rows.begin, right=True) - 1]
    assert (since % 4 == 0).all()
    with pytest.raises(BowerbirdError, match=r"data\.music\.context = 3 must be at least 4"):
        chorales(context=3)


def test_transposition_moves_pitches_and_nothing_else() -> None:
    data, plain = chorales(transpose=True), chorales()
    codec, other = (codec_from(one.spec.codec) for one in (data, plain))
    assert isinstance(codec, GridCodec) and isinstance(other, GridCodec)
    assert (codec.low, codec.high) == (other.low - SEMITONES, other.high + SEMITONES)
    indices = torch.arange(200)
    torch.manual_seed(0)
    x = data.train.batch(indices)["x"]
    still = plain.train.batch(indices)["x"]
    pitched = still > other.rest
    assert pitched.equal(x > codec.rest) and x[~pitched].equal(still[~pitched])
    moved = [set((row - SEMITONES)[there].tolist()) for row, there in zip(x - still, pitched, strict=True)]
    assert all(len(one) == 1 for one in moved) and set.union(*moved) == set(range(-SEMITONES, SEMITONES + 1))
    assert x.max() < codec.vocab_size
    torch.manual_seed(0)
    assert data.train.batch(indices)["x"].equal(x)  # a resumed run draws the same
    assert data.val.batch(indices[:9])["x"].equal(data.val.batch(indices[:9])["x"])


# ------------------------------------------------------------------------------------------------------ events


def test_events_keep_music_that_lies_on_their_grid() -> None:
    piece = song(0)
    codec = EventCodec.of([piece])
    again = codec.piece(codec.encode(piece))
    names = [voice.name for voice in piece.voices]
    heard = {(n.onset, n.duration, n.pitch, again.voices[n.voice].name, n.velocity) for n in again.notes}
    assert heard == {(n.onset, n.duration, n.pitch, names[n.voice], n.velocity) for n in piece.notes}
    assert again.meters == piece.meters
    assert [(t.onset, round(t.qpm / 6)) for t in again.tempos] == [(0.0, 17), (6.0, 10)]
    assert codec.parts[-1].voice.is_drum
    assert codec_from(codec.to_json()) == codec


@pytest.mark.parametrize("seed", range(5))
def test_any_tokens_are_music(seed: int) -> None:
    codec = EventCodec.of([song(0), song(1)])
    rng = np.random.default_rng(seed)
    piece = codec.piece(rng.integers(0, codec.vocab_size, 400).tolist())
    tokens = codec.encode(piece)
    assert codec.encode(codec.piece(tokens)) == tokens  # what the codec writes it reads back
    assert codec.piece([]).notes == []


def test_other_music_is_written_with_the_nearest_tokens() -> None:
    codec = EventCodec.of([song(0)])
    melody = codec.parts[[part.voice.name for part in codec.parts].index("melody")]
    foreign = Piece(
        [Note(0.0, 40.0, melody.high + 12, 0, 127), Note(1.02, 0.001, 60, 0)],
        (Voice("flute", 1),), (Meter(0.0, 5, 4),), (Tempo(0.0, 900.0),),
    )  # fmt: skip
    loud, short = codec.piece(codec.encode(foreign)).notes
    assert (loud.pitch, loud.velocity, loud.duration) == (melody.high, 40, 4.0)
    assert (short.onset, short.duration) == (1.0, 1 / 12)
    assert codec.encode(Piece([Note(0.0, 1.0, 60, 0)], (Voice("kit", 0, True),))) != []


def test_long_silences_are_shortened() -> None:
    piece = Piece([Note(400.0, 1.0, 60, 0), Note(4000.0, 1.0, 62, 0)], (PIANO_VOICE,))
    codec = EventCodec.of([piece])
    assert [note.onset for note in codec.piece(codec.encode(piece)).notes] == [0.0, 20.0]


def test_bars_follow_the_metres() -> None:
    piece = Piece([Note(0.0, 9.0, 60, 0)], (PIANO_VOICE,), (Meter(0.0, 3, 4), Meter(6.0, 4, 4)))
    assert piece.bars() == [0.0, 3.0, 6.0]


# -------------------------------------------------------------------------------------------------------- MIDI


def test_a_midi_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    piece = song(3)
    again = read_midi(write_midi(piece, tmp_path / "song.mid").read_bytes())
    assert again.voices == piece.voices and again.meters == piece.meters
    assert [tempo.qpm for tempo in again.tempos] == pytest.approx([100, 60], abs=0.01)
    ours, theirs = ({(round(480 * n.onset), n.voice, n.pitch, n.velocity) for n in one.notes} for one in (piece, again))
    assert ours == theirs


def test_bars_of_one_beat_are_not_believed(tmp_path: Path) -> None:
    piece = Piece([Note(0.0, 1.0, 60, 0)], (PIANO_VOICE,), (Meter(0.0, 1, 4),))
    assert read_midi(write_midi(piece, tmp_path / "song.mid").read_bytes()).meters == (Meter(0.0, 4, 4),)


def test_a_midi_file_cut_short_anywhere_is_no_music(tmp_path: Path) -> None:
    raw = write_midi(song(0, 3), tmp_path / "song.mid").read_bytes()
    for length in range(len(raw)):
        with pytest.raises(ValueError, match="cut short"):
            read_midi(raw[:length])
    with pytest.raises(ValueError, match="no valid MIDI"):
        read_midi(b"RIFF" + raw[4:])
    with pytest.raises(ValueError, match="without notes"):
        read_midi(write_midi(Piece([], (PIANO_VOICE,)), tmp_path / "none.mid").read_bytes())


def test_a_folder_of_midi_leaves_out_what_is_broken(tmp_path: Path) -> None:
    for i in range(12):
        write_midi(song(i), tmp_path / f"{i}.mid")
    (tmp_path / "cut.mid").write_bytes((tmp_path / "0.mid").read_bytes()[:100])
    (tmp_path / "README.txt").write_text("songs")
    data = open_data(config.Data(str(tmp_path)))
    assert isinstance(data, TokenData) and data.spec.medium == "music"
    assert isinstance(codec_from(data.spec.codec), EventCodec)
    assert data.skipped == 1 and "skipped 1 (1 cut short; first: cut.mid)" in data.summary()
    assert "12 pieces" in data.summary() and len(data.val) and len(data.test)
    with zipfile.ZipFile(tmp_path / "songs.zip", "w") as archive:
        for path in sorted(tmp_path.glob("*.mid")):
            archive.write(path, path.name)
    assert open_data(config.Data(str(tmp_path / "songs.zip"))).fingerprint == data.fingerprint


def test_what_cannot_be_opened_is_said_in_one_sentence(tmp_path: Path) -> None:
    raw = write_midi(song(0), tmp_path / "song.mid").read_bytes()
    with pytest.raises(BowerbirdError, match="holds only one piece"):
        open_data(config.Data(str(tmp_path / "song.mid")))
    (tmp_path / "song.mid").write_bytes(raw[:200])
    with pytest.raises(BowerbirdError, match=r"^song\.mid cannot be read as music: it is cut short; bring"):
        open_data(config.Data(str(tmp_path / "song.mid")))
    (tmp_path / "noise.mid").write_bytes(b"MThd" + bytes(40))
    with pytest.raises(BowerbirdError, match=r"None of the 2 pieces in .* can be read: 1 .*, 1 .*; first: noise\.mid"):
        open_data(config.Data(str(tmp_path)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BowerbirdError, match=r"holds no music \(\.mid"):
        open_data(config.Data(str(tmp_path / "empty"), modality="music"))


def test_songs_of_pop909_survive_their_tokens(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared / "music" / "pop909.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".mid")][:12]
        songs = [archive.read(name) for name in names]
    for i, raw in enumerate(songs):
        (tmp_path / f"{i}.mid").write_bytes(raw)
    data = open_data(config.Data(str(tmp_path)))
    assert isinstance(data, TokenData) and data.skipped == 0
    codec = codec_from(data.spec.codec)
    assert isinstance(codec, EventCodec)
    assert {part.voice.name for part in codec.parts} == {"MELODY", "BRIDGE", "PIANO"}
    pieces = [read_midi(raw) for raw in songs]
    codec = EventCodec.of(pieces)
    for piece in pieces:
        again = codec.piece(codec.encode(piece))
        assert len(again.notes) == len(piece.notes)
        onset = np.sort([note.onset for note in piece.notes]) - np.sort([note.onset for note in again.notes])
        assert np.ptp(onset) <= 1 / 12 + 1e-9  # rounded to twelfths, after silent bars at the beginning
        assert sorted(note.pitch for note in again.notes) == sorted(note.pitch for note in piece.notes)


# --------------------------------------------------------------------------------------------------------- ABC


def heard(tune: str) -> list[tuple[float, float, int]]:
    """(onset, duration, pitch) of each note."""
    return [(round(n.onset, 3), round(n.duration, 3), n.pitch) for n in abc.read_tune(tune).notes]


def melody(tune: str) -> list[int]:
    return [pitch for _, _, pitch in heard(tune)]


@pytest.mark.parametrize(
    ("key", "scale"),
    [
        ("C", "60 62 64 65 67 69 71"), ("G", "60 62 64 66 67 69 71"), ("Bb", "60 62 63 65 67 69 70"),
        ("F#m", "61 62 64 66 68 69 71"), ("D dor", "60 62 64 65 67 69 71"), ("Amix", "61 62 64 66 67 69 71"),
        ("Ebmaj", "60 62 63 65 67 68 70"), ("C#", "61 63 65 66 68 70 72"), ("none", "60 62 64 65 67 69 71"),
        ("D ^g =c", "60 62 64 66 68 69 71"),
    ],
)  # fmt: skip
def test_keys_of_abc(key: str, scale: str) -> None:
    assert melody(f"L:1/4\nK:{key}\nCDEFGAB|") == [int(pitch) for pitch in scale.split()]


def test_lengths_ties_tuplets_and_broken_rhythm_of_abc() -> None:
    assert heard("M:4/4\nL:1/8\nK:C\nC2 D/ E// F3/2 z G/4 x C, z/|") == [
        (0.0, 1.0, 60), (1.0, 0.25, 62), (1.25, 0.125, 64), (1.375, 0.75, 65), (2.625, 0.125, 67), (3.25, 0.5, 48),
    ]  # fmt: skip
    assert heard("L:1/4\nK:C\nC-C- |C D2 E|") == [(2.0, 3.0, 60), (5.0, 2.0, 62), (7.0, 1.0, 64)]
    assert [n[:2] for n in heard("M:2/4\nL:1/8\nK:C\n(3CDE F>G|")] == [
        (0.0, 0.333), (0.333, 0.333), (0.667, 0.333), (1.0, 0.75), (1.75, 0.25),
    ]  # fmt: skip
    assert [n[1] for n in heard("M:2/4\nL:1/8\nK:C\nC<D E>>F|")] == [0.25, 0.75, 0.875, 0.125]
    assert heard("M:2/4\nL:1/4\nK:C\n[CEG]2|") == [(0.0, 2.0, 60), (0.0, 2.0, 64), (0.0, 2.0, 67)]
    assert abc.read_tune("M:6/8\nQ:3/8=80\nK:C\nCDE FGA|").tempos == (Tempo(0.0, 120.0),)


def test_accidentals_of_abc_hold_until_the_bar_line_and_across_a_tie() -> None:
    assert melody("L:1/4\nK:C\n^F F f F|F|") == [66, 66, 78, 66, 65]
    assert melody("L:1/4\nK:C\n^F =F __B B|") == [66, 65, 69, 69]
    assert heard("L:1/4\nK:C\nz3 _B-|B B c d|") == [(3.0, 2.0, 70), (5.0, 1.0, 71), (6.0, 1.0, 72), (7.0, 1.0, 74)]


@pytest.mark.parametrize(
    ("tune", "order"),
    [
        ("CDEF:|", "CDEFCDEF"), ("C|:DEFG:|A", "CDEFGDEFGA"), ("|:CD::EF:|", "CDCDEFEF"),
        ("|:C|1 D:|2 E|]F", "CDCEF"), ("|:C [1D:|[2 E||F", "CDCEF"), ("CD||EF:|G", "CDEFEFG"),
        ("|:C|1 D:|2 E:|3 F||", "CDCECF"), ("|:CD||E|1 F:|2 G||A", "CDEFCDEGA"), ("C:|D:|", "CCDD"),
    ],
)  # fmt: skip
def test_repeats_of_abc(tune: str, order: str) -> None:
    letters = {60: "C", 62: "D", 64: "E", 65: "F", 67: "G", 69: "A"}
    assert "".join(letters[pitch] for pitch in melody(f"M:4/4\nL:1/4\nK:C\n{tune}")) == order


def test_an_upbeat_of_abc_is_before_the_first_bar_line() -> None:
    piece = abc.read_tune('T:A tune\nM:3/4\nL:1/4\nK:G\n% a comment\n"G"D|{c}G2 !trill!A|~B3|')
    assert [note.onset for note in piece.notes] == [2.0, 3.0, 5.0, 6.0] and piece.bars() == [0.0, 3.0, 6.0]
    assert piece.meters == (Meter(0.0, 3, 4),)


def test_abc_without_notes_is_left_out(tmp_path: Path) -> None:
    tunes = "".join(f"X:{i}\nK:C\n{'CDEFGAB'[i % 7]}2 {'CDEFGAB'[i % 5]}2|\n\n" for i in range(30))
    (tmp_path / "tunes.abc").write_text(tunes + "X:90\nK:C\n|\n\nX:91\nK:C\nC !D.C.!|\n", encoding="utf-8")
    data = open_data(config.Data(str(tmp_path / "tunes.abc")))
    assert "1 without notes, 1 with a jump (D.C.); first: tunes.abc, tune 90" in data.summary()
    assert "30 pieces, 60 notes, voices: melody" in data.summary()


def test_the_nottingham_tunes_are_read(shared: Path) -> None:
    with zipfile.ZipFile(shared / "music" / "nottingham-abc.zip") as archive:
        tunes = [tune for _, tune in abc.tunes(archive.read("ABC_cleaned/slip.abc").decode())]
    pieces = [abc.read_tune(tune) for tune in tunes]
    assert len(pieces) == 11 and all(piece.meters[0][1:] == (9, 8) for piece in pieces)
    assert all(55 <= note.pitch <= 88 for piece in pieces for note in piece.notes)


# ------------------------------------------------------------------------------------------------------- sound


def spectrum(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and magnitudes of the sum of both channels."""
    mono = waveform.sum(axis=0) * np.hanning(waveform.shape[1])
    return np.fft.rfftfreq(len(mono), 1 / SAMPLE_RATE_HZ), np.abs(np.fft.rfft(mono))


@pytest.mark.parametrize("voice", [PIANO_VOICE, ORGAN_VOICE])
def test_a_written_a4_sounds_at_440_hz(voice: Voice) -> None:
    frequencies, magnitudes = spectrum(synthesise(Piece([Note(0.0, 4.0, 69, 0)], (voice,))))
    assert frequencies[magnitudes.argmax()] == pytest.approx(440, abs=0.6)
    assert magnitudes[(frequencies > 5) & (frequencies < 400)].max() < 0.03 * magnitudes.max()


def test_chords_octaves_and_semitones_are_in_tune() -> None:
    pitches = (48, 57, 64, 70)
    piece = Piece([Note(0.0, 6.0, pitch, 0) for pitch in pitches], (ORGAN_VOICE,))
    frequencies, magnitudes = spectrum(synthesise(piece))
    for pitch in pitches:
        near = np.abs(frequencies - 440 * 2 ** ((pitch - 69) / 12)) < 4
        peak = frequencies[near][magnitudes[near].argmax()]
        assert 12 * np.log2(peak / 440) + 69 == pytest.approx(pitch, abs=0.04)
        assert magnitudes[near].max() > 0.2 * magnitudes.max()


def test_sound_begins_and_ends_in_silence_and_never_clips() -> None:
    piece = song(5, 200)
    loud = Piece([note._replace(velocity=127) for note in piece.notes], piece.voices)
    waveform = synthesise(loud)
    assert np.abs(waveform).max() == pytest.approx(PEAK, abs=1e-5) and np.isfinite(waveform).all()
    assert np.abs(waveform[:, :2]).max() < 0.02 and np.abs(waveform[:, -2:]).max() < 1e-4
    silence = synthesise(Piece([], (PIANO_VOICE,)))
    assert silence.shape[1] >= SAMPLE_RATE_HZ // 2 and not silence.any()


@pytest.mark.parametrize("timbre", [PIANO, ORGAN])
def test_tones_do_not_click(timbre: sound.Timbre) -> None:
    """No step from one sample to the next is steeper than the sines can be."""
    held_tone = sound.tone(timbre, 60, 0.5, SAMPLE_RATE_HZ)
    one = np.concatenate([[0], sound.released(held_tone, timbre, 0.31, SAMPLE_RATE_HZ), [0]])
    assert len(one) < len(held_tone)
    f = 440 * 2 ** (-9 / 12)
    k = np.arange(1, len(timbre.partials) + 1)
    loudness = np.sqrt(np.sum(np.square(timbre.partials))) * (f / 440) ** 0.25
    slope = np.sum(2 * np.pi * f * k * timbre.partials * np.sqrt(1 + timbre.stiffness * k**2)) / loudness
    steepest = slope / SAMPLE_RATE_HZ + np.pi / 2 / (min(timbre.attack_s, timbre.release_s) * SAMPLE_RATE_HZ)
    assert np.abs(np.diff(one)).max() < steepest
    assert np.abs(one[-3:]).max() < 1e-3


def test_a_piano_dies_away_and_an_organ_does_not() -> None:
    def late_share(timbre: sound.Timbre) -> float:
        energy = np.square(sound.tone(timbre, 69, 2.0, SAMPLE_RATE_HZ))
        return float(energy[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ].sum() / energy[:SAMPLE_RATE_HZ].sum())

    assert late_share(PIANO) < 0.4 and late_share(ORGAN) > 0.9


def test_tempos_say_when_notes_sound() -> None:
    piece = Piece([Note(3.0, 1.0, 60, 0)], (PIANO_VOICE,), tempos=(Tempo(0.0, 60.0), Tempo(2.0, 120.0)))
    assert piece.seconds([0.0, 1.0, 2.0, 3.0, 5.0]) == pytest.approx([0.0, 1.0, 2.0, 2.5, 3.5])
    loud = np.abs(synthesise(piece)).max(axis=0) > 0.02
    assert loud.argmax() / SAMPLE_RATE_HZ == pytest.approx(2.5, abs=0.01)


def test_a_sample_is_written_as_midi_sound_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    data = chorales()
    codec = codec_from(data.spec.codec)
    tokens = data.val.batch(torch.tensor([0]))["x"][0]
    midi, wav, png = write_music(tokens, codec, tmp_path / "out" / "v1.5")
    assert [path.name for path in (midi, wav, png)] == ["v1.5.mid", "v1.5.wav", "v1.5.png"]
    assert read_midi(midi.read_bytes()).notes == codec.notes(tokens.tolist())
    with wave.open(str(wav)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (SAMPLE_RATE_HZ, 2, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        seconds = file.getnframes() / file.getframerate()
    assert np.abs(samples.astype(int)).max() == round(PEAK * 32767)
    assert seconds > codec.piece(tokens.tolist()).quarters * 60 / 76
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["v1.5.mid", "v1.5.png", "v1.5.wav"]
    write_music([], codec, tmp_path / "nothing")  # a model may write no note at all


def test_fluidsynth_is_used_when_it_and_a_soundfont_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fluidsynth"
    program.write_text('#!/bin/sh\nwhile [ "$1" != -F ]; do shift; done\nprintf made-by-fluidsynth > "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("BOWERBIRD_SOUNDFONT", str(tmp_path / "font.sf2"))
    codec = GridCodec(VOICES, 1.0, 40, 80, 76.0)
    tokens = codec.encode(np.array([[72, 67, 64, 48]]))
    assert write_music(tokens, codec, tmp_path / "a")[1].read_bytes()[:4] == b"RIFF"  # no soundfont yet
    (tmp_path / "font.sf2").write_bytes(b"")
    assert write_music(tokens, codec, tmp_path / "b")[1].read_bytes() == b"made-by-fluidsynth"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert write_music(tokens, codec, tmp_path / "c")[1].read_bytes()[:4] == b"RIFF"


# ---------------------------------------------------------------------------------------------------- pictures


def test_a_note_lies_where_and_how_long_it_sounds() -> None:
    """Two notes of 8 quarters' time: one over the second quarter, one over the last half, an octave higher."""
    piece = Piece([Note(1.0, 1.0, 60, 0, 127), Note(4.0, 4.0, 72, 1, 127)], (PIANO_VOICE, ORGAN_VOICE))
    pixels = np.asarray(pianoroll(piece)).astype(int)
    boxes = []
    for colour in COLOURS[:2]:
        there = (np.abs(pixels - np.array(list(bytes.fromhex(colour[1:])))).max(axis=2) < 6)[70:]  # below the legend
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        boxes.append((columns[0], columns[-1], rows.mean()))
    (a, b, low), (c, d, high) = boxes
    quarter = (d - c) / 4
    assert b - a == pytest.approx(quarter, rel=0.06)
    assert c - a == pytest.approx(3 * quarter, rel=0.02)
    assert low > high


def test_pictures_of_long_and_of_empty_pieces() -> None:
    long = Piece([Note(float(i), 1.0, 40 + i % 40, 0) for i in range(700)], (PIANO_VOICE,))
    short = Piece(long.notes[:20], (PIANO_VOICE,))
    assert pianoroll(long).height > 3 * pianoroll(short).height
    assert pianoroll(long).width == pianoroll(Piece([], (PIANO_VOICE,))).width
