"""The studio's pages: what they make, in both languages, and what they refuse."""

import ast
import html
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
import wave
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from studio_site import Site, running

from bowerbird import api, provenance, registry
from bowerbird.diagnosis import rules
from bowerbird.diagnosis.rules import RULES
from bowerbird.errors import BowerbirdError
from bowerbird.media.image.pictures import picture
from bowerbird.models.base import Options
from bowerbird.provenance.record import SOURCE_TYPE
from bowerbird.samplers.integrate import observed
from bowerbird.serve.uploaded import REASONS
from bowerbird.studio import site as studio_pages
from bowerbird.studio.closest import nearest_rows
from bowerbird.studio.language import Words, catalogue, in_chinese, preferred
from bowerbird.studio.playground import option_controls
from bowerbird.studio.shelf import Shelf

SOURCE = Path(studio_pages.__file__).parent
CARDS = ("poem", "chorale", "digits", "emoji-3d")
FOUND = re.compile(r"/results/[\w-]+/[\w.-]+")


def pictures(text: str) -> list[str]:
    """Addresses of the generated pictures on a page, in order."""
    return [one for one in FOUND.findall(text) if re.search(r"/\d+\.png$", one)]


# ------------------------------------------------------------------------------------------------------- both languages


CHINESE_ONLY = ("help.", "finding.", "picture.")
"""What has its English elsewhere: docstrings of options, titles of the diagnosis, errors of pictures."""


def test_both_languages_are_complete_and_fill_in_the_same():
    for name, entry in catalogue().items():
        assert set(entry) == ({"zh"} if name.startswith(CHINESE_ONLY) else {"en", "zh"}), name
        if name.startswith(CHINESE_ONLY):
            continue
        assert all(text.strip() for text in entry.values()), name
        assert set(re.findall(r"\{\w+\}", entry["en"])) == set(re.findall(r"\{\w+\}", entry["zh"])), name
        assert re.search(r"[\u4e00-\u9fff]", entry["zh"] + entry["en"]) or re.fullmatch(r"[\w\s]+", entry["zh"]), name


def test_the_pages_say_what_is_in_the_catalogue_and_nothing_of_it_is_left_over():
    code = "\n".join(path.read_text() for path in [*SOURCE.glob("templates/*.html"), *SOURCE.glob("*.py")])
    named = set(re.findall(r"""["']((?:\w|-)+(?:\.\w+)*)["']""", code))
    called = set(re.findall(r"""\b(?:t|words|words_of\(request\))\(["']([\w.-]+\w)["'][,)]""", code))
    assert called <= set(catalogue())
    script = (SOURCE / "static" / "studio.js").read_text()
    assert set(re.findall(r"words\.(\w+)", script)) == {n[7:] for n in catalogue() if n.startswith("script.")}
    composed = ("nav.", "state.", "budget.", "severity.", "control.", "script.", "verify.", "emoji.", "take.")
    composed += CHINESE_ONLY
    left_over = {name for name in set(catalogue()) - named if not name.startswith(composed)}
    assert {name for name in left_over if name.partition(".")[0] not in CARDS} == set()


def test_every_option_and_every_finding_has_its_chinese():
    for name in registry.families.names():
        registry.families.get(name)  # imports its file
    shipped = [one for one in _kinds_of(Options) if one.__module__.startswith("bowerbird.")]
    controls = [one for options in shipped for one in option_controls(options)]
    assert {f"control.{one.short}" for one in controls} <= set(catalogue())
    helps = {f"help.{one.helped_by}.{one.short}" for one in controls}
    assert {name for name in catalogue() if name.startswith("help.")} == helps
    assert {name for name in catalogue() if name.startswith("finding.")} == {f"finding.{cause}" for cause in RULES}
    assert {name for name in catalogue() if name.startswith("picture.")} == {f"picture.{one}" for one in REASONS}


def _kinds_of(options: type) -> set[type]:
    return {options}.union(*map(_kinds_of, options.__subclasses__()))


