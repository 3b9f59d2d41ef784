"""Music files as users have them: read whole, or left out with the reason."""

import struct
import zipfile
from pathlib import Path

import pytest

from bowerbird import config
from bowerbird.data.tokens import TokenData
from bowerbird.media import open_data
from bowerbird.media.music import abc
from bowerbird.media.music.score import Meter, Note, Piece, Tempo, Voice, midi_songs, read_midi, write_midi


@pytest.fixture
def cases(shared: Path) -> Path:
    """The folder of small files of users, beside the larger data."""
    folder = shared.parent / "cases"
    if not folder.is_dir():
        pytest.skip("needs the folder of cases beside the larger data sets")
    return folder


QUARTER = b"\x83\x60"  # 480 ticks
END = b"\x00\xff\x2f\x00"


def note(pitch: int, channel: int = 0) -> bytes:
    """A quarter, as events."""
    return bytes((0, 0x90 | channel, pitch, 80)) + QUARTER + bytes((0x80 | channel, pitch, 0))


MELODY, BASS = note(60) + note(62) + END, note(40, channel=1) + END


def midi(*tracks: bytes, kind: int = 1, declared: int | None = None, division: int = 480, header: int = 6) -> bytes:
    count = len(tracks) if declared is None else declared
    return (
        b"MThd"
        + struct.pack(">IHHH", header, kind, count, division)
        + bytes(header - 6)
        + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)
    )


def sounds(piece: Piece) -> list[tuple[float, float, int]]:
    return [(round(n.onset, 3), round(n.duration, 3), n.pitch) for n in piece.notes]


WHOLE = [(0.0, 1.0, 40), (0.0, 1.0, 60), (1.0, 1.0, 62)]


@pytest.mark.parametrize(
    "raw",
    [
        midi(MELODY, BASS),
        midi(MELODY, BASS, declared=1),
        midi(MELODY, BASS, kind=0),
        midi(MELODY, BASS, header=10),
        midi(MELODY, END, BASS),
        midi(MELODY, BASS) + b"\0" * 7,
        midi(MELODY, BASS) + b"left over from the last save",
        midi(MELODY, declared=2) + b"XFIH\0\0\0\2abMTrk" + struct.pack(">I", len(BASS)) + BASS,
        b"RIFF" + struct.pack("<I", 0) + b"RMIDDISP\1\0\0\0a\0data" + struct.pack("<I", 999) + midi(MELODY, BASS),
        midi(b"\0\x90<P" + QUARTER + b"<\0" + b"\0>P" + QUARTER + b">\0" + END, BASS),  # running status
        midi(MELODY[:-4], BASS),  # no end of track
    ],
)
def test_odd_midi_is_read_whole(raw: bytes) -> None:
    piece = read_midi(raw)
    assert sounds(piece) == WHOLE and len(piece.voices) == 2 and not piece.unended


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (midi(MELODY, BASS, declared=3), "cut short"),
        (midi(MELODY, BASS)[:-1], "cut short"),
        (midi(MELODY, BASS)[:-30], "cut short"),
        (midi(MELODY, BASS, declared=1)[:-1], "cut short"),
        (b"RIFF\0\0\0\0RMID", "cut short"),
        (b"RIFF\0\0\0\0WAVEdata", "no valid MIDI"),
        (midi(MELODY, division=0xE728), "SMPTE"),
        (midi(MELODY, division=0), "without a beat length"),
        (midi(MELODY, kind=3), r"unknown type \(3\)"),
        (midi(b"\0<P" + END), "no valid MIDI"),  # a running status that never began
        (midi(b"\0\x90<P" + END), "notes that never end"),
        (midi(MELODY, BASS, kind=2), "2 songs"),
    ],
)
def test_midi_that_cannot_be_read_whole_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_midi(raw)


