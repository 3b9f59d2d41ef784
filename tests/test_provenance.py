"""Labels: in every kind of file, bound to its content, signed, read back, and judged; never "human"."""

import io
import json
import os
import struct
import wave
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import symusic
import torch
from PIL import Image, PngImagePlugin

import bowerbird
from bowerbird import BowerbirdError, api, cli
from bowerbird.data.writing import write_text
from bowerbird.generating import Samples
from bowerbird.media.video import films
from bowerbird.provenance import containers, record, signing, visible, xmp
from bowerbird.provenance.labelling import SIDECAR, Labeller, labelling
from bowerbird.provenance.verdict import Verdict
from bowerbird.provenance.verifying import verify
from bowerbird.spec import Classes, Spec, Tensors

ORIGIN = {"family": "flow", "model": "0123456789abcdef", "data": "digits", "data_licence": "CC BY-SA 3.0"}
LABELLER = Labeller(ORIGIN)


def picture(form: str, size: tuple[int, int] = (24, 20), mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], len(mode)), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, form, **options)
    return buffer.getvalue()


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.arange(999, dtype="<i2").tobytes())
    return buffer.getvalue()


def mp3() -> bytes:
    """Frames without sound: MPEG 1, layer III, 128 kbit/s, 44.1 kHz."""
    return (b"\xff\xfb\x90\x00" + b"\0" * 413) * 3


def tagged_mp3() -> bytes:
    title = b"\x03Etude"
    frame = b"TIT2" + len(title).to_bytes(4, "big") + b"\0\0" + title
    return b"ID3\x04\0\0" + bytes((0, 0, 0, len(frame))) + frame + mp3()


def midi() -> bytes:
    score = symusic.Score(480)
    track = symusic.Track("piano", 0, False)
    track.notes.append(symusic.Note(0, 480, 60, 80))
    score.tracks.append(track)
    return score.dumps_midi()


@cache
def film() -> bytes:
    return films.mp4([Image.effect_noise((32, 32), 90).convert("RGB") for _ in range(6)], 8.0)


def animation() -> bytes:
    frames = [Image.new("P", (16, 16), i) for i in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], comment=b"three frames")
    return buffer.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": (".png", lambda: picture("PNG")),
    "grey png": (".png", lambda: picture("PNG", mode="L")),
    "png with alpha": (".png", lambda: picture("PNG", mode="RGBA")),
    "jpeg": (".jpg", lambda: picture("JPEG")),
    "progressive jpeg": (".jpg", lambda: picture("JPEG", progressive=True)),
    "gif": (".gif", lambda: picture("GIF", mode="L")),
    "animated gif": (".gif", animation),
    "lossy webp": (".webp", lambda: picture("WEBP")),
    "lossless webp": (".webp", lambda: picture("WEBP", mode="RGBA", lossless=True)),
    "webp with exif": (".webp", lambda: picture("WEBP", exif=Image.Exif().tobytes())),
    "wav": (".wav", wav),
    "mp3": (".mp3", mp3),
    "tagged mp3": (".mp3", tagged_mp3),
    "mp4": (".mp4", film),
    "midi": (".mid", midi),
    "json": (".json", lambda: b'{"text": "\xe6\x98\xa5"}'),
    "jsonl": (".jsonl", lambda: b'{"text": "a"}\n{"text": "b"}\n'),
    "text": (".txt", lambda: "春眠不覺曉\n".encode()),
    "csv": (".csv", lambda: b"a,b\n1,2\n"),
    "list in json": (".json", lambda: b"[1, 2]"),
    "something else": (".bin", lambda: bytes(range(256))),
}


def written(folder: Path, data: bytes, suffix: str, labeller: Labeller = LABELLER) -> Path:
    """The labelled file, with its sidecar if it needs one."""
    for end, content in labeller.files(data, suffix).items():
        (folder / f"made{end}").write_bytes(content)
    return folder / f"made{suffix}"


def judged(verdict: Verdict) -> dict[str, str]:
    return {layer.layer: layer.judgement for layer in verdict.layers}