def templates_of(folder: Path, holds: Callable[[ast.AST], list[ast.expr]]) -> set[str]:
    """The strings that these nodes of a folder's files are, with "1" in place of what they fill in."""
    found = [
        one for path in folder.glob("*.py") for node in ast.walk(ast.parse(path.read_text())) for one in holds(node)
    ]
    return {text for one in found if re.search("[a-z]{2} ", text := _text(one))}


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_text, parts))
        case ast.FormattedValue(value=ast.Name(id="SOURCE_TYPE")):
            return SOURCE_TYPE
        case ast.FormattedValue():
            return "1"
        case ast.BinOp(left=left):
            return _text(left)
    return ""


def _advice(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.List(elts=elements):
            return elements
        case ast.Assign(targets=[ast.Name(id="advice")], value=value):
            return [value]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="advice")), args=arguments):
            return arguments
    return []


def _said_by_layers(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Call(func=ast.Name(id="Layer"), args=[_, _, said, *_]):
            return [said]
        case ast.Assign(targets=[ast.Name(id="says")], value=value):
            return [value]
    return []


@pytest.mark.parametrize(("package", "holds", "least"), [(rules, _advice, 40), (provenance, _said_by_layers, 15)])
def test_advice_and_what_labels_say_have_their_chinese(package, holds, least):
    said = templates_of(Path(package.__file__).parent, holds)
    assert len(said) >= least
    assert {one for one in said if in_chinese(one) == one} == set()


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("none: z = -0.9; by chance above 7.0 once in 1,000,000 pictures",
         "没有：z = -0.9；无水印时每 1,000,000 张图片中约有一张会超过 7.0"),
        ("valid, by My Lab, whose key is known here", "有效，签名者 My Lab，其密钥在这里已知"),
        ("TC260 (XMP): generated, by nobody named", "TC260（XMP）：属于生成内容，未署名"),
        ("12 tokens are too few; 200 are needed; 3 of 40 characters are not in its vocabulary and were left out",
         "12 个词元太少，至少需要 200 个；40 个字符中有 3 个不在它的词表里，已略去"),
        ("Nobody knows this sentence.", "Nobody knows this sentence."),
    ],
)  # fmt: skip
def test_sentences_are_put_into_chinese_part_by_part(english, chinese):
    assert in_chinese(english) == chinese
    assert (Words("en").said(english), Words("zh").said(english)) == (english, chinese)


CHINESE = {"accept_language": "zh"}


def test_errors_findings_and_help_are_told_in_chinese(site: Site, shipped):
    assert "不能是 1000 个" in site.ask("POST", "/make/shipped/digits", {"n": 1000}, **CHINESE).error
    assert "运行 none 已不存在" in site.get("/live/none", **CHINESE).error
    assert site.post("/make/shipped/digits", {}, origin="", **CHINESE).text == Words("zh")("refused.origin")
    assert site.post("/make/shipped/digits", b"x" * 2_000_000, **CHINESE).text == Words("zh")("refused.large", limit=1)
    assert "积分方法。" in site.get("/runs/shipped/digits", **CHINESE).text
    assert "The integrator." in site.get("/runs/shipped/digits").text
    folder = shutil.copytree(shipped["digits"], site.runs / "diagnosed")
    found = {"cause": "overfitting", "title": "The model learns", "advice": ["stop near step 40, or use more data"]}
    (folder / "diagnosis.json").write_text(json.dumps({"findings": [found]}))
    advised = {"title": "The model learns", "text": "To do: stop near step 40, or use more data."}
    assert site.get("/live/diagnosed").json["findings"] == [advised]
    told = site.get("/live/diagnosed", **CHINESE).json["findings"][0]
    assert "背训练样本" in told["title"] and told["text"] == "建议：在第 40 步附近停止，或使用更多数据。"
    assert "没有类别“eleven”" in site.ask("POST", "/make/shipped/digits", {"given.label": "eleven"}, **CHINESE).error
    token = pictures(site.made("shipped/digits", n=1).text)[0].split("/")[2]
    verdict = site.ask("POST", f"/verify/{token}", {}, **CHINESE).text
    assert "自称由 Bowerbird 生成（XMP）：版本" in verdict and "数据许可" in verdict and "says" not in verdict
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("header", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("fr,zh;q=0.3,en;q=0.7", "en"), ("fr", "en"), ("", "en"), ("zh;q=x", "zh")],
)
def test_the_browser_says_which_language(header, language):
    assert preferred(header) == language


