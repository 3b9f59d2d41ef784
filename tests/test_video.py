"""Moving pictures as data and as files: every kind of file that people have, times, sizes, alpha, and known motion."""

import io
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bowerbird import config
from bowerbird.data import builtin, packing
from bowerbird.eightbit import to_float, to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.media.medium import medium
from bowerbird.media.video import bouncing, films, gathering, reading
from bowerbird.media.video.clipset import ClipData
from bowerbird.provenance import verifying
from bowerbird.provenance.labelling import UNSIGNED, labelling
from bowerbird.spec import Spec, Tensors

av = pytest.importorskip("av")
COLOURS = np.array([[255, 0, 0], [0, 160, 0], [0, 0, 255], [255, 255, 0], [0, 200, 200], [200, 0, 200]], np.uint8)


def ball(at: int, side: int = 24, colour: int = 0) -> Image.Image:
    """A disc on white, ``at`` pixels from the left."""
    y, x = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), 255, np.uint8)
    pixels[(y - side // 2) ** 2 + (x - at) ** 2 < (side / 6) ** 2] = COLOURS[colour % 6]
    return Image.fromarray(pixels)


def animation(frames: list[Image.Image], ms: Any = 125, kind: str = "GIF", **how: Any) -> bytes:
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=ms, loop=0, **how)
    return buffer.getvalue()


def film(frames: list[Image.Image], times: list[float] | None = None, rate: int = 8) -> bytes:
    """MP4 whose frames begin at these times."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", "bf": "0"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * (times[k] if times else k / rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def rolling(seed: int, n: int = 12) -> list[Image.Image]:
    return [ball(3 + (k + seed) % 18, colour=seed) for k in range(n)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of two kinds, in four formats."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(10):
        place = folder / ("left" if i % 2 else "right")
        place.mkdir(exist_ok=True)
        frames = rolling(i)[:: -1 if i % 2 else 1]
        kind = ("GIF", "WEBP", "PNG", "MP4")[i % 4]
        content = film(frames) if kind == "MP4" else animation(frames, kind=kind)
        (place / f"{i}.{kind.lower()}").write_bytes(content)
    return folder


def opened(source: Path, *, label: str | None = None, given: tuple[str, ...] = (), **video: Any) -> ClipData:
    wish = config.Video(**{"frames": 8, **video})
    found = open_data(config.Data(str(source), modality="video", label=label, given=given, video=wish))
    assert isinstance(found, ClipData)
    return found


def wanted(n: int = 8, rate: float = 8.0, side: int = 24, pieces: bool = False, loops: bool = True) -> reading.Wanted:
    return reading.Wanted(n, rate, side, side, 3, pieces, loops)


def seen(name: str, raw: bytes, **how: Any) -> list[int]:
    """Which of ``COLOURS`` the middle of each frame shows."""
    ((clip,), _) = reading.clips(name, raw, wanted(**how))
    middles = clip[:, 10:14, 10:14].reshape(len(clip), -1, 3).astype(int).mean(1)
    return [int(np.abs(COLOURS - one).sum(1).argmin()) for one in middles]


def plain(*numbers: int, side: int = 24) -> list[Image.Image]:
    """Frames of one colour each; a corner differs, so that no encoder drops a repeated frame."""
    frames = [Image.new("RGB", (side, side), tuple(COLOURS[number].tolist())) for number in numbers]
    for k, frame in enumerate(frames):
        frame.putpixel((0, 0), (k, k, k))
    return frames


# ------------------------------------------------------------------------------------------------------------ folders


def test_a_folder_of_animations_and_films_becomes_clips_with_labels(clips: Path) -> None:
    data = opened(clips)
    assert data.spec.target == Tensors((3, 8, 24, 24)) and data.classes == ("left", "right")
    assert data.summary() == (
        "clips0: 10 clips of 8 frames at 8 per second, 24x24 colour, label left, right (from folders); "
        "train 8, val 1, test 1; none skipped; 10 longer than 1 s, cut at the end (left/1.webp …)"
    )
    x = data.train.batch(torch.arange(8))["x"]
    assert x.shape == (8, 3, 8, 24, 24) and x.min() >= -1 and x.max() <= 1 and float(x.diff(dim=2).abs().amax()) > 1
    assert opened(clips).fingerprint == data.fingerprint != opened(clips, rate_hz=4.0).fingerprint


def test_the_first_frame_can_be_given_beside_the_label(clips: Path) -> None:
    data = opened(clips, given=("first", "folder"))
    batch = data.train.batch(torch.arange(3))
    assert set(batch["given"]) == {"first", "folder"} == set(data.spec.given)
    assert torch.equal(batch["given"]["first"], batch["x"][:, :, 0])
    assert opened(clips, given=("first",)).spec.given == {"first": Tensors((3, 24, 24))}
    with pytest.raises(BowerbirdError, match=r"no column of .* 'secnd'|'secnd'"):
        opened(clips, given=("secnd",))


def test_films_are_recognised_and_animations_are_pictures_unless_video_is_asked_for(
    clips: Path, tmp_path: Path
) -> None:
    for i in range(4):
        (tmp_path / f"{i}.mp4").write_bytes(film(rolling(i)))
    assert open_data(config.Data(str(tmp_path))).spec.medium == "video"
    (tmp_path / "gifs").mkdir()
    for i in range(4):
        (tmp_path / "gifs" / f"{i}.gif").write_bytes(animation(rolling(i)))
    as_pictures = open_data(config.Data(str(tmp_path / "gifs")))
    assert as_pictures.spec.medium == "image" and "--data.modality video" in as_pictures.summary()


def test_clips_are_decoded_once_into_a_pack_and_large_ones_are_mapped(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOWERBIRD_CACHE", str(tmp_path))
    before = opened(clips, given=("first", "folder"))
    monkeypatch.setattr(gathering, "SMALL_BYTES", 0)
    made = opened(clips, given=("first", "folder"))
    monkeypatch.setattr(reading, "shown", None)  # nothing is decoded again
    monkeypatch.setattr(packing, "LARGEST_IN_MEMORY", 0)
    again = opened(clips, given=("first", "folder"))
    assert before.summary() == made.summary() == again.summary()
    assert before.fingerprint == made.fingerprint == again.fingerprint
    a, b = (data.train.batch(torch.arange(8)) for data in (before, again))
    assert torch.equal(a["x"], b["x"]) and torch.equal(a["given"]["folder"], b["given"]["folder"])
    (place,) = (tmp_path / "pictures").iterdir()
    mapped = Path("/proc/self/maps")
    assert not mapped.exists() or str(place / packing.PACK) in mapped.read_text()


# -------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_variable_frame_rates_are_resampled_in_time(kind: str) -> None:
    raw = animation(plain(0, 1, 2, 3), [500, 100, 150, 250], kind)
    assert seen(f"a.{kind.lower()}", raw) == [0, 0, 0, 0, 1, 2, 3, 3]


def test_films_of_variable_rate_are_resampled_in_time() -> None:
    assert seen("a.mp4", film(plain(0, 1, 2, 3), [0, 0.5, 0.6, 0.75])) == [0, 0, 0, 0, 1, 2, 3, 3]


def test_a_variable_rate_is_said(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.gif").write_bytes(animation(rolling(i, 4), [500, 100, 150, 250]))
    assert "4 with frames that last differently long, brought to one rate (0.gif …)" in opened(tmp_path).summary()


def test_short_clips_begin_again_or_stay(tmp_path: Path) -> None:
    raw = animation(plain(0, 1, 2))
    assert seen("a.gif", raw) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert seen("a.gif", raw, loops=False) == [0, 1, 2, 2, 2, 2, 2, 2]
    (tmp_path / "0.gif").write_bytes(raw)
    (tmp_path / "1.gif").write_bytes(animation(plain(3, 4, 5)))
    assert "2 shorter than 1 s, which play again from the beginning (0.gif …)" in opened(tmp_path).summary()


def test_long_ones_are_cut_or_become_pieces(tmp_path: Path) -> None:
    raw = animation(plain(*[0] * 8, *[1] * 8, *[2] * 3))
    pieces, was_cut = reading.clips("a.gif", raw, wanted(pieces=True))
    assert [len(piece) for piece in pieces] == [8, 8] and was_cut
    (tmp_path / "0.gif").write_bytes(raw)
    assert len(opened(tmp_path, longer="pieces").train) == 1


def test_frames_that_state_no_time_last_a_tenth_of_a_second() -> None:
    assert [round(one.lasts_s, 3) for one in reading.shown("a.gif", animation(plain(0, 1, 2), 0))] == [0.1] * 3


# ------------------------------------------------------------------------------------------------------ odd and broken


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    frames = []
    for k in range(4):
        frame = Image.new("RGBA", (24, 24), (0, 0, 0, 0))
        frame.paste((255, 0, 0, 128), (2 * k, 8, 2 * k + 8, 16))
        frames.append(frame)
    for i in range(3):
        (tmp_path / f"{i}.webp").write_bytes(animation(frames[i % 2 :], kind="WEBP", lossless=True))
    data = opened(tmp_path)
    corner, block = (data.train.clips[0, :, 0, y, x].tolist() for y, x in ((0, 23), (12, 4)))
    assert corner == [255, 255, 255] and block[0] == 255 and abs(block[1] - 127) <= 1
    assert "with transparency, laid on white" in data.summary()


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"good{i}.gif").write_bytes(animation(rolling(i)))
    (tmp_path / "one.gif").write_bytes(animation(rolling(0, 1)))
    (tmp_path / "one.mp4").write_bytes(film(rolling(0, 1)))
    (tmp_path / "nothing.mp4").write_bytes(b"")
    (tmp_path / "short.webp").write_bytes(animation(rolling(0), kind="WEBP")[:900])
    whole = film([Image.effect_noise((64, 64), 90).convert("RGB") for _ in range(40)])
    (tmp_path / "short.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (tmp_path / "notes.doc").write_bytes(b"x")
    said = opened(tmp_path).summary()
    assert "2 still pictures (one.gif …)" in said and "1 empty file (nothing.mp4)" in said
    assert "3 damaged or truncated files (noise.mp4 …)" in said and "1 other file (notes.doc)" in said


def test_a_folder_of_frames_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for i in range(3):
        ball(i).save(tmp_path / f"{i}.png")
    with pytest.raises(BowerbirdError, match="3 still pictures .* join them into one GIF or film"):
        opened(tmp_path)


MATRICES = [[0, 1, -1, 0], [-1, 0, 0, -1], [0, -1, 1, 0], [-1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, -1, -1, 0]]


@pytest.mark.parametrize("matrix", MATRICES)
def test_films_are_turned_as_players_turn_them(matrix: list[int]) -> None:
    """The display matrix of a phone: pixel (x, y), counted from the middle, is shown at (a x + c y, b x + d y)."""
    stored = np.full((32, 48, 3), 255, np.uint8)
    stored[:8, :8] = 0
    raw = bytearray(film([Image.fromarray(stored)] * 3))
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = matrix
    at = raw.index(identity, raw.index(b"tkhd"))
    raw[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    shown = np.asarray(next(reading.shown("a.mp4", bytes(raw))).image)
    assert shown.shape[:2] == ((48, 32) if a == 0 else (32, 48))
    x, y = a * -1 + c * -1, b * -1 + d * -1  # where the corner at (-1, -1) goes
    assert shown[4 if y < 0 else -4, 4 if x < 0 else -4].max() < 60
    assert sum(shown[i, j].max() < 60 for i in (4, -4) for j in (4, -4)) == 1


def test_a_film_that_lost_its_end_behind_its_index_is_truncated() -> None:
    raw = films.mp4([Image.effect_noise((64, 64), 90).convert("RGB") for _ in range(40)], 8)
    assert raw.index(b"moov") < raw.index(b"mdat")  # so that a decoder finds the frames of what is left
    assert len(list(reading.shown("a.mp4", raw))) == 40
    with pytest.raises(reading.Unreadable, match="truncated"):
        list(reading.shown("a.mp4", raw[: len(raw) * 2 // 3]))


def test_nothing_that_moves_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BowerbirdError, match=r"holds no moving pictures \(\.gif, .*\.mp4"):
        opened(tmp_path)
    (tmp_path / "one.gif").write_bytes(animation(rolling(0, 1)))
    with pytest.raises(BowerbirdError, match=r"None of the 1 files in .* is a clip: 1 still picture"):
        opened(tmp_path)
    (tmp_path / "two.gif").write_bytes(animation(rolling(0)))
    with pytest.raises(BowerbirdError, match="holds one clip, of which nothing remains"):
        opened(tmp_path)


def test_4k_is_reduced_as_it_is_decoded_and_more_than_8k_is_refused(tmp_path: Path) -> None:
    wide = [Image.new("RGB", (3840, 2160), tuple(COLOURS[k].tolist())) for k in range(2)]
    for i in range(2):
        (tmp_path / f"{i}.gif").write_bytes(animation(wide[:: 1 - 2 * i]))
    data = opened(tmp_path, frames=2)
    assert data.spec.target == Tensors((3, 2, 64, 64))
    (tmp_path / "2.webp").write_bytes(
        animation([Image.new("RGB", (8200, 2)), Image.new("RGB", (8200, 2), "red")], kind="WEBP")
    )
    assert "1 too large (a side of more than 8,192 pixels) file (2.webp)" in opened(tmp_path, frames=2).summary()


def test_grey_films_stay_grey(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.mp4").write_bytes(film([one.convert("L").convert("RGB") for one in rolling(i)]))
    assert opened(tmp_path).spec.target == Tensors((1, 8, 24, 24))


# -------------------------------------------------------------------------------------------------------------- files


SPEC = Spec("video", Tensors((3, 6, 24, 24)), {}, films.codec(8.0))


def moving() -> torch.Tensor:
    frames = np.stack([np.stack([np.asarray(one) for one in rolling(i, 6)]) for i in range(3)])
    return to_float(torch.from_numpy(frames.transpose(0, 4, 1, 2, 3).copy()))


def test_samples_are_written_as_animations_a_film_and_a_strip_and_read_again(tmp_path: Path) -> None:
    x = moving()
    rows = medium("video").write(x, {}, SPEC, tmp_path, ["a", "b", "c"])
    assert [row["file_name"] for row in rows] == ["a.gif", "b.gif", "c.gif"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".gif", ".webp", ".mp4", ".png"}
    same = {
        name: reading.clips(name, (tmp_path / name).read_bytes(), wanted(6))[0][0]
        for name in ("a.gif", "a.webp", "a.mp4")
    }
    true = to_uint8(x[0]).permute(1, 2, 3, 0).numpy()
    exact = [np.asarray(one.image)[::2, ::2, :3] for one in reading.shown("a.webp", (tmp_path / "a.webp").read_bytes())]
    assert (np.stack(exact) == true).all()
    for name in ("a.gif", "a.mp4"):
        assert np.abs(same[name].astype(int) - true).mean() < 4
    assert Image.open(tmp_path / "a.png").size == (6 * 49 - 1, 48)


def test_everything_that_is_written_is_labelled(tmp_path: Path) -> None:
    with labelling(UNSIGNED):
        medium("video").write(moving(), {}, SPEC, tmp_path, ["a", "b", "c"])
    for suffix in (".gif", ".webp", ".png", ".mp4"):
        assert verifying.verify(tmp_path / f"a{suffix}").judgement == "claimed", suffix
        assert not (tmp_path / f"a{suffix}.aigc.json").exists()
    raw = bytearray((tmp_path / "a.mp4").read_bytes())
    raw[raw.index(b"mdat") + 40] ^= 1
    (tmp_path / "a.mp4").write_bytes(raw)
    assert verifying.verify(tmp_path / "a.mp4").judgement == "altered"


@pytest.mark.parametrize("rate", [3.0, 8.0, 16 / 3, 24.0])
def test_the_times_of_a_gif_add_up(rate: float) -> None:
    lasting = films.durations(48, rate)
    assert abs(sum(lasting) - 48_000 / rate) <= 10 and all(one % 10 == 0 for one in lasting)


def test_a_preview_is_a_sheet_and_one_animation_of_all(tmp_path: Path) -> None:
    medium("video").preview(moving(), {"truth": moving()}, SPEC, tmp_path / "p")
    with Image.open(tmp_path / "p.gif") as shown:
        assert shown.n_frames == 6 and shown.size == (2 * 49 + 1, 2 * 49 + 1)
    assert Image.open(tmp_path / "p.png").height > 6 * 48


# ------------------------------------------------------------------------------------------------------ bouncing digits


def test_digits_bounce_as_the_equation_says() -> None:
    start, velocity = np.array([[2.0, 15.0]]), np.array([[-1.0, 2.0]])
    at = bouncing.places(start, velocity, 20)[:, 0]
    free = np.array([2.0, 15.0])
    v = np.array([-1.0, 2.0])
    for k in range(20):  # step by step, turned round at the walls
        assert (at[k] == free.round()).all()
        free = free + v
        for axis in range(2):
            if not 0 <= free[axis] <= 16:
                free[axis] = -free[axis] if free[axis] < 0 else 32 - free[axis]
                v[axis] = -v[axis]


def test_clips_of_a_split_show_digits_of_that_split_and_are_always_the_same() -> None:
    pack = builtin.load("digits")
    several = [next(bouncing.clips(pack, "test"))[0] for _ in range(2)]
    assert (several[0] == several[1]).all() and several[0].shape == (16, 32, 32, 1)
    train, test = (bouncing._of_split(pack["split"], name) for name in ("train", "test"))
    assert not (train & test).any()


def test_bouncing_digits_open_by_name_in_any_size() -> None:
    data = open_data(config.Data("bouncing-digits", size=16, video=config.Video(frames=4)))
    assert isinstance(data, ClipData) and data.spec.target == Tensors((1, 4, 16, 16))
    assert json.loads(data.spec.codec)["video"]["rate_hz"] == 8.0 and data.classes == ("one", "two")
