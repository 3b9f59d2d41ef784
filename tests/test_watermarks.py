"""Watermarks: what the theory promises, what is found again, and nothing where none was asked for."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bowerbird
from bowerbird import BowerbirdError
from bowerbird.data import builtin
from bowerbird.draws import Draws
from bowerbird.generating import draw
from bowerbird.media import open_data
from bowerbird.media.image import ImageMedium
from bowerbird.models.diffusion import DiffusionConfig
from bowerbird.models.flow import FlowConfig
from bowerbird.nets.mlp import MLPConfig
from bowerbird.provenance import spectrum
from bowerbird.provenance.labelling import Labeller, labelling, marked
from bowerbird.provenance.verifying import verify
from bowerbird.samplers import greenlist, noisemark
from bowerbird.samplers.decoding import Sampling, choose
from bowerbird.spec import Spec, Tensors
from bowerbird.training.rundir import RunDir

KEY = greenlist.PUBLIC_KEY


@pytest.fixture(scope="module")
def emoji() -> np.ndarray:
    return builtin.load("emoji")["images"][::157][:30]


# ------------------------------------------------------------------------------------------------------------- pixels


def test_the_pattern_is_real_and_of_its_key_alone() -> None:
    one = np.fft.ifft2(spectrum.pattern(KEY))
    assert np.abs(one.imag).max() < 1e-12 and one.real.std() > 0
    assert np.array_equal(spectrum.pattern(KEY), spectrum.pattern(KEY))
    other = np.fft.ifft2(spectrum.pattern("mine")).real
    assert abs(np.corrcoef(one.real.ravel(), other.ravel())[0, 1]) < 0.15


def test_marked_pictures_are_near_and_found_after_crop_flip_and_jpeg(emoji: np.ndarray) -> None:
    found = {"none": 0, "crop": 0, "flip": 0, "jpeg": 0, "another key": 0}
    for pixels in emoji:
        made = spectrum.marked(pixels)
        assert 10 * np.log10(255**2 / np.square(made.astype(float) - pixels).mean()) >= 35
        buffer = io.BytesIO()
        Image.fromarray(made).save(buffer, "JPEG", quality=90)
        found["none"] += spectrum.detect(made).found
        found["crop"] += spectrum.detect(made[3:61, 4:62]).found
        found["flip"] += spectrum.detect(made[:, ::-1]).found
        found["jpeg"] += spectrum.detect(np.asarray(Image.open(buffer))).found
        found["another key"] += spectrum.detect(made, "mine").found
    assert found["none"] >= 27 and found["flip"] >= 27 and found["crop"] >= 24 and found["jpeg"] >= 24
    assert found["another key"] == 0


def test_crops_are_looked_at_as_far_as_the_theory_goes(emoji: np.ndarray, tmp_path: Path) -> None:
    assert spectrum.SMALLEST_READ == 14 < spectrum.SMALLEST
    found, unmarked = {63: 0, 58: 0, 13: 0}, 0
    for pixels in emoji[::2]:
        made = spectrum.marked(pixels)
        for side in found:
            Image.fromarray(made[1 : side + 1, 1 : side + 1]).save(tmp_path / "crop.png")
            layer = verify(tmp_path / "crop.png").layers[0]
            found[side] += layer.judgement == "ours"
        assert "below 14 pixels are too small" in layer.says
        unmarked += spectrum.detect(pixels[8:22, 8:22]).found
    assert found[63] >= 13 and found[58] >= 11 and found[13] == 0 and unmarked == 0


def test_resized_pictures_are_looked_at_in_a_few_scales(emoji: np.ndarray) -> None:
    large = np.tile(emoji[:4].reshape(2, 2, 64, 64, 3).swapaxes(1, 2).reshape(128, 128, 3), (1, 2, 1))
    made = Image.fromarray(spectrum.marked(large))
    for scale, found in ((0.5, True), (0.75, True), (1.5, True), (2, True), (4, True), (0.85, False), (1.3, False)):
        size = (round(256 * scale), round(128 * scale))
        assert spectrum.detect(np.asarray(made.resize(size, Image.Resampling.BICUBIC))).found == found, scale
        plain = Image.fromarray(large).resize(size, Image.Resampling.BICUBIC)
        assert not spectrum.detect(np.asarray(plain)).found


def test_sheets_have_the_watermark_beside_the_strip(emoji: np.ndarray, tmp_path: Path) -> None:
    x = torch.from_numpy(emoji[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    spec = Spec("image", Tensors((3, 64, 64)))
    for labeller, judgement in ((Labeller(), "ours"), (Labeller(watermark=False), "unknown")):
        with labelling(labeller, files=False):
            ImageMedium().preview(x, {}, spec, tmp_path / "sheet")
        verdict = verify(tmp_path / "sheet.png")
        assert verdict.judgement == judgement and [layer.layer for layer in verdict.layers] == ["watermark"]


def test_z_of_unmarked_pictures_is_as_the_theory_says(emoji: np.ndarray) -> None:
    """Of any picture, over random keys: mean 0, variance 1, and its largest below the threshold."""
    picture = spectrum._folded(spectrum._rest(spectrum._luminance(emoji[0])))
    z = [spectrum._shifts(np.fft.fft2(picture), 100.0, f"key {i}")[0, 0] for i in range(400)]
    assert abs(np.mean(z)) < 0.2 and 0.85 < np.std(z) < 1.15
    assert max(spectrum.detect(pixels).z for pixels in emoji) < spectrum.threshold()
    assert spectrum.threshold() == pytest.approx(7.039, abs=1e-3)


def test_grey_pictures_and_alpha(emoji: np.ndarray) -> None:
    grey = emoji[0].mean(2, keepdims=True).astype(np.uint8)
    assert spectrum.detect(spectrum.marked(grey)).found
    alpha = np.concatenate([emoji[0], np.arange(64 * 64, dtype=np.uint8).reshape(64, 64, 1)], 2)
    made = spectrum.marked(alpha)
    assert np.array_equal(made[..., 3], alpha[..., 3]) and not np.array_equal(made[..., :3], alpha[..., :3])
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert spectrum.detect(spectrum.marked(flat)).found and not spectrum.detect(flat).found


def test_large_enough_pictures_are_marked_while_labelling_and_small_ones_never(
    emoji: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large, small = Image.fromarray(emoji[0]), Image.fromarray(emoji[0][:28, :28])
    assert marked(large) is large
    with labelling(Labeller()):
        made, same = marked(large), marked(small)
    assert same is small and spectrum.detect(np.asarray(made)).found
    made.save(tmp_path / "stripped.png")  # without its label
    verdict = verify(tmp_path / "stripped.png")
    assert verdict.judgement == "ours" and [layer.layer for layer in verdict.layers] == ["watermark"]
    monkeypatch.setenv("BOWERBIRD_WATERMARK_KEY", "mine")
    with labelling(Labeller()):
        marked(large).save(tmp_path / "mine.png")
    assert verify(tmp_path / "mine.png").judgement == "ours"
    monkeypatch.delenv("BOWERBIRD_WATERMARK_KEY")
    assert verify(tmp_path / "mine.png").judgement == "unknown"


# -------------------------------------------------------------------------------------------------------------- words


def marked_tokens(delta: float, n: int = 400, vocab: int = 50) -> torch.Tensor:
    """A row drawn from a fixed distribution over few tokens, with the watermark."""
    logits, past = (
        torch.randn(1, vocab, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1, 0, dtype=torch.long),
    )
    sampling, draws = Sampling(watermark=delta), Draws(1)
    for _ in range(n):
        past = torch.cat([past, choose(logits, sampling, draws, past)[:, None]], 1)
    return past[0]


def test_green_tokens_are_counted_as_they_were_favoured() -> None:
    plain, text = greenlist.score(marked_tokens(0.0), KEY), greenlist.score(marked_tokens(2.0), KEY)
    assert abs(plain.z) < 4 and not plain.found
    assert text.z > 10 and text.found and text.p < 1e-20
    assert not greenlist.score(marked_tokens(2.0), "another key").found
    assert not greenlist.score(marked_tokens(2.0, n=150), KEY).found, "too short to be sure"


def test_green_is_the_same_for_a_row_as_for_the_vocabulary() -> None:
    context = torch.tensor([[1, 2, 3, 4], [9, 9, 9, 9]])
    green = greenlist.green(context, 1000, KEY)
    assert 0.4 < green.double().mean() < 0.6 and not torch.equal(green[0], green[1])
    for token in range(20):
        row = torch.cat([context[0], torch.tensor([token])])
        assert greenlist.score(row, KEY) == (1, int(green[0, token]))


def test_repetition_raises_no_alarm() -> None:
    for start in range(8):
        assert not greenlist.score(torch.arange(start, start + 7).repeat(200), KEY).found


def test_without_a_watermark_tokens_are_those_of_before() -> None:
    logits, past = torch.randn(3, 40), torch.randint(0, 40, (3, 9))
    assert torch.equal(
        choose(logits, Sampling(), Draws(0), past), choose(logits, Sampling(watermark=0.0), Draws(0), past)
    )
    assert not torch.equal(greenlist.favoured(logits, past, 2.0, KEY), logits)
    assert torch.equal(greenlist.favoured(logits, past[:, :3], 2.0, KEY), logits), "too few tokens before"


def test_verify_reads_words_with_a_run_s_tokenizer(tmp_path: Path) -> None:
    (source := tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    settings = {"data.source": str(source), "data.text.context": 16, "model.net.n_layer": 1}
    recipe = bowerbird.config.with_settings(bowerbird.config.load("shakespeare"), settings)
    spec = open_data(recipe.data).spec
    run = RunDir.create(tmp_path / "run", recipe, {}).path
    RunDir(run).save_model(recipe.model.build(spec).weights(), spec, 0)
    options = {"n_tokens": 400, "watermark": 3.0, "temperature": 1.0}
    folder = bowerbird.sample(run, 24, out=tmp_path / "out", options=options, labelled=False)
    words = [one for one in verify(folder / "samples.txt", runs=[run]).layers if one.layer == "watermark in words"]
    assert words[0].judgement == "ours" and words[0].details["tokens"] >= greenlist.FEWEST
    n_lines = (folder / "samples.txt").read_text().count("\n")
    assert words[0].details["characters_left_out"] == n_lines > 0
    assert f"{n_lines} of " in words[0].says and "not in its vocabulary and were left out" in words[0].says
    (beside := tmp_path / "foreign.md").write_text('---\nAIGC:\n    Label: "1"\n---\n生成\n')
    assert {layer.layer: layer.judgement for layer in verify(beside, runs=[run]).layers} == {
        "TC260": "other",
        "watermark in words": "unknown",
    }
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    (alone := tmp_path / "alone.txt").write_text("".join(row["text"] for row in rows))
    assert verify(alone, runs=[run]).judgement == "ours" and verify(alone).judgement == "unknown"
    assert verify(source, runs=[run]).judgement == "unknown"


# -------------------------------------------------------------------------------------------------------------- noise


def test_marked_noise_has_the_length_and_the_direction() -> None:
    eps = Draws(0).randn(200, 1, 28, 28)
    made = noisemark.marked(eps, 12.0, KEY)
    k = noisemark.direction((1, 28, 28), KEY)
    assert torch.allclose((made * k).sum((1, 2, 3)), torch.full((200,), 12.0), atol=1e-3)
    assert made.square().mean() == pytest.approx(1.0, abs=0.02)
    assert noisemark.marked(eps, 0.0, KEY) is eps
    assert (noisemark.z(made, KEY) > noisemark.threshold()).all()
    plain = noisemark.z(eps, KEY)
    assert abs(plain.mean()) < 0.3 and 0.8 < plain.std() < 1.2
    with pytest.raises(BowerbirdError, match="too strong"):
        noisemark.marked(eps[:, :, :4, :4], 12.0, KEY)


@pytest.mark.parametrize(
    "config", [FlowConfig(net=MLPConfig(hidden=(8,))), DiffusionConfig(net=MLPConfig(hidden=(8,)))]
)
def test_noise_is_read_back_from_what_a_model_makes(config: FlowConfig | DiffusionConfig) -> None:
    """An untrained network's equation is followed back as well as a trained one's, where nothing is clipped."""
    model = config.build(Spec("image", Tensors((1, 16, 16), bounds=None))).eval()
    options = {"watermark": 9.0, "sampler": "euler", "steps": 64, "clip": False}
    x = draw(model, 6, options=options, shown=False).x
    alone = draw(model, 1, first=2, options=options, shown=False).x
    assert torch.allclose(x[2:3], alone, atol=1e-5), "sample i is the same whatever n"
    assert (noisemark.z(model.noise_of(x), KEY) > noisemark.threshold()).all()
    plain = draw(model, 6, options=options | {"watermark": 0.0}, shown=False).x
    assert (noisemark.z(model.noise_of(plain), KEY) < noisemark.threshold()).all()
    today = draw(model, 6, options={key: value for key, value in options.items() if key != "watermark"}, shown=False).x
    assert torch.equal(plain, today)


def test_a_sampler_that_forgets_its_noise_is_refused() -> None:
    model = DiffusionConfig(net=MLPConfig(hidden=(8,))).build(Spec("image", Tensors((1, 8, 8))))
    with pytest.raises(BowerbirdError, match="forgets the noise"):
        draw(model, 1, options={"watermark": 3.0, "sampler": "ddpm"}, shown=False)