def test_the_switch_is_remembered_and_leads_back_to_this_site_only(site: Site):
    answer = site.get("/language/zh?back=/runs", accept_language="en")
    assert (answer.status, answer.headers["location"]) == (303, "/runs")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert Words("zh")("runs.title") in site.get("/runs", accept_language="en", cookie=cookie).text
    assert Words("en")("runs.title") in site.get("/runs", accept_language="en").text
    assert site.get("/language/zh?back=//elsewhere.example/").headers["location"] == "/"


# ---------------------------------------------------------------------------------------------------------- at the door


def test_only_this_machine_and_its_own_pages_are_answered(site: Site):
    assert site.get("/", host="elsewhere.example").status == 421
    assert site.get("/", host=f"localhost:{site.port}").status == 200
    assert site.made("shipped/digits").status == 200
    assert site.post("/make/shipped/digits", {}, origin="").status == 403
    assert site.post("/make/shipped/digits", {}, origin="http://elsewhere.example").status == 403
    assert site.ask("DELETE", "/runs").status == 405


def test_a_studio_for_other_machines_answers_to_every_name_but_reads_no_path_of_this_one(tmp_path, shipped, tiny):
    with running(tmp_path, shipped, local=False) as open_site:
        assert open_site.get("/", host="studio.example").status == 200
        assert open_site.post("/train/look", {}, host="studio.example").status == 403  # from another origin
        assert "upload a zip" in open_site.post("/train/look", {"source": str(tiny)}).error
        assert 'id="own-source"' not in open_site.get("/train").text


def test_pages_may_load_nothing_from_elsewhere_and_run_no_script_of_their_own(site: Site):
    for path in ("/", "/train", "/runs", "/code", "/runs/shipped/digits", "/no-such-page"):
        answer = site.get(path, accept="text/html")
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert not re.search(
            r"<script(?![^>]*src=\"/static/)|\son\w+=|\sstyle=|(?:src|href)=\"(?:https?:)?//", answer.text
        )


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../../etc",
        "/runs/%2e%2e/%2e%2e/etc",
        "/live/no-run",
        "/results/x/..%2f..%2fetc%2fpasswd",
        "/report/shipped/poem/..",
        "/previews/1/..%2f..",
        "/download/none",
        "/pictures/..%2f..%2fetc%2fpasswd",
        "/static/../app.py",
        "/code/none/reading",
    ],
)
def test_what_does_not_exist_is_said_and_no_path_leads_out(site: Site, path):
    answer = site.get(path)
    assert answer.status == 404
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"n": 1000}, "1 to 64"),
        ({"n": "many"}, "must be a number"),
        ({"seed": "NaN"}, "must be a number"),
        ({"seed": -1}, "at least 0"),
        ({"given.label": "eleven"}, "There is no label 'eleven'"),
        ({"given.colour": "red"}, "colour"),
        ({"options.steps": 0}, "steps"),
        ({"options.steps": "1.5"}, "whole number"),
        ({"options.guidance": "inf"}, "must be a number"),
        ({"options.nonsense": "1"}, "nonsense"),
        ({"options.steps": 10**9}, "more than this server allows"),
    ],
)
def test_a_wrong_form_gets_a_sentence(site: Site, form, said):
    answer = site.post("/make/shipped/digits", form)
    assert (answer.status, said in answer.error) == (422, True), answer.text