def test_the_songs_of_a_type_2_file_are_pieces_of_their_own(tmp_path: Path) -> None:
    first, second = (read_midi(song) for song in midi_songs(midi(MELODY, BASS, kind=2)))
    assert sounds(first) == [(0.0, 1.0, 60), (1.0, 1.0, 62)] and sounds(second) == [(0.0, 1.0, 40)]
    tracks = [note(60 + i) + note(50 + i) + END for i in range(8)]
    (tmp_path / "songs.mid").write_bytes(midi(*tracks, END, kind=2))
    data = open_data(config.Data(str(tmp_path / "songs.mid")))
    assert "8 pieces, 16 notes" in data.summary()
    assert "skipped 1 (1 without notes; first: songs.mid, song 9)" in data.summary()


def test_until_its_first_tempo_a_midi_file_has_the_default_one() -> None:
    tempo = b"\0\xff\x51\x03\x0f\x42\x40"  # 60 quarters a minute
    assert read_midi(midi(note(60) + tempo + note(62) + END)).tempos == (Tempo(0.0, 120.0), Tempo(1.0, 60.0))
    assert read_midi(midi(tempo + note(60) + END)).tempos == (Tempo(0.0, 60.0),)


def test_notes_that_never_end_and_foreign_files_are_said(tmp_path: Path) -> None:
    for i in range(9):
        write_midi(Piece([Note(0.0, 1.0, 60 + i, 0)], (Voice("piano"),)), tmp_path / f"{i}.mid")
    (tmp_path / "9.mid").write_bytes(midi(b"\0\x90\x30P" + note(70) + END))
    (tmp_path / "LICENSE.md").write_text("free")
    summary = open_data(config.Data(str(tmp_path), modality="music")).summary()
    assert "10 pieces, 10 notes" in summary
    assert "other files: 1 (first: LICENSE.md)" in summary
    assert "pieces with notes that never end, which are left out: 1 (first: 9.mid)" in summary


def test_voices_without_a_name_are_called_by_what_they_are(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}.mid").write_bytes(midi(note(36 + i, channel=9) + END, note(60 + i) + END))
    assert "voices: program 0, drums;" in open_data(config.Data(str(tmp_path))).summary()


def test_drums_without_counterpart_in_training_are_said(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / part).mkdir()
        for i in range(3):
            write_midi(Piece([Note(0.0, 1.0, 60 + i, 0)], (Voice("piano"),)), tmp_path / part / f"{part}{i}.mid")
    kit = (Voice("piano"), Voice("kit", 0, is_drum=True))
    write_midi(Piece([Note(0.0, 1.0, 60, 0), Note(0.0, 1.0, 36, 1)], kit), tmp_path / "val" / "drums.mid")
    summary = open_data(config.Data(str(tmp_path))).summary()
    assert "kinds of voices that training lacks, left out: 1 (first: val/drums.mid)" in summary


def test_tracks_of_one_name_stay_apart() -> None:
    named = b"\0\xff\x03\x05Piano"
    piece = read_midi(midi(named + MELODY, named + BASS, named + note(50, channel=2) + END))
    assert [voice.name for voice in piece.voices] == ["Piano", "Piano 2", "Piano 3"]


def test_midi_with_more_tracks_than_its_header_says_is_read_whole(cases: Path) -> None:
    data = open_data(config.Data(str(cases / "15-midi-more-tracks" / "midi")))
    assert isinstance(data, TokenData)
    assert "6 pieces, 48 notes, voices: program 0, track 2" in data.summary() and data.skipped == 0


# --------------------------------------------------------------------------------------------------------- ABC


def tune(music: str, key: str = "C", header: str = "") -> str:
    return f"X:1\nM:4/4\nL:1/4\n{header}K:{key}\n{music}\n"


def melody(music: str, key: str = "C", header: str = "") -> list[int]:
    return [n.pitch for n in abc.read_tune(tune(music, key, header)).notes]


def letters(music: str, header: str = "") -> str:
    names = {60: "C", 62: "D", 64: "E", 65: "F", 67: "G", 69: "A"}
    return "".join(names[pitch] for pitch in melody(music, header=header))