@pytest.mark.parametrize("kind", FILES)
def test_a_label_is_read_back_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    suffix, make = FILES[kind]
    file = written(tmp_path, make(), suffix)
    verdict = verify(file)
    assert verdict.judgement == "claimed"
    label = next(layer for layer in verdict.layers if layer.layer == "label")
    assert label.details["model"] == "0123456789abcdef" and label.details["data_licence"] == "CC BY-SA 3.0"
    assert "TC260" not in judged(verdict), "our own label is not another generator's"


@pytest.mark.parametrize("kind", FILES)
def test_a_label_changes_nothing_else_and_equal_files_stay_equal(kind: str, tmp_path: Path) -> None:
    suffix, make = FILES[kind]
    once, twice = LABELLER.files(make(), suffix), LABELLER.files(make(), suffix)
    assert once == twice
    again = LABELLER.files(once[suffix], suffix)
    if suffix + SIDECAR not in once:
        assert again == once, "the label of a labelled file takes the first one's place"
    if suffix in (".png", ".jpg", ".gif", ".webp"):
        before, after = (Image.open(io.BytesIO(data)) for data in (make(), once[suffix]))
        assert (before.size, before.mode) == (after.size, after.mode)
        assert np.array_equal(np.asarray(before), np.asarray(after))
    if suffix == ".wav":
        with wave.open(io.BytesIO(once[suffix])) as file:
            assert file.readframes(9999) == np.arange(999, dtype="<i2").tobytes()
    if suffix == ".mid":
        before, after = symusic.Score.from_midi(make()), symusic.Score.from_midi(once[suffix])
        assert [list(track.notes) for track in before.tracks] == [list(track.notes) for track in after.tracks]
    if suffix in (".json", ".jsonl") and suffix + SIDECAR not in once:
        rows = [json.loads(line) for line in once[suffix].splitlines()]
        assert [{"text": row["text"]} for row in rows] == [json.loads(line) for line in make().splitlines()]
    if kind == "tagged mp3":
        assert ("TIT2", "Etude") in containers.read(once[suffix]).texts


@pytest.mark.parametrize("kind", FILES)
def test_a_label_on_other_content_does_not_hold(kind: str, tmp_path: Path) -> None:
    suffix, make = FILES[kind]
    file = written(tmp_path, make(), suffix)
    data = file.read_bytes()
    if suffix in (".png", ".jpg", ".webp", ".gif"):
        form = {".jpg": "JPEG"}.get(suffix, suffix[1:].upper())
        other = picture(form, (30, 30), "L" if suffix == ".gif" else "RGB")
        label = next(text for text in containers.read(data).texts if text.where == "xmp").text
        parts = xmp.record_in(xmp.properties(label))
        file.write_bytes(containers.kind_of(other).insert(other, parts))  # type: ignore[union-attr]
    elif suffix in (".json", ".jsonl") and not file.with_name(file.name + SIDECAR).exists():
        file.write_bytes(data.replace(b'"text": "', b'"text": "x', 1))
    else:
        places = {".mid": data.rfind(b"\x90\x3c") + 2, ".wav": 100, ".mp4": data.find(b"mdat") + 40}
        at = places.get(suffix, len(data) - 5)
        file.write_bytes(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
    verdict = verify(file)
    assert verdict.judgement == "altered"
    assert "not what was labelled" in verdict.layers[0].says


@pytest.mark.parametrize("kind", FILES)
def test_a_stripped_file_is_unknown(kind: str, tmp_path: Path) -> None:
    suffix, make = FILES[kind]
    file = tmp_path / f"stripped{suffix}"
    file.write_bytes(make())
    verdict = verify(file)
    assert verdict.judgement == "unknown"
    assert "human" not in json.dumps(verdict.as_json())


def test_the_words_of_the_standards_are_in_the_file() -> None:
    data = LABELLER.files(picture("PNG"), ".png")[".png"]
    packet = Image.open(io.BytesIO(data)).info["XML:com.adobe.xmp"]
    found = dict(xmp.properties(packet))
    assert found["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"] == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    aigc = json.loads(found["{http://www.tc260.org.cn/ns/AIGC/1.0/}AIGC"])
    assert list(aigc) == [
        "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
    ]  # fmt: skip
    assert aigc["Label"] == "1" and aigc["ContentProducer"] == "Bowerbird" and len(aigc["ProduceID"]) == 32


def test_pillow_reads_the_packet_of_every_picture() -> None:
    for form, suffix in (("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")):
        data = LABELLER.files(picture(form), suffix)[suffix]
        info = Image.open(io.BytesIO(data)).info
        text = info.get("XML:com.adobe.xmp") or info["xmp"].decode()
        assert "trainedAlgorithmicMedia" in text, form


def test_the_identifier_follows_from_content_and_origin() -> None:
    first = record.make(b"x", ORIGIN)["AIGC"]["ProduceID"]
    assert first == record.make(b"x", dict(reversed(ORIGIN.items())))["AIGC"]["ProduceID"]
    assert first != record.make(b"y", ORIGIN)["AIGC"]["ProduceID"]
    assert first != record.make(b"x", ORIGIN | {"model": "f"})["AIGC"]["ProduceID"]


# ------------------------------------------------------------------------------------------------------------- others


def png_with(*packed: str, **texts: str) -> bytes:
    """A picture with texts; ``packed``: key and value of one that is compressed."""
    info = PngImagePlugin.PngInfo()
    if packed:
        info.add_text(*packed, zip=True)
    for key, value in texts.items():
        info.add_text(key.replace("__", ":"), value)
    return picture("PNG", pnginfo=info)


def iptc(term: str) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'e:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{term}"/></rdf:RDF></x:xmpmeta>'
    )