def test_bodies_are_limited_whatever_length_they_announce(site: Site):
    assert site.post("/make/shipped/digits", b"x" * 2_000_000).status == 413
    assert site.post("/make/shipped/digits", b"no json").status == 422
    assert site.post("/make/shipped/digits", iter([b"x" * 600_000] * 3)).status == 413


# -------------------------------------------------------------------------------------------------------------- at once


def test_digits_are_made_by_class_and_lie_beside_their_nearest_training_picture(site: Site, shipped):
    answer = site.made("shipped/digits", n=3, seed=5, given__label="4")
    found = pictures(answer.text)
    assert len(found) == 3
    expected = api.generate(shipped["digits"], 3, seed=5, given={"label": "4"})
    for address, pixels in zip(found, expected, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(site.get(address).body)))
        np.testing.assert_array_equal(shown, pixels[..., 0])
    token = found[0].split("/")[2]
    nearest = np.asarray(Image.open(io.BytesIO(site.get(f"/closest/{token}/0").body)), dtype=float)
    train = site.app.state.studio.closest.data(shipped["digits"]).train.images[:, 0].double().numpy()
    distances = ((train - expected[0][..., 0]) ** 2).sum((1, 2))
    assert ((nearest - expected[0][..., 0]) ** 2).sum() == distances.min()


def test_the_nearest_row_is_that_of_all_blocks(monkeypatch):
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8)
    x = torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8)
    monkeypatch.setattr("bowerbird.studio.closest.AT_ONCE", 8)
    squares = (x[:, None].double() - images[None].double()).square().flatten(2).sum(2)
    assert nearest_rows(x, images).tolist() == squares.argmin(1).tolist()


def test_a_poem_begins_with_the_line_that_was_written(site: Site):
    answer = site.made("shipped/poem", n=1, given__prompt="明月照高樓")
    assert answer.text.partition('lang="zh">')[2].startswith("明月照高樓，")


def test_a_chorale_can_be_seen_and_played_in_parts(site: Site):
    answer = site.made("shipped/chorale", n=1, seed=1)
    sound = next(one for one in FOUND.findall(answer.text) if one.endswith(".wav"))
    with wave.open(io.BytesIO(site.get(sound).body)) as heard:
        assert heard.getnframes() > heard.getframerate() // 4
    part = site.get(sound, range="bytes=0-99")
    assert (part.status, len(part.body), part.headers["content-type"]) == (206, 100, "audio/wav")
    assert any(one.endswith(".png") for one in FOUND.findall(answer.text))


def test_a_flat_emoji_that_was_held_out_or_brought_becomes_another(site: Site, shipped):
    held_out = site.made("shipped/emoji-3d", given__source="held-out:3")
    assert len(pictures(held_out.text)) == 1
    png = site.get("/held-out/source/3/shipped/emoji-3d").body
    brought = site.post("/pictures", png).json
    again = site.made("shipped/emoji-3d", given__source=brought["name"])
    one, other = (site.get(pictures(answer.text)[0]).body for answer in (held_out, again))
    assert Image.open(io.BytesIO(one)).tobytes() == Image.open(io.BytesIO(other)).tobytes()
    twelve = site.made(
        "shipped/emoji-3d", given__source=",".join(f"held-out:{i}" for i in range(12)), view="sharpening"
    )
    assert len(pictures(twelve.text)) == 12


def test_a_result_can_be_downloaded_and_says_that_it_was_generated(site: Site):
    answer = site.made("shipped/digits", n=2, seed=9)
    token = pictures(answer.text)[0].split("/")[2]
    archive = zipfile.ZipFile(io.BytesIO(site.get(f"/download/{token}").body))
    names = {Path(name).name for name in archive.namelist()}
    assert {"00000.png", "00001.png", "metadata.jsonl", "sheet.png"} <= names
    assert b"trainedAlgorithmicMedia" in archive.read(next(n for n in archive.namelist() if n.endswith("00000.png")))
    verdict = site.post(f"/verify/{token}").text
    assert Words("en")("verify.claimed") in verdict
    assert "made by digits" in verdict
    assert str(site.app.state.studio.shelf.shipped["digits"]) not in verdict