@pytest.mark.parametrize(
    ("name", "pitches"),
    [
        ("plus_decoration", "60 62 64 65"), ("endings_1_3", "60 62 60 64 60 62 60 64"),
        ("endings_1-3", "60 62 60 62 60 62 60 64"), ("three_times", "60 60 60"), ("octave", "48 50 52 53"),
        ("transpose", "48 50 52 53"), ("clef8", "48 50 52 53"), ("exp", "66 67 72"),
    ],
)  # fmt: skip
def test_tunes_of_users(cases: Path, name: str, pitches: str) -> None:
    piece = abc.read_tune((cases / "17-abc" / f"{name}.abc").read_text())
    assert [n.pitch for n in piece.notes] == [int(pitch) for pitch in pitches.split()]


def test_an_overlay_sounds_beside_its_bar(cases: Path) -> None:
    piece = abc.read_tune((cases / "17-abc" / "overlay.abc").read_text())
    assert sounds(piece)[:2] == [(0.0, 1.0, 60), (0.0, 2.0, 72)] and sounds(piece)[-1] == (4.0, 4.0, 67)
    tied = abc.read_tune(tune("C4- & ^c2 c2|C4 & c4|C4|"))
    assert sounds(tied) == [(0, 2, 73), (0, 8, 60), (2, 2, 73), (4, 4, 72), (8, 4, 60)]
    of_one_note = abc.read_tune(tune("[C-E]4|[CE]4|"))
    assert sounds(of_one_note) == [(0, 4, 64), (0, 8, 60), (4, 4, 64)]
    with pytest.raises(ValueError, match="overlays of several bars"):
        abc.read_tune(tune("(& CDEF | G4 & c4 | d4 &)"))


@pytest.mark.parametrize(
    "mark", ["+trill+", "!trill!", "!ff!", "+f+", "+ff+", "!>!", "!5!", "T", "~", ".", "{gf}", "u"]
)
def test_decorations_are_no_notes(mark: str) -> None:
    assert melody(f"C {mark}D E F|") == [60, 62, 64, 65]


def test_marks_of_older_tunes() -> None:
    assert [n[:2] for n in sounds(abc.read_tune(tune("+CEG+ +ce+3|")))] == [(0, 1)] * 3 + [(1, 3)] * 2
    assert melody("CDEF!GABc!C4|") == [60, 62, 64, 65, 67, 69, 71, 72, 60]
    assert melody('[!1!C!3!E"text"G]4|') == [60, 64, 67]


@pytest.mark.parametrize(
    ("music", "order"),
    [
        ("|:C|1-2 D:|3 E|]F", "CDCDCEF"), ("|:C|1,2 D:|3 E||F", "CDCDCEF"), ("|:C [1,3 D :|[2,4 E :|F", "CDCECDCEF"),
        ("|::C::|D", "CCCD"), ("|:::C:::|", "CCCC"), ("C::|D", "CCCD"), ("|:C:|2,4 D:|E", "CCDCCDE"),
        ("|:C|1 D:| |2 E|]F", "CDCEF"), ("|:C|[1 D:|\n[2 E|]F", "CDCEF"), ("|:C::D:|E", "CCDDE"),
        ("|:C|1 D|2 E|]", "CDCE"), ("|:C|1 D:|", "CD"), ("[|:C:|]D", "CCD"), ("|:C:|:D:|E", "CCDDE"),
    ],
)  # fmt: skip
def test_repeats_and_endings(music: str, order: str) -> None:
    assert letters(music) == order