TC260 = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"><TC260:AIGC>{&quot;Label&quot;:&quot;1&quot;,'
    "&quot;ContentProducer&quot;:&quot;001191110000000000000000001&quot;}</TC260:AIGC></rdf:Description></rdf:RDF></x:xmpmeta>"
)
LIGHTROOM = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" stEvt:action="derived" '
    'stEvt:parameters="converted from image/x-canon-cr2 to image/jpeg"/></rdf:RDF></x:xmpmeta>'
)
PARAMETERS = "a bird\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"


def exif(tag: int, text: str) -> bytes:
    made = Image.Exif()
    made[tag] = text
    return picture("JPEG", exif=made.tobytes())


OTHERS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "IPTC": (".png", lambda: png_with(XML__com__adobe__xmp=iptc("trainedAlgorithmicMedia")), "IPTC"),
    "IPTC in part": (
        ".jpg",
        lambda: picture("JPEG", xmp=iptc("compositeWithTrainedAlgorithmicMedia").encode()),
        "IPTC",
    ),
    "TC260 in XMP": (".webp", lambda: picture("WEBP", xmp=TC260.encode()), "TC260"),
    "TC260 in a text of PNG": (".png", lambda: png_with(AIGC='{"Label": "1", "ContentProducer": "x"}'), "TC260"),
    "TC260 behind the end": (".png", lambda: picture("PNG") + TC260.encode(), "TC260"),
    "TC260 in front matter": (
        ".md",
        lambda: b'---\nAIGC:\n    Label: "1"\n    ContentProducer: x\n---\n# T\n',
        "TC260",
    ),
    "TC260 in JSON": (".json", lambda: b'{"AIGC": {"Label": "1", "ContentProducer": "x"}}', "TC260"),
    "web UI": (".png", lambda: png_with(parameters=PARAMETERS), "parameters"),
    "web UI, comment": (".gif", lambda: picture("GIF", mode="L", comment=PARAMETERS.encode()), "parameters"),
    "ComfyUI": (".png", lambda: png_with(prompt='{"3": {"class_type": "KSampler"}}'), "parameters"),
    "web UI in XMP": (
        ".jpg",
        lambda: picture("JPEG", xmp=iptc("").replace("<rdf:Desc", f"<rdf:li>{PARAMETERS}</rdf:li><rdf:Desc").encode()),
        "parameters",
    ),
    "web UI, packed": (".png", lambda: png_with("parameters", PARAMETERS), "parameters"),
    "JSON of settings": (".png", lambda: png_with(parameters='{"prompt": "a bird", "seed": 1}'), "parameters"),
    "InvokeAI": (
        ".png",
        lambda: png_with(invokeai_metadata='{"positive_prompt": "a", "cfg_scale": 7.5, "seed": 1}'),
        "parameters",
    ),
    "InvokeAI of old": (".png", lambda: png_with(Dream='"a bird" -s 50 -S 12 -W 512 -H 512 -C 7.5'), "parameters"),
    "Midjourney": (".png", lambda: png_with(Description=f"bird --v 6 Job ID: {'0' * 8}-{'0' * 27}"), "parameters"),
    "Software": (".jpg", lambda: exif(0x0131, "NovelAI"), "parameters"),
    "XMP in an unknown file": (".mov", lambda: b"\0\0\1\2\xff\xfe" + iptc("trainedAlgorithmicMedia").encode(), "IPTC"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_labels_of_other_generators_are_named(case: str, tmp_path: Path) -> None:
    suffix, make, layer = OTHERS[case]
    (file := tmp_path / f"theirs{suffix}").write_bytes(make())
    verdict = verify(file)
    assert verdict.judgement == "other" and judged(verdict)[layer] == "other"


UNKNOWN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a camera": (".png", lambda: png_with(XML__com__adobe__xmp=iptc("digitalCapture"))),
    "Photoshop": (".jpg", lambda: exif(0x0131, "Adobe Photoshop 26.1")),
    "Lightroom": (".jpg", lambda: picture("JPEG", xmp=LIGHTROOM.encode())),
    "parameters that are none": (".png", lambda: png_with("parameters", "A" * 100_000)),
    "parameters of a measurement": (".png", lambda: png_with(parameters="Exposure: 20, Gain: 3, Seed: none")),
    "workflow of a laboratory": (".png", lambda: png_with(workflow="stain, rinse, scan", dream="I had one")),
    "a prompt that is none": (".png", lambda: png_with(prompt="Say cheese")),
    "a description of Midjourney": (".png", lambda: png_with(Description="a talk about Midjourney")),
    "a text that quotes a label": (".txt", lambda: iptc("trainedAlgorithmicMedia").encode()),
    "entities that explode": (
        ".png",
        lambda: png_with(
            XML__com__adobe__xmp="<!DOCTYPE a [<!ENTITY b '1'>]>" + TC260.replace(":&quot;1", ":&quot;&b;")
        ),
    ),
    "TC260 that is no object": (".json", lambda: b'{"AIGC": "yes"}'),
    "numbers": (".json", lambda: b"[[1, 2], 3]"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_proves_nothing_is_unknown(case: str, tmp_path: Path) -> None:
    suffix, make = UNKNOWN[case]
    (file := tmp_path / f"some{suffix}").write_bytes(make())
    assert verify(file).judgement == "unknown"


@pytest.mark.parametrize("kind", ["png", "jpeg", "animated gif", "lossless webp", "wav", "tagged mp3", "midi"])
def test_a_damaged_file_is_judged_or_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    suffix, make = FILES[kind]
    whole = LABELLER.files(make(), suffix)[suffix]
    rng = np.random.default_rng(1)
    for _ in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for at in rng.integers(0, len(data), rng.integers(0, 4)):
            data[at] = rng.integers(0, 256)
        (file := tmp_path / f"damaged{suffix}").write_bytes(data)
        try:
            verify(file)
        except BowerbirdError as error:
            assert "is damaged" in str(error)


def absurd() -> bytes:
    """A PNG that claims to have 2³¹ - 1 pixels a side."""
    data = picture("PNG")
    head = struct.pack(">II", (1 << 31) - 1, (1 << 31) - 1) + data[24:29]
    return data[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + data[33:]


NO_PICTURES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "absurd dimensions": ("a.png", absurd),
    "absurd dimensions under another name": ("a.bin", absurd),
    "noise": ("a.png", lambda: np.random.default_rng(0).bytes(999)),
    "a text": ("a.jpg", lambda: b"a text"),
}


@pytest.mark.parametrize("case", NO_PICTURES)
def test_what_cannot_be_opened_as_the_picture_it_says_it_is_is_refused(case: str, tmp_path: Path) -> None:
    name, make = NO_PICTURES[case]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(BowerbirdError, match="cannot be opened as a picture: it is damaged or too large"):
        verify(tmp_path / name)


def test_a_picture_with_missing_pixels_is_judged_by_the_rest(tmp_path: Path) -> None:
    data = picture("JPEG", (200, 200))
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    verdict = verify(tmp_path / "a.jpg")
    assert verdict.judgement == "unknown" and verdict.layers[0].says == "not looked for: the pixels cannot be decoded"


def test_labels_of_a_picture_that_cannot_be_opened_are_still_told(tmp_path: Path) -> None:
    data = containers.kind_of(absurd()).insert(absurd(), record.make(b"another", ORIGIN))  # type: ignore[union-attr]
    (tmp_path / "a.png").write_bytes(data)
    verdict = verify(tmp_path / "a.png")
    assert verdict.judgement == "altered" and judged(verdict) == {"label": "altered", "watermark": "unknown"}


def test_a_name_that_is_too_long_is_one_file_s_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (longest := tmp_path / ("b" * 251 + ".mid")).write_bytes(midi())  # whose sidecar's name would be too long
    assert cli.main(["verify", "a" * 300, str(longest)]) == 2
    printed, problems = capsys.readouterr()
    assert f"{longest}: unknown" in printed
    assert problems.startswith("bowerbird: aaa") and problems.count("\n") == 1 and "cannot be read" in problems


# ------------------------------------------------------------------------------------------------------------ samples

SPEC = Spec("image", Tensors((1, 8, 8)), {"label": Classes(("a", "b"))})


@pytest.fixture
def samples() -> Samples:
    x = torch.linspace(-1, 1, 3 * 64).view(3, 1, 8, 8)
    return Samples(x, {"label": torch.tensor([0, 1, 0])}, SPEC, {"seed": 0}, labeller=LABELLER)


def test_what_samples_write_is_labelled_and_can_be_had_in_memory(samples: Samples, tmp_path: Path) -> None:
    samples.save(tmp_path / "out")
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert [file.name for file in pictures] == ["00000.png", "00001.png", "00002.png", "sheet.png"]
    assert [verify(file).judgement for file in pictures] == ["claimed"] * 3 + ["ours"], "the sheet has the watermark"
    assert [files[".png"] for files in samples.files()] == [file.read_bytes() for file in pictures[:3]]
    assert "labelled" not in (tmp_path / "out" / "metadata.jsonl").read_text()
    (tmp_path / "shown.png").write_bytes(samples._repr_png_() or b"")
    assert verify(tmp_path / "shown.png").judgement == "ours"


def test_labels_are_left_out_only_when_asked_and_this_is_recorded(samples: Samples, tmp_path: Path) -> None:
    samples.save(tmp_path, labelled=False)
    assert {verify(file).judgement for file in tmp_path.glob("*.png")} == {"unknown"}
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["labelled"] for row in rows] == [False] * 3


def test_a_sheet_has_the_visible_mark_below_the_pictures(samples: Samples, tmp_path: Path) -> None:
    samples.save(tmp_path / "with")
    samples.save(tmp_path / "without", labelled=False)
    bare, marked = (np.asarray(Image.open(tmp_path / name / "sheet.png")) for name in ("without", "with"))
    height, width = bare.shape
    change = marked[:height, :width].astype(float) - bare
    assert 10 * np.log10(255**2 / np.square(change).mean()) > 35 and np.abs(change).max() < 40, "the watermark alone"
    strip = marked[height:]
    rows = np.flatnonzero((strip > 200).any(1))
    assert rows[-1] - rows[0] + 1 >= 0.05 * min(width, height) * 0.8 and (strip > 200).sum() > 25


def test_the_visible_mark_is_at_least_a_twentieth_high_and_asked_for(tmp_path: Path) -> None:
    picture = Image.new("RGB", (640, 480), "white")
    changed = np.asarray(visible.with_corner(picture)) != 255
    rows, columns = changed.any((1, 2)).nonzero()[0], changed.any((0, 2)).nonzero()[0]
    assert rows[-1] == 479 and columns[-1] == 639 and len(rows) >= 24 and len(columns) < 240
    with pytest.raises(BowerbirdError, match="does not fit on pictures of 28×28 pixels"):
        visible.with_corner(Image.new("L", (28, 28)))


def test_nothing_that_is_written_inside_is_forgotten(tmp_path: Path) -> None:
    with labelling(LABELLER):
        write_text(tmp_path / "deep" / "words.csv", "a,b\n")
    assert verify(tmp_path / "deep" / "words.csv").judgement == "claimed"
    write_text(tmp_path / "outside.csv", "a,b\n")
    assert verify(tmp_path / "outside.csv").judgement == "unknown"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bowerbird.train("vae", tmp_path_factory.mktemp("runs") / "vae", budget="2steps", quiet=True)


def test_a_run_says_whose_its_data_are_and_so_do_its_samples(run: Path, tmp_path: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    assert environment["data_licence"] == "CC BY-SA 3.0"
    assert "Yann LeCun" in (run / "DATA-LICENCE.txt").read_text()
    folder = bowerbird.sample(run, 2, out=tmp_path)
    details = verify(folder / "00000.png", runs=[run]).layers[0].details
    assert details["data"] == "digits" and details["data_licence"] == "CC BY-SA 3.0"
    assert details["data_fingerprint"] == environment["fingerprint"] and details["run"] == str(run)
    assert str(tmp_path) not in (folder / "00000.png").read_bytes().decode("latin-1")
    assert api.labeller(run).origin.items() <= details.items()


def test_previews_are_labelled_and_equal_for_equal_weights(run: Path) -> None:
    previews = sorted(run.glob("samples/step-*.png"))
    assert previews and {judged(verify(file))["label"] for file in previews} == {"claimed"}


# ------------------------------------------------------------------------------------------------------------ signing


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> signing.Identity:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("BOWERBIRD_CONFIG", str(tmp_path / "config"))
    signing.init("Test Laboratory")
    found = signing.identity()
    assert found is not None
    return found


def test_init_makes_a_key_once_that_only_its_owner_reads(key: signing.Identity, tmp_path: Path) -> None:
    file = tmp_path / "config" / "provenance" / "key.pem"
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(BowerbirdError, match="There is already a key in"):
        signing.init()
    before = file.read_text()
    signing.init(replace=True)
    assert file.read_text() != before
    file.write_text("damaged")
    with pytest.raises(BowerbirdError, match="cannot be used"):
        signing.identity()


@pytest.mark.parametrize("kind", ["midi", "text", "json"])
def test_labels_are_signed_where_no_manifest_can_be(kind: str, key: signing.Identity, tmp_path: Path) -> None:
    suffix, make = FILES[kind]
    labeller = Labeller(ORIGIN, key)
    assert labeller.files(make(), suffix) == labeller.files(make(), suffix)
    file = written(tmp_path, make(), suffix, labeller)
    assert verify(file).judgement == "ours"
    signature = next(layer for layer in verify(file).layers if layer.layer == "signature")
    assert signature.judgement == "ours" and signature.details["known"] and "Test Laboratory" in signature.says
    holder = next(path for path in tmp_path.glob("made*") if b"CC BY-SA" in path.read_bytes())
    holder.write_bytes(holder.read_bytes().replace(b"CC BY-SA 3.0", b"CC BY-NC 3.0"))
    assert judged(verify(file))["signature"] == "altered" and verify(file).judgement == "altered"


def test_a_stranger_s_signature_is_valid_but_not_known(
    key: signing.Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, midi(), ".mid", Labeller(ORIGIN, key))
    anchors = [tmp_path / "config" / "provenance" / "chain.pem"]
    monkeypatch.setenv("BOWERBIRD_CONFIG", str(tmp_path / "elsewhere"))
    assert "not known here" in next(one.says for one in verify(file).layers if one.layer == "signature")
    assert verify(file).judgement == "claimed", "anybody can make a key"
    for trusted in (anchors, [anchors[0].with_name("anchor.pem")]):
        layer = next(one for one in verify(file, anchors=trusted).layers if one.layer == "signature")
        assert "whose key is known here" in layer.says and layer.details["known"]
        assert verify(file, anchors=trusted).judgement == "ours"


@pytest.mark.parametrize(
    "kind", ["png", "grey png", "jpeg", "animated gif", "lossless webp", "lossy webp", "wav", "mp4"]
)
def test_c2pa_validates_with_the_own_authority(
    kind: str, key: signing.Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("c2pa")
    suffix, make = FILES[kind]
    file = written(tmp_path, make(), suffix, Labeller(ORIGIN, key))
    assert len(file.read_bytes()) < len(make()) + 6_000, "no thumbnail"
    verdict = verify(file)
    manifest = next(layer for layer in verdict.layers if layer.layer == "C2PA")
    assert (manifest.judgement, manifest.details["state"]) == ("ours", "Trusted")
    assert manifest.details["source_types"] == ["trainedAlgorithmicMedia"] and verdict.judgement == "ours"
    assert judged(verdict)["label"] == "claimed", "the manifest does not disturb the label"
    if suffix in (".png", ".jpg"):
        assert np.asarray(Image.open(file)).shape == np.asarray(Image.open(io.BytesIO(make()))).shape
    data = bytearray(file.read_bytes())
    data[-20 if suffix == ".png" else len(data) - 5] ^= 1
    if suffix == ".wav":
        data = bytearray(file.read_bytes())
        data[100] ^= 1
    file.write_bytes(data)
    assert verify(file).judgement == "altered"
    monkeypatch.setenv("BOWERBIRD_CONFIG", str(tmp_path / "elsewhere"))
    file = written(tmp_path, make(), suffix, Labeller(ORIGIN, key))
    anchor = tmp_path / "config" / "provenance" / "anchor.pem"
    for trusted, known, state in (([], False, "Valid"), ([anchor], True, "Trusted")):
        found = verify(file, anchors=trusted)
        assert (judged(found)["C2PA"], judged(found)["signature"]) == (("ours",) * 2 if known else ("claimed",) * 2)
        details = {layer.layer: layer.details for layer in found.layers}
        assert (details["signature"]["known"], details["C2PA"]["state"]) == (known, state), "both say the same"


# -------------------------------------------------------------------------------------------------------- command line


def test_verify_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = written(tmp_path, midi(), ".mid")
    (stripped := tmp_path / "plain.mid").write_bytes(midi())
    assert cli.main(["verify", str(ours), str(stripped)]) == 0
    printed = capsys.readouterr().out
    assert "made.mid: says that it was generated by Bowerbird; unsigned" in printed and "plain.mid: unknown" in printed
    assert "licence CC BY-SA 3.0" in printed
    assert cli.main(["verify", str(ours), str(tmp_path / "absent.png"), "--json"]) == 2
    out, err = capsys.readouterr()
    rows = json.loads(out)["files"]
    assert rows[0]["judgement"] == "claimed" and "does not exist" in rows[1]["error"] and "does not exist" in err
    (cut := tmp_path / "cut.png").write_bytes(picture("PNG")[:50])
    (empty := tmp_path / "empty.txt").touch()
    for file, says in ((cut, "is damaged: cut short"), (empty, "is empty"), (tmp_path, "is a folder")):
        assert cli.main(["verify", str(file)]) == 2 and says in capsys.readouterr().err
    assert cli.main(["verify"]) == 2


def test_init_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("BOWERBIRD_CONFIG", str(tmp_path))
    assert cli.main(["provenance", "init", "--producer", "Test Laboratory"]) == 0
    assert str(tmp_path / "provenance") in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "provenance")) == ["anchor.pem", "chain.pem", "key.pem", "producer.txt"]
    assert cli.main(["provenance", "init"]) == 2 and "--replace" in capsys.readouterr().err
    assert cli.main(["provenance", "init", "--replace", "--producer", " "]) == 2