def test_of_texts_the_file_is_verified_and_not_its_sidecar(site: Site):
    token = re.search(r"/download/([\w-]+)", site.made("shipped/poem", n=1).text)[1]
    assert re.findall(r"<small>([\w.]+)</small>", site.post(f"/verify/{token}").text) == ["samples.txt"]


def test_what_a_run_cannot_do_is_said_without_the_place_of_its_folder(site: Site, shipped, monkeypatch):
    async def refusing(*_words: object) -> tuple[int, str]:
        raise BowerbirdError(f"{shipped['poem']} cannot become a page, nor can {site.runs}/mine.")

    monkeypatch.setattr("bowerbird.studio.run_page.told", refusing)
    assert site.post("/export/onnx/shipped/poem").error == "poem cannot become a page, nor can mine."


# -------------------------------------------------------------------------------------------------------------- uploads


def png_with(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file that says it has this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no format"),
        (png_with(60_000, 60_000), "3600000000 pixels; the limit is 50000000"),
        (png_with(64, 64, b"\0" * 10), "truncated"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(site: Site, content, said):
    answer = site.post("/pictures", content)
    assert answer.status == 422
    assert said in answer.error
    chinese = site.ask("POST", "/pictures", content, **CHINESE).error
    assert "图片" in chinese and "{" not in chinese


def test_a_large_picture_is_refused_and_a_photograph_comes_back_small_and_bare(site: Site, tmp_path):
    assert site.post("/pictures", b"x" * 20_000_001).status == 413
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1400, 3), dtype=np.uint8))
    exif = photo.getexif()
    exif[0x010E] = "taken at home"
    photo.save(tmp_path / "photo.jpg", exif=exif)
    kept = site.get(site.post("/pictures", (tmp_path / "photo.jpg").read_bytes()).json["url"]).body
    assert Image.open(io.BytesIO(kept)).size == (512, 329)
    assert b"taken at home" not in kept


# -------------------------------------------------------------------------------------------------- several, and losses


def test_visitors_who_come_together_get_what_each_asked_for(site: Site, shipped):
    alone = [api.generate(shipped["digits"], 2, seed=seed, given={"label": str(seed)}) for seed in range(6)]
    with ThreadPoolExecutor(6) as visitors:
        answers = list(
            visitors.map(lambda seed: site.made("shipped/digits", n=2, seed=seed, given__label=str(seed)), range(6))
        )
    for answer, expected in zip(answers, alone, strict=True):
        for address, pixels in zip(pictures(answer.text), expected, strict=True):
            shown = np.asarray(Image.open(io.BytesIO(site.get(address).body))).astype(int)
            assert abs(shown - pixels[..., 0].astype(int)).max() <= 1  # other rows in a batch round differently


def test_a_run_that_is_deleted_while_it_is_shown_is_said_to_be_gone(site: Site, shipped):
    folder = site.runs / "gone"
    shutil.copytree(shipped["digits"], folder)
    assert site.get("/runs/gone").status == 200
    assert site.made("gone", n=1).status == 200
    shutil.rmtree(folder)
    assert "The run gone no longer exists" in site.get("/live/gone").error
    assert site.made("gone", n=1).status == 404
    assert site.get("/runs/gone", accept="text/html").status == 404
    assert "/runs/gone" not in site.get("/runs").text