@pytest.mark.parametrize(("parts", "order"), [("AAB", "CCD"), ("A2(BA)2", "CCDCDC"), ("", "CD"), ("B", "D")])
def test_parts_are_played_in_their_order(parts: str, order: str) -> None:
    assert letters("P:A\nC|\nP:B\nD|", header=f"P:{parts}\n") == order


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("C clef=treble-8", 48), ("C treble+8", 72), ("C clef=bass", 60), ("C bass-8", 48), ("C clef=treble-15", 36),
        ("C octave=1", 72), ("C transpose=2", 62), ("C octave=-1 transpose=-2", 46), ("C middle=d", 60),
        ("C exp ^c", 61), ("F#", 61), ("A Dorian clef=alto", 60), ("clef=treble-8", 48), ("HP", 61),
    ],
)  # fmt: skip
def test_clefs_octaves_and_transpositions_of_keys(key: str, first: int) -> None:
    assert melody("C|", key)[0] == first


def test_a_clef_alone_keeps_the_key_and_a_field_of_a_voice_moves_it() -> None:
    assert melody("F[K:clef=bass]F[K:treble-8]F[K:C]F|", "G") == [66, 66, 54, 53]
    assert melody("V:1 octave=-1\nC|") == [48]
    assert melody("V:1\nC|", header="V:1 clef=treble-8\n") == [48]
    with pytest.raises(ValueError, match="sound=, which is not read"):
        abc.read_tune(tune("C|", "C sound=Bb"))


def test_voices_sound_together() -> None:
    piece = abc.read_tune(tune("V:1\nc d|V:1\n[V:2]C2|\nV:1\ne f|\nV:2\n[M:2/4]E2|", header="V:1 name=a\nV:2\n"))
    assert [voice.name for voice in piece.voices] == ["voice 1", "voice 2"]
    assert [(n.onset, n.pitch, n.voice) for n in piece.notes] == [
        (2.0, 72, 0), (2.0, 60, 1), (3.0, 74, 0), (4.0, 76, 0), (4.0, 64, 1), (5.0, 77, 0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="different repeats"):
        abc.read_tune(tune("V:1\n|:c4:|\nV:2\nC4|"))


@pytest.mark.parametrize(
    ("music", "reason"),
    [
        ("C !D.C.!|", "a jump"), ("C !D.S.alcoda!|", "a jump"), ("m: n = c\nC|", "macros"), ("C99999999|", "endless"),
        ("C,,,,,,|", "MIDI's range"), ("P:A\nC|", "names missing parts"),
    ],
)  # fmt: skip
def test_a_tune_that_cannot_be_read_whole_says_why(music: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        abc.read_tune(tune(music, header="P:AB\n" if "P:" in music else ""))


def test_text_between_tunes_is_no_music() -> None:
    head, block = "%abc-2.1\nM:3/4\nL:1/4\nfree text: a cabbage\n\n", "%%begintext\na decade\n%%endtext\n"
    text = f"{head}X:1\nK:C\nCDE|\n{block}\na bad egg\n\nX:2\nK:C\nC3|"
    (_, first), (_, second) = abc.tunes(text)
    assert [n.pitch for n in abc.read_tune(first).notes] == [60, 62, 64]
    assert abc.read_tune(second).meters == (Meter(0.0, 3, 4),)


def test_the_nottingham_tunes_are_all_read(shared: Path, tmp_path: Path) -> None:
    """The smallest six of the 14 books; all of them hold 1,034 pieces, 174,634 notes, and take 10 seconds more."""
    with zipfile.ZipFile(shared / "music" / "nottingham-abc.zip") as books:
        for name in ("ashover", "morris", "playford", "slip", "waltzes", "xmas"):
            books.extract(f"ABC_cleaned/{name}.abc", tmp_path)
    summary = open_data(config.Data(str(tmp_path / "ABC_cleaned"))).summary()
    assert "168 pieces, 21,946 notes" in summary and "none skipped" in summary


def test_a_tempo_inside_of_a_tune_holds_from_where_it_stands():
    piece = abc.read_tune(tune("CD[Q:1/4=90]EF|"))
    assert [(tempo.onset, tempo.qpm) for tempo in piece.tempos] == [(0.0, 120.0), (2.0, 90.0)]