def test_a_full_disk_is_a_sentence_and_what_was_made_before_is_there(site: Site, monkeypatch):
    before = pictures(site.made("shipped/digits", n=1).text)[0]

    def full(self, folder, **_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bowerbird.generating.Samples.save", full)
    answer = site.made("shipped/digits", n=1)
    assert (answer.status, answer.error) == (507, Words("en")("error.full"))
    assert site.get(before).status == 200


# -------------------------------------------------------------------------------------------------------------- one run


def test_a_playground_has_a_control_for_all_that_a_run_takes(site: Site, shipped):
    page = site.get("/runs/shipped/digits").text
    named = set(re.findall(r'name="([\w.]+)"', page.partition("<form")[2]))
    fields = {f"options.{control.short}" for control in option_controls(api.options_of(shipped["digits"]))}
    assert {"given.label", "n", "seed"} | fields <= named
    assert {"options.steps", "options.guidance", "options.sampler"} <= fields
    assert page.count("<option>") >= 10


def test_the_denoising_is_a_film_that_ends_in_the_samples(site: Site, shipped):
    answer = site.post("/film/shipped/digits", {"n": 2, "seed": 4, "given.label": "1"})
    frames = int(re.search(r'data-frames="(\d+)"', answer.text)[1])
    film = Image.open(io.BytesIO(site.get(FOUND.search(answer.text)[0]).body))
    assert film.size == (2 * 28, frames * 28)
    last = np.asarray(film)[-28:]
    expected = api.generate(shipped["digits"], 2, seed=4, given={"label": "1"})
    np.testing.assert_array_equal(last, np.concatenate([one[..., 0] for one in expected], 1))
    assert "nothing to film" in site.post("/film/shipped/emoji-3d", {"given.source": "held-out:1"}).error


def test_watching_a_sampler_changes_nothing(shipped):
    model = api.load(shipped["digits"], "cpu")
    from bowerbird.generating import draw

    seen = []
    plain = draw(model, 2, seed=3, shown=False).x
    with observed(lambda t, x, denoised: seen.append((t, x.shape))):
        watched = draw(model, 2, seed=3, shown=False).x
    assert torch.equal(plain, watched)
    assert [shape for _, shape in seen] == [plain.shape] * len(seen)
    times = [t for t, _ in seen]
    assert times == sorted(times, reverse=True)
    draw(model, 2, seed=3, shown=False)
    assert len(seen) == len(times)


def painted(site: Site, rows: int) -> str:
    """The name of an uploaded mask that is white in the lowest so many of 28 rows."""
    mask = np.zeros((28, 28), np.uint8)
    mask[28 - rows :] = 255
    Image.fromarray(mask).save(file := io.BytesIO(), "PNG")
    return site.post("/pictures", file.getvalue()).json["name"]


def test_what_is_painted_over_is_generated_anew_and_nothing_else(site: Site):
    form = {"source": "held-out:3", "mask": painted(site, 14), "seed": "2"}
    made = Image.open(io.BytesIO(site.get(pictures(site.post("/inpaint/shipped/digits", form).text)[0]).body))
    before = Image.open(io.BytesIO(site.get("/held-out/target/3/shipped/digits").body))
    np.testing.assert_array_equal(np.asarray(made)[:14], np.asarray(before)[:14])
    assert (np.asarray(made)[14:] != np.asarray(before)[14:]).any()
    refused = site.post("/inpaint/shipped/digits", form | {"mask": painted(site, 0)})
    assert (refused.status, refused.error) == (422, Words("en")("refused.unpainted"))
    assert site.post("/inpaint/shipped/poem", form).error == Words("en")("refused.inpaint")
    assert site.post("/inpaint/shipped/digits", {"source": "held-out:3"}).status == 404


def test_sliders_move_a_latent_code(site: Site, codes):
    shutil.copytree(codes, site.runs / "vae")
    page = site.get("/runs/vae").text
    assert set(re.findall(r'name="(z\.\d)"', page)) == {"z.0", "z.1", "z.2"}
    shown = {}
    for value in ("0", "2.5"):
        answer = site.post("/latents/vae", {"z.0": value})
        shown[value] = site.get(FOUND.search(answer.text)[0]).body
    with torch.no_grad():
        expected = api.load(codes, "cpu").decode(torch.tensor([[2.5, 0, 0]]), {"label": torch.tensor([0])})
    assert shown["0"] != shown["2.5"]
    assert Image.open(io.BytesIO(shown["2.5"])).size == picture(((expected[0] + 1) * 127.5).to(torch.uint8)).size
    assert "dimension 9" in site.post("/latents/vae", {"z.9": "1"}).error


def test_a_text_goes_on_piece_by_piece(site: Site):
    answer = site.post("/say/shipped/poem", {"said": ["明月"]})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert len(answer.text) > 0
    assert site.post("/say/shipped/digits", {"said": ["hello"]}).status == 422
    assert site.post("/say/shipped/poem", {"said": []}).status == 422


def test_a_chat_is_answered_and_goes_on(site: Site, chatter):
    shutil.copytree(chatter, site.runs / "chat")
    assert Words("en")("say.title") in site.get("/runs/chat").text
    first = site.post("/say/chat", {"said": ["hello 3"]})
    assert (first.status, first.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    again = site.post("/say/chat", {"said": ["hello 3", first.text, "and 4"]})
    assert again.status == 200 and again.text
    assert site.post("/say/chat", {"said": ["hello 3"]}).text == first.text


def test_reports_are_pages_without_scripts(site: Site, shipped):
    assert site.get("/report/shipped/digits").status == 404
    (shipped["digits"] / "report.html").write_text("<title>Digits</title>")
    answer = site.get("/report/shipped/digits")
    assert answer.status == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_runs_are_found_in_the_folders_of_comparisons_too(tmp_path, shipped):
    shutil.copytree(shipped["digits"], tmp_path / "compared" / "runs" / "flow")
    shelf = Shelf(tmp_path, {})
    assert [run.key for run in shelf.all()] == ["compared/runs/flow"]
    assert shelf.get("compared/runs/flow").spec.medium == "image"


def test_runs_are_compared_by_losses_of_the_same_name_and_by_what_was_measured(site: Site, shipped):
    for name in ("one", "two"):
        shutil.copytree(shipped["digits"], site.runs / name)
    measured = {"name": "kid", "value": 0.25, "unit": "", "protocol": {"n_generated": 100}}
    (site.runs / "two" / "measurements.json").write_text(json.dumps({"measurements": [measured]}))
    page = site.get("/compare?run=one&run=two").text
    panels = json.loads(html.unescape(re.search(r'data-panels="([^"]*)"', page)[1]))
    assert [[(line["name"], line["colour"]) for line in panel["series"]] for panel in panels] == [
        [("one", 0), ("two", 1)]
    ]
    assert re.search(r"<td>–</td><td>\s*0\.25", page)
    assert "at least two" in site.get("/compare?run=one").error


@pytest.mark.parametrize("name", CARDS)
def test_a_page_offers_the_exports_that_carry_its_model_and_no_other(site: Site, shipped, name):
    offered = re.findall(rf'action="/export/(\w+)/shipped/{name}"', site.get(f"/runs/shipped/{name}").text)
    assert offered == api.exports_of(shipped[name])
    assert ("html" in offered, "onnx" in offered) == (name in ("digits", "emoji-3d"), True)
    if "html" not in offered:
        assert site.post(f"/export/html/shipped/{name}").status == 404


def test_a_model_can_be_taken_to_another_program(site: Site):
    page = site.post("/export/safetensors/shipped/digits")
    assert page.status == 200, page.text
    file = site.get(re.search(r'href="(/exports/[^"]+)"', page.text)[1])
    assert any(name.endswith(".safetensors") for name in zipfile.ZipFile(io.BytesIO(file.body)).namelist())
    assert site.post("/export/gguf/shipped/digits").status == 404
    assert site.get("/exports/none/..%2f..").status == 404


def test_the_studio_loads_only_when_it_is_opened():
    script = "import sys, bowerbird.cli; print([n for n in ('torch', 'starlette', 'uvicorn') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_of_the_studio_is_in_the_package():
    kept = tomllib.loads((SOURCE.parents[2] / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert kept["packages"] == ["src/bowerbird"]
    assert {path.name for path in SOURCE.glob("static/*")} >= {"studio.css", "studio.js", "icon.svg", "example.txt"}
